"""Collect a record's provenance: versions of packages, the harness's commit, the machine's settings."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import harness
from harness.measure.device import Device
from harness.measure.failures import Failures
from harness.measure.numerics import numerics_of
from harness.records import Provenance

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "datasets",
    "evaluate",
    "scikit-learn",
    "numpy",
    "scipy",
    "optuna",
    "skops",
    "safetensors",
)


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the installed versions of packages that can affect a figure.

    Packages that are missing, or have unreadable metadata, are left out.
    """
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        with contextlib.suppress(Exception):  # damaged metadata can raise anything
            versions[name] = importlib.metadata.version(name)
    return versions


@functools.cache
def source_state() -> tuple[str | None, bool | None]:
    """Return (commit, dirty) of the harness's own source; (None, None) if unknown.

    The source is git in a checkout, and `direct_url.json` (PEP 610) after `pip install git+URL`.
    """
    root = Path(harness.__file__).resolve().parent.parent
    if (root / ".git").exists():
        try:
            commit = _git(root, "rev-parse", "HEAD")
            return commit, bool(_git(root, "status", "--porcelain", "--", "harness", "suites"))
        except (OSError, subprocess.SubprocessError):
            return None, None
    try:
        text = importlib.metadata.distribution("adaptation-harness").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None, None
    commit_id = json.loads(text).get("vcs_info", {}).get("commit_id") if text else None
    return commit_id, False if commit_id else None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603, RUF100 - a fixed command on our own source
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance_of(
    device: Device,
    precision: str,
    *,
    started_at: str,
    wall_seconds: float | None,
    backbone: dict[str, Any],
    dataset: dict[str, Any],
    matrix_flops_per_second: float | None = None,
    failures: Failures | None = None,
) -> Provenance:
    """Return the provenance of a cell that started at `started_at` (see `now`).

    Unknown facts are null or left out; `failures` gives the reason.
    """
    failures = Failures() if failures is None else failures
    commit, dirty = failures.guard("commit", source_state) or (None, None)
    return Provenance(
        harness=harness.__version__,
        commit=commit,
        dirty=dirty,
        packages=failures.guard("packages", package_versions) or {},
        threads=device.threads,
        precision=precision,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        started_at=started_at,
        wall_seconds=wall_seconds,
        cells_at_a_time=device.cells_at_a_time,
        # A cell that never ran has no process whose settings could be read.
        numerics={} if wall_seconds is None else failures.guard("numerics", lambda: numerics_of(device)) or {},
        backbone=backbone,
        dataset=dataset,
        matrix_flops_per_second=matrix_flops_per_second,
    )
