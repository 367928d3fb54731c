"""The one training loop: every method that trains by gradient goes through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from harness.measure import FlopsModel, Precision, known_flops
from harness.records import CurvePoint, Masters, Optimiser
from harness.support import UnsupportedError
from harness.training.batches import Batch, Batches
from harness.training.budget import BudgetProgress, Schedule, learning_rate_factor
from harness.training.optimisers import optimiser_of

_CURVE_POINTS = 32


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimiser.

    Attributes:
        warmup: share of the budget over which the learning rate rises.
        schedule: shape of its fall afterwards.
        max_grad_norm: norm to which longer gradients are shortened; None leaves them.
        label_smoothing: label smoothing of the loss.
        accumulation: pieces of a batch that pass the model one by one; the step is the same and needs less memory.
        l2_start: strength of the pull towards the starting point: adds `l2_start / 2 * |w - w_0|^2` to the loss, over
            the groups that are `anchored` (L2-SP, Li et al., 2018, arXiv:1802.01483).
        optimiser: how weights are updated.
        masters: how trained parameters in bfloat16 are rounded; `float32` where there are none.
        seed: of stochastic rounding and random projections.
        rank: dimensions that the optimiser projects gradients to, where it does.
    """

    warmup: float = 0.1
    schedule: Schedule = "linear"
    max_grad_norm: float | None = 1.0
    label_smoothing: float = 0.0
    accumulation: int = 1
    l2_start: float = 0.0
    optimiser: Optimiser = "adamw"
    masters: Masters = "float32"
    seed: int = 0
    rank: int = 1


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters with the same learning rate and weight decay.

    Attributes:
        parameters: the parameters.
        learning_rate: peak learning rate.
        weight_decay: weight decay of the matrices; vectors (biases, norms) are not decayed.
        anchored: whether `l2_start` pulls them to their start; a new head starts nowhere in particular.
        is_of_matrices: whether an optimiser for matrices updates them, if it is one; the rates are those of AdamW.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    anchored: bool = True
    is_of_matrices: bool = False


class Hooks:
    """Calls around the steps of the loop that a method may override; the defaults do nothing."""

    def before_step(self, fraction: float) -> FlopsModel | None:
        """Prepare a step, given the share of the budget spent; may change which parameters require gradients.

        Returns:
            Operations of a batch from here on, or None if they are unchanged.
        """
        return None

    def penalty(self) -> torch.Tensor | None:
        """Return a term to add to the loss of each step."""
        return None

    def before_update(self) -> None:
        """Change the gradients of a step: they are complete and clipped, and the optimiser reads them next."""

    def after_step(self, fraction: float) -> None:
        """Finish a step: parameters have moved, and gradients are still there."""

    def at_end(self) -> None:
        """Finish the fit: the last step is over, and waiting for the device costs no step."""


@dataclass
class FitResult:
    """Result of a fit.

    Attributes:
        stopped_by: the cap that ended it, or `early_stopping`.
        steps: optimiser steps taken.
        tokens: real tokens that went through the model.
        flops: operations counted for them.
        decay: for each group, the product over the steps of 1 - learning rate * weight decay: the factor by which a
            matrix shrank whose gradients were all 0.
        curve: at most a few dozen points, and one for every validation.
    """

    stopped_by: str = ""
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    decay: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)


