"""Everything that the commands say, compared with the files of tests/snapshots/messages/: help, print-outs, refusals.

After an intended change, `pytest tests/test_messages.py --update-snapshots` writes the files anew. Read the difference:
it is what a user reads.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import typer.main

from harness.backbones.locate import BackboneFiles
from harness.cli.main import app
from harness.measure.device import Device, find_device
from harness.tasks import Task
from tests.command_examples import EXAMPLES, make_folder, stand_in
from tests.commands import run_apart
from tests.snapshot_files import Snapshot

_PREDICT = EXAMPLES["predict"][:-2]

MORE: dict[str, list[tuple[str, ...]]] = {
    "": [("no-such",), ("repot",), ("--version",)],
    "run": [
        (),
        ("no-such",),
        ("quickstart", "--data", "tickets.csv"),
        ("quickstart", "--text", "body"),
        ("tickets.csv",),
        ("--data", "no.csv"),
        ("--data", "tickets.csv", "--text", "txt"),
        ("--data", "tickets.csv", "--metric", "bleu"),
        ("--data", "tickets.csv", "--metric", "f1"),
        ("--data", "one.csv"),
        ("--data", "blank.csv"),
        ("--data", "broken.csv"),
        ("--data", "tickets.csv", "--methods", "fool"),
        ("--data", "tickets.csv", "--methods", "lora[rnk=4]"),
        ("--data", "tickets.csv", "--methods", "lora[rank=x]"),
        ("--data", "tickets.csv", "--sizes", "many"),
        ("--data", "tickets.csv", "--seeds", "a,b"),
        ("--data", "tickets.csv", "--budget", "10m"),
        ("--data", "tickets.csv", "--budget", "huge"),
        ("--data", "tickets.csv", "--within", "soon"),
        ("--data", "tickets.csv", "--cell-limit", "0s"),
        ("--data", "tickets.csv", "--on-oom", "cry"),
        ("--data", "tickets.csv", "--throughput", "0"),
        ("--data", "tickets.csv", "--executor", "slurm"),
        ("--data", "tickets.csv", "--ray-workers", "2"),
        ("--data", "tickets.csv", "--price-per-hour", "-1"),
        ("--data", "tickets.csv", "--device", "gpu"),
        ("--data", "tickets.csv", "--backbone", "no/such"),
        ("quickstart", "--tasks", "no-such"),
    ],
    "status": [("--store", "absent.sqlite"), ("--store", "tickets.csv")],
    "report": [
        ("no-such",),
        ("--figures", "gif"),
        ("--store", "absent.sqlite", "--out", "new"),
        ("--out", "tickets.csv"),
    ],
    "export": [("rows.xlsx",), ("tickets.csv",), ("no/rows.csv", "--store", "absent.sqlite")],
    "import": [
        ("theirs.jsonl", "--store", "other.sqlite"),
        ("absent.csv",),
        ("tickets.csv",),
        ("tickets.csv", "--format", "table", "--map", "score"),
        ("tickets.csv", "--format", "table", "--map", "score=a", "--map", "score=b"),
        ("tickets.csv", "--format", "table"),
        ("theirs.jsonl", "--format", "excel"),
    ],
    "forget": [
        ("--method", "lora", "--task", "tickets", "--yes"),
        ("--status", "failed", "--yes"),
        ("--method", "no-such"),
        (),
        ("--before", "yesterday"),
        ("--method", "lora", "--store", "absent.sqlite"),
    ],
    "compare": [
        ("before.jsonl", "before.jsonl", "--out", "compared.csv"),
        ("before.jsonl", "absent.jsonl"),
        ("before.jsonl", "theirs.jsonl", "--out", "tickets.csv"),
        ("before.jsonl", "theirs.jsonl", "before.jsonl", "--no-fail-on-regression"),
        ("before.jsonl",),
        ("before.jsonl", "--by", "version"),
        ("before.jsonl", "--by", "week"),
    ],
    "publish": [
        ("site", "mine=before.jsonl"),
        ("site", "mine=theirs.jsonl"),
        ("site", "absent.jsonl"),
        ("site", "reports"),
        ("site", "a=before.jsonl", "A=before.jsonl"),
        ("tickets.csv", "before.jsonl"),
    ],
    "methods": [("kn",), ("--task", "no-such")],
    "suites": [("no-such",), ("no-such.yaml",)],
    "doctor": [("--suite", "no-such"), ("--mirror", "absent")],
    "advise": [
        (),
        ("--n-train", "0"),
        ("--n-train", "200", "--classes", "12", "--no-reference", "--peak-memory", "1MB"),
        ("--n-train", "200", "--classes", "12", "--no-reference", "--min-score", "0.6"),
        ("--n-train", "1", "--classes", "12", "--no-reference"),
        ("--n-train", "200", "--train-seconds", "soon"),
        ("--n-train", "200", "--peak-memory", "lots"),
        ("--n-train", "200", "--kind", "no-such"),
        ("--n-train", "2", "--classes", "12"),
        ("--n-train", "9000000"),
        ("--n-train", "200", "--device", "abacus"),
        ("--n-train", "200", "--task", "no-such"),
        ("--n-train", "200", "--no-reference", "--store", "absent.sqlite"),
    ],
    "validate-advice": [("--kind", "no-such", "--no-reference"), ("--no-reference", "--store", "absent.sqlite")],
    "choose": [("--data", "tickets.csv", "--within", "60s")],
    "predict": [
        _PREDICT,
        (*_PREDICT, "--probabilities"),
        (*_PREDICT, "--top", "7"),
        (*_PREDICT[:-1], "out.xlsx"),
        (*_PREDICT[:-1], "new.csv"),
        (*_PREDICT[:-1], "tickets.csv"),
        (*_PREDICT[:-1], "no/out.csv"),
        ("--model", "results", "--data", "new.csv", "--out", "out.csv"),
        ("--model", "model", "--data", "new.csv", "--out", "out.csv"),
    ],
    "probe": [("--batch-size", "0"), ("--methods", "fool"), ("--backbone", "no/such"), ("--device", "gpu")],
    "plan": [(), ("no-such",)],
}
"""Further calls, most of them refused."""

_PLAIN = (
    (r"\b\d+(\.\d+)? (s|ms|min|h|MB|GB|GFLOP/s)\b( \d+ (s|min)\b)?", r"# \2"),
    (r"harness \d+\.\d+\S*", "harness VERSION"),
    (r" {2,}", "  "),
    (r"[─━]{2,}", "──"),
)
"""Replacements of what differs between machines, and of widths that follow from it."""

_ROWS_OF_DOCTOR = (
    "harness|packages|bitsandbytes|device|precision|matrix products|energy by|peak memory by|feature cache"
)


def commands() -> list[str]:
    return ["", *typer.main.get_command(app).commands]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def prepared(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages")
    make_folder(folder, toy, tiny, cpu)
    return folder


@pytest.mark.parametrize("name", commands())
def test_what_it_says(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    stand_in(monkeypatch)
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n" * 9))  # to every question
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    (folder / "one.csv").write_text("text,label\na text,a\n", encoding="utf-8")
    (folder / "blank.csv").write_text("text,label\n ,a\n", encoding="utf-8")
    (folder / "broken.csv").write_text("text,label\na text,a\nanother\n", encoding="utf-8")
    typical = [EXAMPLES[name]] if name in EXAMPLES else []
    said = []
    for given in [("--help",), *typical, *MORE.get(name, [])]:
        call = (name, *given) if name else given
        code, out, error = run_apart(*call, cwd=folder, COLUMNS="400" if name == "doctor" else "100")
        shown = "\n".join(part.rstrip("\n") for part in (out, error) if part)
        said.append(f"$ {' '.join(('harness', *call))}  (exit code {code})\n\n{plain(shown, folder, prepared)}\n")
    snapshot(f"messages/{name or 'harness'}.txt", "\n".join(said))


def plain(shown: str, folder: Path, prepared: Path) -> str:
    """Return a print-out without what differs between machines."""
    for found, instead in (
        (str(folder), "FOLDER"),
        (str(prepared), "FOLDER"),
        (os.environ["HARNESS_CACHE"], "CACHE"),
        (find_device("cpu").name, "DEVICE"),
    ):
        shown = shown.replace(found, instead)
    shown = re.sub(rf"(?m)^(│ (?:{_ROWS_OF_DOCTOR}) +│).*", r"\1 ...", shown)
    for pattern, instead in _PLAIN:
        shown = re.sub(pattern, instead, shown)
    return shown


def test_every_command_is_in_a_section_and_no_line_is_cut(tmp_path: Path) -> None:
    _, out, _ = run_apart("--help", cwd=tmp_path, COLUMNS="80")
    sections = out.partition("Compare methods:")[2]
    assert sorted(re.findall(r"(?m)^  ([a-z]\S*)  ", sections)) == sorted(commands()[1:])
    assert "..." not in sections
    assert max(len(line) for line in out.splitlines()) <= 80
