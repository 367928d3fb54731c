"""Saved ensembles: they predict the weighted mean of their members, and nothing in their folder can be swapped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness import load_model
from harness.api.predictions import predict_file
from harness.backbones.locate import BackboneFiles
from harness.features.encode import FeatureStore
from harness.measure.device import Device
from harness.saved.ensemble import write_ensemble
from harness.saved.layout import card, read_description
from harness.support.errors import UsageError
from harness.tasks.base import Task
from tests.toys import save_one

MEMBERS = ("tfidf", "linear-probe", "knn", "full")
WEIGHTS = (0.4, 0.3, 0.2, 0.1)
TEMPERATURES = (1.0, 2.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def members(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    for name in MEMBERS:
        save_one(name, toy, tiny, cpu, folder / name)
    return [folder / name for name in MEMBERS]


@pytest.fixture(scope="module")
def ensemble(members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_ensemble(folder, list(zip(members, WEIGHTS, TEMPERATURES, strict=True)))
    return folder


def test_it_predicts_the_weighted_mean_of_its_members(toy: Task, ensemble: Path, members: list[Path]) -> None:
    texts = list(toy.test.texts)
    alone = [load_model(path, "cpu").probabilities(texts).astype(np.float64) for path in members]
    powers = [np.clip(p, 1e-6, 1) ** (1 / t) for p, t in zip(alone, TEMPERATURES, strict=True)]
    expected = sum(w * p / p.sum(axis=1, keepdims=True) for w, p in zip(WEIGHTS, powers, strict=True))
    model = load_model(ensemble, "cpu")
    assert np.allclose(model.probabilities(texts), expected, atol=1e-6)
    assert model.predict(texts) == [toy.label_names[k] for k in expected.argmax(axis=1)]
    assert model.labels == toy.label_names
    assert model.probabilities([]).shape == (0, len(toy.label_names))


def test_a_folder_that_is_moved_still_predicts_and_each_part_is_a_model(
    toy: Task, ensemble: Path, members: list[Path], tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(ensemble, moved)
    texts = list(toy.test.texts[:3])
    assert np.array_equal(
        load_model(moved, "cpu").probabilities(texts), load_model(ensemble, "cpu").probabilities(texts)
    )
    part = moved / "members" / "1-tfidf"
    assert np.array_equal(
        load_model(part, "cpu").probabilities(texts), load_model(members[0], "cpu").probabilities(texts)
    )


def test_members_on_one_backbone_encode_the_texts_once(
    toy: Task, ensemble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = FeatureStore._encode

    def noted(self: FeatureStore, table: object, batches: list[np.ndarray], *rest: object) -> object:
        encoded.append(sum(len(batch) for batch in batches))
        return encode(self, table, batches, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureStore, "_encode", noted)
    load_model(ensemble, "cpu").probabilities(list(toy.test.texts[:5]))
    assert sum(encoded) == 5  # linear-probe and knn share them; full has a transformer of its own


def test_a_file_of_texts_is_predicted(toy: Task, ensemble: Path, tmp_path: Path) -> None:
    import pandas as pd

    data = tmp_path / "new.csv"
    pd.DataFrame({"text": toy.test.texts[:4]}).to_csv(data, index=False)
    found = predict_file(ensemble, data, tmp_path / "out.csv", probabilities=True, top=2)
    assert found.n_predicted == 4
    assert found.method == "ensemble of tfidf, linear-probe, knn, full"
    written = pd.read_csv(tmp_path / "out.csv")
    assert {"prediction", "probability", "top_2"} <= set(written.columns)
    assert np.allclose(written[list(found.class_columns.values())].sum(axis=1), 1, atol=1e-4)


def test_its_card_names_members_and_weights(ensemble: Path) -> None:
    said = card(read_description(ensemble), {"score": "accuracy 0.9"})
    assert "tfidf (0.40), linear-probe (0.30), knn (0.20), full (0.10)" in said
    assert "`members/4-full/`" in said


def damage_weight(folder: Path) -> None:
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["members"][0]["weight"], content["members"][1]["weight"] = 0.3, 0.4
    path.write_text(json.dumps(content))


def damage_tensor(folder: Path) -> None:
    path = folder / "members" / "4-full" / "adapted.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)


def damage_member(folder: Path) -> None:
    shutil.rmtree(folder / "members" / "2-linear-probe")
    shutil.copytree(folder / "members" / "3-knn", folder / "members" / "2-linear-probe")


def damage_none_of_it(folder: Path) -> None:
    shutil.rmtree(folder / "members" / "1-tfidf")


def damage_by_one_more(folder: Path) -> None:
    (folder / "members" / "5-more").mkdir()


def damage_by_link(folder: Path) -> None:
    shutil.move(folder / "members" / "1-tfidf", folder.parent / "away")
    (folder / "members" / "1-tfidf").symlink_to(folder.parent / "away")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_weight, "changed after it was saved"),
        (damage_tensor, "adapted.safetensors' is not the file that was written"),
        (damage_member, "2-linear-probe' is not the model that was saved with the ensemble"),
        (damage_none_of_it, "lacks members/1-tfidf"),
        (damage_by_one_more, "holds members/5-more, which is not part"),
        (damage_by_link, "leads out of the folder"),
    ],
)
def test_damage_is_refused(damage: object, said: str, ensemble: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ensemble, folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UsageError, match=said):
        load_model(folder, "cpu")


def test_an_ensemble_of_an_ensemble_and_of_other_labels_is_refused(
    ensemble: Path, members: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is an ensemble"):
        write_ensemble(tmp_path / "a", [(ensemble, 0.5, 1.0), (members[0], 0.5, 1.0)])
    assert not (tmp_path / "a").exists()


def test_a_newer_format_says_so(ensemble: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ensemble, folder)
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 4}))
    with pytest.raises(UsageError, match="reads formats 1 to 3: a newer one may have saved"):
        load_model(folder)
