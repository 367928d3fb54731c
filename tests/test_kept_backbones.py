"""Backbones that stay loaded from one cell to the next: those used last, as far as there is room."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.backbones import kept
from harness.backbones.kept import KeptBackbones
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.records.record import Budget
from harness.running.worker import Worker
from harness.tasks import Task
from tests.tiny_backbones import save_tiny_llama
from tests.toys import run_one


def backbones_of(sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> tuple[KeptBackbones, list[str], list[str]]:
    """A loader of stand-ins of so many bytes, and the names that it has loaded and let go of."""
    monkeypatch.setattr(kept, "KEPT_BYTES", 100)
    monkeypatch.setattr(BackboneFiles, "n_weight_bytes", property(lambda files: sizes[files.name]))
    loaded: list[str] = []
    gone: list[str] = []

    def load(files: BackboneFiles) -> Any:
        loaded.append(files.name)
        return SimpleNamespace(name=files.name, n_host_bytes=sizes[files.name])

    return KeptBackbones(load, lambda one: gone.append(cast(Any, one).name)), loaded, gone


def files_of(name: str) -> BackboneFiles:
    return BackboneFiles(name, Path(name), name, "encoder", "mean", None, "local folder")


def test_backbones_that_alternate_are_loaded_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded, gone = backbones_of({"a": 40, "b": 60}, monkeypatch)
    found = [load(files_of(name)) for name in ("a", "b", "a", "b")]
    assert found[0] is found[2]
    assert (loaded, gone) == (["a", "b"], [])
    assert load.cache_info() == (2, 2)


def test_the_least_recently_used_makes_room_before_another_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded, gone = backbones_of({"a": 40, "b": 40, "c": 40, "huge": 500}, monkeypatch)
    for name in ("a", "b", "a", "c"):
        load(files_of(name))
    assert gone == ["b"]
    load(files_of("huge"))
    assert gone == ["b", "a", "c"]
    load(files_of("huge"))
    assert loaded == ["a", "b", "c", "huge"]
    load.cache_clear()
    assert gone[-1] == "huge"


def test_a_worker_lets_go_of_a_backbone_and_alternating_ones_cost_what_they_cost_alone(
    toy: Task, tiny: BackboneFiles, tmp_path: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_llama(tmp_path / "llama")
    llama = locate_backbone(str(tmp_path / "llama"))
    methods_of = {"probe": methods.get("linear-probe")(), "full": methods.get("full")(batch_size=8)}
    budget = Budget(steps=2)
    alone = {
        (files.name, name): run_one(toy, files, method, cpu, size="24", budget=budget)
        for files in (tiny, llama)
        for name, method in methods_of.items()
    }
    monkeypatch.setattr(kept, "KEPT_BYTES", 0)
    load_backbone.cache_clear()
    worker = Worker(cpu, None)
    for name, method in methods_of.items():
        for files in (tiny, llama):
            found = run_one(toy, files, method, cpu, worker=worker, size="24", budget=budget)
            assert found.score == alone[files.name, name].score
            assert found.cost.weights_bytes == alone[files.name, name].cost.weights_bytes
            before = weakref.ref(load_backbone(files))
    load_backbone(tiny)
    gc.collect()
    assert before() is None
