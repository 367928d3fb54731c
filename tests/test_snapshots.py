"""Renderings of a fixed set of records, compared with the files of tests/snapshots/.

After an intended change, `pytest tests/test_snapshots.py --update-snapshots` writes the files anew.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from harness.cli.main import app
from harness.records.record import Record
from harness.report import write
from harness.report.blocks import markdown_table
from harness.report.compare import compare_methods
from harness.report.latex import latex_pivot
from harness.report.panels import panels
from harness.report.terminal import terminal_compared, terminal_tables
from harness.report.views.every_size import every_size
from harness.report.write import write_report
from harness.store.reading import read_source
from harness.store.store import Store
from tests.record_factory import DEVICE, make_grid, make_record, noted
from tests.snapshot_files import Snapshot

REFERENCE = Path(__file__).parents[1] / "results" / "earlier" / "amd-epyc-2-threads"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Two tasks with four methods, a balanced draw, seeds without a score, and texts that were cut."""
    full = ("majority", "tfidf", "linear-probe", "lora", "full")
    notes = {"truncated_train_rows": "3 of 32", "truncated_test_rows": "20 of 200", "longest_test_tokens": "64"}
    cut = noted(make_record("head", 32, 0, accuracy=0.6), **notes)
    return [
        *make_grid(methods=full, sizes=(32, 512)),
        *make_grid(methods=full[1:], sizes=(32, 512), task="tickets", data="e" * 32),
        cut,
        *(make_record("linear-probe", 96, seed, draw="balanced", accuracy=0.6) for seed in (0, 1)),
        make_record("head", 32, 1, status="failed", error="ValueError: a label is missing\nTraceback"),
        make_record("head", 512, 0, status="out_of_memory", error="OutOfMemoryError: 9.1 GB were needed"),
        make_record("lora", 512, 3, task="tickets", data="e" * 32, status="out_of_time", error="It took too long."),
    ]


@pytest.fixture(scope="module")
def reference() -> list[Record]:
    """A few dozen records that come with the package."""
    return [record for name in ("kinds", "setfit") for record in read_source(str(REFERENCE / f"{name}.jsonl"))]


def terminal(*shown: RenderableType) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    for one in shown:
        console.print(one)
    return console.export_text()


@pytest.mark.parametrize("which", ["records", "reference"])
def test_tables_after_a_run(which: str, request: pytest.FixtureRequest, snapshot: Snapshot) -> None:
    snapshot(f"terminal-{which}.txt", terminal(*terminal_tables(request.getfixturevalue(which))))


def test_report_md(records: list[Record], tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes seconds, and other tests draw.
    monkeypatch.setattr(write, "_picture", lambda one, stem, _: f"![{one.title}]({stem.name}.png)")
    monkeypatch.setattr(write, "write_page", lambda _, path: path)
    page = write_report(records, tmp_path, ("png",))
    snapshot("report.md", page.with_name("report.md").read_text("utf-8"))
    snapshot("standings.csv", (tmp_path / "standings.csv").read_text("utf-8"))


def test_tables_for_papers_and_repositories(reference: list[Record], snapshot: Snapshot) -> None:
    found = panels(reference)
    snapshot("every-size.md", "\n\n".join(f"## {one.heading}\n\n{markdown_table(every_size(one))}" for one in found))
    snapshot("tables.tex", "\n\n".join(map(latex_pivot, found)))


def test_what_a_change_made_worse(snapshot: Snapshot) -> None:
    before = make_grid(methods=("tfidf", "full"), sizes=(32, 512))
    after = [
        *make_grid(methods=("tfidf",), sizes=(32, 512)),
        *(make_record("full", 32, seed, accuracy=0.2, seconds=2.0) for seed in range(3)),
        *(make_record("full", 512, seed, accuracy=0.8, version=2, seconds=40.0) for seed in range(2)),
    ]
    snapshot("compare.txt", terminal(terminal_compared(compare_methods(before, after))))


def test_advice(records: list[Record], tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # lines are wrapped, so the folder must not be in them
    with Store.open("records.sqlite") as store:
        for record in records:
            store.add(record)
    asked = ["advise", "--n-train", "200", "--classes", "12", "--train-seconds", "30", "--device", DEVICE]
    answer = CliRunner().invoke(app, [*asked, "--no-reference", "--store", "records.sqlite"])
    assert answer.exit_code == 0, answer.output
    snapshot("advise.txt", answer.stdout)
