"""Names and errors that hold markup, control characters or half a character: every command shows them as they are."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.cli.streams import make_streams_tolerant
from harness.records.jsonl import write_jsonl
from harness.store.store import Store
from tests.command_examples import draw_nothing
from tests.record_factory import make_grid, make_record

TEXTS = ["[/b]", "[red]x[/nothing]", "\ud800", "\x1b[2J", "a\rb", "[link=file:///x]y", "日本 ·", "\u202e", "x\ny"]


def hostile(text: str) -> list:
    """Records in which every text that a user or a library may choose holds `text`."""
    records = []
    for record in [
        *make_grid(methods=("full", "tfidf"), sizes=(32, 128)),
        make_record("lora", status="failed", error="e"),
    ]:
        cell = dataclasses.replace(record.cell, task=f"t {text}", method=f"{record.cell.method} {text}")
        cell = dataclasses.replace(cell, backbone=cell.backbone and f"b {text}")
        score = record.score and dataclasses.replace(record.score, metric=f"m {text}")
        error = None if record.error is None else f"{text}\nsecond line {text}"
        changes = {"cell": cell, "score": score, "error": error, "suite": f"s {text}", "device": f"d {text}"}
        records.append(dataclasses.replace(record, **changes))
    return records


@pytest.fixture(params=TEXTS, ids=[ascii(text) for text in TEXTS])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with Store.open(tmp_path / "s.sqlite") as store:
        for record in hostile(request.param):
            store.add(record)
    write_jsonl(hostile(request.param), tmp_path / "r.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["status", "--store", "s.sqlite"],
        ["compare", "s.sqlite", "r.jsonl"],
        ["advise", "--n-train", "64", "--store", "s.sqlite", "--no-reference"],
        ["forget", "--status", "failed", "--yes", "--store", "s.sqlite"],
        ["import", "r.jsonl", "--store", "new.sqlite"],
        ["export", "out.csv", "--store", "s.sqlite"],
        ["publish", "site", "s.sqlite"],
        pytest.param(["report", "--store", "s.sqlite", "--out", "o", "--figures", "png"], marks=pytest.mark.slow),
    ],
    ids=lambda command: command[0],
)
def test_hostile_text_is_shown(folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    draw_nothing(monkeypatch)
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "\x1b[2J" not in result.output
    if command[0] == "status" and (folder / "s.sqlite").exists():
        records = list(Store.open(folder / "s.sqlite", read_only=True).records())
        if "[" in records[0].cell.task and "\x1b" not in records[0].cell.task:
            assert records[0].cell.task in result.output  # markup as it stands


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_that_cannot_be_encoded_is_replaced(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    make_streams_tolerant()
    print("a \ud800 日本 · b")
    stream.flush()
    assert raw.getvalue().startswith(b"a ? ")
    assert raw.getvalue().rstrip().endswith(b" b")


@pytest.mark.parametrize("arguments", [["methods"], ["suites"], ["--help"]])
def test_every_list_can_be_printed_in_ascii(arguments: list[str]) -> None:
    result = CliRunner(charset="ascii").invoke(app, arguments)
    assert result.exception is None, result.exception
