"""The one training loop: every method that trains by gradient goes through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from harness.measure import FlopsModel, Precision, known_flops
from harness.records import CurvePoint
from harness.support import UnsupportedError
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
        warmup: share of the budget over which the learning rate rises.
        schedule: how it falls afterwards.
        max_grad_norm: gradients longer than this are shortened to it; None leaves them.
        label_smoothing: of the loss.
        accumulation: pieces that a batch is put through the model in; the step is the same and needs less memory.
        l2_start: strength of the pull towards the starting point: adds `l2_start / 2 * |w - w_0|^2` to the loss, over
            the groups that are `anchored` (L2-SP, Li et al., 2018, arXiv:1802.01483).
    """

    warmup: float = 0.1
    schedule: Schedule = "linear"
    max_grad_norm: float | None = 1.0
    label_smoothing: float = 0.0
    accumulation: int = 1
    l2_start: float = 0.0


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are moved alike.

    Attributes:
        parameters: which.
        learning_rate: their peak.
        weight_decay: of the matrices among them; vectors (biases, norms) are not decayed.
        anchored: whether `l2_start` pulls them to where they started; a new head starts nowhere in particular.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    anchored: bool = True


class Hooks:
    """What a method does around the steps of the loop; the defaults do nothing."""

    def before_step(self, fraction: float) -> FlopsModel | None:
        """Called with the share of the budget spent; may change what requires gradients.

        Returns:
            The operations of a batch from here on, or None if they are unchanged.
        """
        return None

    def penalty(self) -> torch.Tensor | None:
        """Something to add to the loss of each step."""
        return None

    def after_step(self, fraction: float) -> None:
        """Called once parameters have moved, while gradients are still there."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Early stopping.

    Attributes:
        evaluate: (score, operations spent): scores are compared as tuples, greater is better, the first number is the
            task's metric.
        patience: evaluations without a better score after which training stops.
        per_fit: evaluations of a whole fit, at most; there is never more than one an epoch.
    """

    evaluate: Callable[[], tuple[tuple[float, ...], float]]
    patience: int
    per_fit: int = 20


@dataclass
class Outcome:
    """How a fit went.

    Attributes:
        stopped_by: the cap that ended it, or `early_stopping`.
        steps: optimiser steps taken.
        tokens: real tokens that went through the model.
        flops: operations counted for them.
        decay: for each group, the product over the steps of 1 - learning rate * weight decay: what became of a matrix
            whose gradients were all 0.
        curve: at most a few dozen points, and one for every validation.
    """

    stopped_by: str = ""
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    decay: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)


def train(
    *,
    forward: Callable[[Batch], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    batches: Batches,
    groups: Sequence[ParameterGroup],
    optimisation: Optimisation,
    progress: Progress,
    flops: FlopsModel | None,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, float | None], None],
    hooks: Hooks | None = None,
    validation: Validation | None = None,
) -> Outcome:
    """Train until the budget is spent.

    Args:
        forward: from a batch to outputs; the first axis is rows.
        loss: the mean loss over rows of (outputs, targets, label smoothing).
        batches: where they come from.
        groups: what is trained.
        optimisation: how it is moved.
        progress: the budget; decides when to stop and drives the learning rate.
        flops: operations of a batch, forward and backward; None counts none.
        device: where the model is.
        precision: bf16 runs the forward pass under autocast; parameters and their moments stay float32.
        on_step: called with (step, loss); loss is None on the steps that do not read it.
        hooks: what the method does around steps.
        validation: stops early and restores the parameters of the best evaluation; None trains to the budget's end.

    Raises:
        FloatingPointError: the loss is no longer finite.
        UnsupportedError: the loss does not depend on any parameter of a group: nothing of it would be trained.
    """
    hooks = hooks or Hooks()
    optimiser = optimiser_of(groups)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    anchor = _Anchor(groups, optimisation.l2_start) if optimisation.l2_start > 0 else None
    outcome = Outcome(decay=[1.0] * len(groups))
    stopper = _EarlyStopping(validation, parameters) if validation is not None else None
    limit = progress.step_limit
    every = max(1, limit // _CURVE_POINTS)
    validates_every = max(len(batches), math.ceil(limit / validation.per_fit)) if validation is not None else 0
    running = torch.zeros((), device=device)
    n_running = 0
    for batch in _endless(batches):
        fraction = progress.fraction()
        factor = learning_rate_factor(optimisation.schedule, fraction, optimisation.warmup)
        if optimisation.warmup > 0 and progress.step == 0:
            # A first step at exactly 0 would be wasted: start where the first step's end will be.
            factor = max(factor, min(1.0, 1.0 / (optimisation.warmup * limit)))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        flops = hooks.before_step(fraction) or flops
        for part in batch.parts(optimisation.accumulation):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                outputs = forward(part)
            value = loss(outputs.float(), part.targets, optimisation.label_smoothing)
            share = part.share_of(batch)
            running += value.detach() * share
            (value if part is batch else value * share).backward()
        if progress.step == 0:
            _check_gradients(groups)
        penalty = hooks.penalty()
        if penalty is not None:
            penalty.backward()
        if anchor is not None:
            anchor.add_gradients()
        if optimisation.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, optimisation.max_grad_norm)
        optimiser.step()
        progress.step += 1
        outcome.steps += 1
        outcome.tokens += batch.n_tokens
        n_texts = batch.n_rows * batch.texts_per_row
        spent = flops.batch(n_texts, batch.length, batch.n_outputs) if flops is not None else 0.0
        outcome.flops += spent
        progress.flops += spent
        hooks.after_step(progress.fraction())
        optimiser.zero_grad(set_to_none=True)
        outcome.decay = [
            decay * (1.0 - group.learning_rate * factor * group.weight_decay)
            for decay, group in zip(outcome.decay, groups, strict=True)
        ]
        n_running += 1
        stopped_by = progress.stopped_by()
        score: tuple[float, ...] | None = None
        if stopper is not None and (progress.step % validates_every == 0 or stopped_by is not None):
            score, spent = stopper.evaluate(outcome)
            outcome.flops += spent
            progress.flops += spent
            stopped_by = stopped_by or ("early_stopping" if stopper.is_over else progress.stopped_by())
        if progress.step % every == 0 or stopped_by is not None or score is not None:
            mean = float(running) / n_running  # the only place where a device is waited for
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"The training loss is {mean} after step {progress.step}: the fit has diverged; "
                    f"try a learning rate below {max(group.learning_rate for group in groups):g}."
                )
            running.zero_()
            n_running = 0
            outcome.curve.append(
                CurvePoint(
                    step=progress.step,
                    seconds=progress.train_seconds(),
                    flops=known_flops(progress.flops),
                    train_loss=mean,
                    validation=score[0] if score is not None else None,
                )
            )
            on_step(progress.step, mean)
        if stopped_by is not None:
            outcome.stopped_by = stopped_by
            break
    if stopper is not None:
        stopper.restore(outcome)
    return outcome


