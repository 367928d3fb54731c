"""Pooling is read from every form in which sentence-transformers declares it, and computed as it computes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.backbones.pooling import Pooling, pool
from harness.features.layers import pool_layer
from harness.support.errors import UsageError

MODES: dict[str, tuple[str, Pooling]] = {
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "cls": ("pooling_mode_cls_token", "cls"),
    "max": ("pooling_mode_max_tokens", "max"),
    "lasttoken": ("pooling_mode_lasttoken", "last"),
    "weightedmean": ("pooling_mode_weightedmean_tokens", "weighted-mean"),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", "mean-sqrt-len"),
}
"""The names of sentence-transformers, new and old, and the harness's."""

TEXTS = ["my refund", "a crash with the screen and the update", "parcel"]


def by_hand(states: np.ndarray, mode: str) -> np.ndarray:
    """Pool the states of real tokens, shape (tokens, width), as the definitions say."""
    n = len(states)
    weights = np.arange(1, n + 1)[:, None]
    return {
        "mean": states.sum(0) / n,
        "cls": states[0],
        "last": states[-1],
        "max": states.max(0),
        "weighted-mean": (states * weights).sum(0) / weights.sum(),
        "mean-sqrt-len": states.sum(0) / np.sqrt(n),
    }[mode]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", [ours for _, ours in MODES.values()])
def test_pooling_is_that_of_its_definition(mode: Pooling, side: str) -> None:
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=(n, 5)) - 3 for n in (1, 4, 7)]  # below zero: padding must not be the maximum
    hidden, mask = np.full((3, 9, 5), 100.0), np.zeros((3, 9), dtype=np.int64)
    for at, row in enumerate(rows):
        places = slice(9 - len(row), 9) if side == "left" else slice(0, len(row))
        hidden[at, places], mask[at, places] = row, 1
    found = pool(torch.from_numpy(hidden), torch.from_numpy(mask), mode).numpy()
    np.testing.assert_allclose(found, [by_hand(row, mode) for row in rows], rtol=1e-5)


def test_the_average_layer_is_pooled_by_the_maximum_of_averaged_states() -> None:
    class Outputs:
        generator = torch.Generator().manual_seed(0)
        last_hidden_state = torch.randn(2, 3, 4, generator=generator)
        hidden_states = (torch.zeros(2, 3, 4), torch.randn(2, 3, 4, generator=generator), torch.zeros(2, 3, 4))

    found = pool_layer(Outputs, torch.ones(2, 3, dtype=torch.long), "max", "average")
    expected = (Outputs.hidden_states[1] + Outputs.last_hidden_state).div(2).amax(1)
    torch.testing.assert_close(found, expected)


def declared(source: BackboneFiles, folder: Path, content: dict[str, Any]) -> BackboneFiles:
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content))
    return locate_backbone(str(folder))


@pytest.mark.parametrize("name", list(MODES))
def test_both_forms_of_the_declaration_are_read(name: str, tiny: BackboneFiles, tmp_path: Path) -> None:
    flag, ours = MODES[name]
    old = {other: other == flag for other, _ in MODES.values()}
    for at, content in enumerate(
        (
            old,
            {flag: True},
            {"pooling_mode": name},
            {"pooling_mode": [name]},
            {**dict.fromkeys(old, True), "pooling_mode": name},
        )
    ):
        assert declared(tiny, tmp_path / str(at), content).pooling == ours


def test_what_cannot_be_pooled_is_refused(tiny: BackboneFiles, tmp_path: Path) -> None:
    for content, message in (
        ({"pooling_mode": ["cls", "mean"]}, r"concatenates 2 kinds of pooling \(cls, mean\)"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, r"concatenates 2 kinds .*\(cls, max\)"),
        ({"pooling_mode": "median"}, "unknown pooling_mode 'median'"),
        ({"pooling_mode": 1}, "pooling_mode is 1"),
        ({"pooling_mode_mean_tokens": "yes"}, "expected true or false"),
    ):
        with pytest.raises(UsageError, match=message):
            declared(tiny, tmp_path / "b", content)


def test_fingerprints_change_only_where_version_0_1_pooled_otherwise(tiny: BackboneFiles, tmp_path: Path) -> None:
    from hashlib import sha256

    def as_before(files: BackboneFiles) -> str:
        lines = [f"{name} {sha256(path.read_bytes()).hexdigest()}" for name, path in files.parts().items()]
        return sha256("\n".join(sorted(lines)).encode()).hexdigest()

    known = declared(tiny, tmp_path / "a", {"pooling_mode_cls_token": True})
    new = declared(tiny, tmp_path / "b", {"pooling_mode": "cls"})
    assert known.fingerprint == as_before(known)
    assert new.fingerprint != as_before(new)


