"""Checks of saved tensors, for methods that are rebuilt from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.support import UsageError

AGAIN = "The files are damaged, or not of this model. Copy them again from where the model was saved, or save it again."
"""Advice at the end of messages about saved files."""


class Expected(NamedTuple):
    """A tensor that a method expects in its saved file.

    Attributes:
        shape: length along each axis; None accepts any length from 1.
        dtype: numpy's name of the type.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} of shape ({sizes})"

    def fits(self, value: npt.NDArray[Any]) -> bool:
        """Return whether a tensor has this type and shape."""
        return (
            str(value.dtype) == self.dtype
            and value.ndim == len(self.shape)
            and all(
                found > 0 if size is None else found == size
                for found, size in zip(value.shape, self.shape, strict=True)
            )
        )


def check_tensors(tensors: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, Expected]) -> None:
    """Refuse saved tensors unless each expected one is there, with its type and shape.

    Additional tensors are not checked here: `load_artifact` refuses them.

    Raises:
        UsageError: a tensor is missing, or has another type or shape. The message names it.
    """
    for name, wanted in expected.items():
        value = tensors.get(name)
        if value is None:
            raise UsageError(f"The saved model lacks the tensor '{name}'; expected {wanted}. {AGAIN}")
        if not wanted.fits(value):
            found = Expected(tuple(value.shape), str(value.dtype))
            raise UsageError(f"The saved tensor '{name}' is {found}; expected {wanted}. {AGAIN}")


def check_range(name: str, values: npt.NDArray[Any], below: int) -> None:
    """Refuse saved whole numbers outside 0 to `below - 1`.

    Raises:
        UsageError: a number lies outside. The message names the tensor and the number.
    """
    wrong = values[(values < 0) | (values >= below)]
    if len(wrong):
        raise UsageError(f"The saved tensor '{name}' holds {wrong.flat[0]}; expected 0 to {below - 1}. {AGAIN}")


def not_finite(tensors: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """Return the name of a tensor that holds NaN or an infinity; None if all are finite."""
    for name, value in tensors.items():
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            return name
    return None
