"""Whether optional packages can be used: bitsandbytes, and others for GPUs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

OLDEST: Final = (0, 50)
"""Oldest version with all that is used on a CPU and a GPU."""


_MISSED: ContextVar[dict[str, None] | None] = ContextVar("_MISSED", default=None)


@contextmanager
def planning_for_another_machine() -> Iterator[dict[str, None]]:
    """Refuse no method for a package that is missing here; the dictionary's keys say what is missing."""
    missed: dict[str, None] = {}
    token = _MISSED.set(missed)
    try:
        yield missed
    finally:
        _MISSED.reset(token)


def unless_elsewhere(reason: str | None) -> str | None:
    """Return a reason to refuse a method for want of a package; None if the plan is for another machine."""
    missed = _MISSED.get()
    if reason is None or missed is None:
        return reason
    missed[reason] = None
    return None


def why_no_bitsandbytes(user: str) -> str | None:
    """Return why bitsandbytes cannot be used; None if it can. It is not imported.

    Args:
        user: method or setting that needs it, as a message names it.
    """
    wanted = ".".join(str(part) for part in OLDEST)
    again = f"pip install 'bitsandbytes>={wanted}'"
    try:
        found = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        return unless_elsewhere(f"{user} needs the package bitsandbytes, which is not installed; {again}.")
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers >= OLDEST:
        return None
    return unless_elsewhere(f"{user} needs bitsandbytes {wanted} or later; {found} is installed; {again}.")
