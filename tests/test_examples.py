"""Tutorials and how-to guides: their blocks are run as they are written, and what they show is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.measure.device import find_device
from harness.methods import methods
from tests.commands import run_cli
from tests.markdown import ROOT, Block, blocks, commands, page_before

TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
GUIDES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
COLUMNS = "88"
"""Width of the print-outs that pages show."""

_UNITS = {"ms", "s", "min", "h", "B", "kB", "MB", "GB", "TB", "k", "M"}


def run_page(page: Path, folder: Path, *, slow: bool) -> str:
    """Run a page's blocks in their order in one folder; return all that they printed."""
    before = page_before(page)
    if before is not None:
        steps = blocks(before)
        first = next(i for i, block in enumerate(steps) if block.language == "sh")
        _run([block for block in steps[: first + 1] if block.title or block.language == "sh"], folder)
    return _run([block for block in blocks(page) if block.mark is None or (slow and block.mark == "slow")], folder)


def _run(steps: list[Block], folder: Path) -> str:
    printed = []
    for block in steps:
        if block.title is not None:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text + "\n", "utf-8")
        elif block.language == "sh":
            for program, *arguments in commands(block.text):
                if program == "harness":
                    printed.append(run_cli(*arguments, cwd=folder, COLUMNS=COLUMNS))
                else:
                    assert program == "python", f"line {block.line}: mark what cannot be run here, {program!r}"
                    printed.append(_python(arguments, folder))
        elif block.language == "python":
            printed.append(_python(["-c", block.text], folder))
    return "\n".join(printed)


def _python(arguments: list[str], folder: Path) -> str:
    path = {"PYTHONPATH": f"{ROOT}:{folder}"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**_environment(), **path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": COLUMNS}


def wording(text: str) -> str:
    """Return the words of a print-out, without what differs between runs: figures, units, the device, the methods."""
    text = " ".join(re.sub(r"[─━│┃┌┐└┘├┤·]", " ", text).split())
    for device in (find_device("cpu").name, "AMD EPYC (family 26, model 2), 2 threads"):
        text = text.replace(device, " ")
    words = re.findall(r"[A-Za-z][A-Za-z0-9_./-]*", re.sub(r"(?<=\w)\[[^\]]*\]", " ", text))
    return " ".join(word.rstrip(".-") for word in words if word not in _UNITS and word not in methods.names())


def check_shown(page: Path, printed: str, *, slow: bool) -> None:
    """Check every stretch of each print-out on the page against what was printed; `...` stands for what is left out."""
    real = f" {wording(printed)} "
    for block in blocks(page):
        if block.language != "text" or (block.mark is not None and not slow):
            continue
        for stretch in re.split(r"^\.\.\..*$", block.text, flags=re.MULTILINE):
            where = f"{page.name}, line {block.line}"
            assert wording(stretch), f"{where}: no words to compare"
            assert f" {wording(stretch)} " in real, f"{where}: {wording(stretch)!r} is not in {real!r}"
        shown = {word for word in re.findall(r"[a-z][a-z0-9-]+", block.text) if word in methods.names()}
        assert shown <= set(re.findall(r"[a-z][a-z0-9-]+", printed)), f"{page.name}, line {block.line}"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=False), slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_with_its_longer_steps(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=True), slow=True)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=False), slow=False)
