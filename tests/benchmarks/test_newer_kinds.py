"""`full` and `lora` on one set of each newer kind, against transformers.Trainer with its own head for that task."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.planning.suites import load_suite
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task, kinds
from tests.benchmarks.own_heads import BATCH_SIZE, Recipe, Trained, train_with_own_head
from tests.toys import plan_one

SETS = {
    "similarity": ("similarity", "semeval_sts", {}),
    "regression": ("regression", "docstring_lines", {"metric": "spearman"}),
    "multi-label": ("emotions", "go_emotions", {"metric": "mean_average_precision", "test_cap": 1000}),
    "token-classification": ("entities", "cross_ner_politics", {}),
}
"""Suite, task and settings of each kind. Thresholds are no part of the comparison, and so neither are F1s of labels."""

N_TRAIN = {"token-classification": 200}
RECIPES = {"full": Recipe("full", 1e-4, 1e-3, 4), "lora": Recipe("lora", 1e-3, 1e-3, 4)}
SEEDS = 5


def set_of(kind: str, mirror: Path) -> Task:
    """Return the task of a kind."""
    suite, name, settings = SETS[kind]
    spec = load_suite(suite).task(name).model_copy(update=settings)
    return kinds.get(spec.kind).prepare(spec, mirror)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("kind", SETS)
def test_against_the_trainer(kind: str, method: str, mirror: Path, minilm: BackboneFiles, cpu: Device) -> None:
    task, recipe, worker = set_of(kind, mirror), RECIPES[method], Worker(cpu, None)
    n_train = N_TRAIN.get(kind, 256)
    settings = {
        **{"learning_rate": recipe.learning_rate, "head_learning_rate": recipe.head_learning_rate},
        **{"batch_size": BATCH_SIZE, "weight_decay": 0.01},
        **({"threshold": 0.5} if kind == "multi-label" else {}),
        **({"rank": 8, "alpha": 16, "adapter_dropout": 0.0} if method == "lora" else {}),
    }
    ours: list[Trained] = []
    theirs: list[Trained] = []
    for seed in range(SEEDS):
        rows = worker.training_rows(task, n_train, seed, "stratified")
        theirs.append(train_with_own_head(task, minilm, rows, seed, recipe, tuned=False))
        budget = Budget(epochs=recipe.epochs)
        planned = plan_one(task, minilm, methods.get(method)(**settings), size=str(n_train), seed=seed, budget=budget)
        record = worker.run(Job(planned, minilm, "benchmark"), task)
        assert record.status == "ok", record.error
        assert record.score is not None
        assert record.cost.fit_seconds is not None
        ours.append(Trained(record.cost.fit_seconds, record.score.value))
    ratio = statistics.median(run.seconds for run in theirs) / statistics.median(run.seconds for run in ours)
    gap = statistics.fmean(run.score for run in ours) - statistics.fmean(run.score for run in theirs)
    for who, runs in (("harness", ours), ("Trainer", theirs)):
        shown = ", ".join(f"{run.score:.3f} in {run.seconds:.1f} s" for run in runs)
        print(f"{kind}, {method}, {who}: {shown}")
    print(f"{kind}, {method}: {task.metric} {gap:+.4f} against the Trainer, {ratio:.2f} times as fast")
    assert gap >= -0.01
    assert ratio >= 1.2
