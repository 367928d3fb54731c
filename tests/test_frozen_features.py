"""Methods on frozen features, and the layers and poolings they read: against references that share no code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.architecture import blocks_of
from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.features.disk import FeatureDisk
from harness.features.encode import FeatureStore
from harness.features.layers import canonical_layer
from harness.features.tokens import TokenStore
from harness.measure.device import Device
from harness.measure.memory import settle_for_good
from harness.methods import methods
from harness.methods._frozen import FrozenFeatures
from harness.methods.configure import parse_method
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks import Rows, Task
from tests.toys import make_bench, plan_one, run_one, test_rows

INDEX = [5, 1, 77]
FROZEN = [
    name
    for name in methods.names()
    if issubclass(methods.get(name), FrozenFeatures) and not methods.get(name).needs_pairs
]


def encode(store: FeatureStore, task: Task, files: BackboneFiles, index: list[int], **read: Any) -> np.ndarray:
    backbone = load_backbone(files)
    tokens = TokenStore().tokens(task.train, task.kind, backbone, 64)
    return store.pooled(task.train, np.array(index), tokens, backbone, 64, "fp32", **read).values


def direct_states(task: Task, files: BackboneFiles, row: int) -> list[np.ndarray]:
    """Hidden states of one row, unpadded: of the embeddings, then of each block; the last behind the final norm."""
    backbone = load_backbone(files)
    inputs = backbone.tokenizer(task.train.texts[row], return_tensors="pt")
    with torch.no_grad():
        outputs = backbone.pristine(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True)
    return [state[0].numpy() for state in (*outputs.hidden_states[:-1], outputs.last_hidden_state)]


POOL = {"mean": lambda states: states.mean(0), "cls": lambda states: states[0], "last": lambda states: states[-1]}


@pytest.fixture(autouse=True, scope="module")
def _settled(tiny: BackboneFiles) -> None:
    """As a worker does once a process: else every measurement of memory first looks through all of torch's objects."""
    load_backbone(tiny)
    methods.get("random-forest-probe")().warm_up()
    settle_for_good()


@pytest.fixture(scope="module")
def shared(cpu: Device) -> FeatureStore:
    """Encodes each row once for all tests: what is tested with it is what is made of features."""
    return FeatureStore(cpu, None)


@pytest.mark.parametrize("backbone", ["tiny", "tiny_llama", "tiny_t5"])
def test_any_layer_and_pooling_against_transformers(
    backbone: str, toy: Task, cpu: Device, request: pytest.FixtureRequest
) -> None:
    files = request.getfixturevalue(backbone)
    read = [
        (0, "mean", lambda states: states[0]),
        (1, "cls", lambda states: states[1]),
        (-2, "last", lambda states: states[1]),
        (2, "mean", lambda states: states[2]),
        ("last", "cls", lambda states: states[2]),
        ("last", "last", lambda states: states[2]),
        ("average", "mean", lambda states: (states[1] + states[2]) / 2),
        ("average", "last", lambda states: (states[1] + states[2]) / 2),
    ]
    store = FeatureStore(cpu, None)
    direct = [direct_states(toy, files, row) for row in INDEX]
    for layer, pooling, states_of in read:
        values = encode(store, toy, files, INDEX, pooling=pooling, layer=layer)
        expected = np.stack([POOL[pooling](states_of(states)) for states in direct])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5, err_msg=f"{layer} {pooling}")


