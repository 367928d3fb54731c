"""How much of a transformer a cell of a method runs: what its cost grows with, before anything has run."""

from __future__ import annotations

from dataclasses import dataclass

FORWARD = 1.0
"""One pass of a text through the transformer: the unit in which work is counted."""

THROUGH = 2.0
"""Forward, and the gradients of what is inside, as where all but a few weights are fixed."""

FORWARD_AND_BACKWARD = 3.0
"""Forward, and the gradients of what is inside and of all weights (Kaplan et al., 2020, arXiv:2001.08361)."""


@dataclass(frozen=True)
class Workload:
    """Work of one cell, in texts that go through a transformer. All zero for methods that use none.

    Attributes:
        encoded: training texts that are read once, before anything is trained, in whole forward passes.
        steps: optimiser steps of a fit.
        texts_per_step: texts that go through the transformer in a step; 0 where steps run on features.
        pieces: that a step's texts are put through in, one after another.
        passes_per_text: what a text of a step costs, in forward passes.
        share_trained: of the transformer's parameters, that have gradients and an optimiser's state.
        additions: numbers a token and block that small additions keep of what enters them, in widths of the model.
        copies: the transformer's weights that a fit makes for itself: 1 where it adapts a copy.
        texts_per_answer: texts that are read to answer one test row: its own, and demonstrations.
    """

    encoded: float = 0.0
    steps: int = 0
    texts_per_step: int = 0
    pieces: int = 1
    passes_per_text: float = 0.0
    share_trained: float = 0.0
    additions: float = 0.0
    copies: float = 0.0
    texts_per_answer: float = 0.0

    @property
    def reads_features(self) -> bool:
        """Whether all that it asks of the transformer is what the frozen one says of each text: once for all cells."""
        return self.encoded > 0 and self.texts_per_step == 0
