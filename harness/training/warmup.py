"""What an accelerator does on a step's first run, done before seconds count: kernels are chosen, memory is taken.

Nothing of it is left: parameters have not moved, gradients are gone, random numbers go on where they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.measure import Device, Precision
from harness.training.batches import Batch

if TYPE_CHECKING:
    from harness.training.loop import Batches

_LOOKED_AT = 64
"""Batches among which the largest is looked for: that is the window in which rows are sorted by length."""


def warm_up_steps(
    model: nn.Module,
    batches: Batches,
    forward: Callable[[Batch], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    accumulation: int,
    device: Device,
    precision: Precision,
) -> None:
    """Run the largest batch, the first and that of fewest rows forward and backward, as the loop would, without a step.

    Args:
        model: what is trained, in training mode; has no gradients.
        batches: of the fit.
        forward: as `training.loop.train` has it.
        loss: likewise.
        accumulation: pieces of a batch.
        device: where the model is.
        precision: of the forward pass.
    """
    there = device.torch_device()
    first, largest, fewest = _kinds_of(itertools.islice(batches.epoch(0), _LOOKED_AT))
    with torch.random.fork_rng(devices=[there] if there.type == "cuda" else []):
        for batch in {id(batch): batch for batch in (largest, first, fewest)}.values():
            for part in batch.parts(accumulation):
                with torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                    outputs = forward(part)
                loss(outputs.float(), part.targets, 0.0).backward()
            model.zero_grad(set_to_none=True)
        parameter = nn.Parameter(torch.zeros(8, 8, device=there))
        (parameter * parameter).sum().backward()
        nn.utils.clip_grad_norm_([parameter], 1.0)
        torch.optim.AdamW([parameter], fused=True).step()
    device.synchronise()


def _kinds_of(batches: Iterator[Batch]) -> tuple[Batch, Batch, Batch]:
    """The first batch, the largest and that of fewest rows; no others are kept: they may hold hidden states."""
    first = largest = fewest = next(batches)
    for batch in batches:
        if batch.n_rows * batch.texts_per_row * batch.length > largest.n_rows * largest.texts_per_row * largest.length:
            largest = batch
        if batch.n_rows < fewest.n_rows:
            fewest = batch
    return first, largest, fewest
