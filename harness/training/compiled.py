"""Blocks compiled by torch for one fit, and as they were after it.

Each block is compiled and not the whole model: blocks are alike, so that one compilation serves them all, and where a
method enters the stack in the middle its blocks are compiled too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def compiled_blocks(transformer: nn.Module, *, wanted: bool) -> Iterator[None]:
    """While the context lasts, `transformer`'s blocks run compiled, for any batch and length; parameters keep names.

    Predicting is left to torch as it is: its shapes are others, and compiling for them would take longer than it saves.

    Args:
        transformer: adapted or not, with one stack of blocks or two.
        wanted: False does nothing.
    """
    n_blocks = int(getattr(transformer.config, "num_hidden_layers", 0))
    stacks = [module for module in transformer.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for stack in stacks if len(stack) == n_blocks for block in stack] if wanted else []
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
