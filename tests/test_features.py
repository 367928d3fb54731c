"""Features: the same bits warm and cold, charged alike, kept safely on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.disk import FeatureDisk, Shard
from harness.features.encode import FeatureStore
from harness.features.tokens import TokenStore
from harness.measure.device import Device
from harness.measure.steadiness import Steadiness
from harness.methods import methods
from harness.running.worker import Worker
from harness.tasks import Task
from tests.toys import make_bench, run_one


def encode(store: FeatureStore, task: Task, files: BackboneFiles, index: list[int]):
    backbone = load_backbone(files)
    tokens = TokenStore().tokens(task.train, task.kind, backbone, 64)
    return store.pooled(task.train, np.array(index), tokens, backbone, 64, "fp32")


def test_features_are_the_pooled_hidden_states(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """Against one row at a time through transformers, averaged over its tokens."""
    index = [5, 1, 77]
    encoded = encode(FeatureStore(cpu, None), toy, tiny, index)
    backbone = load_backbone(tiny)
    for row, value in zip(index, encoded.values, strict=True):
        inputs = backbone.tokenizer(toy.train.texts[row], return_tensors="pt")
        with torch.no_grad():
            hidden = backbone.pristine(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[0]
        np.testing.assert_allclose(value, hidden.mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert encoded.tokens == sum(len(backbone.tokenizer(toy.train.texts[row])["input_ids"]) for row in index)


def test_same_bits_whoever_asks_first(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    everything = encode(FeatureStore(cpu, None), toy, tiny, list(range(len(toy.train)))).values
    cold = FeatureStore(cpu, FeatureDisk(tmp_path))
    np.testing.assert_array_equal(encode(cold, toy, tiny, [200, 3]).values, everything[[200, 3]])
    np.testing.assert_array_equal(encode(cold, toy, tiny, [7, 3, 9]).values, everything[[7, 3, 9]])
    warm = FeatureStore(cpu, FeatureDisk(tmp_path))
    np.testing.assert_array_equal(encode(warm, toy, tiny, [9, 200]).values, everything[[9, 200]])


def test_a_warm_cell_is_charged_what_the_cold_one_was(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    costs = []
    for _ in ("cold", "warm"):
        record = run_one(toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=Worker(cpu, tmp_path))
        costs.append(record.cost)
    assert "features" not in costs[0].reused
    assert "features" in costs[1].reused
    tokenising = 0.01  # measured anew by each worker, and next to nothing on toy texts
    assert costs[1].encode_seconds == pytest.approx(costs[0].encode_seconds, abs=tokenising)
    assert costs[1].train_flops == costs[0].train_flops
    assert costs[1].train_tokens == costs[0].train_tokens
    assert costs[1].peak_rss_above_baseline_bytes is not None
    assert costs[0].peak_rss_above_baseline_bytes is not None


def test_what_was_measured_once_is_charged_ever_after(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """Planted figures come back: nothing is measured anew, and nothing is free."""
    index = [3, 9, 200]
    encode(FeatureStore(cpu, FeatureDisk(tmp_path)), toy, tiny, index)
    [folder] = (tmp_path / "features").iterdir()
    [path] = folder.glob("*.safetensors")
    disk = FeatureDisk(tmp_path)
    [known] = disk.read(folder.name)
    path.unlink()
    peaks = np.where(known.rows == 9, 123_456_789, 5)
    planted = Shard(
        known.rows, known.values, np.full(len(known.rows), 7.0), peaks, np.zeros_like(peaks), known.disturbed
    )
    disk.write(folder.name, "{}", planted)
    warm = encode(FeatureStore(cpu, FeatureDisk(tmp_path)), toy, tiny, index)
    assert warm.reused
    assert warm.seconds == pytest.approx(21.0)
    assert warm.peak_rss_above_baseline_bytes == 123_456_789
    assert encode(FeatureStore(cpu, FeatureDisk(tmp_path)), toy, tiny, [3]).peak_rss_above_baseline_bytes == 5


def test_seconds_of_a_busy_machine_are_known_as_such_until_they_are_measured_again(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet cell that reuses features from a busy machine has unreliable seconds too."""
    busy, quiet = [3, 9], list(range(100, 110))
    with monkeypatch.context() as patched:
        patched.setattr(Steadiness, "disturbance", lambda _: "a neighbour")
        first = encode(FeatureStore(cpu, FeatureDisk(tmp_path)), toy, tiny, busy)
    assert first.disturbed
    monkeypatch.setattr(Steadiness, "disturbance", lambda _: None)
    store = FeatureStore(cpu, FeatureDisk(tmp_path))
    assert not encode(store, toy, tiny, [row for row in quiet if row not in known_rows(tmp_path)]).disturbed
    again = encode(store, toy, tiny, busy)
    assert again.disturbed
    assert again.reused
    store.forget_disturbed()
    measured = encode(store, toy, tiny, busy)
    assert not measured.disturbed
    assert not measured.reused
    assert measured.values.tobytes() == first.values.tobytes()
    later = encode(FeatureStore(cpu, FeatureDisk(tmp_path)), toy, tiny, busy)  # both shards lie on the disk
    assert later.reused
    assert not later.disturbed
    assert later.seconds == pytest.approx(measured.seconds)


