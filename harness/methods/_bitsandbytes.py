"""Whether bitsandbytes can be used."""

from __future__ import annotations

import importlib.metadata
from typing import Final

OLDEST: Final = (0, 50)
"""Oldest version with all that is used on a CPU and a GPU."""


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
        return f"{user} needs the package bitsandbytes, which is not installed; {again}."
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    return f"{user} needs bitsandbytes {wanted} or later; {found} is installed; {again}." if numbers < OLDEST else None
