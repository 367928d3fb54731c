"""Write a fitted method into a folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones.locate import READ
from harness.methods import artifact
from harness.methods.base import Bench, Fitted, Method
from harness.plan import PlannedCell
from harness.saved.layout import ADAPTER, DESCRIPTION, IN_MODEL, TRANSFORMER, WEIGHTS, Description
from harness.tasks.base import Task

if TYPE_CHECKING:
    from harness.backbones.locate import BackboneFiles


def write_model(folder: Path, fitted: Fitted, method: Method, planned: PlannedCell, task: Task, bench: Bench) -> None:
    """Write everything that predicting again needs; the folder appears whole or not at all.

    Besides the harness's own files there is `transformer/`, as transformers saves one, with the trained weights where
    the method trains its own; and `adapter/`, as peft saves one, where peft added what was trained.

    Args:
        folder: must not exist, or be empty.
        fitted: what is kept.
        method: as it was fitted: its settings may have been tuned.
        planned: the cell that it was fitted in.
        task: its task.
        bench: of the cell.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as inside:
        made = Path(inside) / "model"
        made.mkdir()
        _write(made, fitted, method, planned, task, bench)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)


def _write(folder: Path, fitted: Fitted, method: Method, planned: PlannedCell, task: Task, bench: Bench) -> None:
    merged, prefix = False, ""
    tensors = fitted.tensors()
    if bench.backbone is not None:
        transformer = getattr(getattr(fitted, "model", None), "transformer", None)
        added = hasattr(transformer, "peft_config")
        found = None if added else _prefix(tensors, bench.backbone.files)
        merged, prefix = found is not None, found or ""
        _copy_backbone(bench.backbone.files, folder / TRANSFORMER, tensors if merged else {}, prefix)
        if added:
            transformer.save_pretrained(folder / ADAPTER)  # type: ignore[union-attr]
    left_out = {name for name in tensors if merged and name.startswith(IN_MODEL)}
    artifact.save(fitted, method, folder, without=left_out)
    described = Description(
        kind=task.kind.name,
        task=task.name,
        labels=task.label_names,
        label_words=task.label_words,
        max_length=task.spec.max_length,
        truncation_side=task.spec.truncation_side,
        characters=task.spec.characters,
        method=planned.method_label,
        backbone=planned.cell.backbone,
        weights=planned.cell.weights,
        merged=merged,
        prefix=prefix,
        seed=planned.cell.seed,
    )
    (folder / DESCRIPTION).write_text(described.model_dump_json(indent=1), encoding="utf-8")


def _prefix(tensors: dict[str, Any], files: BackboneFiles) -> str | None:
    """What names of trained parameters begin with in the backbone's one file of weights; None where they are not in it.

    The base of a language model is saved under `model.`, say.
    """
    from safetensors import safe_open

    trained = [name.removeprefix(IN_MODEL) for name in tensors if name.startswith(IN_MODEL)]
    path = files.folder / WEIGHTS
    if not trained or not path.is_file() or len(list(files.folder.glob("*.safetensors"))) > 1:
        return None
    with safe_open(path, framework="numpy") as opened:
        there = set(opened.keys())
    candidates = {"", *(name[: -len(trained[0])] for name in there if name.endswith(f".{trained[0]}"))}
    return next((p for p in sorted(candidates) if all(p + name in there for name in trained)), None)


def _copy_backbone(files: BackboneFiles, target: Path, tensors: dict[str, Any], prefix: str) -> None:
    """The backbone's files; those of `tensors` that are the transformer's in the places of what they were."""
    for pattern in READ:
        for path in files.folder.glob(pattern):
            copy = target / path.relative_to(files.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not (tensors and path.name == WEIGHTS):
                shutil.copyfile(path, copy)
    if not tensors:
        return
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(files.folder / WEIGHTS)
    for name, value in tensors.items():
        if name.startswith(IN_MODEL):
            weights[prefix + name.removeprefix(IN_MODEL)] = torch.from_numpy(value)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, target / WEIGHTS, metadata={"format": "pt"}
    )
