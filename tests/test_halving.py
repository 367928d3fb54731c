"""Batches that do not fit in memory are run again in halves: the same answers, a remark, and nothing left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.disk import FeatureDisk
from harness.features.encode import FeatureStore
from harness.features.shape import EncodingShape
from harness.features.tokens import TokenStore
from harness.measure.bounds import BATCH_TOKENS, rows_of_pass
from harness.measure.clock import PhaseClock
from harness.measure.device import Device
from harness.measure.halving import BatchLimit, Halvings, fits
from harness.methods import methods
from harness.records.budgets import Budget
from harness.running.worker import Worker
from harness.support.errors import OutOfMemoryError
from harness.tasks import Task
from harness.training import model as training_model
from harness.training.model import AdaptedModel, run_by_length
from tests.toys import make_bench, run_one, test_rows


class Small(nn.Module):
    """A stand-in for a device: a module that takes at most so many rows."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most
        self.seen: list[int] = []
        self.left: list[weakref.ref[torch.Tensor]] = []

    @property
    def config(self) -> Any:
        return self.inner.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
        self.seen.append(len(input_ids))
        held = input_ids.float() + 1
        self.left.append(weakref.ref(held))
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, **more)


def test_a_failed_try_leaves_nothing_and_halves_what_follows() -> None:
    refs: list[weakref.ref[torch.Tensor]] = []
    sizes: list[int] = []
    noted: list[float] = []
    halvings = Halvings()

    def run(n: int) -> None:
        held = torch.zeros(n, 1000)
        refs.append(weakref.ref(held))
        sizes.append(n)
        if n > 10:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    gc.disable()  # references alone must free it
    try:
        with halvings.active(noted.append):
            limit, at = BatchLimit("score", 64), 0
            while at < 100:
                n = min(limit.rows, 100 - at)
                if limit.holds(n, lambda n=n: run(n)):
                    at += n
                assert refs[-1]() is None
            assert BatchLimit("score", 64).rows == 8, "the cell's next batches begin where these ended"
            assert BatchLimit("predict", 64).rows == 64
    finally:
        gc.enable()
    assert sizes == [64, 32, 16, *[8] * 12, 4]
    assert halvings.remarks == {"score_rows": "64 -> 8, out of memory"}
    assert len(noted) == 3
    assert BatchLimit("score", 64).rows == 64, "another cell starts anew"


def test_errors_of_other_kinds_and_budgets_pass_through() -> None:
    def exceed() -> None:
        raise OutOfMemoryError("The cell needed 2 bytes; its budget is 1.")

    with pytest.raises(OutOfMemoryError, match="its budget is 1"):
        fits(exceed)
    with pytest.raises(ZeroDivisionError):
        fits(lambda: 1 / 0)


def test_a_single_row_that_does_not_fit_says_what_to_try() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(OutOfMemoryError, match=r"one row does not fit in memory \(predict\)\. Try .*max_length"):
        BatchLimit("predict", 8).holds(1, fail)


def test_seconds_of_a_failed_try_are_no_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = PhaseClock()
    with clock.phase("predict"):
        now[0] += 5
        clock.set_aside(3)
        assert clock.seconds("predict") == 2
        now[0] += 1
    assert clock.seconds("predict") == 3
    assert clock.seconds("measure") == 3


