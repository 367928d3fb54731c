"""Count the kernels that a cell launches: on a GPU, a step of a small model takes as long as the host needs for them.

The numbers per block were counted at torch's dispatcher under autocast, on BERT and Llama; tests count them again.
"""

from __future__ import annotations

from typing import Final

from harness.records import Workload

FORWARD_KERNELS: Final = 50.0
"""Kernels of a block's forward pass (BERT: 50, Llama: 48)."""

BACKWARD_KERNELS: Final = 75.0
"""Kernels of a block's backward pass if its weights train (BERT: 61, Llama: 87)."""

THROUGH_KERNELS: Final = 55.0
"""Kernels of a block's backward pass if gradients only pass through (BERT: 39, Llama: 71)."""

ADDED_KERNELS: Final = 9.0
"""Kernels of one low-rank addition, in the forward pass and again in the backward pass."""

STEP_KERNELS: Final = 60.0
"""Kernels outside the blocks: embeddings, head, loss, clipping, a fused optimiser."""

LAUNCH_SECONDS: Final = 6.5e-6
"""Assumed host time of one kernel, from Python to the driver: 5 to 8 microseconds on servers. Records replace it."""


def step_launches(work: Workload, blocks: float, blocks_through: float, *, checkpoints: bool) -> float:
    """Return the kernels of one optimiser step.

    Args:
        work: workload of the cell.
        blocks: number of trained blocks.
        blocks_through: number of fixed blocks that gradients pass through.
        checkpoints: whether blocks are computed again in the backward pass.
    """
    forward = FORWARD_KERNELS + ADDED_KERNELS * work.additions
    each = forward * (2.0 if checkpoints else 1.0) + ADDED_KERNELS * work.additions
    piece = (blocks + blocks_through) * each + BACKWARD_KERNELS * blocks + THROUGH_KERNELS * blocks_through
    return STEP_KERNELS + max(1, work.pieces) * piece


def pass_launches(n_batches: float, n_blocks: int, additions: float = 0.0, n_written: float = 0.0) -> float:
    """Return the kernels of passes without gradients.

    Args:
        n_batches: number of batches.
        n_blocks: blocks of the model.
        additions: as in `Workload`.
        n_written: tokens that are written after each prompt, one pass each.
    """
    return n_batches * (1.0 + n_written) * n_blocks * (FORWARD_KERNELS + ADDED_KERNELS * additions)
