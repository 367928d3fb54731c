"""Every shipped suite from its data to scores, with a tiny backbone of the class that each task asks for.

Real rows, few and cut short: what is tested is that columns, templates, heads, decoding and metrics of each task fit
together, not what a random model makes of them; and that the data are those that the suite pins.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles
from harness.data.sampling import class_counts, parse_size
from harness.data.spec import TaskSpec
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.configure import parse_methods
from harness.planning.suites import load_suite, suite_names
from harness.running.worker import Worker
from harness.tasks import kinds
from tests.toys import plan_one, run_one, shorten

BORROWED = {"everything", "families", "defaults", "backbones", "ladder"}
"""Suites of other suites' tasks, or of splits of them."""

QUICK = {"epochs": 1.0, "min_steps": 1, "n_pairs": 1}


def architecture_of(spec: TaskSpec) -> str:
    """What the backbone that a run would take is."""
    name = spec.backbone or kinds.get(spec.kind).backbone or ""
    return "causal" if "SmolLM" in name else "sequence-to-sequence" if "t5" in name else "encoder"


def is_on_the_hub_alone(spec: TaskSpec) -> bool:
    """Whether a task says that its data were not checked, since no mirror has them."""
    return (spec.notes or "").startswith("Not pinned: only the hub has these data.")


ON_THE_HUB_ALONE = {name for name in suite_names() if all(map(is_on_the_hub_alone, load_suite(name).tasks.values()))}


IN_PARTS = {name for name in suite_names() if load_suite(name).parts}
"""Suites whose tasks are those of others, with fewer test rows (tests/test_parts.py)."""


@pytest.mark.parametrize("suite_name", sorted({*suite_names()} - BORROWED - ON_THE_HUB_ALONE - IN_PARTS))
def test_from_data_to_score(
    suite_name: str, request: pytest.FixtureRequest, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    suite = load_suite(suite_name)
    in_need = any(task.data.embedded is None for task in suite.tasks.values())
    mirror: Path | None = request.getfixturevalue("mirror") if in_need else None
    worker = Worker(cpu, None)
    tasks = {name: spec for name, spec in suite.tasks.items() if not is_on_the_hub_alone(spec)}
    for task_name, spec in tasks.items():
        task = kinds.get(spec.kind).prepare(spec, mirror)
        assert task.provenance["content"] == spec.content or spec.content is None
        counts = [len(task.train_strata)]
        if task.has_classes:
            counts = class_counts(task.train_strata, task.n_strata)
        assert all(parse_size(size).resolve(counts) for size in suite.sizes)
        _, first_of_each = np.unique(task.train_strata, return_index=True)
        task = shorten(task, n_pool=max(1500, int(first_of_each.max()) + 1))  # every class has a row
        files = tiny_backbones[architecture_of(spec)]
        size = str(max(16, 2 * task.n_strata))
        scored = []
        for asked in parse_methods(suite.methods):
            settings = {name: value for name, value in QUICK.items() if name in type(asked).model_fields}
            method = asked.model_copy(update=settings)
            planned = plan_one(task, files, method, size=size)
            record = run_one(task, files, method, cpu, worker=worker, size=size)
            expected = "ok" if planned.unsupported is None else "unsupported"
            assert record.status == expected, f"{task_name}, {method.name}: {record.error}"
            if record.score is not None:
                assert record.score.metric == task.metric
                assert record.score.n_test == len(task.test) <= 20
                scored.append(method.name)
        assert len(scored) >= 2, f"{task_name}: {scored}"
        assert {"full", "zero-shot"} & set(scored)


def test_everything_is_every_task_of_every_kind() -> None:
    kinds_served = {task.kind for task in load_suite("everything").tasks.values()}
    assert kinds_served == set(kinds.names())
    assert len(methods.names()) > 30
