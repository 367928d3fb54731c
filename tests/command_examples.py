"""One typical call of every command, and a folder with what these calls read."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest

from harness.backbones.locate import BackboneFiles
from harness.choose.candidates import Candidate
from harness.choose.choosing import Chosen
from harness.choose.tried import Tried
from harness.forecast.own_curve import Scores, fit_curve
from harness.forecast.slopes import Slopes
from harness.labels.answer import Interval, LabelsNeeded, MethodCurve, Needed
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.records.jsonl import write_jsonl
from harness.schedule.stepping import Stepped
from harness.store.store import Store
from harness.tasks import Task
from tests.record_factory import make_grid, make_record, with_facts
from tests.toys import save_one, write_toy_table

_OWN = ("--data", "tickets.csv", "--backbone", "backbone", "--methods", "majority,linear-probe", "--seeds", "0")

EXAMPLES: dict[str, tuple[str, ...]] = {
    "plan": (*_OWN, "--sizes", "24", "--no-probe"),
    "status": (),
    "report": ("--open",),
    "export": ("rows.csv",),
    "import": ("theirs.jsonl", "--store", "other.sqlite"),
    "forget": ("--method", "lora"),
    "compare": ("before.jsonl", "theirs.jsonl"),
    "publish": ("site", "mine=before.jsonl"),
    "methods": ("knn",),
    "kinds": (),
    "metrics": (),
    "suites": ("sentiment",),
    "doctor": (),
    "advise": ("--n-train", "200", "--classes", "12", "--no-reference"),
    "break-even": ("--store", "prompts.jsonl", "--predictions", "10000"),
    "validate-advice": ("--no-reference",),
    "labels": ("--data", "tickets.csv", "--min-score", "0.9"),
    "choose": ("--data", "tickets.csv", "--within", "60s", "--save", "chosen"),
    "predict": ("--model", "model", "--data", "new.csv", "--text", "body", "--out", "out.csv", "--top", "2"),
    "probe": ("--backbone", "backbone", "--methods", "lora,full,few-shot", "--batch-size", "4", "--seq-len", "8"),
}
"""Arguments of each command but `run`, whose print-outs other tests check."""


def make_folder(folder: Path, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """Write a table, a model, a store of made-up records, files of records, and a link to the tiny backbone."""
    write_toy_table(folder / "tickets.csv")
    (folder / "new.csv").write_text("body,id\nthe refund was late,1\n ,2\na parcel,3\n", encoding="utf-8")
    save_one("knn", toy, tiny, cpu, folder / "model")
    (folder / "backbone").symlink_to(tiny.folder)
    records = [
        *make_grid(sizes=(32, 512)),
        *make_grid(sizes=(32, 512), task="tickets", data="e" * 32),
        make_record("full", 512, 9, status="failed", error="ValueError: a label is missing\nTraceback"),
    ]
    (folder / "results").mkdir()
    with Store.open(str(folder / "results" / "harness.sqlite")) as store:
        for record in records:
            store.add(record)
    write_jsonl(records, folder / "before.jsonl")
    others = [one for one in records if one.cell.method != "lora"]
    worse = [make_record("lora", size, seed, accuracy=0.2) for size in (32, 512) for seed in range(3)]
    write_jsonl([*others, *worse], folder / "theirs.jsonl")
    prompted = with_facts(make_record("zero-shot", 0, accuracy=0.5), role="prompting")
    write_jsonl([prompted, *make_grid(("lora",), (32,))], folder / "prompts.jsonl")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what takes long, or opens a window, by stand-ins: the search, the drawing of a report, the browser."""

    def choose(*, save: Path, progress: Any, **_: Any) -> Chosen:
        progress.say("   1.0 s  a line of the reasoning")
        progress.warn("two labels look alike")
        names = ("tfidf", "linear-probe", "full")
        records = [make_record(name, 300, 0, accuracy=0.5 + place / 10) for place, name in enumerate(names)]
        last = records[1]
        tried = tuple(
            Tried(Candidate(parse_methods([name])[0], name, is_cheap=True), record, 300.0, 0, 1.5)
            for name, record in zip(names, records, strict=True)
        )
        assert last.score is not None
        return Chosen("linear-probe", last.score, last, save, tried, 42.0, "full was too slow.")

    def write_report(_: Any, folder: Path, formats: Any, **_options: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text("<html>", encoding="utf-8")
        return folder / "report.html"

    def labels_needed(*, progress: Any, **_: Any) -> LabelsNeeded:
        progress.say("   1.0 s  a line of the progress")
        scores = [Scores(float(n), (0.6 + n / 4000,), 500.0, 1.0) for n in (125, 250, 500, 1000)]
        curve = fit_curve(scores, Slopes([]).expect(1000, 3, "tfidf"))
        some, sure = Interval(3.0, 1.0, 5.0), Interval(0.85, 0.84, 0.86)
        needed = Needed(Interval(4000.0, 1500.0, math.inf, is_told=False), 16000.0, 0.7)
        one = MethodCurve(
            "tfidf", {1000: 0.85}, {1: sure, 4: sure}, {4: some}, {1: 1.0, 4: 1.0}, needed, 1.0, 500, curve
        )
        return LabelsNeeded("t", "accuracy", True, True, 1000, 500, (one,), (), 0.9, {"lora": "no time"}, 9, 2.0)

    monkeypatch.setattr("harness.cli.labels.labels_needed", labels_needed)
    monkeypatch.setattr("harness.cli.choose.choose", choose)
    monkeypatch.setattr(importlib.import_module("harness.report"), "write_report", write_report)

    def measure_steps(methods: Any, *_: Any, batch_size: int, **__: Any) -> tuple[list[Stepped], list[str]]:
        found = [Stepped(one, batch_size, 0.01, 3200.0, 0.2, 1e8, 512) for one in methods[:-1]]
        return [*found, Stepped(methods[-1], None, why_not="it needs a language model")], ["a note on the probe"]

    monkeypatch.setattr("harness.schedule.measure_steps", measure_steps)
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    draw_nothing(monkeypatch)


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a site hold the titles of its figures in place of pictures, since drawing takes seconds."""

    def draw(picture: Any, stem: Path) -> None:
        for ending in ("png", "svg"):
            stem.with_name(f"{stem.name}.{ending}").write_text(picture.title, "utf-8", errors="replace")

    monkeypatch.setattr("harness.site.items._draw", draw)
