"""Measurements that fail: the figure is null, a note says why, and the score stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.support import shortened, text_of

T = TypeVar("T")

MOST_CHARACTERS = 300
"""Longest note of a failed measurement."""


class Failures(dict[str, str]):
    """Why measurements failed, by the name of the figure."""

    def guard(self, name: str, measure: Callable[[], T]) -> T | None:
        """Return what `measure` returns, or None after noting why it failed.

        Only exceptions that say something about the measurement are caught: an interrupt or an exit passes through.
        """
        try:
            return measure()
        except Exception as error:  # noqa: BLE001 - whatever a meter raises must not cost the score
            self.note(name, error)
            return None

    def note(self, name: str, error: BaseException | str) -> None:
        """Keep why a figure is missing; the first reason stays."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {text_of(error)}"
        self.setdefault(name, shortened(" ".join(text.split()), MOST_CHARACTERS))
