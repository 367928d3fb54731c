"""The quickstart's scores do not depend on what else the machine does; its end answers the question."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.backbones import BackboneFiles
from harness.cli.main import app
from harness.methods import parse_methods
from harness.planning.suites import load_suite, suite_names
from harness.records import Record
from harness.report.contrasts import standings
from harness.store.store import Store
from tests.commands import command, run_cli
from tests.record_factory import essence
from tests.toys import write_toy_table

BUDGETS_IN_SECONDS: dict[str, str] = {}
"""Reason of each shipped suite that has a budget in seconds: its scores depend on the machine and on its load."""


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_budget_work_and_not_seconds(name: str) -> None:
    suite = load_suite(name)
    budgets = [suite.budget, *(budget for found in suite.budgets.values() for budget in found)]
    in_seconds = any(budget is not None and budget.train_seconds is not None for budget in budgets)
    assert in_seconds == (name in BUDGETS_IN_SECONDS), f"{name} has a budget in seconds; name the reason above"


def test_the_quickstart_s_fits_have_lengths_in_steps() -> None:
    """Without a budget, a method that trains in steps counts epochs and steps, at each of the suite's sizes."""
    suite = load_suite("quickstart")
    lengths = {method.name: method.fit_length() for method in parse_methods(suite.methods)}
    assert {name for name, length in lengths.items() if length is not None} == {"full"}
    for size in suite.sizes:
        steps_per_epoch = math.ceil(int(size) / 16)
        for length in filter(None, lengths.values()):
            assert length.of_epochs(steps_per_epoch) == max(4 * steps_per_epoch, 120)


def spin(over: Any) -> None:
    while not over.is_set():
        sum(range(10_000))


def records(folder: Path, store: str, arguments: list[str]) -> dict[str, Record]:
    run_cli(*arguments, "--store", store, cwd=folder, HARNESS_CACHE=str(folder / f"cache-{store}"))
    with Store.open(folder / store, create=False) as opened:
        return {record.id: record for record in opened.records(with_predictions=True)}


def test_a_busy_neighbour_changes_no_score(tmp_path: Path, tiny: BackboneFiles) -> None:
    """Methods of the quickstart with a budget of steps, on less data, alone and beside a process on each processor."""
    write_toy_table(tmp_path / "tickets.csv")
    methods = ["label-similarity", "tfidf", "linear-probe", "full"]
    assert {*methods, "majority"} == set(load_suite("quickstart").methods)
    arguments = ["run", "--data", "tickets.csv", "--backbone", str(tiny.folder), "--sizes", "24", "--seeds", "0"]
    arguments += ["--methods", ",".join(methods), "--budget", "steps=6"]
    alone = records(tmp_path, "alone.sqlite", arguments)
    context = multiprocessing.get_context("fork")
    over = context.Event()
    neighbours = [context.Process(target=spin, args=(over,)) for _ in os.sched_getaffinity(0)]
    for one in neighbours:
        one.start()
    try:
        beside = records(tmp_path, "beside.sqlite", arguments)
    finally:
        over.set()
        for one in neighbours:
            one.join()
    assert {record.status for record in alone.values()} == {"ok"}
    assert {record.cost.stopped_by for record in alone.values()} <= {None, "steps"}
    assert len(alone) == len(methods)
    assert [essence_of_scores(alone[id_]) for id_ in sorted(alone)] == [
        essence_of_scores(beside[id_]) for id_ in sorted(beside)
    ]


def essence_of_scores(record: Record) -> dict[str, Any]:
    """A record without its cost and with the losses of its curve: everything that its work decides."""
    found = essence(record)
    return {name: found[name] for name in ("cell", "status", "score", "train_score", "predictions", "curve")}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own data")
    write_toy_table(folder / "my tickets.csv")
    return folder


RUN = ["run", "--data", "my tickets.csv", "--methods", "majority,tfidf", "--sizes", "24", "--seeds", "0,1,2"]


def test_a_run_ends_with_its_answer_and_the_next_command(own: Path) -> None:
    *_, answer, following = run_cli(*RUN, "--device", "cpu", cwd=own).splitlines()
    with Store.open(own / "results" / "harness.sqlite", create=False) as store:
        table = standings(store.records(with_predictions=True))
    [best] = table.loc[table["is_best"], "variant"]
    assert answer.startswith(f"With 24 labels, {best} scores best: accuracy ")
    words = shlex.split(following.removeprefix("Next: harness "))
    assert words[:3] == ["choose", "--data", "my tickets.csv"]
    choose = typer.main.get_command(app).commands["choose"]  # type: ignore[attr-defined]
    parsed = choose.make_context("choose", words[1:]).params  # raises where an option is missing or unknown
    assert str(parsed["data"]) == "my tickets.csv"
    assert (parsed["text"], parsed["label"]) in ((None, None), ("text", "label"))  # the names that need not be named
    assert parsed["device"] == "cpu"  # what the user asked for goes on


def test_json_is_all_that_standard_output_holds(own: Path) -> None:
    done = subprocess.run(
        command(*RUN, "--json", "--store", "json.sqlite"),
        cwd=own,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["cells"] == {"before": 0, "disturbed": found["cells"]["disturbed"], "elsewhere": 0, "failed": 0,
                              "left": 0, "run": 6, "total": 6}  # fmt: skip
    assert Path(own, found["report"]).is_file()
    with Store.open(own / "json.sqlite", create=False) as store:
        stored = list(store.records())
    for row in found["rows"]:
        own_scores = [r.score.value for r in stored if r.cell.method == row["method"] and r.score is not None]
        assert row["score"] == pytest.approx(sum(own_scores) / 3)
        assert row["n_seeds"] == 3
        assert row["score_low"] <= row["score"] <= row["score_high"]
        assert row["train_seconds"] >= 0
    assert {row["method"] for row in found["rows"]} == {"majority", "tfidf"}
    assert found["answer"].startswith("With 24 labels, ")
    assert found["next"].startswith("harness choose --data 'my tickets.csv' ")
    assert "[6/6] my-tickets · " in done.stderr
