"""One root for every error that the harness raises on purpose.

A message says what was given, what was expected and what to try. Anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Root of all errors that are meant for the user; the command line prints its message without a traceback."""


class UsageError(HarnessError):
    """A wrong name, option or value: what was asked makes no sense (exit code 2)."""


class DataError(HarnessError):
    """The data given cannot be used as asked; the message names the row or the column."""


class DataWarning(UserWarning):
    """Something looks wrong with the data given; it can be used, and may not mean what its owner thinks."""


class MissingResourceError(HarnessError):
    """A model or a data set is neither installed, nor mirrored, nor reachable; the message says how to supply it."""


class StoreError(HarnessError):
    """The store of records cannot be read or written."""


class DuplicateError(StoreError):
    """The store holds this attempt of the cell already: another run was quicker."""


class UnsupportedError(HarnessError):
    """A method cannot serve this backbone, task or device; the reason becomes the record's error."""


class OutOfTimeError(HarnessError):
    """A fit that cannot be interrupted ran past twice its seconds (the protocol's `out_of_time`)."""


class OutOfMemoryError(HarnessError):
    """The cell went over its budget's `peak_memory_bytes`, or the device or the host had no more to give."""


def text_of(error: BaseException) -> str:
    """Return an exception's text; an exception that cannot say what it is gives none."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the exception is a method's own class
        return ""


def first_line(text: str) -> str:
    """Return the first line of a text that holds more than white space; empty where it has none."""
    return next(iter(text.strip().splitlines()), "")


def reason_of(error: BaseException) -> str:
    """Return an error's type and the first line of its text, without a full stop, for a message of one line."""
    line = first_line(text_of(error)).rstrip(".")[:300]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters: its beginning and its end, and how much lies between them."""
    if len(text) <= most:
        return text
    marker = f" [... {len(text) - most:,} or more characters left out ...] "
    kept = max(0, most - len(marker))
    end = kept // 3
    return (text[: kept - end] + marker + text[len(text) - end :])[:most]


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known: names the nearest one, then all of them.

    Args:
        kind: what was looked up, in the singular ("method", "suite").
        given: the name that was not found.
        known: every name that would have been found.
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"Unknown {kind} '{given}'.{guess} Known: {listed}.")