def test_another_layer_gives_the_same_bits_warm_and_cold(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    read = {"pooling": "cls", "layer": 1}
    everything = encode(FeatureStore(cpu, None), toy, tiny, list(range(len(toy.train))), **read)
    cold = FeatureStore(cpu, FeatureDisk(tmp_path))
    np.testing.assert_array_equal(encode(cold, toy, tiny, [200, 3], **read), everything[[200, 3]])
    warm = FeatureStore(cpu, FeatureDisk(tmp_path))
    warm._encode = None  # type: ignore[assignment, method-assign] - nothing may be encoded
    np.testing.assert_array_equal(encode(warm, toy, tiny, [3, 200], **read), everything[[3, 200]])


def test_keys_tell_layers_and_poolings_apart_and_the_default_is_as_ever(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    """Different spellings of one thing share a key; a cache written before there was a choice stays valid."""
    store = FeatureStore(cpu, FeatureDisk(tmp_path))
    same: list[dict[str, Any]] = [{}, {"pooling": "mean"}, {"layer": 2}, {"layer": -1, "pooling": None}]
    for read in same:
        encode(store, toy, tiny, INDEX, **read)
    [path] = tmp_path.glob("features/*/key.json")
    key = json.loads(path.read_text())
    assert (key["pooling"], key["layer"]) == ("mean", "last")
    assert set(key) == {
        *("format", "rows", "backbone", "pooling", "layer", "max_length", "precision", "shape", "device", "packages")
    }
    for read in ({"layer": 1}, {"layer": -2}, {"layer": 0}, {"layer": "average"}, {"pooling": "cls"}):
        encode(store, toy, tiny, INDEX, **read)
    keys = [json.loads(path.read_text()) for path in tmp_path.glob("features/*/key.json")]
    found = {(key["pooling"], key["layer"]) for key in keys}
    assert found == {("mean", "last"), ("mean", 1), ("mean", 0), ("mean", "average"), ("cls", "last")}
    assert len(keys) == 5


@pytest.mark.parametrize("layer", [3, -3])
def test_a_block_that_is_not_there_is_refused(layer: int, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    with pytest.raises(UsageError, match="the backbone has 2 blocks"):
        canonical_layer(layer, load_backbone(tiny).pristine)
    planned = plan_one(toy, tiny, methods.get("linear-probe")(layer=layer))
    assert planned.unsupported is not None
    assert "2 blocks" in planned.unsupported
    record = run_one(toy, tiny, methods.get("linear-probe")(layer=layer), cpu)
    assert record.status == "unsupported"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_hidden_layers": 6}, 6),
        ({"n_layer": 12, "model_type": "gpt2"}, 12),
        ({"n_layers": 6, "model_type": "distilbert"}, 6),
        ({"is_encoder_decoder": True, "num_layers": 8, "num_decoder_layers": 2}, 8),
        ({"is_encoder_decoder": True, "encoder_layers": 4, "num_hidden_layers": 9}, 4),
        ({}, None),
        ({"num_hidden_layers": "six"}, None),
    ],
)
def test_blocks_are_read_from_the_configuration(config: dict[str, Any], expected: int | None) -> None:
    assert blocks_of(config) == expected


def test_layers_on_the_command_line() -> None:
    assert parse_method("linear-probe[layer=-2]").config()["layer"] == -2
    assert parse_method("knn[layer=average, pooling=cls]").config()["layer"] == "average"
    for bad in ("middle", "1.5", "true"):
        with pytest.raises(UsageError, match=r"Setting 'layer' of method 'knn'.*a block's number"):
            parse_method(f"knn[layer={bad}]")


@pytest.mark.parametrize("name", FROZEN)
def test_every_method_reads_the_layer_it_is_told_to(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, shared: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer and a pooling that are not the default's give other probabilities; a method must use both throughout."""
    rows = Worker(cpu, None).training_rows(toy, 48, 0, "stratified")
    few = {"min_steps": 10, "epochs": 1, "n_trees": 10}
    cls = methods.get(name)
    settings = {key: value for key, value in few.items() if key in cls.model_fields}
    asked: list[tuple[Any, Any]] = []
    pooled = shared.pooled

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["pooling"], kwargs["layer"]))
        return pooled(*args, **kwargs)

    monkeypatch.setattr(shared, "pooled", spy)
    found = []
    for read in ({}, {"layer": 1}, {"pooling": "cls"}):
        bench = make_bench(toy, tiny, cpu)
        bench.features = shared
        asked.clear()
        found.append(cls(**settings, **read).fit(rows, bench).predict(test_rows(toy), bench))
        assert asked == [(read.get("pooling"), read.get("layer", "last"))] * 2
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@dataclasses.dataclass
class Known:
    """Training and test features with the training labels, as the method under test gets them."""

    bench: Any
    rows: Rows
    features: np.ndarray
    labels: np.ndarray
    test: np.ndarray


