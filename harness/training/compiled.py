"""Blocks that torch compiles for one fit.

Each block is compiled, not the whole model: blocks are alike, so that one compilation serves them all. Where a method
enters the stack in the middle, its blocks are compiled too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


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
