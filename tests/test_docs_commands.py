"""Every `harness` command in the documentation is one that the command line understands; nothing is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli.main import app
from harness.methods import methods, split_top_level
from harness.planning import suite_names
from tests.markdown import ROOT, blocks, commands

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = {"", "sh", "bash", "console", "shell"}
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def parse(words: list[str]) -> dict[str, Any]:
    """Return the options of a command line, `harness` left out; raises where the command line would refuse them."""
    if words[:1] == ["--version"]:
        return {}
    assert words, "no command"
    assert words[0] in COMMANDS, f"no command {words[0]!r}"
    if words[1:] in (["--help"], ["-h"]):
        return {}
    context = COMMANDS[words[0]].make_context(words[0], words[1:])
    return dict(context.params)


def of_page(page: Path) -> list[tuple[int, list[str]]]:
    """Return the commands of a page's blocks, with their lines."""
    found = []
    for block in blocks(page):
        if block.language in SHELL:
            for line, text in enumerate(re.sub(r"\\\n\s*", " ", block.text).splitlines(), block.line + 1):
                if re.match(r"\s*(\$ )?harness\b|.*(&&|;|\|) *harness\b", text):
                    lines = [words for words in commands(text.removeprefix("$ ")) if words[0] == "harness"]
                    found += [(line, words[1:]) for words in lines]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_documentation_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for line, words in of_page(page):
        where = f"{page.name}, line {line}: harness {' '.join(words)}"
        try:
            asked = parse(words)
        except Exception as error:
            raise AssertionError(f"{where}: {getattr(error, 'message', error)}") from error
        suite = asked.get("suite")
        if suite is not None and not re.search(r"[/.]|^[A-Z]+$", suite):
            assert suite in suite_names() or f"{suite}.yaml" in text or f"\n{suite} = " in text, (
                f"{where}: no such suite"
            )
        for method in split_top_level(asked.get("methods") or ""):
            name = method.partition("[")[0].strip()
            assert name in methods.names() or f'"{name}"' in text, f"{where}: no method {name!r}"


def test_unknown_commands_options_and_missing_arguments_are_found() -> None:
    for words in (
        ["trian"],
        ["run", "--withn", "20m"],
        ["run", "--seed", "0"],
        ["choose", "--within", "1m"],
        ["run", "a", "b"],
    ):
        with pytest.raises(Exception, match=r"."):
            parse(words)
    assert parse(["run", "topics", "--within", "20m"])["within"] == "20m"


def test_pages_with_commands_are_read() -> None:
    assert len([page for page in PAGES if of_page(page)]) >= 10
