"""Declarations of methods: refused where they are missing, and compared with what the fits do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.methods._frozen import FrozenFeatures
from harness.methods.base import Method, check_declarations
from harness.methods.declared import check_workload
from harness.methods.majority import Majority
from harness.records.facts import ROLES
from harness.records.record import Budget, Record
from harness.records.workload import FitLength, Workload
from harness.running.attempt import Job
from harness.running.worker import unrun
from harness.support.errors import UsageError
from harness.tasks import Rows, Task
from harness.testing.laboratory import plan_cell
from tests.toys import make_bench, run_one, shorten


class Queries(FineTuning):
    """The example of CONTRIBUTING.md, with what it declares."""

    name = "queries"
    family = "partial fine-tuning"
    trains = "query projections, and the output layer"
    source = "none: an example"
    share_trained = 1 / 12  # one of four square matrices, beside two that are four times as large

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        for name, parameter in transformer.named_parameters():
            if ".query." in name:
                yield parameter


class SaysAll(Queries):
    share_trained = 1.0


@pytest.fixture(scope="module")
def small(toy: Task) -> Task:
    return shorten(toy, n_pool=96)


def whole(task: Task) -> Rows:
    return Rows(task.train, np.arange(len(task.train)), task.train_labels, task.train_strata)


def test_what_a_method_overstates_is_found(small: Task, tiny: BackboneFiles, cpu: Device) -> None:
    brief = {"min_steps": 6, "epochs": 1}
    check_workload(Queries(**brief), whole(small), make_bench(small, tiny, cpu))
    with pytest.raises(AssertionError, match=r"'queries' declares share_trained = 1; its fit moved 0\.1\d+ of"):
        check_workload(SaysAll(**brief), whole(small), make_bench(small, tiny, cpu))


def test_what_has_no_safe_default_must_be_declared() -> None:
    class SaysNoShare(FineTuning):
        name = family = trains = source = "x"

    class SaysNoRole(Method):
        name = family = trains = source = "x"

    class SaysNoWork(Method):
        name = family = trains = source = "x"
        role = "frozen features"

    class Wizard(SaysNoWork):
        role = "wizard"  # type: ignore[assignment]

    with pytest.raises(UsageError, match=r"'Wizard' declares the role 'wizard'\. Set `role` to one of 'floor', "):
        check_declarations(Wizard)
    with pytest.raises(UsageError, match=r"'SaysNoShare' declares no share_trained\. Add `share_trained = \.\.\.`"):
        check_declarations(SaysNoShare)
    with pytest.raises(UsageError, match=r"'SaysNoRole' declares no role.*one of 'floor', "):
        check_declarations(SaysNoRole)
    with pytest.raises(UsageError, match="'SaysNoWork' has the role 'frozen features' and declares no workload"):
        check_declarations(SaysNoWork)


class Raises(Majority):
    name = "raises"

    def fit_length(self) -> FitLength | None:
        raise ValueError("no length")

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        return 7  # type: ignore[return-value]


def test_a_declaration_that_raises_costs_a_figure_and_no_record(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(methods._members, "raises", Raises)
    monkeypatch.delattr(Majority, "role")
    ran = run_one(toy, None, Raises(), cpu)
    planned = plan_cell(toy, None, Raises())
    for record in (ran, unrun(Job(planned, None, "x"), toy, cpu, "failed", "why")):
        facts = Record.from_json(record.to_json()).facts
        assert (facts.role, facts.workload, facts.fit_length) == (None, None, None)
        assert facts.missing["fit_length"] == "ValueError: no length"
        assert "AttributeError" in facts.missing["role"]
        assert facts.missing["workload"] == "TypeError: the method declares 7, which is of type int"
    assert ran.score is not None


@pytest.mark.parametrize("name", methods.names())
def test_roles_go_with_what_methods_use(name: str) -> None:
    cls = methods.get(name)
    assert cls.role in ROLES
    assert bool(cls.serves) == (cls.role not in ("floor", "baseline"))
    assert issubclass(cls, FrozenFeatures) == (cls.role == "frozen features")
