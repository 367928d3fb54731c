"""Keep scores when a measurement fails: the figure is null, and a note gives the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.support import OutOfMemoryError, shortened, text_of

_T = TypeVar("_T")

_MOST_CHARACTERS = 300
"""Maximum length of a note about a failed measurement."""


_SIGNS_OF_NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "Cannot allocate memory", "out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"),  # cuBLAS allocates its workspace when it begins
    *("CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    *("CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
    *("CUSPARSE_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED", "cudaErrorMemoryAllocation"),
)
"""Texts in errors of torch, CUDA and its libraries (their status codes) that mean a failed allocation."""


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
        self.setdefault(name, shortened(" ".join(text.split()), _MOST_CHARACTERS))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that a device or the host had no more memory."""
    import torch

    if isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)):
        return True
    text = text_of(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS_OF_NO_MEMORY)
