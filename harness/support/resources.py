"""Find files shipped with the package (suites, reference results), and the cache folder.

Shipped files are at the top level of the repository (`suites/`, `results/reference/`, `results/earlier/`), where people
look for them, and inside the package in a wheel. Both are found, so `harness run NAME` works from any folder.
"""

from __future__ import annotations

import importlib.resources
import os
from importlib.resources.abc import Traversable
from pathlib import Path

from harness.support.arguments import checked_path

DEFAULT_STORE = "results/harness.sqlite"
"""Path of the records where neither the caller nor HARNESS_STORE names another."""


def shipped(folder: str) -> Traversable:
    """Return a shipped folder ("suites", "results/reference"), from a wheel or an editable install."""
    package = importlib.resources.files("harness")
    inside = package.joinpath("_shipped", *folder.split("/"))
    if inside.is_dir():
        return inside
    with importlib.resources.as_file(package) as path:  # an editable install: the package is in the checkout
        return path.parent.joinpath(*folder.split("/"))


def find_store(store: str | Path | None) -> str:
    """Return the store's path or URL: the given one, else HARNESS_STORE, else `DEFAULT_STORE`.

    Raises:
        UsageError: neither a path nor None.
    """
    if store is None:
        return os.environ.get("HARNESS_STORE") or DEFAULT_STORE
    return str(checked_path("store", store, "the path or URL of a store"))


def cache_folder() -> Path:
    """Return `HARNESS_CACHE`, else `adaptation-harness` in the user's cache folder."""
    named = os.environ.get("HARNESS_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adaptation-harness"