@dataclass(eq=False)
class EarlyStopping:
    """Early stopping: the best evaluation so far, and the parameters it had.

    Attributes:
        evaluate: returns (score, operations spent). Scores are compared as tuples, greater is better; the first number
            is the task's metric.
        patience: evaluations without a better score after which training stops.
        per_fit: maximum number of evaluations of a fit; there is never more than one an epoch.
    """

    evaluate: Callable[[], tuple[tuple[float, ...], float]]
    patience: int
    per_fit: int = 20
    _best: tuple[float, ...] | None = field(default=None, init=False)
    _kept: list[torch.Tensor] = field(default_factory=list, init=False)
    _decay: list[float] = field(default_factory=list, init=False)
    _n_worse: int = field(default=0, init=False)

    @property
    def is_over(self) -> bool:
        """Whether training should stop."""
        return self._n_worse >= self.patience

    def check(self, parameters: Sequence[nn.Parameter], decay: Sequence[float]) -> tuple[tuple[float, ...], float]:
        """Evaluate, and keep the parameters if the score is the best so far; return (score, operations spent)."""
        score, flops = self.evaluate()
        if self._best is None or score > self._best:
            self._best, self._n_worse = score, 0
            self._kept = [parameter.detach().clone() for parameter in parameters]
            self._decay = list(decay)
        else:
            self._n_worse += 1
        return score, flops

    @torch.no_grad()
    def restore(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """Restore the parameters of the best evaluation; return the decay at that time."""
        for parameter, kept in zip(parameters, self._kept, strict=True):
            parameter.copy_(kept)
        return self._decay


def train(
    *,
    forward: Callable[[Batch], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    batches: Batches,
    groups: Sequence[ParameterGroup],
    optimisation: Optimisation,
    progress: BudgetProgress,
    flops: FlopsModel | None,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[int, float | None], None],
    hooks: Hooks | None = None,
    early_stopping: EarlyStopping | None = None,
    at_step: Mapping[int, Callable[[FitResult], float]] | None = None,
) -> FitResult:
    """Train until the budget is spent.

    Args:
        forward: function from a batch to outputs, first axis rows.
        loss: function from (outputs, targets, label smoothing) to the mean loss over rows.
        batches: the training batches.
        groups: the parameters to train.
        optimisation: settings of the optimiser.
        progress: the budget; decides when to stop and drives the learning rate.
        flops: operations of a batch, forward and backward; None counts none.
        device: where the model is.
        precision: bf16 runs the forward pass under autocast; parameters and moments keep their own types.
        on_step: called with (step, loss) at the points of the curve.
        hooks: calls around steps.
        early_stopping: stops early and restores the parameters of the best evaluation; None trains to the budget's end.
        at_step: functions to call after a step, by its number, unless it is the last. Each gets the result so far,
            returns a score for the curve, and may raise to end the fit.

    Raises:
        FloatingPointError: the loss is no longer finite.
        UnsupportedError: the loss does not depend on any parameter of a group, which would stay untrained.
    """
    hooks = hooks or Hooks()
    how = optimisation
    optimiser = optimiser_of(groups, how.optimiser, how.masters, how.seed, how.rank)
    step_flops = getattr(optimiser, "step_flops", 0.0)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    anchor = _Anchor(groups, optimisation.l2_start) if optimisation.l2_start > 0 else None
    outcome = FitResult(decay=[1.0] * len(groups))
    stopper = early_stopping
    limit = progress.step_limit
    every = max(1, limit // _CURVE_POINTS)
    validates_every = max(len(batches), math.ceil(limit / stopper.per_fit)) if stopper is not None else 0
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
        hooks.before_update()
        optimiser.step()
        progress.step += 1
        outcome.steps += 1
        outcome.tokens += batch.n_tokens
        n_texts = batch.n_rows * batch.texts_per_row
        spent = flops.batch(n_texts, batch.length, batch.n_outputs) + step_flops if flops is not None else 0.0
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
            score, spent = stopper.check(parameters, outcome.decay)
            outcome.flops += spent
            progress.flops += spent
            stopped_by = stopped_by or ("early_stopping" if stopper.is_over else progress.stopped_by())
        if at_step and stopped_by is None and progress.step in at_step:
            score = (at_step[progress.step](outcome),)
        if progress.step % every == 0 or stopped_by is not None or score is not None:
            mean = float(running) / n_running  # the only place that waits for the device
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
        outcome.decay = stopper.restore(parameters)
    hooks.at_end()
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


class _Anchor:
    """The pull of parameters towards their start, as a term of the gradient."""

    def __init__(self, groups: Sequence[ParameterGroup], strength: float) -> None:
        self._parameters = [parameter for group in groups if group.anchored for parameter in group.parameters]
        self._start = [parameter.detach().clone() for parameter in self._parameters]
        self._strength = strength

    @torch.no_grad()
    def add_gradients(self) -> None:
        for parameter, start in zip(self._parameters, self._start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=self._strength)


def _endless(batches: Batches) -> Iterator[Batch]:
    number = 0
    while True:
        yield from batches.epoch(number)
        number += 1
