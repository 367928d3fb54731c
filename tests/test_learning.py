"""Real rows, real backbones: every kind can learn, and what it learns holds for rows that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.planning.suites import load_suite
from harness.tasks import Task, kinds
from tests.toys import run_one, shorten

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OVERFITS = {
    "questions": ("trec", {"epochs": 30.0}),
    "pairs": ("mrpc", {"epochs": 30.0}),
    "multiple-choice": ("arc_easy", {"epochs": 40.0}),
    "question-answering": ("squad", {"epochs": 40.0, "learning_rate": 1e-4}),
}
RISES = {
    "questions": ("trec", "256", 0.5, 0.3),
    "pairs": ("mrpc", "2048", 0.66, 0.03),
    "question-answering": ("squad", "500", 0.06, 0.1),
}
"""By suite: task, size, what a model scores that has learned nothing (the most frequent class; an independent run of
untrained spans), and how much more is asked for."""

STORIES = "karpathy/tinyllamas-stories260K"


def prepared(suite: str, name: str, mirror: Path) -> Task:
    spec = load_suite(suite).task(name)
    return kinds.get(spec.kind).prepare(spec, mirror)


@pytest.mark.parametrize("suite", OVERFITS)
def test_every_kind_overfits_32_real_rows(suite: str, mirror: Path, minilm: BackboneFiles, cpu: Device) -> None:
    name, settings = OVERFITS[suite]
    task = shorten(prepared(suite, name, mirror), max_length=160)
    method: Any = methods.get("full")(dropout=0.0, min_steps=1, **settings)  # type: ignore[call-arg]
    record = run_one(task, minilm, method, cpu, size="32")
    assert record.train_score is not None, record.error
    assert record.train_score > 0.9


def test_texts_are_overfitted_too(mirror: Path, cpu: Device) -> None:
    task = shorten(prepared("generation", "tinystories", mirror), max_length=128)
    files = locate_backbone(STORIES, mirror)
    untrained = run_one(task, files, methods.get("zero-shot")(), cpu)
    method: Any = methods.get("full")(min_steps=1, epochs=60.0, learning_rate=1e-2)  # type: ignore[call-arg]
    record = run_one(task, files, method, cpu, size="32")
    assert record.train_score is not None, record.error
    assert untrained.score is not None
    assert record.train_score < untrained.score.value / 2


@pytest.mark.parametrize("suite", RISES)
def test_held_out_scores_rise(suite: str, mirror: Path, minilm: BackboneFiles, cpu: Device) -> None:
    name, size, untrained, gain = RISES[suite]
    task = shorten(prepared(suite, name, mirror), n_test=400, n_pool=4000, max_length=160)
    record = run_one(task, minilm, methods.get("full")(), cpu, size=size)
    assert record.score is not None, record.error
    assert record.score.value > untrained + gain


@pytest.mark.parametrize("name", ["full", "lora"])
def test_stories_become_likelier(name: str, mirror: Path, cpu: Device) -> None:
    task = shorten(prepared("generation", "tinystories", mirror), n_test=200, max_length=512)
    files = locate_backbone(STORIES, mirror)
    untrained = run_one(task, files, methods.get("zero-shot")(), cpu).score
    trained = run_one(task, files, methods.get(name)(), cpu, size="512").score
    assert untrained is not None
    assert trained is not None
    assert trained.value < untrained.value - 0.1
