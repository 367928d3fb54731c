"""Backbones are found in the right order, verified by content, and refused with advice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.backbones.locate import DEFAULT_BACKBONE, BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.support.errors import MissingResourceError, UsageError


def test_the_embedded_backbone_is_what_it_says(minilm: BackboneFiles) -> None:
    assert minilm.name == DEFAULT_BACKBONE
    assert minilm.architecture == "encoder"
    assert minilm.pooling == "mean"
    assert minilm.origin == "installed package"
    backbone = load_backbone(minilm)
    assert backbone.hidden_size == 384
    assert backbone.max_length == 512
    pooler = 384 * 384 + 384
    assert sum(value.numel() for value in backbone.pristine.parameters()) == 22_713_216 - pooler


@pytest.mark.slow
def test_the_embedded_backbone_embeds_as_sentence_transformers_does(minilm: BackboneFiles) -> None:
    from sentence_transformers import SentenceTransformer

    from harness.backbones.pooling import pool

    texts = ["a stirring , funny film", "no movement , no yuks , not much of anything . " * 3]
    theirs = SentenceTransformer(str(minilm.folder), device="cpu").encode(texts)
    backbone = load_backbone(minilm)
    inputs = backbone.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=128)
    with torch.no_grad():
        hidden = backbone.pristine(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    ours = torch.nn.functional.normalize(pool(hidden, inputs["attention_mask"], minilm.pooling), dim=1)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_other_weights_under_the_pinned_name_are_refused(tmp_path: Path, tiny: BackboneFiles) -> None:
    folder = tmp_path / "models" / DEFAULT_BACKBONE
    shutil.copytree(tiny.folder, folder)
    with pytest.raises(UsageError, match="expected 53aa51172d142c89"):
        locate_backbone(DEFAULT_BACKBONE, tmp_path)


def test_the_mirror_comes_first(tmp_path: Path, tiny: BackboneFiles) -> None:
    shutil.copytree(tiny.folder, tmp_path / "models" / "some-lab" / "tiny")
    found = locate_backbone("some-lab/tiny", tmp_path)
    assert found.name == "some-lab/tiny"
    assert found.origin == "mirror"
    assert found.fingerprint == tiny.fingerprint


def test_nowhere_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError) as raised:
        locate_backbone("some-lab/absent", tmp_path)
    message = str(raised.value)
    assert "some-lab/absent" in message
    assert "--mirror DIR" in message
    assert str(tmp_path / "models" / "some-lab" / "absent") in message
    assert "@REVISION" in message


def test_offline_with_a_revision(tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match="HARNESS_MIRROR"):
        locate_backbone("some-lab/absent@0123abc", tmp_path)


def test_pickled_weights_are_never_loaded(tmp_path: Path, tiny: BackboneFiles) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny.folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickled weights are never loaded"):
        locate_backbone(str(folder))


def test_a_folder_that_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match=r"no config\.json"):
        locate_backbone(str(tmp_path))


def test_the_fingerprint_follows_what_matters(tmp_path: Path, tiny: BackboneFiles) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny.folder, folder)
    assert locate_backbone(str(folder)).fingerprint == tiny.fingerprint
    (folder / "README.md").write_text("notes")
    assert locate_backbone(str(folder)).fingerprint == tiny.fingerprint
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    changed = locate_backbone(str(folder))
    assert changed.fingerprint != tiny.fingerprint
    assert changed.pooling == "cls"


def test_a_fresh_copy_shares_nothing(tiny: BackboneFiles) -> None:
    backbone = load_backbone(tiny)
    fresh = backbone.fresh(torch.device("cpu"))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    assert all(
        bool(value.abs().sum() > 0)
        for name, value in backbone.pristine.named_parameters()
        if "LayerNorm.bias" not in name and "dense.bias" not in name and "bias" not in name
    )
    assert not any(value.requires_grad for value in backbone.pristine.parameters())


def test_a_causal_model_of_the_mirror_pools_its_last_token(mirror: Path) -> None:
    files = locate_backbone("karpathy/tinyllamas-stories260K", mirror)
    assert files.architecture == "causal"
    assert files.pooling == "last"
    assert load_backbone(files).tokenizer.pad_token_id is not None