def _check_gradients(groups: Sequence[ParameterGroup]) -> None:
    for group in groups:
        moving = [parameter for parameter in group.parameters if parameter.requires_grad]
        if moving and all(parameter.grad is None for parameter in moving):
            raise UnsupportedError(
                f"The loss does not depend on any of {len(moving)} tensors that were to be trained together "
                f"({sum(parameter.numel() for parameter in moving):,} numbers), so that they would stay as they are. "
                "This method does not fit this backbone; use another one: full, lora or linear-probe."
            )


def optimiser_of(groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
    """Return AdamW over the groups; only matrices are decayed."""
    split = []
    for group in groups:
        for decayed in (True, False):
            chosen = [parameter for parameter in group.parameters if is_matrix(parameter) == decayed]
            if chosen:
                decay = group.weight_decay if decayed else 0.0
                split.append({"params": chosen, "peak": group.learning_rate, "weight_decay": decay})
    return torch.optim.AdamW(split, lr=groups[0].learning_rate, fused=True)


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether a parameter is decayed: a vector that is stored as one row or one column is still a vector."""
    return sum(size > 1 for size in parameter.shape) > 1


class _Anchor:
    """The pull towards where parameters started, as a term of the gradient."""

    def __init__(self, groups: Sequence[ParameterGroup], strength: float) -> None:
        self._parameters = [parameter for group in groups if group.anchored for parameter in group.parameters]
        self._start = [parameter.detach().clone() for parameter in self._parameters]
        self._strength = strength

    @torch.no_grad()
    def add_gradients(self) -> None:
        for parameter, start in zip(self._parameters, self._start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=self._strength)


class _EarlyStopping:
    """The best evaluation so far, and the parameters it had."""

    def __init__(self, validation: Validation, parameters: Sequence[nn.Parameter]) -> None:
        self._validation = validation
        self._parameters = parameters
        self._best: tuple[float, ...] | None = None
        self._kept: list[torch.Tensor] = []
        self._decay: list[float] = []
        self._n_worse = 0

    @property
    def is_over(self) -> bool:
        return self._n_worse >= self._validation.patience

    def evaluate(self, outcome: Outcome) -> tuple[tuple[float, ...], float]:
        score, flops = self._validation.evaluate()
        if self._best is None or score > self._best:
            self._best, self._n_worse = score, 0
            self._kept = [parameter.detach().clone() for parameter in self._parameters]
            self._decay = list(outcome.decay)
        else:
            self._n_worse += 1
        return score, flops

    @torch.no_grad()
    def restore(self, outcome: Outcome) -> None:
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)
        outcome.decay = self._decay


def _endless(batches: Batches) -> Iterator[Batch]:
    number = 0
    while True:
        yield from batches.epoch(number)
        number += 1
