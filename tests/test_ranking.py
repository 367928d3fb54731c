"""LogME, H-score, probes and layer means against independent computations; rankings of tiny backbones."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import harness
from harness.backbones import BackboneFiles, load_backbone, locate_backbone
from harness.data import DataSource, TaskSpec
from harness.features.every_layer import encode_every_layer
from harness.features.tokens import TokenStore
from harness.measure import Device
from harness.ranking.cards import Card, card_of, data_set, why_seen
from harness.ranking.forecasting import Point, forecast, read_points, shipped_points, write_points
from harness.ranking.measuring import Signals, rows_to_encode, signals_of
from harness.ranking.probing import probe
from harness.ranking.ranking import rank
from harness.ranking.transferability import h_score, log_me
from harness.support import DataError, UsageError
from harness.tasks import Task
from tests.commands import run_apart, run_cli
from tests.snapshot_files import Snapshot
from tests.toys import write_toy_table


def drawn(n_rows: int = 90, width: int = 7, n_classes: int = 3, apart: float = 1.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n_rows) % n_classes
    means = apart * generator.normal(size=(n_classes, width))
    return means[labels] + generator.normal(size=(n_rows, width)) + 0.5, labels.astype(np.int64)


def largest_evidence(features: np.ndarray, labels: np.ndarray) -> float:
    """The evidence as the density of a Gaussian vector, maximised over both precisions by a simplex."""
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    n_rows = len(labels)
    found = []
    for value in np.unique(labels):
        target = (labels == value).astype(float)

        def negative(logs: np.ndarray, target: np.ndarray = target) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(n_rows) / beta + features @ features.T / alpha
            return -float(multivariate_normal(np.zeros(n_rows), covariance).logpdf(target)) / n_rows

        tries = [minimize(negative, start, method="Nelder-Mead", tol=1e-9) for start in ([0.0, 0.0], [3.0, 2.0])]
        found.append(-min(one.fun for one in tries))
    return float(np.mean(found))


@pytest.mark.parametrize(("n_rows", "width"), [(60, 5), (40, 60)])
def test_log_me_is_the_largest_evidence(n_rows: int, width: int) -> None:
    features, labels = drawn(n_rows, width)
    assert log_me(features, labels) == pytest.approx(largest_evidence(features, labels), abs=2e-5)


def test_log_me_does_not_depend_on_scale_rotation_or_the_names_of_classes() -> None:
    features, labels = drawn()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    expected = log_me(features, labels)
    assert log_me(300.0 * features @ rotation, labels) == pytest.approx(expected, abs=1e-6)
    assert log_me(features, 2 - labels) == pytest.approx(expected, abs=1e-12)
    assert log_me(features[::-1], labels[::-1]) == pytest.approx(expected, abs=1e-9)


def plain_h_score(features: np.ndarray, labels: np.ndarray, shrinkage: float) -> float:
    """The sum of the eigenvalues of the between-class covariance against the shrunk covariance."""
    from scipy.linalg import eigh

    n_rows, width = features.shape
    centred = features - features.mean(0)
    covariance = centred.T @ centred / n_rows
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / width * np.eye(width)
    expected = np.stack([centred[labels == value].mean(0) for value in labels])
    return float(eigh((1 - shrinkage) * expected.T @ expected / n_rows, shrunk, eigvals_only=True).sum())


@pytest.mark.parametrize(("n_rows", "width"), [(90, 7), (30, 50)])
def test_h_score_is_the_sum_of_eigenvalues(n_rows: int, width: int) -> None:
    from sklearn.covariance import LedoitWolf

    features, labels = drawn(n_rows, width)
    shrinkage = LedoitWolf().fit(features).shrinkage_
    assert 0.0 < shrinkage < 1.0
    assert h_score(features, labels) == pytest.approx(plain_h_score(features, labels, shrinkage), rel=1e-6)


def test_h_score_does_not_depend_on_scale_rotation_or_mean_and_has_its_bounds() -> None:
    features, labels = drawn()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    expected = h_score(features, labels)
    assert h_score(0.01 * (features + 40.0) @ rotation, labels) == pytest.approx(expected, rel=1e-6)
    assert 0.0 < expected < 2.0
    assert h_score(np.ones((6, 3)), labels[:6]) == 0.0


@pytest.mark.parametrize("score", [log_me, h_score])
def test_scores_grow_with_the_distance_between_classes(score) -> None:
    found = [score(*drawn(apart=apart)) for apart in (0.0, 0.5, 1.0, 3.0)]
    assert found == sorted(found)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_scores_refuse_what_they_cannot_score(score) -> None:
    features, labels = drawn()
    with pytest.raises(ValueError, match="single class"):
        score(features, np.zeros_like(labels))
    with pytest.raises(ValueError, match="NaN"):
        score(np.where(features > 2, np.nan, features), labels)
    with pytest.raises(ValueError, match="shape"):
        score(features, labels[1:])


@pytest.mark.parametrize(("n_rows", "width"), [(90, 7), (40, 60)])
def test_the_probe_is_scikit_learns(n_rows: int, width: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    features, labels = drawn(n_rows, width)
    found = probe(features.astype(np.float32), labels)
    standard = (features - features.mean(0)) / features.std(0) / np.sqrt(width)
    fold_of = np.zeros(n_rows, dtype=int)
    for value in range(3):
        fold_of[labels == value] = np.arange((labels == value).sum()) % 5
    model = LogisticRegression(C=10.0, max_iter=2000, tol=1e-6)
    expected = cross_val_predict(model, standard, labels, cv=PredefinedSplit(fold_of))
    assert (found.predicted != expected).mean() <= 0.03  # the solvers stop a little apart
    assert found.accuracy == pytest.approx((expected == labels).mean(), abs=0.03)
    assert found.n_rows == n_rows


def test_the_probe_holds_out_no_class_of_one_row() -> None:
    features, labels = drawn(31)
    labels = np.concatenate([labels[:30], [3]])
    found = probe(features.astype(np.float32), labels)
    assert found.predicted[-1] == -1
    assert found.n_rows == 30
    with pytest.raises(ValueError, match="two rows"):
        probe(features[:3].astype(np.float32), np.arange(3))


@pytest.mark.parametrize("which", ["tiny", "tiny_llama"])
def test_features_of_layers_are_those_of_a_plain_forward_pass(
    which: str, request: pytest.FixtureRequest, toy: Task, cpu: Device
) -> None:
    from transformers import AutoModel, AutoTokenizer

    files: BackboneFiles = request.getfixturevalue(which)
    backbone = load_backbone(files)
    tokens = TokenStore().tokens(toy.train, toy.kind, backbone, 48)
    rows = np.array([5, 0, 17, 5, 2])
    found = encode_every_layer(backbone, tokens, rows, cpu, "fp32")
    model, tokenizer = AutoModel.from_pretrained(files.folder).eval(), AutoTokenizer.from_pretrained(files.folder)
    n_blocks = model.config.num_hidden_layers
    assert found.values.shape == (5, n_blocks, model.config.hidden_size)
    assert found.n_encoded == 4  # one text was asked for twice
    assert np.array_equal(found.values[0], found.values[3])
    for place, row in enumerate(rows):
        ids = tokenizer([toy.train.texts[row]], return_tensors="pt", truncation=True, max_length=48)
        with torch.inference_mode():
            states = model(**ids, output_hidden_states=True)
        blocks = torch.stack([*states.hidden_states[1:-1], states.last_hidden_state])[:, 0]
        pooled = blocks.mean(1) if files.pooling == "mean" else blocks[:, -1]
        np.testing.assert_allclose(found.mean[place], pooled.mean(0), atol=1e-5)
        np.testing.assert_allclose(found.last[place], pooled[-1], atol=1e-5)


def test_features_do_not_depend_on_their_neighbours(tiny: BackboneFiles, toy: Task, cpu: Device) -> None:
    backbone = load_backbone(tiny)
    tokens = TokenStore().tokens(toy.train, toy.kind, backbone, 48)
    all_rows = np.arange(40)
    together = encode_every_layer(backbone, tokens, all_rows, cpu, "fp32").values
    alone = np.concatenate(
        [encode_every_layer(backbone, tokens, all_rows[i : i + 1], cpu, "fp32").values for i in (3, 30)]
    )
    np.testing.assert_allclose(together[[3, 30]], alone, atol=1e-5)


def test_rows_are_those_that_a_run_trains_on_first(toy: Task) -> None:
    rows = rows_to_encode(toy, 30)
    assert np.array_equal(rows, rows_to_encode(toy, 60)[:30])
    counts = np.bincount(toy.train_labels[rows])
    assert counts.max() - counts.min() <= 2


def test_explained_is_nothing_for_noise_and_near_one_for_clear_classes() -> None:
    class Made:
        def __init__(self, values: np.ndarray) -> None:
            self.mean = self.last = values.astype(np.float32)

    noise = np.random.default_rng(0).normal(size=(200, 5)) + 1.0
    labels = (np.arange(200) % 2).astype(np.int64)
    assert signals_of(Made(noise), labels).explained < 0.05  # type: ignore[arg-type]
    clear = np.eye(2)[labels] + 0.01 * noise[:, :2]
    assert signals_of(Made(clear), labels).explained > 0.9  # type: ignore[arg-type]


def a_point(probed: float, task: str = "new", backbone: str = "a", n_train: int = 256, **more) -> Point:
    signals = Signals(256, 4, probed, probed, -0.4, 0.3, 1.5)
    return Point(task, backbone, signals, 1e7, is_causal=False, n_train=n_train, **more)


def test_the_forecast_follows_probes_and_labels_and_its_interval_holds_it() -> None:
    low, high = forecast([a_point(0.6), a_point(0.8, backbone="b")])
    assert low.score < high.score
    assert low.low < low.score < low.high
    assert high.best > 0.5 > low.best
    assert low.best + high.best == pytest.approx(1.0)
    more = forecast([a_point(0.6, n_train=1024)])[0]
    assert more.score > low.score


def test_measurements_of_the_task_itself_are_left_out() -> None:
    question = a_point(0.6, task="seen")
    other = [a_point(0.6, task="other", score=0.9)]
    same = [*other, a_point(0.6, task="seen", score=0.1), a_point(0.6, task="seen", backbone="b", score=0.1)]
    assert forecast([question], same) == forecast([question], other)
    assert forecast([question], other)[0].score > forecast([question], [])[0].score


def test_measurements_survive_their_file_and_the_shipped_ones_are_sane() -> None:
    points = [a_point(0.6, task="x", score=0.75, n_test=500, n_seeds=2)]
    assert read_points(write_points(points)) == points
    shipped = shipped_points()
    assert len({point.task for point in shipped}) >= 3
    assert all(0.0 < (point.score or 0.0) <= 1.0 and point.block_parameters > 1e6 for point in shipped)


CARD = "---\nlicense: apache-2.0\ndatasets:\n- SetFit/sst2\n- snli\n---\n\n# A model\n"


def test_cards_tell_licence_and_training_data() -> None:
    assert card_of(CARD) == Card("apache-2.0", ("SetFit/sst2", "snli"))
    assert card_of("# no front matter") == Card()
    assert card_of("---\nlicense: [unclosed\n---\n") == Card()
    assert card_of("---\nlicense: other\nlicense_name: llama3\ndatasets: imdb\n---\n") == Card("llama3", ("imdb",))
    assert data_set("mteb/banking77") == data_set("Banking77Classification") == ("banking77",)
    assert data_set("sentence-transformers/all-nli") == ("snli", "mnli")


def test_a_backbone_that_has_seen_the_task_is_named(tiny: BackboneFiles) -> None:
    def spec(name: str, hub: str, **more) -> TaskSpec:
        return TaskSpec(name=name, data=DataSource(hub=hub), **more)

    def called(name: str) -> BackboneFiles:
        return dataclasses.replace(tiny, name=name)

    sst2, trec = spec("mine", "SetFit/sst2"), spec("trec_fine", "SetFit/TREC-QC")
    assert "model card" in str(why_seen(tiny, card_of(CARD), sst2))
    assert why_seen(tiny, card_of(CARD), trec) is None
    assert "2109.01652" in str(why_seen(called("google/flan-t5-base"), Card(), trec))
    assert "MTEB" in str(why_seen(called("codefuse-ai/F2LLM-v2-80M"), Card(), spec("b", "mteb/banking77")))
    assert why_seen(called("sentence-transformers/all-MiniLM-L6-v2"), Card(), sst2) is None
    assert "suite" in str(why_seen(called("a/b"), Card(), spec("x", "o/x", seen_by=("a/b",))))
    overlapping = spec("x", "o/x", overlaps=("SetFit/sst2: 3 texts",))
    assert why_seen(tiny, card_of(CARD), overlapping) is not None


@pytest.fixture
def folders(tmp_path: Path, tiny: BackboneFiles, tiny_llama: BackboneFiles) -> dict[str, str]:
    """Folders of backbones: two that work, copies, and ones that cannot be used."""

    def copied(files: BackboneFiles, place: str) -> Path:
        return Path(shutil.copytree(files.folder, tmp_path / place))

    made = {"bert": copied(tiny, "bert"), "llama": copied(tiny_llama, "llama"), "again": copied(tiny, "again")}
    (made["bert"] / "README.md").write_text(CARD)
    made["twin"] = copied(tiny_llama, "deeper/bert")
    made["bare"] = copied(tiny, "bare")
    for path in made["bare"].glob("*.safetensors"):
        path.unlink()
    made["empty"] = tmp_path / "empty"
    made["empty"].mkdir()
    return {name: str(path) for name, path in made.items()}


def test_a_ranking_goes_on_past_backbones_that_cannot_be_used(
    folders: dict[str, str], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    found = rank(toy, [*folders.values(), "bert-base-like", "no/such"], cpu, tmp_path / "s", n_train=128, n_rows=48)
    by_name = {(entry.backbone, entry.status): entry for entry in found.backbones}
    assert {entry.backbone for entry in found.ranked} == {"local:bert", "local:llama"}
    assert [entry.status for entry in found.backbones] == sorted(
        (entry.status for entry in found.backbones), key=["ranked", "costs only", "failed"].index
    )
    scores = [entry.forecast.score for entry in found.ranked if entry.forecast]
    assert scores == sorted(scores, reverse=True)
    for entry in found.ranked:
        assert entry.signals is not None
        assert entry.signals.n_rows == found.n_rows == 48
        assert entry.encode_seconds is not None
        assert entry.encode_seconds > 0
        assert entry.full_seconds is not None
        assert entry.full_peak_bytes is not None
        assert entry.full_seconds > 0 < entry.full_peak_bytes
    assert by_name["local:bert", "ranked"].licence == "apache-2.0"
    for name in ("bert-base-like", "local:bare"):
        entry = by_name[name, "costs only"]
        assert entry.forecast is None
        assert entry.full_peak_bytes is not None
        assert entry.full_peak_bytes > 0
        assert "no weights" in str(entry.why)
    reasons = {Path(entry.backbone).name: str(entry.why) for entry in found.backbones if entry.status == "failed"}
    assert "same files as 'local:bert'" in reasons["again"]
    assert "Rename" in reasons["bert"]
    assert "config.json" in reasons["empty"]
    assert "not on this machine" in reasons["such"]
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(found.backbones)
    json.dumps(found.to_dict())


def test_bad_questions_are_refused(
    tiny: BackboneFiles, toy: Task, toy_kinds: dict[str, Task], cpu: Device, tmp_path: Path
) -> None:
    names = [str(tiny.folder)]
    with pytest.raises(UsageError, match="No backbone"):
        rank(toy, [], cpu, tmp_path)
    with pytest.raises(UsageError, match="--rows 4"):
        rank(toy, names, cpu, tmp_path, n_rows=4)
    with pytest.raises(UsageError, match="--rows 2000"):
        rank(toy, names, cpu, tmp_path, n_rows=2000)
    with pytest.raises(UsageError, match="--n-train 1"):
        rank(toy, names, cpu, tmp_path, n_train=1)
    lonely = dataclasses.replace(toy, train_labels=np.zeros_like(toy.train_labels))
    with pytest.raises(DataError, match="two classes"):
        rank(lonely, names, cpu, tmp_path)
    for task in toy_kinds.values():
        if task.kind.form != "classes":
            with pytest.raises(UsageError, match="text-pair"):
                rank(task, names, cpu, tmp_path)
    with pytest.raises(UsageError, match="either your own file"):
        harness.rank_backbones(names)
    with pytest.raises(UsageError, match="task 'sst3'"):
        harness.rank_backbones(names, task="sst3")


def test_a_text_pair_task_can_be_ranked(
    tiny: BackboneFiles, toy_kinds: dict[str, Task], cpu: Device, tmp_path: Path
) -> None:
    pairs = next(task for task in toy_kinds.values() if task.kind.name == "text-pair")
    found = rank(pairs, [str(tiny.folder)], cpu, tmp_path, n_rows=32)
    assert found.best is not None


def test_the_command_prints_a_table_of_80_columns_and_the_next_command(
    folders: dict[str, str], tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy_table(tmp_path / "sst2.csv", 200)
    names = ",".join((folders["bert"], folders["llama"], "bert-base-like", "no/such"))
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    asked = ("--data", "sst2.csv", "--n-train", "64", "--rows", "48", "--backbones", names)
    shown = run_cli("rank-backbones", *asked, cwd=tmp_path, COLUMNS="80")
    tables = [line for line in shown.splitlines() if re.match(r" (bert|llama|backbone|─)", line)]
    assert tables
    assert max(map(len, tables)) <= 80
    assert "has probably seen this task: its model card lists SetFit/sst2" in shown
    first = re.search(r"local:(\w+) comes first", shown)
    assert first is not None
    folder = folders[first.group(1)]
    assert f"Next: harness choose --data sst2.csv --backbone {folder} " in shown
    lines = [line for line in shown.splitlines() if not line.startswith(" ") and "comes first" not in line]
    kept = "\n".join(lines).replace(folder, "BEST").replace(str(tmp_path), "FOLDER")
    snapshot("rank-backbones.txt", re.sub(r" on [^:]*threads?:", " on DEVICE:", kept))

    code, out, _ = run_apart("rank-backbones", *asked, "--json", cwd=tmp_path)
    answer = json.loads(out)
    assert code == 0
    assert answer["best"] in ("local:bert", "local:llama")
    assert answer["n_train"] == 64
    assert [entry["status"] for entry in answer["backbones"]] == ["ranked", "ranked", "costs only", "failed"]
    code, _, _ = run_apart("rank-backbones", "--data", "sst2.csv", "--backbones", "no/such", cwd=tmp_path)
    assert code == 1


def test_data_frames_and_shipped_tasks_can_be_ranked(tiny: BackboneFiles, tmp_path: Path, mirror: Path) -> None:
    write_toy_table(tmp_path / "toy.csv", 120)
    found = harness.rank_backbones(
        [str(tiny.folder)], data=pd.read_csv(tmp_path / "toy.csv"), rows=32, device="cpu", progress=False
    )
    assert found.best is not None
    assert found.n_train == 90  # a quarter of each class is held out
    on_task = harness.rank_backbones(str(tiny.folder), task="trec", n_train=256, rows=64, mirror=mirror, progress=False)
    assert on_task.task == "trec"
    assert locate_backbone(str(tiny.folder)).name == on_task.backbones[0].backbone