@pytest.fixture
def known(toy: Task, tiny: BackboneFiles, cpu: Device, shared: FeatureStore) -> Known:
    bench = make_bench(toy, tiny, cpu)
    bench.features = shared
    rows = Worker(cpu, None).training_rows(toy, 48, 0, "stratified")
    return Known(
        bench,
        rows,
        features=bench.pooled(rows, "encode", "fp32"),
        labels=rows.known_labels,
        test=bench.pooled(test_rows(toy), "predict", "fp32"),
    )


def without_class(rows: Rows, label: int) -> Rows:
    return rows.take(np.flatnonzero(rows.known_labels != label))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["distance", "uniform"])
@pytest.mark.parametrize("k", [1, 5, 48])
def test_knn_is_scikit_learns(metric: str, weights: str, k: int, known: Known, toy: Task) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    fitted = methods.get("knn")(k=k, metric=metric, weights=weights, precision="fp32").fit(known.rows, known.bench)
    reference = KNeighborsClassifier(k, metric=metric, weights=weights, algorithm="brute")
    reference.fit(known.features.astype(np.float64), known.labels)
    np.testing.assert_allclose(
        fitted.predict(test_rows(toy), known.bench),
        reference.predict_proba(known.test.astype(np.float64)),
        rtol=1e-3,
        atol=1e-4,
    )
    assert fitted.n_trainable == 0


def test_knn_asks_no_more_neighbours_than_there_are_and_knows_its_own_rows(known: Known) -> None:
    few = known.rows.take(np.arange(6))
    fitted = methods.get("knn")(k=21, weights="uniform", precision="fp32").fit(few, known.bench)
    shares = np.bincount(few.known_labels, minlength=3) / 6
    found = fitted.predict(few, known.bench)
    np.testing.assert_allclose(found, np.tile(shares, (6, 1)), rtol=1e-6)
    own = methods.get("knn")(k=5, precision="fp32").fit(few, known.bench).predict(few, known.bench)
    np.testing.assert_array_equal(own.argmax(1), few.known_labels)


