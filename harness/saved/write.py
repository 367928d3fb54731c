"""Write a fitted method into a folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.methods import (
    ARTIFACT_SETTINGS,
    ARTIFACT_TENSORS,
    Bench,
    Fitted,
    Method,
    Tensors,
    read_artifact,
    save_adapter,
    save_artifact,
)
from harness.planning import PlannedCell
from harness.saved.files import check_files, list_files
from harness.saved.layout import (
    ADAPTER,
    DESCRIPTION,
    IN_MODEL,
    TRANSFORMER,
    WEIGHTS,
    SavedReply,
    describe,
    read_single,
)
from harness.saved.model import kind_of_saved
from harness.saved.served import saved_endpoint
from harness.saved.transformer import check_written, write_transformer
from harness.support import HarnessError, UsageError
from harness.tasks import Task, prompt_by_roles

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles


def write_model(folder: Path, fitted: Fitted, method: Method, planned: PlannedCell, task: Task, bench: Bench) -> None:
    """Write everything that prediction needs; the folder appears whole or not at all.

    Besides the harness's own files there is `transformer/`, in transformers' format, with the trained weights where the
    method trains the backbone's own. Where peft added the trained parameters there is `adapter/`, in peft's format. All
    files are read back before the folder appears.

    Args:
        folder: folder to write; it must not exist, or be empty.
        fitted: the fitted method.
        method: the method as it was fitted: its settings may have been tuned.
        planned: its cell.
        task: its task.
        bench: its bench.

    Raises:
        UsageError: the task does not ask for an answer to a text or a pair.
        FloatingPointError: a trained number is not finite.
        HarnessError: the written files do not give back the fitted method.
    """
    kind_of_saved(task.kind.name)
    if task.reply is not None and task.reply.wants_likelihood:
        raise UsageError(f"The task '{task.name}' scores the likelihood of texts; a model of it predicts nothing.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as inside:
        made = Path(inside) / "model"
        made.mkdir()
        tensors = fitted.tensors()
        _write(made, fitted, tensors, method, planned, task, bench)
        _read_back(made, fitted, tensors, method)
        give_default_mode(made)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)


def give_default_mode(folder: Path) -> None:
    """Give every file the user's default mode: safetensors makes files that only the user can read."""
    mode = (folder / DESCRIPTION).stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _write(
    folder: Path, fitted: Fitted, tensors: Tensors, method: Method, planned: PlannedCell, task: Task, bench: Bench
) -> None:
    prefix, fingerprint = None, None
    if bench.backbone is not None:
        transformer = getattr(getattr(fitted, "model", None), "transformer", None)
        added = hasattr(transformer, "peft_config")
        prefix = None if added else _prefix(tensors, bench.backbone.files)
        trained = {} if prefix is None else tensors
        fingerprint = write_transformer(bench.backbone.files, folder / TRANSFORMER, trained, prefix or "")
        if added:
            save_adapter(transformer, folder / ADAPTER)
    merged = prefix is not None
    elsewhere = {name for name in tensors if merged and name.startswith(IN_MODEL)}
    save_artifact(fitted, method, folder, bench, without=elsewhere)
    asks = method.role == "prompting" or task.kind.form == "text"
    prompt, reply = (task.prompt, task.reply) if asks else (None, None)
    described = describe(
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
        prefix=prefix or "",
        seed=planned.cell.seed,
        transformer=fingerprint,
        files=list_files(folder),
        prompt=None if prompt is None else prompt_by_roles(task.kind, task.spec, prompt),
        reply=None
        if reply is None
        else SavedReply(max_new_tokens=reply.max_new_tokens, num_beams=reply.num_beams, stop=tuple(reply.stop)),
        endpoint=None if bench.served is None else saved_endpoint(bench.served.model),
    )
    (folder / DESCRIPTION).write_text(described.to_text(), encoding="utf-8")


def _read_back(folder: Path, fitted: Fitted, tensors: Tensors, method: Method) -> None:
    """Refuse a folder from which `load_model` would not restore the fitted method."""
    described = read_single(folder)
    check_files(folder, described, again=False)
    saved = read_artifact(folder)
    elsewhere: Tensors = {name: value for name, value in tensors.items() if name not in saved.tensors}
    if elsewhere:
        check_written(folder, described, elsewhere)
    for name, value in saved.tensors.items():
        if value.dtype != tensors[name].dtype or not np.array_equal(value, tensors[name]):
            raise HarnessError(
                f"The tensor '{name}' was not written to '{folder / ARTIFACT_TENSORS}' as it was fitted."
            )
    if saved.method.config() != method.config() or json.dumps(saved.state) != json.dumps(fitted.state()):
        raise HarnessError(f"The settings were not written to '{folder / ARTIFACT_SETTINGS}' as they were fitted.")


def _prefix(tensors: Tensors, files: BackboneFiles) -> str | None:
    """Return the prefix of the trained parameters' names in the backbone's one file of weights.

    The base of a language model is saved under `model.`, for example. None if a parameter is not in that file.
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
