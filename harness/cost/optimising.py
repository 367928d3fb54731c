"""Find what an optimiser adds to the cost of a step: numbers with a gradient, its state, its own products."""

from __future__ import annotations

from typing import Final

from harness.cost.memory import Trained
from harness.cost.shape import Shape
from harness.methods import Method
from harness.records import OF_MATRICES, RANKED, TRAINED_BYTES, Masters, Optimiser, TrainedBytes, Workload, step_flops

_PLAIN: Final = TRAINED_BYTES["adamw", "float32"]


def bytes_of(method: Method) -> TrainedBytes:
    """Return the bytes for each number of a trained matrix; those of AdamW in float32 where no setting says others."""
    masters: Masters = getattr(method, "masters", "float32")
    return TRAINED_BYTES.get((_optimiser(method), masters), _PLAIN)


def trained_part(
    method: Method,
    work: Workload,
    shape: Shape,
    *,
    blocks: float,
    through: float,
    added: float,
    outside: float,
    checkpoints: bool,
) -> Trained:
    """Return the part of a transformer that a step trains.

    Args:
        method: the method; its optimiser may train some blocks in other steps.
        work: its workload.
        shape: sizes of the transformer.
        blocks: number of blocks that train in some step.
        through: number of fixed blocks that gradients pass through.
        added: number of parameters that are added to the transformer.
        outside: number of trained parameters outside the blocks.
        checkpoints: whether blocks are recomputed in the backward pass.
    """
    optimiser = _optimiser(method)
    resting = max(0.0, blocks - int(getattr(method, "optimiser_blocks", 1))) if optimiser == "lisa" else 0.0
    blocks -= resting
    state = None
    if optimiser in OF_MATRICES:
        each = bytes_of(method)
        state = blocks * sum(each.state_bytes(*matrix, _rank(method)) for matrix in shape.matrices)
        state += _PLAIN.state * (added + outside)
    return Trained(
        blocks=blocks,
        blocks_through=through,
        parameters=blocks * shape.block_parameters + added + outside,
        additions=work.additions,
        checkpoints=checkpoints,
        added=added,
        resting=resting,
        state_bytes=state,
    )


def optimiser_flops(method: Method, work: Workload, shape: Shape) -> float:
    """Return the operations of the optimiser's own products in one step."""
    each = sum(step_flops(_optimiser(method), *matrix, rank=_rank(method)) for matrix in shape.matrices)
    return work.share_trained * shape.n_blocks * each


def _optimiser(method: Method) -> Optimiser:
    found: Optimiser = getattr(method, "optimiser", "adamw")
    return found


def _rank(method: Method) -> int:
    """Return the dimensions that the optimiser projects gradients to; 1 where it projects none."""
    return int(getattr(method, "optimiser_rank", 1)) if _optimiser(method) in RANKED else 1