def test_predictions_in_halves_are_those_of_small_batches(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(toy, tiny, cpu, budget=Budget(steps=2))
    rows = Worker(cpu, None).training_rows(toy, 24, 0, "stratified")
    fitted: Any = methods.get("bitfit")().fit(rows, bench)
    model: AdaptedModel = fitted.model
    monkeypatch.setattr(training_model, "PREDICT_ROWS", {"cpu": 4})
    expected = fitted.predict(test_rows(toy), bench)
    assert "predict_rows" not in bench.ledger.remarks
    monkeypatch.undo()
    small = Small(model.transformer, 7)
    model.transformer = small
    before = bench.clock.seconds("measure") or 0.0
    found = fitted.predict(test_rows(toy), bench)
    assert small.seen[:4] == [32, 16, 8, 4]
    assert set(small.seen[3:]) <= {1, 2, 3, 4}
    assert found.tobytes() == expected.tobytes()
    assert bench.ledger.remarks["predict_rows"] == "32 -> 4, out of memory"
    assert (bench.clock.seconds("measure") or 0.0) > before
    assert all(ref() is None for ref in small.left)


def test_validation_in_halves_is_the_same_mean(
    toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, cpu: Device
) -> None:
    """A mean over rows (classes, by logits) and one over tokens (texts, by losses of unequal pieces)."""
    task = toy_kinds["generation"]
    bench = make_bench(task, tiny_llama, cpu, budget=Budget(steps=1))
    rows = Worker(cpu, None).training_rows(task, 24, 0, "stratified")
    method = methods.get("full")()
    examples = bench.form.examples(rows, bench, 0)
    model = method.build(bench)  # type: ignore[attr-defined]
    model.train()
    inputs = method.make_inputs(model, examples, bench)  # type: ignore[attr-defined]
    items = np.arange(len(rows))
    whole = inputs.mean_loss(items, examples.targets[items], bench.form.loss, cpu, "fp32")
    plain = model.forward
    seen: list[int] = []

    def forward(ids: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        seen.append(len(ids))
        if len(ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(ids, *more)

    model.forward = forward
    with bench.working("fit"):
        halves = inputs.mean_loss(items, examples.targets[items], bench.form.loss, cpu, "fp32")
    assert max(seen) == 24
    assert halves == pytest.approx(whole, rel=1e-6)
    assert bench.ledger.remarks["validate_rows"] == "32 -> 3, out of memory"


def test_features_of_halved_batches_are_kept_apart(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(tiny)
    tokens = TokenStore().tokens(toy.train, toy.kind, backbone, 64)
    index = np.arange(40)

    def encode(store: FeatureStore, rows: Any) -> Any:
        return store.pooled(toy.train, np.asarray(rows), tokens, backbone, 64, "fp32")

    large = FeatureStore(cpu, FeatureDisk(tmp_path))
    whole = encode(large, index)
    assert whole.halved is None
    monkeypatch.setattr("harness.features.shape.ENCODE_ROWS", {"cpu": 4})
    expected = encode(FeatureStore(cpu, None), index)
    monkeypatch.undo()
    small = Small(backbone.pristine, 5)
    monkeypatch.setattr(type(backbone), "resident", lambda *_, **__: small)
    store = FeatureStore(cpu, FeatureDisk(tmp_path))
    assert encode(store, index).halved is None, "what is known at full size needs no encoding"
    found = encode(store, np.arange(48, 300))
    assert found.halved == (16, 4)
    assert found.spare_seconds >= 0
    again = encode(store, index)
    assert again.halved == (16, 4)
    assert not again.reused, "rows of another shape are not mixed in"
    assert again.values.tobytes() == expected.values.tobytes()
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert all(ref() is None for ref in small.left)
    small.most = 0
    with pytest.raises(OutOfMemoryError, match=r"one row does not fit in memory \(encode\)"):
        FeatureStore(cpu, None).pooled(toy.train, index, tokens, backbone, 64, "bf16")


def test_a_record_says_that_encoding_was_halved(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(load_backbone(tiny).pristine, 8)
    monkeypatch.setattr("harness.backbones.model.Backbone.resident", lambda *_, **__: small)
    record = run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu)
    assert record.status == "ok", record.error
    assert record.facts.remarks["encode_rows"] == "16 -> 8, out of memory"


def test_batches_of_an_accelerator_are_bounded_by_tokens(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a CPU are not, so that its scores keep their bits."""
    shape = EncodingShape("cuda")
    assert (shape.rows(16), shape.rows(64), shape.rows(512), shape.rows(10**6)) == (256, 256, 32, 1)
    assert EncodingShape("cuda", 2).rows(512) == 8
    assert EncodingShape("cpu").rows(4096) == 16
    assert len({str(EncodingShape(kind, n).key) for kind in ("cpu", "cuda") for n in range(4)}) == 8
    assert EncodingShape("cpu").key == [16, 4], "features on disk from earlier versions stay valid"
    monkeypatch.setattr(training_model, "rows_of_pass", lambda _, most, length: rows_of_pass("cuda", most, length))
    monkeypatch.setattr(training_model, "PREDICT_ROWS", {"cpu": 256})
    lengths = np.random.default_rng(0).integers(1, 4000, 900)
    lengths[3] = 30_000
    batches: list[Any] = []
    run_by_length(nn.Identity(), lengths, batches.append, cpu, "fp32")
    assert sorted(np.concatenate(batches)) == list(range(900))
    assert all(len(batch) * lengths[batch].max() <= BATCH_TOKENS for batch in batches[:-1])
    assert batches[-1].tolist() == [3]
    by_length: Callable[[Any], int] = lambda batch: int(lengths[batch].max())  # noqa: E731
    assert batches == sorted(batches, key=by_length)


def test_a_cell_whose_test_rows_need_smaller_batches_is_fitted_again(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of training and test rows have one shape, and are those of a cell with small batches throughout."""
    small = Small(load_backbone(tiny).pristine, 16)
    monkeypatch.setattr("harness.backbones.model.Backbone.resident", lambda *_, **__: small)
    probe = methods.get("linear-probe")
    plain, n_fits = probe.fit, []

    def fit(self: Any, rows: Any, bench: Any) -> Any:
        n_fits.append(len(rows))
        fitted = plain(self, rows, bench)
        small.most = 4
        return fitted

    monkeypatch.setattr(probe, "fit", fit)
    worker = Worker(cpu, None)
    record = run_one(toy, tiny, probe(c=1.0), cpu, worker=worker)
    assert record.status == "ok", record.error
    assert len(n_fits) == 2
    assert record.facts.remarks["encode_rows"] == "16 -> 4, out of memory"
    again = run_one(toy, tiny, probe(c=1.0), cpu, worker=worker)
    assert len(n_fits) == 3
    assert again.predictions is not None
    assert record.predictions is not None
    assert again.predictions.to_json() == record.predictions.to_json()
