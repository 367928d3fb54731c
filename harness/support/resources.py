"""Files that ship with the package (the suites and the reference results), and the folder for what is only kept.

In the repository they lie at the top level (`suites/`, `results/reference/`), where people look for them; in a wheel
they lie inside the package. Both are found here, so that `harness run NAME` works from any folder.
"""

from __future__ import annotations

import importlib.resources
import os
import tempfile
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(folder: str) -> Traversable:
    """The shipped folder called `folder` ("suites", "results/reference"), wheel or editable install alike."""
    package = importlib.resources.files("harness")
    inside = package.joinpath("_shipped", *folder.split("/"))
    if inside.is_dir():
        return inside
    with importlib.resources.as_file(package) as path:  # an editable install: the package lies in the checkout
        return path.parent.joinpath(*folder.split("/"))


def cache_folder() -> Path:
    """`HARNESS_CACHE`, else `adaptation-harness` in the user's cache folder."""
    named = os.environ.get("HARNESS_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adaptation-harness"


def write_whole(path: Path, text: str) -> None:
    """Write a small file that other processes may read or write at the same time: all of it or nothing; makes folders.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
    Path(name).replace(path)
