"""Rungs: a fit that is scored on its way ends bit for bit like one that is not, and one that is dropped is no result."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles
from harness.choose.runner import RUNGS, Runner
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.methods.rungs import Rung
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.running.proposals import Proposals
from harness.running.worker import Worker
from harness.schedule.local import LocalWorkers
from harness.schedule.pending import Claims
from harness.store.store import Store
from harness.tasks.base import Task
from tests.toys import plan_one


def job_of(
    text: str, task: Task, files: BackboneFiles, rungs: tuple[float, ...] = (), budget: Budget | None = None
) -> Job:
    planned = plan_one(task, files, parse_methods([text])[0], size="48", seed=1, budget=budget or Budget(steps=12))
    return Job(planned, files, "tests", hurried=True, rungs=rungs)


@pytest.mark.parametrize(
    "text", ["full", "full[l2_start=0.1]", "last-layers[k=1]", "lora", "gradual-unfreezing", "probe-then-full"]
)
def test_a_fit_with_rungs_ends_bit_for_bit_like_one_without(
    text: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    worker, reached = Worker(cpu, None), list[Rung]()

    def note(rung: Rung) -> bool:
        reached.append(rung)
        return True

    plain = worker.run(job_of(text, toy, tiny), toy)
    scored = worker.run(job_of(text, toy, tiny, (0.25, 0.5)), toy, decide=note)
    assert (plain.status, scored.status) == ("ok", "ok"), (plain.error, scored.error)
    assert plain.id == scored.id
    assert [(rung.share, rung.step) for rung in reached] == [(0.25, 3), (0.5, 6)]
    for record in (plain, scored):
        assert record.predictions is not None
    np.testing.assert_array_equal(plain.predictions.confidence, scored.predictions.confidence)  # type: ignore[union-attr]
    losses = [[point.train_loss for point in record.curve] for record in (plain, scored)]
    assert losses[0] == losses[1]
    assert [point.validation for point in scored.curve if point.validation is not None] == [r.score for r in reached]


@pytest.mark.parametrize("text", ["full", "last-layers[k=1]", "lora"])
def test_the_score_at_a_rung_is_that_of_a_fit_that_ends_there(
    text: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    """With a constant learning rate the first steps of a long fit are those of a short one."""
    name, _, rest = text.partition("[")
    constant = f"{name}[schedule=constant,warmup=0,weight_decay=0.3,learning_rate=0.01{',' + rest if rest else ']'}"
    worker, reached = Worker(cpu, None), list[Rung]()

    def note(rung: Rung) -> bool:
        reached.append(rung)
        return True

    worker.run(job_of(constant, toy, tiny, (0.25, 0.5)), toy, decide=note)
    short = [worker.run(job_of(constant, toy, tiny, budget=Budget(steps=steps)), toy) for steps in (3, 6)]
    assert [rung.score for rung in reached] == [record.score.value for record in short if record.score]


def test_scoring_a_rung_is_charged_as_tuning(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    worker = Worker(cpu, None)
    plain = worker.run(job_of("full", toy, tiny), toy)

    def wait(_: Rung) -> bool:
        time.sleep(1.5)  # the decision is nobody's time
        return True

    scored = worker.run(job_of("full", toy, tiny, (0.5,)), toy, decide=wait)
    assert not plain.cost.tune_seconds
    assert 0 < (scored.cost.tune_seconds or 0.0) < 1.5
    assert (scored.provenance.wall_seconds or 0.0) > 1.5 + (scored.cost.tune_seconds or 0.0)


def test_a_dropped_fit_leaves_a_worker_that_fits_as_before(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    worker = Worker(cpu, None)
    plain = worker.run(job_of("full", toy, tiny), toy)
    dropped = worker.run(job_of("full", toy, tiny, (0.25, 0.5)), toy, decide=lambda rung: rung.share < 0.5)
    again = worker.run(job_of("full", toy, tiny), toy)
    assert (dropped.status, dropped.score) == ("out_of_time", None)
    assert dropped.error is not None
    assert dropped.error.startswith("Dropped after 50 % of its steps")
    np.testing.assert_array_equal(plain.predictions.confidence, again.predictions.confidence)  # type: ignore[union-attr]


def test_a_search_drops_a_fit_and_keeps_no_record_of_it(toy: Task, tiny: BackboneFiles, tmp_path: Path) -> None:
    with (
        LocalWorkers("cpu", None) as workers,
        Store.open(tmp_path / "store.sqlite") as store,
        Claims(store, workers.device.name) as claims,
    ):
        runner = Runner(workers, store, claims, {toy.name: toy}, [tiny])
        planned = runner.plan(toy, parse_methods(["full[epochs=1]"])[0], 48, files=tiny)
        shares: list[float] = []

        def first_only(rung: Rung) -> bool:
            shares.append(rung.share)
            return len(shares) < 2

        until = time.monotonic() + 120
        dropped = runner.run(planned, toy, until, at_rung=first_only)
        assert dropped is not None
        assert (dropped.status, shares) == ("out_of_time", list(RUNGS))
        assert list(store.records()) == []
        whole = runner.run(planned, toy, until, at_rung=lambda _: True)
        assert whole is not None
        assert whole.status == "ok"
        assert [record.id for record in store.records()] == [planned.cell.id]


def test_a_trial_goes_on_while_it_is_in_the_better_half() -> None:
    (method,) = parse_methods(["full"])
    proposals = Proposals(method, 0, 8, n_rungs=2)

    def trial(*values: float) -> list[bool]:
        settings = proposals.next()
        assert settings is not None
        seen = []
        for number, value in enumerate(values):
            seen.append(proposals.goes_on(number, value))
            if not seen[-1]:
                proposals.learn(settings, value, dropped=True)
                return seen
        proposals.learn(settings, values[-1])
        return seen

    assert trial(0.6, 0.7) == [True, True]
    assert trial(0.5, 0.9) == [False]
    assert trial(0.65, 0.69) == [True, False]
    assert trial(0.7, 0.8) == [True, True]
    assert trial(0.66, 0.71) == [True, True]  # second of five, and second of four


def test_settings_outside_the_space_are_compared_at_rungs_too() -> None:
    (method,) = parse_methods(["lora"])  # its six epochs are no choice of the space
    proposals = Proposals(method, 0, 8, n_rungs=2)
    own = proposals.next()
    assert own is not None
    assert proposals.goes_on(0, 0.8)
    proposals.learn(own, 0.9)
    assert proposals.next() is not None
    assert not proposals.goes_on(0, 0.7)


def test_likely_settings_come_first_and_none_comes_twice() -> None:
    (method,) = parse_methods(["full"])
    own = {name: getattr(method, name) for name in method.search_space}
    likely = [own, {**own, "learning_rate": 2e-4}, {**own, "learning_rate": 2e-4}]
    proposals = Proposals(method, 0, 8, likely=likely)
    seen = []
    for _ in range(6):
        settings = proposals.next()
        assert settings is not None
        proposals.learn(settings, 0.5)
        seen.append(settings)
    assert seen[:2] == [own, likely[1]]
    assert len({repr(settings) for settings in seen}) == 6


def test_a_job_without_rungs_is_the_job_it_was(toy: Task, tiny: BackboneFiles) -> None:
    job = job_of("full", toy, tiny, (0.5,))
    assert replace(job, rungs=()) == job_of("full", toy, tiny)
