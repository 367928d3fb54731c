"""Blocks that torch compiles for one fit.

Each block is compiled, not the whole model: blocks are alike, so that one compilation serves them all. Where a method
enters the stack in the middle, its blocks are compiled too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

_PAYS_FROM_SECONDS: Final = 300.0
"""Seconds of a fit from which compiling pays: it takes about a minute, and steps then take about a quarter less.

Both are assumptions until they have been measured on a GPU.
"""


def compiling_pays(step_seconds: float, n_steps: int, limit_seconds: float | None) -> bool:
    """Return whether compiling is expected to save more than it takes.

    Args:
        step_seconds: seconds of a step without compiling.
        n_steps: maximum number of steps of the fit.
        limit_seconds: seconds of its budget; None without a limit.
    """
    expected = step_seconds * n_steps
    return min(expected, math.inf if limit_seconds is None else limit_seconds) >= _PAYS_FROM_SECONDS


@contextmanager
def compile_model(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Run blocks compiled while the context lasts, for any batch and length; parameters keep their names.

    Prediction runs uncompiled: its shapes differ, and compiling for them would take longer than it saves. The compiled
    code is dropped after the fit, so that the next cell of a process starts in the same state.

    Args:
        blocks: blocks to compile; none does nothing.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
        if blocks:
            torch.compiler.reset()


@contextmanager
def as_written() -> Iterator[None]:
    """Run compiled blocks uncompiled while the context lasts."""
    with torch.compiler.set_stance("force_eager"):
        yield