def test_knn_in_chunks_is_knn_at_once(known: Known, toy: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = methods.get("knn")(precision="fp32").fit(known.rows, known.bench)
    at_once = fitted.predict(test_rows(toy), known.bench)
    monkeypatch.setattr("harness.methods.knn._CHUNK_DISTANCES", 7 * len(known.rows))
    np.testing.assert_allclose(fitted.predict(test_rows(toy), known.bench), at_once, rtol=1e-4)


def test_euclidean_prototypes_are_scikit_learns_nearest_centroids(known: Known, toy: Task) -> None:
    from sklearn.neighbors import NearestCentroid

    fitted = methods.get("prototypes")(metric="euclidean", precision="fp32").fit(known.rows, known.bench)
    reference = NearestCentroid().fit(known.features, known.labels)
    found = fitted.predict(test_rows(toy), known.bench)
    np.testing.assert_array_equal(found.argmax(1), reference.predict(known.test))
    np.testing.assert_allclose(fitted.tensors()["means"], reference.centroids_, rtol=1e-4, atol=1e-6)
    assert fitted.n_trainable == reference.centroids_.size


def test_cosine_prototypes_by_hand(known: Known, toy: Task) -> None:
    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    fitted = methods.get("prototypes")(temperature=0.5, precision="fp32").fit(known.rows, known.bench)
    means = unit(np.stack([unit(known.features)[known.labels == label].mean(0) for label in range(3)]))
    expected = torch.softmax(torch.from_numpy(unit(known.test) @ means.T / 0.5), dim=1).numpy()
    np.testing.assert_allclose(fitted.predict(test_rows(toy), known.bench), expected, rtol=1e-4)


def test_random_forest_probe_is_scikit_learns(known: Known, toy: Task) -> None:
    from sklearn.ensemble import RandomForestClassifier

    before = known.bench.ledger.train_flops
    fitted = methods.get("random-forest-probe")(n_trees=20, precision="fp32").fit(known.rows, known.bench)
    reference = RandomForestClassifier(20, random_state=known.bench.seeded("forest") % 2**32)
    reference.fit(known.features, known.labels)
    np.testing.assert_allclose(
        fitted.predict(test_rows(toy), known.bench), reference.predict_proba(known.test), rtol=1e-6
    )
    assert fitted.n_trainable == sum(len(tree.tree_.threshold) for tree in reference.estimators_)
    assert known.bench.ledger.train_flops > before


@pytest.mark.parametrize("name", [name for name in FROZEN if name != "head"])
def test_a_class_without_rows_is_never_predicted(name: str, known: Known, toy: Task) -> None:
    cls = methods.get(name)
    settings = {"min_steps": 60, "epochs": 1, "n_trees": 10, "k": 48, "learning_rate": 0.03, "precision": "fp32"}
    method = cls(**{key: value for key, value in settings.items() if key in cls.model_fields})
    fitted = method.fit(without_class(known.rows, 1), known.bench)
    restored = method.restore(fitted.tensors(), fitted.state(), known.bench)
    for found in (fitted.predict(test_rows(toy), known.bench), restored.predict(test_rows(toy), known.bench)):
        assert found.shape == (len(toy.test), 3)
        np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
        assert (found.argmax(1) != 1).all()
        if name != "mlp-probe":  # a trained network makes it improbable, the others impossible
            assert (found[:, 1] < 1e-6).all()


@pytest.mark.parametrize("name", FROZEN)
def test_a_single_class_is_enough_to_fit(name: str, known: Known, toy: Task) -> None:
    cls = methods.get(name)
    settings = {"min_steps": 40, "epochs": 1, "n_trees": 10, "learning_rate": 0.03, "precision": "fp32"}
    method = cls(**{key: value for key, value in settings.items() if key in cls.model_fields})
    fitted = method.fit(known.rows.take(np.flatnonzero(known.labels == 2)), known.bench)
    assert (fitted.predict(test_rows(toy), known.bench).argmax(1) == 2).all()


def test_a_damaged_forest_is_not_loaded(known: Known) -> None:
    """scikit-learn follows node numbers without checking them: a file that points outside would crash the process."""
    import skops.io

    method = methods.get("random-forest-probe")(n_trees=2, precision="fp32")
    fitted = method.fit(known.rows, known.bench)
    written = fitted.tensors()["forest"]
    with pytest.raises(UsageError, match="cannot be read"):
        method.restore({"forest": written[:100]}, {}, known.bench)
    other = skops.io.dumps({"a": 1})
    with pytest.raises(UsageError, match="RandomForestClassifier was expected"):
        method.restore({"forest": np.frombuffer(other, np.uint8)}, {}, known.bench)
    forest = fitted._forest
    for field, value in (("left_child", 10**6), ("right_child", 0), ("feature", 10**6)):
        tree = forest.estimators_[0].tree_
        state = tree.__getstate__()
        sound = state["nodes"].copy()
        state["nodes"][field][0] = value
        tree.__setstate__(state)
        damaged = skops.io.dumps(forest)
        state["nodes"] = sound
        tree.__setstate__(state)
        with pytest.raises(UsageError, match="damaged"):
            method.restore({"forest": np.frombuffer(damaged, np.uint8)}, {}, known.bench)
    method.restore({"forest": np.frombuffer(skops.io.dumps(forest), np.uint8)}, {}, known.bench)


def test_the_network_trains_at_the_cost_that_torch_counts(known: Known) -> None:
    """Forward and backward of one batch through the perceptron, by torch's own counter."""
    from harness.measure.flops import count_flops
    from harness.methods._frozen_gradient import row_flops

    model = methods.get("mlp-probe")(hidden_size=16).network(32, known.bench)
    values = torch.zeros(8, 32)
    forward, training = row_flops(model)
    assert 8 * training == count_flops(lambda: model(values).sum().backward())
    with torch.no_grad():
        assert 8 * forward == count_flops(lambda: model(values))


def test_early_stopping_holds_rows_out(known: Known, toy: Task) -> None:
    method = methods.get("mlp-probe")(precision="fp32", patience=2, learning_rate=0.03, epochs=200)
    fitted = method.fit(known.rows, known.bench)
    curve = known.bench.ledger.curve
    assert known.bench.ledger.stopped_by == "early_stopping"
    assert any(point.validation is not None for point in curve)
    assert fitted.predict(test_rows(toy), known.bench).shape == (len(toy.test), 3)
