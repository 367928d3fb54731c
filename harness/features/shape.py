"""Shapes of the batches in encoding: the rows of a batch, and the length that they are padded to.

Both depend on the length of a row alone, never on its neighbours, so that a row's features have the same bits whoever
asks for them. Some kernels round differently for another number of rows. Features of different shapes are therefore
kept apart, under different keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.measure import BATCH_TOKENS, rows_of_pass
from harness.tasks import Ints

ENCODE_ROWS = {"cpu": 16, "cuda": 256}
"""Maximum number of rows of a batch in encoding, by kind of device: enough to fill it."""

LENGTH_STEP = {"cpu": 4, "cuda": 16}
"""Number of tokens to whose next multiple a row is padded."""


@dataclass(frozen=True)
class EncodingShape:
    """Shape of the batches on one kind of device.

    Attributes:
        kind: kind of device, `cpu` or `cuda`.
        halvings: how many times the rows are halved, since larger batches did not fit in memory.
    """

    kind: str
    halvings: int = 0

    def rows(self, length: int) -> int:
        """Return the rows of a batch of rows that are padded to `length` tokens, at least one."""
        return max(1, rows_of_pass(self.kind, ENCODE_ROWS[self.kind], length) >> self.halvings)

    def padded(self, lengths: Ints, max_length: int) -> Ints:
        """Return the lengths that rows are padded to."""
        step = LENGTH_STEP[self.kind]
        return np.minimum(-(-lengths // step) * step, max_length)

    @property
    def key(self) -> list[int]:
        """Everything that the shape of a row depends on but its length."""
        bound = [] if self.kind == "cpu" else [BATCH_TOKENS]
        return [ENCODE_ROWS[self.kind], LENGTH_STEP[self.kind], *bound, *[2] * self.halvings]