def as_old_layout(source: Path, target: Path, *modules: str, pooling: str = "1_Pooling") -> Path:
    """Lay a backbone out as old versions of sentence-transformers did: the transformer in a folder of its own."""
    shutil.copytree(source, target / "0_Transformer")
    listed = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    for at, name in enumerate(modules, 1):
        path = pooling if name == "Pooling" else f"{at}_{name}"
        (target / path).mkdir()
        listed.append({"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"})
        if name == "Pooling":
            content = {"word_embedding_dimension": 32, "pooling_mode_max_tokens": True}
            (target / path / "config.json").write_text(json.dumps(content))
    (target / "modules.json").write_text(json.dumps(listed))
    return target


def test_old_layouts_are_read(tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = as_old_layout(tiny.folder, tmp_path / "old", "Pooling", "Dense", "Normalize", pooling="own")
    files = locate_backbone(str(folder))
    assert (files.name, files.pooling, files.folder) == ("local:old", "max", (folder / "0_Transformer").resolve())
    assert locate_backbone(str(files.folder)).fingerprint == files.fingerprint
    expected = load_backbone(tiny).pristine.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_backbone(files).pristine.state_dict().items())
    # A copy in the usual layout is the same backbone.
    for inside, path in files.parts().items():
        copy = tmp_path / "copy" / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    copied = locate_backbone(str(tmp_path / "copy"))
    assert (copied.fingerprint, copied.pooling) == (files.fingerprint, "max")


def test_an_old_layout_without_modules_json(tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = as_old_layout(tiny.folder, tmp_path / "old", "Pooling")
    (folder / "modules.json").unlink()
    assert locate_backbone(str(folder)).pooling == "max"


def test_modules_that_are_not_read_are_refused(tiny: BackboneFiles, tmp_path: Path) -> None:
    folder = as_old_layout(tiny.folder, tmp_path / "a", "WordWeights", "Pooling")
    with pytest.raises(UsageError, match="has WordWeights behind the transformer"):
        locate_backbone(str(folder))
    listed = json.loads((folder / "modules.json").read_text())
    for changed, message in (
        ([{**listed[0], "type": "sentence_transformers.models.BoW"}], "begins with BoW"),
        ([{**listed[0], "path": "../a"}], "expected a folder inside"),
        ([{**listed[0], "path": "absent"}], "which has no config.json"),
        ([listed[0], {**listed[2], "path": "absent"}], "names 'absent/config.json', which is missing"),
        ({}, "is not a list of modules"),
    ):
        (folder / "modules.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=message):
            locate_backbone(str(folder))


def embed(files: BackboneFiles, texts: list[str], side: str) -> torch.Tensor:
    backbone = load_backbone(files)
    inputs = backbone.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
    with torch.no_grad():
        outputs = backbone.pristine(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return pool(outputs.last_hidden_state, inputs["attention_mask"], files.pooling)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", list(MODES))
@pytest.mark.parametrize("architecture", ["encoder", "causal"])
def test_embeddings_are_those_of_sentence_transformers(
    architecture: str, name: str, side: str, tiny_backbones: dict[str, BackboneFiles], tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling as Theirs
    from sentence_transformers.sentence_transformer.modules import Transformer

    words = Transformer(str(tiny_backbones[architecture].folder))
    words.tokenizer.padding_side = side
    model = st.SentenceTransformer(modules=[words, Theirs(32, name)], device="cpu")
    model.save(str(tmp_path / "b"))
    files = locate_backbone(str(tmp_path / "b"))
    assert files.pooling == MODES[name][1]
    np.testing.assert_allclose(embed(files, TEXTS, side).numpy(), model.encode(TEXTS), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_small_encoder_of_the_mirror_embeds_as_sentence_transformers_does(mirror: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    files = locate_backbone("sentence-transformers/paraphrase-MiniLM-L3-v2", mirror)
    texts = ["a stirring , funny film", "no movement , no yuks , not much of anything . " * 3]
    modules = st.sentence_transformer.modules
    theirs = st.SentenceTransformer(
        modules=[modules.Transformer(str(files.folder)), modules.Pooling(384, "mean")], device="cpu"
    ).float()  # its file is of float16
    np.testing.assert_allclose(embed(files, texts, "right").numpy(), theirs.encode(texts), atol=1e-5)
