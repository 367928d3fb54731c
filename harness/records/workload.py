"""Workload of a method's fit: how much of a transformer it runs, which is known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

FORWARD = 1.0
"""Cost of a forward pass of a text through the transformer, the unit of work."""

THROUGH = 2.0
"""Cost of a forward pass and the gradients of activations, as when almost all weights are fixed."""

FORWARD_AND_BACKWARD = 3.0
"""Cost of a forward pass and the gradients of activations and weights (Kaplan et al., 2020, arXiv:2001.08361)."""

Optimiser = Literal["adamw", "adamw-8bit", "adafactor", "muon", "galore", "apollo", "lisa"]
"""How weights are updated.

- `adamw`: two moments in float32.
- `adamw-8bit`: two moments in 8 bits (bitsandbytes; Dettmers et al., 2022, arXiv:2110.02861).
- `adafactor`: the second moment of a matrix by its rows and columns (torch; Shazeer and Stern, 2018, arXiv:1804.04235).
- `muon`: one moment, whose update is made orthogonal (torch; Jordan et al., 2024).
- `galore`: AdamW on gradients that are projected to a few dimensions (Zhao et al., 2024, arXiv:2403.03507).
- `apollo`: a rate for each channel, from moments of projected gradients (Zhu et al., 2024, arXiv:2412.05270).
- `lisa`: AdamW on a few blocks at a time, drawn anew every few steps (Pan et al., 2024, arXiv:2403.17919).
"""

OF_MATRICES: Final[frozenset[Optimiser]] = frozenset({"adafactor", "muon", "galore", "apollo"})
"""Optimisers for matrices inside blocks. AdamW trains everything else: vectors, embeddings, the output layer."""

RANKED: Final[frozenset[Optimiser]] = frozenset({"galore", "apollo"})
"""Optimisers that project gradients to a number of dimensions."""

Masters = Literal["float32", "bfloat16-stochastic", "bfloat16-kahan"]
"""How trained matrices are kept: in float32, or in bfloat16 with one of two ways to keep small updates."""


@dataclass(frozen=True)
class TrainedBytes:
    """Bytes in memory for each number of a trained matrix. Vectors always take those of `adamw` in float32.

    Attributes:
        master: the number itself.
        gradient: its gradient.
        state: state of the optimiser, for each number.
        smaller: state for each unit of the matrix's smaller side, and of the rank where the optimiser has one.
        larger: state for each unit of its larger side, in the same way.
    """

    master: float
    gradient: float
    state: float
    smaller: float = 0.0
    larger: float = 0.0

    def state_bytes(self, n_rows: float, n_columns: float, rank: int = 1) -> float:
        """Return the bytes of the optimiser's state for a matrix.

        Args:
            n_rows: rows of the matrix.
            n_columns: its columns.
            rank: dimensions that gradients are projected to; 1 where they are not.
        """
        smaller, larger = sorted((n_rows, n_columns))
        sides = self.smaller * smaller + self.larger * larger
        return self.state * n_rows * n_columns + min(rank, smaller) * sides


_8BIT: Final = 2 * (1 + 4 / 256)
"""Bytes of two moments in 8 bits, with a float32 scale for each 256."""

TRAINED_BYTES: Final[Mapping[tuple[Optimiser, Masters], TrainedBytes]] = {
    ("adamw", "float32"): TrainedBytes(4, 4, 8),
    ("adamw", "bfloat16-stochastic"): TrainedBytes(2, 2, 4),
    ("adamw", "bfloat16-kahan"): TrainedBytes(2, 2, 6),
    ("adamw-8bit", "float32"): TrainedBytes(4, 4, _8BIT),
    ("adafactor", "float32"): TrainedBytes(4, 4, 0, smaller=4, larger=4),
    ("muon", "float32"): TrainedBytes(4, 4, 4),
    ("galore", "float32"): TrainedBytes(4, 4, 0, smaller=4, larger=8),  # the projection; two moments
    ("apollo", "float32"): TrainedBytes(4, 4, 0, larger=8),  # the projection is drawn anew from its seed
    ("lisa", "float32"): TrainedBytes(4, 4, 8),  # of the blocks that train in a step
}
"""Bytes by settings of a method that trains by gradient; a pair that is missing is refused."""


_MUON_ITERATIONS: Final = 5
"""Iterations by which torch's Muon makes an update orthogonal."""


