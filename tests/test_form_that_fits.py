"""The form of a cell by arithmetic, before it runs and after it ran out of memory, with a simulated limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.cost.closed_form import amount
from harness.cost.estimate import Estimator
from harness.cost.fitting import after_out_of_memory, ever_smaller, usable_bytes
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.planning.plan import PlannedCell
from harness.records.record import Budget, Record
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.schedule.drive import Policy, run_cells
from harness.schedule.messages import Done, Event
from harness.schedule.prepare import Prepared
from harness.store.store import Store
from harness.tasks import Task
from tests.executors import Quiet
from tests.toys import plan_one

STEPS = Budget(steps=1)


class Inside:
    """Workers that run a cell in this process, one at a time, when they are asked for events."""

    def __init__(self, device: Device) -> None:
        self._worker = Worker(device, None)
        self._waiting: list[tuple[Job, Task]] = []

    @property
    def n_free(self) -> int:
        return 1 - len(self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._waiting)

    def refusals(self, backbones: Sequence[BackboneFiles]) -> dict[str, str]:
        return {}

    def start(self, job: Job, task: Task) -> None:
        self._waiting.append((job, task))

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        job, task = self._waiting.pop()
        return [(job, Done(self._worker.run(job, task)))]

    def close(self) -> None: ...


def run(
    planned: PlannedCell, toy: Task, tiny: BackboneFiles, device: Device, store: Store, policy: Policy | None = None
) -> list[Record]:
    prepared = Prepared("tests", (planned,), {toy.name: toy}, {toy.name: (tiny,)}, device)
    run_cells(prepared, store, Quiet(), Inside(device), policy)
    return sorted(store.records(), key=lambda record: record.provenance.started_at)


def limit_memory(
    monkeypatch: pytest.MonkeyPatch, toy: Task, tiny: BackboneFiles, device: Device, most: float, factor: float
) -> None:
    """Let fits raise torch's error above a limit: `factor` times the arithmetic of what is no weight or state."""
    fit = FineTuning.fit

    def limited(self: Any, rows: Any, bench: Any) -> Any:
        found = amount(plan_one(toy, tiny, self, size="64", budget=STEPS), toy, tiny, device).least
        needed = found.fixed_bytes + factor * (found.peak_bytes - found.fixed_bytes)
        if needed > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {needed:.0f} of {most:.0f} bytes (simulated).")
        return fit(self, rows, bench)

    monkeypatch.setattr(FineTuning, "fit", limited)


@pytest.mark.parametrize("factor", [1.0, 1.5, 4.0])
def test_out_of_memory_takes_one_retry(
    factor: float, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arithmetic errs by a factor, so that the cell is expected to fit and does not."""
    planned = plan_one(toy, tiny, methods.get("full")(batch_size=64), size="64", budget=STEPS)
    whole = amount(planned, toy, tiny, cpu).least
    # The cell itself needs 1.3 times this limit, in what depends on its form; by arithmetic it fits or nearly does.
    most = whole.fixed_bytes + factor / 1.3 * (whole.peak_bytes - whole.fixed_bytes)
    asked = dataclasses.replace(cpu, memory_bytes=round(most))
    limit_memory(monkeypatch, toy, tiny, asked, most, factor)
    with Store.open(tmp_path / "oom.sqlite") as store:
        records = run(planned, toy, tiny, asked, store, Policy(halve_on_oom=True))
        again = run(planned, toy, tiny, asked, store, Policy(halve_on_oom=True))
    assert [record.id for record in again] == [record.id for record in records]
    if factor == 1.0:  # the arithmetic is right: no try fails, and the cell is the one that was asked for
        (record,) = records
        assert (record.status, record.cell.config["accumulation"]) == ("ok", 1)
        assert record.facts.run_as is not None
        assert record.facts.run_as["accumulation"] > 1
        return
    first, second = records
    assert (first.status, second.status) == ("out_of_memory", "ok"), second.error
    assert first.cell.config["accumulation"] == 1
    assert second.cell.config["accumulation"] in (2, 4)
    assert second.facts.on_oom is not None


def test_a_budget_of_memory_chooses_the_form_and_the_record_says_so(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    def asked(limit: int | None, **more: Any) -> PlannedCell:
        method = methods.get("full")(batch_size=64, **more)
        return plan_one(toy, tiny, method, size="64", budget=Budget(steps=1, peak_memory_bytes=limit))

    whole, smallest = asked(None), list(ever_smaller(asked(None)))[-1]
    assert smallest.method.config()["gradient_checkpointing"] is True
    at_least = amount(smallest, toy, tiny, cpu).least_bytes
    limit = round((amount(whole, toy, tiny, cpu).least_bytes + at_least) / 2)
    with Store.open(tmp_path / "budget.sqlite") as store:
        (record,) = run(asked(limit), toy, tiny, cpu, store)
    assert record.id == asked(limit).cell.id
    assert record.facts.run_as is not None
    assert set(record.facts.run_as) <= {"accumulation", "gradient_checkpointing"}
    assert "to fit into memory" in record.facts.in_words()["run_as"]
    assert Record.from_json(record.to_json()) == record
    estimator = Estimator({toy.name: toy}, cpu)
    estimator.add(dataclasses.replace(record, status="ok"), asked(limit))
    (figure,) = estimator.figures(asked(limit))
    ran = dataclasses.replace(asked(limit), method=asked(limit).method.model_copy(update=record.facts.run_as))
    assert figure.amount.memory == amount(ran, toy, tiny, cpu).memory


def test_the_smallest_form_is_the_last_hope(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    estimator = Estimator({toy.name: toy}, cpu)
    planned = plan_one(toy, tiny, methods.get("full")(batch_size=64), size="64")
    forms = list(ever_smaller(planned))
    assert after_out_of_memory(planned, estimator, 1.0, 0.0) == forms[-1]
    assert after_out_of_memory(forms[-1], estimator, 1.0, 0.0) is None
    assert usable_bytes(Device("cuda", "a GPU", 1, native_bf16=True), 100.0) == pytest.approx(94)
