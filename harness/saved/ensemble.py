"""Ensembles as folders: whole saved models inside, and their weights in the description."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.methods import AGAIN
from harness.saved.files import check_files, check_place
from harness.saved.layout import (
    DESCRIPTION,
    MEMBERS,
    Description,
    EnsembleDescription,
    Member,
    describe_ensemble,
    read_single,
)
from harness.support import UsageError
from harness.tasks import Floats

_ALIKE: Final = ("kind", "labels", "label_words", "max_length", "truncation_side", "characters")
"""Facts that all members share, so that they read the same texts and answer the same question."""


def write_ensemble(folder: Path, members: Sequence[tuple[Path, float, float]]) -> None:
    """Write saved models and their weights as one saved model; the folder appears whole or not at all.

    Files that several members have in common, such as a backbone that none of them changed, take space once where the
    file system has hard links.

    Args:
        folder: folder to write; it must not exist, or be empty.
        members: folder, weight and temperature of each saved model, at least two; the weights sum to 1.

    Raises:
        UsageError: a member is damaged, is an ensemble itself, or answers another question than the first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as inside:
        made = Path(inside) / "model"
        (made / MEMBERS).mkdir(parents=True)
        found: list[Member] = []
        known: dict[str, Path] = {}
        first: Description | None = None
        for place, (source, weight, temperature) in enumerate(members, start=1):
            described = read_single(source)
            first = first or described
            name = f"{place}-{re.sub('[^a-z0-9]+', '-', described.method.partition('[')[0].lower())}"
            _copy(source, made / MEMBERS / name, described, known)
            found.append(
                Member(
                    folder=name,
                    method=described.method,
                    weight=weight,
                    temperature=temperature,
                    digest=_digest(source, described),
                )
            )
        assert first is not None
        described_whole = describe_ensemble(
            kind=first.kind,
            task=first.task,
            labels=first.labels,
            method=f"ensemble of {', '.join(member.method for member in found)}",
            members=tuple(found),
        )
        (made / DESCRIPTION).write_text(described_whole.model_dump_json(indent=1), encoding="utf-8")
        check_ensemble(made, described_whole, again=False)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)


def _copy(source: Path, target: Path, described: Description, known: dict[str, Path]) -> None:
    """Copy the files of a saved model; link those that another member has already."""
    for name, file in (described.files or {}).items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(known.get(file.sha256, source / name), copy)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source / name, copy)
        known.setdefault(file.sha256, copy)
    shutil.copyfile(source / DESCRIPTION, target / DESCRIPTION)


def check_ensemble(folder: Path, described: EnsembleDescription, *, again: bool = True) -> list[Description]:
    """Return the descriptions of an ensemble's members; refuse it unless every member is the one that was saved.

    Args:
        folder: folder of the ensemble.
        described: its description.
        again: whether to read every file, also one that this process has hashed already.

    Raises:
        UsageError: a member or a file of one is missing, added or changed, or members do not belong together. The
            message names it.
    """
    check_place(folder, DESCRIPTION)
    inside = folder / MEMBERS
    expected = {member.folder for member in described.members}
    if inside.is_symlink() or not inside.is_dir():
        raise UsageError(f"'{folder}' lacks the folder {MEMBERS}/. {AGAIN}")
    there = {path.name for path in inside.iterdir() if not path.name.startswith(".")}
    if there - expected:
        name = f"{MEMBERS}/{min(there - expected)}"
        raise UsageError(f"'{folder}' holds {name}, which is not part of the saved model. Remove it.")
    if expected - there:
        raise UsageError(f"'{folder}' lacks {MEMBERS}/{min(expected - there)}. {AGAIN}")
    found: list[Description] = []
    for member in described.members:
        check_place(folder, f"{MEMBERS}/{member.folder}/{DESCRIPTION}")
        path = inside / member.folder
        one = read_single(path)
        if _digest(path, one) != member.digest or one.method != member.method:
            raise UsageError(f"'{path}' is not the model that was saved with the ensemble. {AGAIN}")
        wrong = next((name for name in _ALIKE if getattr(one, name) != getattr((found or [one])[0], name)), None)
        if wrong is None and (one.labels, one.kind) != (described.labels, described.kind):
            wrong = "labels"
        if wrong is not None:
            raise UsageError(f"'{path}': its {wrong} differ from those of the other members of the ensemble. {AGAIN}")
        check_files(path, one, again=again)
        found.append(one)
    return found


def _digest(path: Path, described: Description) -> str:
    if described.digest is None:
        raise UsageError(f"'{path}' has an early format, which lists no files. {AGAIN}")
    return described.digest


_LEAST_PROBABILITY: Final = 1e-6


def calibrated(probabilities: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Return probabilities at another temperature: their logarithms are divided by it, then normalised.

    Args:
        probabilities: shape (rows, classes); values below 1e-6 count as 1e-6.
        temperature: above 1 makes them more even, below 1 more extreme.
    """
    logs = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _LEAST_PROBABILITY, 1.0)) / temperature
    likelihoods = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(likelihoods / likelihoods.sum(axis=1, keepdims=True))


def mixed(
    probabilities: Sequence[Floats], weights: Sequence[float], temperatures: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return the weighted mean of calibrated probabilities, shape (rows, classes).

    Args:
        probabilities: those of each member, each of shape (rows, classes).
        weights: weight of each member; they sum to 1.
        temperatures: temperature of each member.
    """
    mean = np.zeros(probabilities[0].shape, dtype=np.float64)
    for one, weight, temperature in zip(probabilities, weights, temperatures, strict=True):
        if weight > 0:
            mean += weight * calibrated(one, temperature)
    return mean
