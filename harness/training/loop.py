"""The one training loop: every method that trains by gradient goes through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from harness.measure.device import Precision
from harness.measure.flops import FlopsModel
from harness.records import CurvePoint
from harness.training.batches import Batch
from harness.training.budget import Progress, Schedule, learning_rate_factor

_CURVE_POINTS = 32


class Batches(Protocol):
    """Where batches come from; its length is the number of batches of an epoch."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all rows."""
        ...


@dataclass(frozen=True)
class Optimisation:
    """How parameters are moved.

    Attributes:
        learning_rate: peak, of everything but the head.
        head_learning_rate: peak, of the new head.
        weight_decay: of matrices; vectors (biases, norms) are not decayed.
        warmup: share of the budget over which the learning rate rises.
        schedule: how it falls afterwards.
        max_grad_norm: gradients longer than this are shortened to it; None leaves them.
        label_smoothing: of the loss.
    """

    learning_rate: float
    head_learning_rate: float
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: Schedule = "linear"
    max_grad_norm: float | None = 1.0
    label_smoothing: float = 0.0


@dataclass
class Outcome:
    """How a fit went.

    Attributes:
        stopped_by: the cap that ended it.
        steps: optimiser steps taken.
        tokens: real tokens that went through the model.
        flops: operations counted for them.
        decay: product over the steps of 1 - learning rate * weight decay, of the body's matrices.
        curve: at most a few dozen points.
    """

    stopped_by: str = ""
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    decay: float = 1.0
    curve: list[CurvePoint] = field(default_factory=list)


def train(
    *,
    forward: Callable[[Batch], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    batches: Batches,
    body: Sequence[nn.Parameter],
    head: Sequence[nn.Parameter],
    optimisation: Optimisation,
    progress: Progress,
    flops: FlopsModel | None,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, float | None], None],
) -> Outcome:
    """Train until the budget is spent.

    Args:
        forward: from a batch to logits, shape (rows, classes).
        loss: the kind's loss of (logits, targets, label smoothing).
        batches: where they come from.
        body: trained parameters of the transformer, or of what is added to it.
        head: parameters of the new head.
        optimisation: how they are moved.
        progress: the budget; decides when to stop and drives the learning rate.
        flops: operations of a batch, forward and backward; None counts none.
        device: where the model is.
        precision: bf16 runs the forward pass under autocast; parameters and their moments stay float32.
        on_step: called with (step, loss); loss is None on the steps that do not read it.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    groups = [
        {"params": [p for p in body if p.dim() > 1], "peak": optimisation.learning_rate, "decayed": True},
        {"params": [p for p in body if p.dim() <= 1], "peak": optimisation.learning_rate, "decayed": False},
        {"params": [p for p in head if p.dim() > 1], "peak": optimisation.head_learning_rate, "decayed": True},
        {"params": [p for p in head if p.dim() <= 1], "peak": optimisation.head_learning_rate, "decayed": False},
    ]
    groups = [
        {**group, "weight_decay": optimisation.weight_decay if group["decayed"] else 0.0}
        for group in groups
        if group["params"]
    ]
    optimiser = torch.optim.AdamW(groups, lr=optimisation.learning_rate, fused=True)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    outcome = Outcome()
    limit = progress.step_limit
    every = max(1, limit // _CURVE_POINTS)
    running = torch.zeros((), device=device)
    n_running = 0
    for batch in _endless(batches):
        factor = learning_rate_factor(optimisation.schedule, progress.fraction(), optimisation.warmup)
        if optimisation.warmup > 0 and progress.step == 0:
            # A first step at exactly 0 would be wasted: start where the first step's end will be.
            factor = max(factor, min(1.0, 1.0 / (optimisation.warmup * limit)))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = forward(batch)
        value = loss(outputs.float(), batch.targets, optimisation.label_smoothing)
        value.backward()
        if optimisation.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, optimisation.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        outcome.decay *= 1.0 - optimisation.learning_rate * factor * optimisation.weight_decay
        progress.step += 1
        outcome.steps += 1
        outcome.tokens += batch.n_tokens
        spent = flops.batch(batch.n_rows, batch.length) if flops is not None else 0.0
        outcome.flops += spent
        progress.flops += spent
        running += value.detach()
        n_running += 1
        stopped_by = progress.stopped_by()
        if progress.step % every == 0 or stopped_by is not None:
            mean = float(running) / n_running  # the only place where a device is waited for
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"The training loss is {mean} after step {progress.step}: the fit has diverged; "
                    f"try a learning rate below {optimisation.learning_rate:g}."
                )
            running.zero_()
            n_running = 0
            outcome.curve.append(
                CurvePoint(step=progress.step, seconds=progress.train_seconds(), flops=progress.flops, train_loss=mean)
            )
            on_step(progress.step, mean)
        if stopped_by is not None:
            outcome.stopped_by = stopped_by
            break
    return outcome


def _endless(batches: Batches) -> Iterator[Batch]:
    number = 0
    while True:
        yield from batches.epoch(number)
        number += 1