def step_flops(optimiser: Optimiser, n_rows: float, n_columns: float, rank: int = 1) -> float:
    """Return the operations of an optimiser's products for a matrix in a step; 0 where it has none worth counting.

    Those that renew a projection every few steps are left out.

    Args:
        optimiser: the optimiser.
        n_rows: rows of the matrix.
        n_columns: its columns.
        rank: dimensions that gradients are projected to.
    """
    smaller, larger = sorted((n_rows, n_columns))
    if optimiser == "muon":
        return _MUON_ITERATIONS * (4.0 * smaller**2 * larger + 2.0 * smaller**3)
    if optimiser in RANKED:
        n_products = 2 if optimiser == "galore" else 1
        return 2.0 * n_products * min(rank, smaller) * n_rows * n_columns
    return 0.0


def bytes_in_4_bits(*, double_quantisation: bool) -> float:
    """Return the bytes of a number in bitsandbytes' 4-bit types.

    Each block of 64 numbers has a float32 scale. Double quantisation stores a scale in 8 bits, with a float32 scale for
    each 256 of them (Dettmers et al., 2023, arXiv:2305.14314, section 3).
    """
    scale = 1.0 + 4.0 / 256 if double_quantisation else 4.0
    return 0.5 + scale / 64


@dataclass(frozen=True)
class FitLength:
    """Optimiser steps of a fit without a budget, as a function of the number of labels.

    Attributes:
        batch_size: items of a step.
        epochs: passes over all items.
        min_steps: minimum number of steps, since few labels need more than a few epochs.
        max_steps: maximum number of steps; None for no limit.
        items_per_label: items per training row in an epoch (SetFit's pairs).
        texts_per_item: texts per item that go through the network.
        reads_after: number of times that each training text is read after the steps.
    """

    batch_size: int
    epochs: float = 1.0
    min_steps: int = 1
    max_steps: int | None = None
    items_per_label: int = 1
    texts_per_item: int = 1
    reads_after: int = 0

    def of_epochs(self, steps_per_epoch: int) -> int:
        """Return the steps of a fit whose epochs have `steps_per_epoch` steps."""
        steps = max(math.ceil(self.epochs * steps_per_epoch), self.min_steps)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def steps(self, n_train: int) -> int:
        """Return the steps of a fit to `n_train` labels."""
        return self.of_epochs(max(1, math.ceil(self.items_per_label * n_train / self.batch_size)))

    def texts_per_step(self, n_train: int) -> int:
        """Return the number of texts that go through the network in a step."""
        return self.texts_per_item * min(self.batch_size, self.items_per_label * max(n_train, 1))

    def texts(self, n_train: int) -> int:
        """Return the number of texts that go through the network in the steps and after them."""
        return self.reads_after * n_train + self.steps(n_train) * self.texts_per_step(n_train)


@dataclass(frozen=True)
class Workload:
    """Work of one cell, in texts that go through a transformer. All zero for methods that use none.

    Attributes:
        encoded: training texts that are encoded once, outside the steps, in full forward passes.
        steps: optimiser steps of a fit.
        texts_per_step: texts that go through the transformer in a step; 0 if steps run on features.
        pieces: parts that a step's texts are split into, run one after another.
        passes_per_text: cost of a text of a step, in forward passes.
        share_trained: share of the transformer's parameters that have gradients and an optimiser's state.
        additions: inputs that small added modules keep, per token and block, in widths of the model.
        texts_per_answer: texts that are read to answer one test row: its own and the demonstrations.
        scored: answers to training rows by which a method chooses what a prompt shows.
        scored_per_wording: answers to training rows by which a method chooses a wording, for each wording of the kind.
            No wordings are compared where the task has a prompt of its own, or the kind a single wording.
    """

    encoded: float = 0.0
    steps: int = 0
    texts_per_step: int = 0
    pieces: int = 1
    passes_per_text: float = 0.0
    share_trained: float = 0.0
    additions: float = 0.0
    texts_per_answer: float = 0.0
    scored: int = 0
    scored_per_wording: int = 0

    def n_scored(self, n_wordings: int) -> int:
        """Return the number of answers to training rows, where the task leaves `n_wordings` to choose from."""
        return self.scored + (self.scored_per_wording * n_wordings if n_wordings > 1 else 0)

    @property
    def reads_features(self) -> bool:
        """Whether the transformer only encodes each text once, so that cells can share its features."""
        return self.encoded > 0 and self.texts_per_step == 0
