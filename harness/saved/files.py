"""The files of a saved model: their list, and checks that they are the files that were written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from harness.backbones import MODULES, READ_FILES, file_sha256
from harness.methods import AGAIN, ARTIFACT_SETTINGS, ARTIFACT_TENSORS
from harness.saved.layout import CARD, DESCRIPTION, TRANSFORMER, Description, SavedFile
from harness.support import UsageError, text


def list_files(folder: Path) -> dict[str, SavedFile]:
    """Return size and SHA-256 of every file in a folder, except the description and the cards."""
    return {
        name: SavedFile(bytes=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
        for name in sorted(_walk(folder, folder))
        if name != DESCRIPTION
    }


def check_files(folder: Path, described: Description, *, again: bool = True) -> None:
    """Refuse a folder whose files are not exactly those of the saved model.

    Format 1 does not list its files. For it, the needed ones must be files in the folder, and `transformer/` must hold
    nothing else.

    Args:
        folder: folder of the saved model.
        described: its description.
        again: whether to read every file, also one that this process has hashed already.

    Raises:
        UsageError: a file is missing, added, changed, not a regular file, or lies outside the folder. The message names
            it.
    """
    check_place(folder, DESCRIPTION)
    needed = {ARTIFACT_SETTINGS, ARTIFACT_TENSORS}
    is_inside = described.backbone is not None and described.endpoint is None
    if is_inside:
        needed.add(f"{TRANSFORMER}/config.json")
    if (folder / MODULES).exists():  # it would change the transformer's pooling
        raise UsageError(f"'{folder}' holds {MODULES}, which is not part of the saved model. Remove it.")
    there = set(_walk(folder / TRANSFORMER, folder))
    if described.files is None:
        allowed = {name for name in there if any(PurePosixPath(name).match(f"{TRANSFORMER}/{p}") for p in READ_FILES)}
    else:
        allowed = set(described.files)
        lacking = sorted(needed - allowed)
        if lacking:
            raise UsageError(f"'{folder / DESCRIPTION}' does not list {lacking[0]}. {AGAIN}")
    for name in sorted(there - allowed):
        raise UsageError(f"'{folder}' holds {name}, which is not part of the saved model. Remove it, or save it again.")
    if not is_inside and there:
        raise UsageError(f"'{folder}' holds {min(there)}, but its method uses no transformer. {AGAIN}")
    for name in sorted(needed | allowed):
        check_place(folder, name)
        if described.files is not None:
            _check_contents(folder, name, described.files[name], again=again)


def _walk(inside: Path, folder: Path) -> Iterator[str]:
    """Yield the paths in `folder` of all files and links below `inside`, except hidden files and cards."""
    if inside.is_symlink() or (inside.exists() and not inside.is_dir()):
        raise UsageError(f"'{inside}' is not a folder. {AGAIN}")
    for above, folders, names in os.walk(inside):
        linked = [name for name in folders if (Path(above) / name).is_symlink()]
        for name in [*names, *linked]:
            if not name.startswith(".") and name != CARD:
                yield (Path(above) / name).relative_to(folder).as_posix()


def check_place(folder: Path, name: str) -> None:
    """Refuse a file that is not a regular one in the folder itself."""
    path, pure = folder / name, PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UsageError(f"'{folder / DESCRIPTION}' lists the file {name!r}, which is not in the folder. {AGAIN}")
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise UsageError(f"'{path}' is a link that leads out of the folder. Put the file itself there.")
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"'{folder}' lacks the file {name}. {AGAIN}") from None
    except (OSError, RuntimeError) as error:  # a link to itself, a folder that may not be entered
        raise UsageError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"'{path}' is not a regular file. {AGAIN}")


def _check_contents(folder: Path, name: str, written: SavedFile, *, again: bool) -> None:
    path = folder / name
    try:
        n_bytes = path.stat().st_size
        if n_bytes != written.bytes:
            raise UsageError(f"'{path}' has {text.counted(n_bytes, 'byte')}; expected {written.bytes:,}. {AGAIN}")
        if file_sha256(path, again=again) != written.sha256:
            raise UsageError(f"'{path}' is not the file that was written: its SHA-256 is another. {AGAIN}")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror or error}.") from None
