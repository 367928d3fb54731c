"""Read the files of logs of Inspect: `.eval`, a zip file of JSON, and `.json`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.store.importing.archives import members_of, read_member
from harness.store.importing.outside import parse_json
from harness.support import UsageError

_WHAT: Final = "a log of Inspect"


@dataclass
class InspectLog:
    """A log, without its samples' messages.

    Attributes:
        path: the file.
        header: status, specification, plan, results and statistics.
        reductions: scores of rows, reduced over epochs.
        rows: scores of a row by scorer, for each row and epoch.
    """

    path: Path
    header: dict[str, Any]
    reductions: list[Any] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def is_inspect(value: Any) -> bool:
    """Return whether a JSON value is a log of Inspect."""
    return isinstance(value, dict) and isinstance(value.get("eval"), dict) and "status" in value


def read_log(path: Path, *, may_be_other: bool = False) -> InspectLog | None:
    """Return a log, from a zip file or from JSON.

    Args:
        path: the file.
        may_be_other: whether the file may be something else; None is returned then.

    Raises:
        UsageError: the file is damaged, or no log; the message says what is missing.
    """
    try:
        if zipfile.is_zipfile(path):
            return _from_zip(path)
        if path.suffix.lower() == ".eval":
            raise UsageError(f"{path} is no complete zip file; expected a log of Inspect. Is the file complete?")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is no text: {error}; expected {_WHAT}.") from None
    log = InspectLog(path, {})
    if may_be_other and '"eval"' not in text[:4096]:
        return None
    for name, value in members_of(text, path):
        if name == "samples" and isinstance(value, dict):
            log.rows.append({key: value.get(key) for key in ("id", "epoch", "scores", "score")})
        elif name == "reductions" and isinstance(value, list):
            log.reductions = value
        else:
            log.header[name] = value
    if may_be_other and not is_inspect(log.header):
        return None
    return log


def _from_zip(path: Path) -> InspectLog:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "header.json" not in names:
                started = "_journal/start.json" in names
                raise UsageError(
                    f"{path} has no header.json: "
                    + ("the run has not ended. Import it when it has." if started else f"expected {_WHAT}.")
                )
            header = _member(archive, "header.json", path)
            if not isinstance(header, dict):
                raise UsageError(f"{path}: header.json is no object; expected {_WHAT}.")
            log = InspectLog(path, header)
            if "reductions.json" in names and isinstance(found := _member(archive, "reductions.json", path), list):
                log.reductions = found
            if "summaries.json" in names and isinstance(found := _member(archive, "summaries.json", path), list):
                log.rows = [row for row in found if isinstance(row, dict)]
            return log
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path} is a damaged zip file: {error}; expected {_WHAT}.") from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    return parse_json(read_member(archive, name, str(path)), f"{path}: {name}", _WHAT)
