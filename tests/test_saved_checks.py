"""A saved model predicts what was fitted, on backbones of any type, or says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import load_model
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.configure import parse_methods
from harness.support.errors import HarnessError, UsageError
from harness.tasks.base import Task
from tests import damage
from tests.toys import make_bench, plan_one, run_one, save_one

TYPES = ("bfloat16", "float16")


def in_type(files: BackboneFiles, dtype: str, folder: Path) -> BackboneFiles:
    """Return a copy of a backbone with weights of another type."""
    import torch

    shutil.copytree(files.folder, folder)
    damage.rewrite_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({name: value.to(getattr(torch, dtype)) for name, value in tensors.items()}),
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": dtype}))
    return locate_backbone(str(folder))


@pytest.fixture(scope="module")
def halves(tiny: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BackboneFiles]:
    folder = tmp_path_factory.mktemp("halves")
    return {dtype: in_type(tiny, dtype, folder / dtype) for dtype in TYPES}


@pytest.mark.parametrize("is_format_1", [False, True], ids=["", "format 1"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("last-layers", "bfloat16"), ("full", "float16"), ("lora", "bfloat16"), ("linear-probe", "float16")],
)
def test_a_backbone_of_16_bits_is_saved_and_predicts_the_same(
    name: str, dtype: str, is_format_1: bool, halves: dict[str, BackboneFiles], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    check_round_trip(name, halves[dtype], toy, cpu, tmp_path / "model", is_format_1=is_format_1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [name for name in methods.names() if name not in ("majority", "tfidf")])
def test_every_method_saves_on_16_bits(
    name: str, dtype: str, halves: dict[str, BackboneFiles], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    if plan_one(toy, halves[dtype], parse_methods([name])[0]).unsupported is None:
        check_round_trip(name, halves[dtype], toy, cpu, tmp_path / "model")


def check_round_trip(
    name: str, files: BackboneFiles, task: Task, device: Device, folder: Path, *, is_format_1: bool = False
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel

    record = save_one(name, task, files, device, folder)
    if is_format_1:
        damage.make_format_1(folder)
    found = load_model(folder, "cpu").probabilities(task.test.texts)
    assert record.predictions is not None
    assert record.predictions.confidence is not None
    np.testing.assert_array_equal(found.argmax(axis=1), record.predictions.predicted)
    np.testing.assert_allclose(found.max(axis=1), record.predictions.confidence, atol=1e-3)
    if json.loads((folder / "model.json").read_text())["merged"]:  # as transformers reads it: nothing is rounded
        written = load_file(folder / "transformer" / "model.safetensors")
        for key, value in AutoModel.from_pretrained(folder / "transformer").named_parameters():
            if "pooler" not in key:
                assert (value == written[key]).all(), key


# ---- what is refused


@pytest.fixture(scope="module")
def saved(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    for name in ("full", "lora", "random-forest-probe[n_trees=5]", "gradual-unfreezing"):
        save_one(name, toy, tiny, cpu, folder / name.partition("[")[0])
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["full", "lora", "gradual-unfreezing"])
def test_a_missing_head_is_refused_by_name(name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved[name], tmp_path / "model"))
    damage.make_format_1(copy)
    damage.rewrite_tensors(copy / "adapted.safetensors", lambda tensors: tensors.pop("head.1.weight"))
    with pytest.raises(UsageError, match=r"lacks the tensor 'head\.1\.weight'; expected float32 of shape \(3, 32\)"):
        load_model(copy, "cpu")


def test_another_backbone_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    import torch

    copy = Path(shutil.copytree(saved["lora"], tmp_path / "model"))
    damage.make_format_1(copy)
    damage.rewrite_tensors(
        copy / "transformer" / "model.safetensors",
        lambda tensors: tensors.update({name: torch.zeros_like(value) for name, value in tensors.items()}),
    )
    with pytest.raises(UsageError, match="is not the backbone 'local:tiny-bert': its fingerprint"):
        load_model(copy, "cpu")


@pytest.mark.parametrize("name", ["model.json", "adapted.json", "adapted.safetensors", "transformer/tokenizer.json"])
def test_any_changed_byte_is_refused_by_name(name: str, saved: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved["full"], tmp_path / "model"))
    (copy / name).write_bytes((copy / name).read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(UsageError, match=name):
        load_model(copy, "cpu")


def test_a_forest_of_a_type_that_is_not_trusted_executes_nothing(saved: dict[str, Path], tmp_path: Path) -> None:
    import skops.io
    from safetensors.numpy import save_file

    copy = Path(shutil.copytree(saved["random-forest-probe"], tmp_path / "model"))
    packed = skops.io.dumps(_Touches(tmp_path / "executed"))
    save_file({"forest": np.frombuffer(packed, dtype=np.uint8)}, copy / "adapted.safetensors")
    damage.remake_manifest(copy)
    with pytest.raises(UsageError, match="The saved forest cannot be read"):
        load_model(copy, "cpu")
    assert not (tmp_path / "executed").exists()


class _Touches:
    """An object that makes a file when it is unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["path"]).write_text("executed")