def known_rows(cache: Path) -> set[int]:
    [folder] = (cache / "features").iterdir()
    return {row for shard in FeatureDisk(cache).read(folder.name) for row in shard.rows.tolist()}


def test_memory_does_not_depend_on_what_else_was_encoded(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    lengths = np.array([len(text.split()) for text in toy.train.texts])
    short = np.flatnonzero(lengths == lengths.min())[:4].tolist()
    store = FeatureStore(cpu, None)
    alone = encode(store, toy, tiny, short).peak_rss_above_baseline_bytes
    whole = encode(store, toy, tiny, list(range(len(toy.train)))).peak_rss_above_baseline_bytes
    assert encode(store, toy, tiny, short).peak_rss_above_baseline_bytes == alone
    assert whole >= alone


def test_seconds_are_shared_out_by_tokens(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    store = FeatureStore(cpu, None)
    whole = encode(store, toy, tiny, list(range(len(toy.train))))
    parts = [encode(store, toy, tiny, [row]) for row in range(len(toy.train))]
    assert sum(part.seconds for part in parts) == pytest.approx(whole.seconds)
    assert sum(part.flops for part in parts) == pytest.approx(whole.flops)
    assert all(part.reused for part in parts)


def shard(value: float, n_rows: int = 64) -> Shard:
    bytes_ = np.full((2, n_rows), 1000)
    return Shard(
        np.arange(n_rows), np.full((n_rows, 8), value, np.float32), np.ones(n_rows), *bytes_, np.zeros(n_rows, bool)
    )


def test_a_damaged_file_is_dropped_with_a_warning(tmp_path: Path) -> None:
    disk = FeatureDisk(tmp_path)
    disk.write("a" * 32, "{}", shard(1.0))
    disk.write("a" * 32, "{}", shard(2.0))
    first, second = sorted((tmp_path / "features" / ("a" * 32)).glob("*.safetensors"))
    raw = bytearray(first.read_bytes())
    raw[-3] ^= 0xFF
    first.write_bytes(bytes(raw))
    second.write_bytes(second.read_bytes()[:100])
    with pytest.warns(UserWarning, match="Damaged feature cache"):
        assert list(disk.read("a" * 32)) == []
    assert not first.exists()
    assert not second.exists()


def test_the_cache_is_bounded_and_the_oldest_goes(tmp_path: Path) -> None:
    disk = FeatureDisk(tmp_path, limit_bytes=16_000)
    for position, name in enumerate(("old", "mid", "new")):
        disk.write(name, "{}", shard(float(position), n_rows=150))
        os.utime(tmp_path / "features" / name, (position, position))
        if position == 1:
            list(disk.read("old"))  # used again: now the youngest
    assert not (tmp_path / "features" / "mid").exists()
    assert disk.size_bytes() <= 16_000


def test_an_unwritable_cache_costs_the_cache_only(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        record = run_one(
            toy, tiny, methods.get("linear-probe")(c=1.0), cpu, worker=Worker(cpu, tmp_path / "file" / "below")
        )
    assert record.status == "ok"


def test_a_bench_charges_the_phase_that_asked(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(toy, tiny, cpu)
    rows = Worker(cpu, None).training_rows(toy, 24, 0, "stratified")
    bench.pooled(rows, "predict", "fp32")
    assert bench.clock.seconds("encode") is None
    assert (bench.clock.seconds("predict") or 0) > 0
    assert bench.ledger.train_flops == 0
