"""Put the files of a site in place: all new ones are complete before the first old one is replaced."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.support import StoreError, UsageError

SITE_FILE = "site.json"
"""Name of the file that lists the files of a site; each lists only what the harness wrote."""

_FOLDER = re.compile(r"[a-z0-9-]+")
_STAGE = ".publishing"
_COMPLETE = ".complete"


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a folder inside `out` for new files, which replace those of the site when the block ends without an error.

    An error in the block leaves the site as it was. When the process ends while files are moved into place, the next
    call moves the rest first.

    Args:
        out: folder of the site; made if missing.

    Raises:
        UsageError: a file that the harness did not write is in the way.
        StoreError: the folder cannot be written.
    """
    stage = out / _STAGE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (stage / _COMPLETE).is_file():
            _move(stage, out)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        raise StoreError(f"The folder {out} cannot be written: {error.strerror or error}. Name another one.") from error
    try:
        yield stage
        _refuse_foreign(stage, out)
        try:
            if hasattr(os, "sync"):
                os.sync()  # a crash of the machine must not leave the mark without the files
            (stage / _COMPLETE).touch()
            _move(stage, out)
        except OSError as error:
            raise StoreError(
                f"The site {out} cannot be written: {error.strerror or error}. Publish again to complete it."
            ) from error
    finally:
        if not (stage / _COMPLETE).is_file():
            shutil.rmtree(stage, ignore_errors=True)


def files_of(site: Path) -> set[str]:
    """Return the files that the harness wrote into a site, relative to it; none where there is no site.

    Raises:
        StoreError: the list cannot be read.
    """
    return set(_listing(site, "files"))


def reports_of(site: Path) -> list[str]:
    """Return the folders of the reports of a site; none where there is no site.

    Raises:
        StoreError: the list cannot be read, or names something else than a folder of the site.
    """
    found = _listing(site, "reports")
    for name in found:
        if not _FOLDER.fullmatch(name):
            raise StoreError(
                f"{site / SITE_FILE} names the report {name!r}; expected lower-case letters, digits and hyphens. "
                "Restore it, or name another folder."
            )
    return found


def _listing(site: Path, name: str) -> list[str]:
    """Return a list of texts in a site's file; an empty one where there is no site."""
    path = site / SITE_FILE
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text("utf-8"))[name]
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise TypeError(f"{name} is no list of texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is not the list of files of a published site: {error}. Restore it, or name another folder."
        ) from error
    return found


def relative_files(folder: Path) -> list[str]:
    """Return the files below a folder, relative to it, with slashes."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _refuse_foreign(stage: Path, out: Path) -> None:
    """Refuse to replace what the site's list does not name."""
    ours = files_of(out)
    foreign = [name for name in relative_files(stage) if (out / name).exists() and name not in ours]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UsageError(
            f"The folder '{out}' was given, but it holds {foreign[0]}{more}, which no `harness publish` wrote. "
            "Name another folder, or move the file."
        )


def _move(stage: Path, out: Path) -> None:
    """Move files into place: those that pages refer to first, pages after, the index last."""
    for name in sorted((name for name in relative_files(stage) if name != _COMPLETE), key=_rank):
        new, old = stage / name, out / name
        if old.is_file() and filecmp.cmp(new, old, shallow=False):
            new.unlink()
            continue
        old.parent.mkdir(parents=True, exist_ok=True)
        new.replace(old)
    (stage / _COMPLETE).unlink()
    shutil.rmtree(stage, ignore_errors=True)


def _rank(name: str) -> tuple[int, str]:
    ranked: Iterable[bool] = (name == "index.html", name == SITE_FILE, name.endswith(".html"), True)
    return (3 - list(ranked).index(True), name)
