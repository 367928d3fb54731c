"""Bring MTEB's result files from before version 1.11 to the present layout, and name encoders and data.

Older files have `mteb_dataset_name`, splits at the top level, and the spread over draws in place of the draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

IS_OLD: Final = "mteb_dataset_name"
"""Field of an older file that the present layout calls `task_name`."""

OLD_SD: Final = "accuracy_stderr"
"""Name of the standard deviation over draws in older files, which MTEB called a standard error."""

_NO_SPLITS: Final = frozenset({IS_OLD, "task_name", "mteb_version", "dataset_revision", "evaluation_time", "scores"})
_REVISION: Final = re.compile(r"[0-9a-f]{40}|no_revision_available|external")


def modernised(value: dict[str, Any]) -> dict[str, Any]:
    """Return a result file in the present layout; one that has it, or is of another kind, as it is."""
    if IS_OLD not in value or "scores" in value:
        return value
    splits = {name: found for name, found in value.items() if name not in _NO_SPLITS and isinstance(found, dict)}
    return {
        IS_OLD: value[IS_OLD],
        "task_name": value[IS_OLD],
        "mteb_version": value.get("mteb_version"),
        "dataset_revision": value.get("dataset_revision"),
        "scores": {name: _entries(found) for name, found in splits.items()},
    }


def _entries(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of a split by language; those of a task in one language stand for all."""
    by_language = {name: found for name, found in split.items() if isinstance(found, dict)}
    if not by_language:
        return [{**split, "hf_subset": "default"}]
    return [{**found, "hf_subset": name} for name, found in by_language.items()]


def named_by_folders(path: Path, *, is_old: bool) -> dict[str, Any] | None:
    """Return the metadata that the folders of a file state: name and revision of the encoder; None if they do not.

    Args:
        path: the file: `MODEL/REVISION/TASK.json`, or `MODEL/TASK.json` as older versions wrote it.
        is_old: whether the file has the older layout.
    """
    folder = path.absolute().parent
    if _REVISION.fullmatch(folder.name) and folder.parent.name:
        return {"name": folder.parent.name, "revision": folder.name}
    return {"name": folder.name} if is_old and folder.name else None


def described_data(revision: Any, split: str | None) -> Any:
    """Return the revision of the data, with the split where it is not the test split."""
    return revision if split == "test" else f"{revision or 'unknown'}, split {split}"
