"""Blocks compiled by torch for one fit, and as they were after it.

Each block is compiled and not the whole model: blocks are alike, so that one compilation serves them all, and where a
method enters the stack in the middle its blocks are compiled too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def compile_model(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While the context lasts, blocks run compiled, for any batch and length; parameters keep their names.

    Predicting is left to torch as it is: its shapes are others, and compiling for them would take longer than it saves.
    What was compiled is forgotten with the fit, so that the next cell of a process starts where this one did.

    Args:
        blocks: none does nothing.
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
    """While the context lasts, what is compiled runs as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield
