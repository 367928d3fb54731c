"""Recognise the format of a file of another tool, for messages."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

from harness.store.eee.read import is_eee
from harness.store.importing.inspect_logs import is_inspect
from harness.store.importing.lm_eval import is_lm_eval
from harness.store.importing.outside import read_json
from harness.store.importing.setfit import is_setfit
from harness.support import UsageError

_MOST_BYTES: Final = 2**26
"""Size of a file above which it is not read to recognise it."""


def format_of(path: Path) -> str | None:
    """Return the format that a file seems to have, as `--format` takes it; None if it is unknown."""
    try:
        if path.suffix.lower() == ".eval" or zipfile.is_zipfile(path):
            return "inspect"
        if path.suffix.lower() != ".json" or path.stat().st_size > _MOST_BYTES:
            return None
        return _format_of_value(read_json(path, "results"))
    except (OSError, UsageError):
        return None


def _format_of_value(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    tests = {"eee": is_eee, "inspect": is_inspect, "lm-eval": is_lm_eval, "setfit": is_setfit}
    for form, test in tests.items():
        if test(value):
            return form
    if "mteb_dataset_name" in value or {"task_name", "scores"} <= value.keys():
        return "mteb"
    return "peft" if {"run_info", "train_info", "meta_info"} <= value.keys() else None
