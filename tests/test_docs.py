"""The generated reference pages: up to date, complete, and right about what was measured."""

from __future__ import annotations

import json
import re
import shlex
import statistics
from pathlib import Path

import pytest

from harness.methods import methods
from harness.tasks import kinds
from tools.docs.command_line import commands, examples
from tools.docs.navigation import with_navigation
from tools.docs.pages import NOTICE, make_pages

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def test_the_pages_are_up_to_date() -> None:
    pages = make_pages()
    outdated = [name for name, text in pages.items() if page(name) != text]
    assert not outdated, "run `python -m tools.docs` and commit what it writes"
    written = {
        str(path.relative_to(REFERENCE)) for path in REFERENCE.rglob("*.md") if NOTICE in path.read_text("utf-8")
    }
    assert written == set(pages)
    config = (ROOT / "zensical.toml").read_text("utf-8")
    assert with_navigation(config, ROOT / "docs", pages) == config, "run `python -m tools.docs`"


@pytest.mark.parametrize("name", commands())
def test_every_command_has_examples_that_parse(name: str) -> None:
    told = examples().get(name, [])
    assert told, f"add an example to tools/docs/examples.toml: [[{name}]]"
    for one in told:
        words = shlex.split(one["command"])
        assert words[:2] == ["harness", name]
        commands()[name].make_context(name, words[2:])


def test_every_example_has_a_command() -> None:
    assert set(examples()) == set(commands())


@pytest.mark.parametrize("name", [cls.name for cls in methods if methods.origin(cls.name) is None])
def test_a_method_has_an_equation_and_every_setting_on_its_page(name: str) -> None:
    text = page(f"methods/{name}.md")
    assert re.search(r"```text\n\S.*\n```", text), "its docstring has no indented equation"
    assert set(methods.get(name).model_fields) - set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) <= {"tune"}
    assert f"`{name}`" in page("methods/index.md")


def test_the_home_page_counts_the_methods() -> None:
    n_methods = sum(methods.origin(cls.name) is None for cls in methods)
    assert f"any of {n_methods} methods" in " ".join((ROOT / "docs" / "index.md").read_text("utf-8").split())


def test_no_page_names_this_machine() -> None:
    for path in REFERENCE.rglob("*.md"):
        assert not re.search(r"/(?:work|tmp|opt|root|home)/|0x[0-9a-f]{6,}", path.read_text("utf-8")), path


@pytest.mark.parametrize(
    ("name", "backbone", "task", "labels"),
    [
        ("linear-probe", "sentence-transformers/all-MiniLM-L6-v2", "ag_news", 16),
        ("knn", "sentence-transformers/paraphrase-MiniLM-L3-v2", "rotten_tomatoes", 1024),
        ("tfidf", None, "trec", 1024),
    ],
)
def test_measured_scores_are_means_of_the_records(name: str, backbone: str | None, task: str, labels: int) -> None:
    """Read the JSON itself: mean score, median seconds and trained parameters, without the harness's functions."""
    [file] = (ROOT / "results" / "reference").rglob("reference.jsonl")
    cells = [(json.loads(line)["cell"], json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    wanted = (name, backbone, task, labels)
    axes = ("method", "backbone", "task", "n_train")
    records = [one for cell, one in cells if tuple(cell[name] for name in axes) == wanted]
    assert records
    assert len({record["device"] for record in records}) == 1
    score = statistics.mean(record["score"]["value"] for record in records)
    on = f" ({backbone.rpartition('/')[2]})" if backbone else ""
    panel = page(f"methods/{name}.md").split(f"On {records[0]['device']}{on}:")[1].split("\nOn ")[0]
    [row] = [line for line in panel.splitlines() if line.startswith(f"| [{task}]")]
    found = [cell.strip() for cell in row.strip("|").split("|")]
    at = next(at for at, cell in enumerate(found) if cell.split(" ")[0] == f"{labels:,}")
    assert found[at + 1].startswith(f"{score:.3f} ")
    assert str(len(records)) in found[6].split(", ")


def test_kinds_name_the_methods_that_serve_them() -> None:
    text = page("kinds.md")
    for kind in kinds:
        if kinds.origin(kind.name) is None:
            told = text.split(f"### {kind.name}\n")[1].split("\n### ")[0]
            served = {
                cls.name for cls in methods if cls.why_not_kind(kind) is None and methods.origin(cls.name) is None
            }
            found = set(re.findall(r"\]\(methods/([\w-]+)\.md\)", told))
            assert found == served or ("Methods: all." in told and len(served) == len(list(methods)))
