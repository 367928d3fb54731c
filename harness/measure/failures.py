"""Keep scores when a measurement fails: the figure is null, and a note gives the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.support import OutOfMemoryError, shortened, text_of

_T = TypeVar("_T")

MOST_CHARACTERS = 300
"""Maximum length of a note about a failed measurement."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that a device or the host had no more memory."""
    import torch

    if isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)):
        return True
    text = text_of(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


class Failures(dict[str, str]):
    """Reasons for failed measurements, by the name of the figure."""

    def guard(self, name: str, measure: Callable[[], _T]) -> _T | None:
        """Return the result of `measure`; if it fails, note the reason and return None.

        Interrupts and exits pass through.
        """
        try:
            return measure()
        except Exception as error:  # noqa: BLE001 - no error of a meter may cost the score
            self.note(name, error)
            return None

    def note(self, name: str, error: BaseException | str) -> None:
        """Note the reason for a missing figure; the first reason stays."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {text_of(error)}"
        self.setdefault(name, shortened(" ".join(text.split()), MOST_CHARACTERS))

    def notes(self) -> dict[str, str]:
        """Return notes for `Provenance.measured`: `{"energy_missing": "OSError: ..."}`."""
        return {f"{name}_missing": why for name, why in self.items()}