def test_what_was_not_written_as_fitted_leaves_no_folder(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    save = safetensors.torch.save_file

    def rounded(tensors: dict[str, Any], *given: Any, **more: Any) -> None:
        save({name: value.bfloat16().to(value.dtype) for name, value in tensors.items()}, *given, **more)

    monkeypatch.setattr(safetensors.torch, "save_file", rounded)
    with pytest.raises(AssertionError, match=r"was not written to transformer/model\.safetensors as it was fitted"):
        save_one("full", toy, tiny, cpu, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- predictions


def test_predictions_that_are_not_finite_are_errors(saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(saved["full"], "cpu")
    broken = np.array([[np.nan, 0.5, 0.5]], dtype=np.float32)
    monkeypatch.setattr(model._members[0].fitted, "predict", lambda *_: broken)
    for ask in (model.predict, model.probabilities):
        with pytest.raises(HarnessError, match="probabilities that are not finite"):
            ask(["a text"])


def test_texts_that_are_none_are_refused_by_index(saved: dict[str, Path]) -> None:
    model = load_model(saved["full"], "cpu")
    with pytest.raises(UsageError, match=r"text 1 is blank, text 2 is not valid Unicode .*, text 3 is missing"):
        model.predict(["a text", " \n", "half \ud83d", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"\(9 such texts in all\)"):
        model.probabilities([""] * 9)
    assert model.predict(text for text in ["a text"]) == model.predict(np.array(["a text"]))


def test_features_that_are_not_finite_fail_the_cell(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vote of neighbours or of trees is finite whatever the features are."""
    from harness.features.encode import FeatureStore

    pooled = FeatureStore.pooled

    def broken(*given: Any, **more: Any) -> Any:
        encoded = pooled(*given, **more)
        values = encoded.values.copy()
        values[-1, 0] = np.nan
        return dataclasses.replace(encoded, values=values)

    monkeypatch.setattr(FeatureStore, "pooled", broken)
    for text in ("knn[weights=uniform]", "random-forest-probe[n_trees=3]"):
        record = run_one(toy, tiny, parse_methods([text])[0], cpu)
        assert record.status == "failed"
        assert "features that are not finite" in str(record.error)


def test_scores_of_spans_and_tokens_that_are_not_finite_are_errors(
    toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, cpu: Device
) -> None:
    import torch

    from harness.training.forms.spans import window_scores
    from harness.training.generative import GenerativeModel
    from harness.training.writing import write

    class Broken(torch.nn.Module):
        def forward(self, ids: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return torch.full((len(ids), 2, ids.shape[1]), float("nan"))

    rows = [np.array([2, 5, 6], dtype=np.int32)]
    with pytest.raises(FloatingPointError, match="not finite"):
        window_scores(Broken(), rows, 0, cpu, "fp32")  # type: ignore[arg-type]
    task = next(task for task in toy_kinds.values() if task.reply is not None and not task.reply.wants_likelihood)
    bench = make_bench(task, tiny_llama, cpu)
    model: Any = bench.some_backbone.fresh_language_model(torch.device("cpu"))
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    assert task.reply is not None
    reply = dataclasses.replace(task.reply, max_new_tokens=2, stop=())
    with pytest.raises(FloatingPointError, match="not a number"):
        write(GenerativeModel(model, is_causal=True), rows, bench.some_backbone.tokenizer, reply, cpu, "fp32")
