"""Tutorials and how-to guides: their blocks are run as they are written, and what they show is what is printed."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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
    steps = [block for block in blocks(page) if block.mark is None or (slow and block.mark == "slow")]
    return _run(steps, folder, is_warm=page in TUTORIALS and not slow)


def _run(steps: list[Block], folder: Path, *, is_warm: bool = False) -> str:
    printed = []
    has_modules = any(block.title and block.title.endswith(".py") and block.language == "python" for block in steps)
    for block in steps:
        if block.title is not None:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text + "\n", "utf-8")
        elif block.language == "sh":
            for program, *arguments in commands(block.text):
                if program == "harness":
                    printed.append(_harness(arguments, folder, is_warm=is_warm))
                else:
                    assert program == "python", f"line {block.line}: mark what cannot be run here, {program!r}"
                    printed.append(_python(arguments, folder))
        elif block.language == "python":
            # A page's own modules register methods and the like, which other tests must not meet.
            printed.append(_python(["-c", block.text], folder) if has_modules else _here(block.text, folder))
    return "\n".join(printed)


def _harness(arguments: list[str], folder: Path, *, is_warm: bool) -> str:
    """Run a command in this process; `choose`, whose limit starts with its process, in its own unless `is_warm`."""
    if arguments[0] != "choose" or not is_warm:
        return run_cli(*arguments, cwd=folder, own_process=arguments[0] == "choose", COLUMNS=COLUMNS)
    now = SimpleNamespace(create_time=functools.partial(float, time.time()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.cli.choose.psutil", SimpleNamespace(Process=lambda: now))
        return run_cli(*arguments, cwd=folder, COLUMNS=COLUMNS)


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


def _here(text: str, folder: Path) -> str:
    """Run a script in this process, where everything is imported already; return what it prints."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        patch.chdir(folder)
        exec(compile(text, "<page>", "exec"), {"__name__": "__main__"})
    return output.getvalue()


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": COLUMNS}


_OF_A_BUSY_MACHINE = re.compile(
    r" Seconds are unreliable where the machine was disturbed in all cells: .+?\.(?= [A-Z0-9])"
    r"| \(the machine was busy: these seconds are unreliable\)"
    r"| Note: the machine is busy: .+? seconds will not\."
    r"| The machine was busy: .+? on a quiet machine\."
)
"""Lines that a run adds to its print-out where other processes disturb it."""


def wording(text: str) -> str:
    """Return the words of a print-out, without what differs between runs: figures, units, the device, the methods."""
    text = " ".join(re.sub(r"[─━│┃┌┐└┘├┤·]", " ", text).split())
    text = _OF_A_BUSY_MACHINE.sub("", text)
    here = find_device("cpu").name.rpartition(", ")[0]
    for device in (re.escape(here), r"AMD EPYC \(family 26, model 2\)"):
        text = re.sub(rf"{device}, \d+ threads?", " ", text)
    found = re.findall(r"[A-Za-z][A-Za-z0-9_./-]*", re.sub(r"(?<=\w)\[[^\]]*\]", " ", text))
    words = [word.rstrip(".-") for word in found]
    return " ".join(word for word in words if word not in _UNITS and word not in methods.names())


def check_shown(page: Path, printed: str, *, slow: bool) -> None:
    """Check every stretch of each print-out on the page against what was printed; `...` stands for what is left out."""
    real = f" {wording(printed)} "
    for block in blocks(page):
        if block.language != "text" or (block.mark is not None and not slow):
            continue
        for stretch in re.split(r"^\.\.\..*$", block.text, flags=re.MULTILINE):
            where = f"{page.name}, line {block.line}"
            rows = [word for word in re.findall(r"[a-z][a-z0-9-]+", stretch) if word in methods.names()]
            if wording(stretch) or rows:  # rows of a table have names of methods, checked below, and figures
                assert f" {wording(stretch)} ".strip() in real, f"{where}: {wording(stretch)!r} is not in {real!r}"
            else:
                assert stretch.strip() in printed, f"{where}: {stretch!r} is not in {printed!r}"
        shown = {word for word in re.findall(r"[a-z][a-z0-9-]+", block.text) if word in methods.names()}
        assert shown <= set(re.findall(r"[a-z][a-z0-9-]+", printed)), f"{page.name}, line {block.line}"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=False), slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_with_its_longer_steps(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=True), slow=True)


def test_examples_of_plug_ins_are_those_of_the_example_package() -> None:
    """`test_plug_ins.py` runs them in worker processes."""
    files = {path.name: path.read_text("utf-8").rstrip() for path in (ROOT / "tests" / "plugin").rglob("*.py")}
    shown = [block for page in GUIDES for block in blocks(page) if block.title in files]
    assert {block.title for block in shown} == {"char_bayes.py", "grading.py", "grade_error.py"}
    for block in shown:
        assert block.title is not None
        assert block.text == files[block.title]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_with_its_longer_steps(page: Path, tmp_path: Path) -> None:
    if not any(block.mark == "slow" for block in blocks(page)):
        pytest.skip("no longer steps")
    check_shown(page, run_page(page, tmp_path, slow=True), slow=True)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    check_shown(page, run_page(page, tmp_path, slow=False), slow=False)
