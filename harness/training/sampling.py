"""LISA: AdamW on a few blocks at a time, drawn anew every few steps (Pan et al., 2024, arXiv:2403.17919).

Everything outside the blocks trains in every step. A block that rests has no gradient and no state of the optimiser, so
that its moments start again at zero when it is drawn the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from torch import nn

from harness.measure import FlopsModel
from harness.training.loop import Hooks

STEPS_PER_DRAW: Final = 10
"""Steps with the same blocks."""


class SampledBlocks(Hooks):
    """Hooks that let `n_trained` blocks train at a time. The first ones are drawn at once.

    Args:
        blocks: the blocks of the transformer; parameters that do not require gradients stay as they are.
        n_trained: number of blocks that train in a step.
        seed: of the draws.
        count: function from a key to the operations of a batch with the blocks that train just then.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], n_trained: int, seed: int, count: Callable[[str], FlopsModel]
    ) -> None:
        self._trained = [[value for value in block.parameters() if value.requires_grad] for block in blocks]
        self._n_trained = n_trained
        self._generator = np.random.default_rng(seed)
        self._count = count
        self._step = 0
        self.drawn: list[int] = []
        self._draw()

    def _draw(self) -> None:
        found = self._generator.choice(len(self._trained), size=self._n_trained, replace=False)
        self.drawn = sorted(int(at) for at in found)
        for at, parameters in enumerate(self._trained):
            for parameter in parameters:
                parameter.requires_grad_(at in self.drawn)

    def before_step(self, fraction: float) -> FlopsModel | None:
        """Draw blocks if it is time, and return the operations of a batch with them."""
        is_new = self._step % STEPS_PER_DRAW == 0
        if is_new and self._step > 0:
            self._draw()
        self._step += 1
        # Blocks of one size take the same operations.
        sizes = sorted(sum(value.numel() for value in self._trained[at]) for at in self.drawn)
        return self._count("+".join(map(str, sizes))) if is_new else None

    def at_end(self) -> None:
        """Let all blocks require gradients again: all of them are trained."""
        for parameters in self._trained:
            for parameter in parameters:
                parameter.requires_grad_(True)
