"""The transformer of a saved model: its own trained weights, or the unchanged backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.backbones import BackboneFiles
from harness.methods import AGAIN, Tensors
from harness.saved.layout import IN_MODEL, TRANSFORMER, WEIGHTS, Description
from harness.support import HarnessError, UsageError, reason_of

if TYPE_CHECKING:
    from harness.backbones import Backbone

_TRAINED_IN = "F32"
"""Type of every trained parameter, as safetensors names it; the backbone's files may have another."""

_HALF = ("float16", "bfloat16")


def load_transformer(folder: Path, described: Description) -> tuple[Backbone | None, Tensors]:
    """Return a saved model's transformer, and those of its parameters that the method may have trained.

    Args:
        folder: folder of the saved model; its files have been checked (`files.check_files`).
        described: its description.

    Returns:
        The backbone, None for methods without one; and, where the method trained the backbone's own weights, its
        float32 parameters by their names in an adapted model.

    Raises:
        UsageError: it is another backbone, it cannot be loaded, or a weight is missing or not finite.
    """
    from harness.backbones import load_backbone, locate_backbone

    if described.backbone is None:
        return None, {}
    inside = (folder / TRANSFORMER).absolute()
    try:
        files = locate_backbone(str(inside))
        expected = described.transformer or (None if described.merged else described.weights)
        if expected is not None and files.fingerprint != expected:
            what = "transformer that was saved" if described.merged else f"backbone '{described.backbone}'"
            raise UsageError(
                f"'{inside}' is not the {what}: its fingerprint is {files.fingerprint[:12]}..., expected "
                f"{expected[:12]}... {AGAIN}"
            )
        merged = _check_merged(inside, described.prefix) if described.merged else {}
        backbone = load_backbone(files)
    except HarnessError as error:
        raise UsageError(f"'{folder}': {error}") from None
    except Exception as error:  # damaged files can break transformers and tokenizers anywhere
        raise UsageError(f"'{inside}' cannot be loaded ({reason_of(error)}). {AGAIN}") from error
    return backbone, merged


def _check_merged(inside: Path, prefix: str) -> Tensors:
    """Return the float32 tensors of the one file of weights, by their names in an adapted model."""
    from safetensors import safe_open

    path = inside / WEIGHTS
    if [found.name for found in inside.glob("*.safetensors")] != [WEIGHTS]:
        raise UsageError(f"'{inside}' should hold one file of weights, {WEIGHTS}. {AGAIN}")
    tensors: Tensors = {}
    with safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - a file is no mapping
            if name.startswith(prefix) and opened.get_slice(name).get_dtype() == _TRAINED_IN:
                tensors[IN_MODEL + name.removeprefix(prefix)] = opened.get_tensor(name).numpy()
    return tensors


def write_transformer(files: BackboneFiles, target: Path, tensors: Tensors, prefix: str) -> str:
    """Write a backbone's files, with trained parameters in place of the original ones; return their fingerprint.

    Trained parameters are written in float32 whatever type the backbone's weights have, so that nothing is rounded.
    Where those have 16 bits, the configuration is changed to float32, so that transformers rounds nothing either.

    Args:
        files: files of the backbone.
        target: folder to write to.
        tensors: trained parameters by their names in an adapted model; empty for a plain copy.
        prefix: prefix of their names in the backbone's file.

    Raises:
        UsageError: the copy would be read otherwise than the backbone, with another pooling for example.
    """
    from harness.backbones import locate_backbone

    _copy(files, target, tensors, prefix)
    written = locate_backbone(str(target.absolute()))
    if (written.architecture, written.pooling) != (files.architecture, files.pooling):
        raise UsageError(
            f"Backbone '{files.name}' is read as {files.architecture} and pooled by {files.pooling}; its copy would be "
            f"read as {written.architecture} and pooled by {written.pooling}. Such a model cannot be saved."
        )
    return written.fingerprint


def _copy(files: BackboneFiles, target: Path, tensors: Tensors, prefix: str) -> None:
    for name, path in files.parts().items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (tensors and name == WEIGHTS):
            shutil.copyfile(path, copy)
    trained = {prefix + name.removeprefix(IN_MODEL): v for name, v in tensors.items() if name.startswith(IN_MODEL)}
    if not trained:
        return
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(files.folder / WEIGHTS)
    for name, value in trained.items():
        weights[name] = torch.from_numpy(value)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, target / WEIGHTS, metadata={"format": "pt"}
    )
    config_path = target / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    half = [key for key in ("dtype", "torch_dtype") if config.get(key) in _HALF]
    if half:
        config_path.write_text(json.dumps({**config, **dict.fromkeys(half, "float32")}, indent=2), encoding="utf-8")


def check_written(folder: Path, described: Description, tensors: Tensors) -> None:
    """Read the trained parameters back from `transformer/` and refuse any that differs from the fitted one.

    Args:
        folder: folder of the saved model.
        described: its description.
        tensors: tensors of the fitted method that are kept in `transformer/`.

    Raises:
        UsageError: one is missing, or differs.
    """
    written = _check_merged(folder / TRANSFORMER, described.prefix)
    for name, value in tensors.items():
        if name not in written or not np.array_equal(written[name], value):
            raise UsageError(f"The tensor '{name}' was not written to {TRANSFORMER}/{WEIGHTS} as it was fitted.")
