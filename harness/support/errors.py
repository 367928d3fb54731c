"""Errors that the harness raises on purpose, with one root class, and texts of exceptions.

A message says what was given, what was expected and what to try. Any other exception that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Root of all errors meant for the user; the command line prints the message without a traceback."""


class UsageError(HarnessError):
    """The request has a wrong name, option or value (exit code 2)."""


class DataError(HarnessError):
    """The given data cannot be used as requested; the message names the row or the column."""


class DataWarning(UserWarning):
    """The given data look wrong; they can be used, but may not mean what their owner thinks."""


class MissingResourceError(HarnessError):
    """A model or a data set is neither installed, nor mirrored, nor reachable; the message says how to supply it."""


class StoreError(HarnessError):
    """The store of records cannot be read or written."""


class DuplicateError(StoreError):
    """The store already holds this attempt of the cell, from another run."""


class UnsupportedError(HarnessError):
    """A method cannot serve this backbone, task or device; the reason becomes the record's error."""


class UnreadableError(HarnessError):
    """A language model wrote too few answers from which anything can be read (status `failed`)."""


class OutOfTimeError(HarnessError):
    """A fit that cannot be interrupted ran past twice its seconds (status `out_of_time`)."""


class OutOfMemoryError(HarnessError):
    """The cell exceeded its budget's `peak_memory_bytes`, or the device or the host ran out of memory."""


class SmallerBatchesError(HarnessError):
    """Batches of a cell were halved after some of its rows were encoded; it starts again, in one shape."""


class DeviceFailedError(HarnessError):
    """The accelerator has failed, and this process can run nothing more on it."""


def text_of(error: BaseException) -> str:
    """Return an exception's text; empty if the exception fails to produce one."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the exception is a method's own class
        return ""


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank; empty if there is none."""
    return next(iter(text.strip().splitlines()), "")


def reason_of(error: BaseException) -> str:
    """Return an error's type and the first line of its text in one line, without a full stop."""
    line = first_line(text_of(error)).rstrip(".")[:300]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def shortened(text: str, most: int) -> str:
    """Return a text shortened to `most` characters: its beginning, its end, and the length left out."""
    if len(text) <= most:
        return text
    marker = f" [... {len(text) - most:,} or more characters left out ...] "
    kept = max(0, most - len(marker))
    end = kept // 3
    return (text[: kept - end] + marker + text[len(text) - end :])[:most]


def unknown_name(kind: str, given: str, known: Iterable[str], where: str = "") -> UsageError:
    """Return the error for an unknown name, which lists the nearest known name, then all of them.

    Args:
        kind: kind of the name, in the singular ("method", "suite").
        given: the unknown name.
        known: all known names.
        where: phrase that says where the name was looked for ("of suite 'sentiment'").
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    near.sort(key=lambda name: sorted(name) != sorted(given))  # exchanged letters first
    guess = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(names) if names else "none"
    place = f" {where}" if where else ""
    return UsageError(f"Unknown {kind} '{given}'{place}.{guess} Known: {listed}.")
