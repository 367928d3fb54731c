"""Base classes of methods that train by gradient: the settings of the training loop, and one way to run it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.backbones import BackboneFiles
from harness.data import carve_validation
from harness.measure import Precision, PrecisionPolicy
from harness.methods._answers import ClassWeights, why_no_class_weights, why_no_threshold
from harness.methods.base import Method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected
from harness.records import Budget, FitLength
from harness.tasks import Answers, Form, Ints, Labels, Rows, kinds
from harness.training import BudgetProgress, Schedule

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.measure import FlopsModel
    from harness.methods.rungs import Rungs
    from harness.training import Batch, Batches, FitResult, Hooks, Optimisation, ParameterGroup

Evaluate = Callable[[], tuple[tuple[float, ...], float]]
"""Function that returns (score, operations spent); see `training.loop.EarlyStopping`."""


class TrainedMethod(Method):
    """Settings of the training loop.

    Attributes:
        learning_rate: peak learning rate of the transformer's parameters, or of those added to it.
        epochs: passes over the training rows in a fit whose budget names neither epochs nor steps.
        min_steps: minimum number of steps of such a fit, since few rows need more than a few epochs.
        batch_size: rows per optimiser step.
        accumulation: number of pieces in which a batch passes through the model; more need less memory, and the step
            is the same.
        weight_decay: weight decay of matrices.
        warmup: share of the budget over which the learning rate rises.
        schedule: shape of the learning rate's decay after warm-up.
        max_grad_norm: gradients are clipped to this norm; None disables clipping.
        patience: number of evaluations on a validation split without a better score after which training stops and
            restores the best parameters; None trains on all rows to the end of the budget.
        validation_fraction: share of the training rows that early stopping validates on.
        precision: `auto` is bfloat16 where the hardware has it natively.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    epochs: float = Field(default=4, gt=0)
    min_steps: int = Field(default=120, ge=1)
    batch_size: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    schedule: Schedule = "linear"
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    patience: int | None = Field(default=None, ge=1)
    validation_fraction: float = Field(default=0.2, gt=0, le=0.5)
    precision: PrecisionPolicy = "auto"

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version where early stopping holds out a different share of the rows than version 1."""
        version = super().version_on(files, form)
        # Version 1 held out every n-th row of a class, for a whole n: half of the rows for a fraction of 0.4.
        was_another = Fraction(self.validation_fraction).limit_denominator(1_000_000).numerator != 1
        return max(version, self.version + 1) if self.patience is not None and was_another else version

    def warm_up(self) -> None:
        """Import the libraries of training, and train a small transformer for one step."""
        from harness.measure import find_device
        from harness.training import exercise_training

        exercise_training(bf16=find_device("cpu").precision(self.precision) == "bf16")

    def n_steps(self, n_items: int, budget: Budget) -> int:
        """Return the optimiser steps of a fit to `n_items`, unless seconds or operations end it earlier."""
        steps_per_epoch = max(1, math.ceil(n_items / self.batch_size))
        return BudgetProgress(budget, self.default_steps(steps_per_epoch), steps_per_epoch, lambda: 0.0).step_limit

    def halved(self) -> TrainedMethod | None:
        """Return the method with pieces of half the size; None where pieces are single rows already."""
        if self.accumulation >= self.batch_size:
            return None
        return self.model_copy(update={"accumulation": min(2 * self.accumulation, self.batch_size)})

    def default_steps(self, steps_per_epoch: int) -> int:
        """Return the steps of a fit without a budget of steps; small data needs a minimum beside the epochs."""
        return self.fit_length().of_epochs(steps_per_epoch)

    def fit_length(self) -> FitLength:
        """Return the steps of a fit that no budget limits."""
        return FitLength(self.batch_size, self.epochs, self.min_steps)

    def optimisation(self) -> Optimisation:
        """Return the part of the configuration that the training loop reads."""
        from harness.training import Optimisation

        return Optimisation(
            warmup=self.warmup,
            schedule=self.schedule,
            max_grad_norm=self.max_grad_norm,
            accumulation=self.accumulation,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            l2_start=getattr(self, "l2_start", 0.0),
            optimiser=getattr(self, "optimiser", "adamw"),
            masters=getattr(self, "masters", "float32"),
            rank=getattr(self, "optimiser_rank", 1),
        )

    def carve(self, rows: Rows, bench: Bench) -> tuple[Ints, Ints]:
        """Return the positions to fit on and to validate on: all and none where nothing is decided on rows held out."""
        everything = np.arange(len(rows), dtype=np.int64)
        none = np.empty(0, dtype=np.int64)
        if self.patience is None and not self.holds_out(bench):
            return everything, none
        groups = bench.kind.validation_groups(rows.known_strata)
        inside, outside = carve_validation(groups, self.validation_fraction)
        if len(outside) == 0 or len(inside) == 0:
            what = "early_stopping" if self.patience is not None else "threshold"
            bench.ledger.remarks[what] = f"none: {len(rows)} rows leave nothing to validate on"
            return everything, none
        return inside, outside

    def holds_out(self, bench: Bench) -> bool:
        """Return whether the fit chooses what answers need on validation rows, even without early stopping."""
        return False

    def optimise(
        self,
        model: nn.Module,
        batches: Batches,
        bench: Bench,
        *,
        groups: Sequence[ParameterGroup],
        flops: FlopsModel,
        precision: Precision,
        forward: Callable[[Batch], torch.Tensor] | None = None,
        loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] | None = None,
        hooks: Hooks | None = None,
        evaluate: Evaluate | None = None,
        compiles: bool = False,
        predict: Callable[[Bench, float], Answers] | None = None,
    ) -> FitResult:
        """Train `model` until the budget is spent, leave it in evaluation mode, and enter the spending in the ledger.

        Args:
            model: module that returns logits.
            batches: batches of the training rows.
            bench: the cell's bench.
            groups: trained parameters with their learning rates.
            flops: operations of a batch, forward and backward.
            precision: precision of the forward pass.
            forward: function from a batch to outputs; None calls the model with the batch's inputs.
            loss: loss function; None takes that of the kind of task.
            hooks: the method's hooks around steps.
            evaluate: function that scores the validation rows, or None; needs `patience`.
            compiles: whether the first step compiles, on a CPU too.
            predict: function from a bench and the decay so far to the answers for the rows of `bench.rungs`. None
                passes the rungs by.
        """
        import torch

        from harness.training import EarlyStopping, train

        progress = bench.progress(self.default_steps(len(batches)), len(batches))
        model.train()
        forward = forward or (lambda batch: model(*batch.inputs))
        loss = loss or bench.form.loss
        # On a CPU there are no kernels to choose and the allocator does not grow in steps.
        if bench.device.kind != "cpu" or compiles:
            from harness.training import warm_up_steps

            with bench.clock.phase("warmup"):
                warm_up_steps(model, batches, forward, loss, self.accumulation, bench.device, precision)
        torch.manual_seed(bench.seeded("dropout"))
        at_step = None
        if bench.rungs is not None and predict is not None:
            at_step = self._at_rungs(bench.rungs, progress, bench, model, predict)
        outcome = train(
            forward=forward,
            loss=loss,
            batches=batches,
            groups=groups,
            optimisation=dataclasses.replace(self.optimisation(), seed=bench.seeded("rounding")),
            progress=progress,
            flops=flops,
            device=bench.device.torch_device(),
            precision=precision,
            on_step=lambda _, loss: bench.report("training", progress.fraction(), loss),
            hooks=hooks,
            early_stopping=EarlyStopping(evaluate, self.patience) if evaluate is not None and self.patience else None,
            at_step=at_step,
        )
        model.eval()
        bench.ledger.train_flops += outcome.flops
        bench.ledger.train_tokens += outcome.tokens
        bench.ledger.stopped_by = outcome.stopped_by
        bench.ledger.curve.extend(outcome.curve)
        return outcome

    @staticmethod
    def _at_rungs(
        rungs: Rungs,
        progress: BudgetProgress,
        bench: Bench,
        model: nn.Module,
        predict: Callable[[Bench, float], Answers],
    ) -> dict[int, Callable[[FitResult], float]]:
        """Return what the training loop calls after the steps of the rungs."""

        def at(share: float) -> Callable[[FitResult], float]:
            return lambda fit: rungs.climb(share, progress.step, bench, model, lambda own: predict(own, fit.decay[0]))

        return {step: at(share) for step, share in rungs.at_steps(progress.step_limit).items()}


class SupervisedMethod(TrainedMethod):
    """Further settings of methods that train an output layer by gradient, on labels.

    Attributes:
        dropout: dropout rate before the output layer.
        label_smoothing: label smoothing of the loss, where answers are classes, choices, spans or tags.
        threshold: score from which on a label is given, where answers are label sets; None chooses it on a share
            `validation_fraction` of the training rows, which are not trained on then.
        class_weights: `balanced` multiplies a row's loss by rows / (classes * rows of its class), counted on the rows
            trained on, so that rare classes count as much as frequent ones. For label sets it weighs the rows with and
            without each label, for tags the words of each tag. Probabilities are then those of classes of equal size.
    """

    newer_settings: ClassVar[frozenset[str]] = frozenset({"threshold", "class_weights"})

    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    class_weights: ClassWeights = "none"

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also settings that the kind's answers give no meaning."""
        reason = super().why_unsupported(kind, files, device)
        form = kinds.get(kind).form
        if reason is None and self.label_smoothing > 0 and form in ("number", "labels"):
            reason = f"label_smoothing={self.label_smoothing:g} was given; a {kind} task has no classes. Leave it out."
        reason = reason or why_no_class_weights(self.class_weights, kind)
        return reason or why_no_threshold(self.threshold, kind)

    def training_loss(
        self, labels: Labels, bench: Bench
    ) -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]:
        """Return the loss to train with; `labels` are those of the rows trained on."""
        return bench.form.loss if self.class_weights == "none" else bench.form.balanced_loss(labels, bench)

    def holds_out(self, bench: Bench) -> bool:
        """Return whether a threshold is to be chosen; a metric that ranks by scores needs none."""
        return bench.form.holds_out and self.threshold is None and not bench.ranks_by_scores

    def conclude(
        self, state: Mapping[str, Any], predict: Callable[[], Answers], rows: Rows, outside: Ints, bench: Bench
    ) -> dict[str, Any]:
        """Return the state of the form of answers after a fit.

        Args:
            state: the state before it.
            predict: function that returns raw answers for the validation rows.
            rows: the training rows.
            outside: positions of the validation rows.
            bench: the cell's bench.
        """
        if not bench.form.holds_out:
            return dict(state)
        if self.threshold is not None:
            return {**state, "threshold": self.threshold}
        if len(outside) == 0 or bench.ranks_by_scores:
            return dict(state)
        return bench.form.conclude(state, predict(), rows.known_labels[outside], bench)


class GradientMethod(SupervisedMethod):
    """Further settings of methods that train an output layer and parameters inside the transformer.

    Attributes:
        head_learning_rate: peak learning rate of the new output layer, which starts from random weights.
    """

    head_learning_rate: float = Field(default=1e-3, gt=0)

    def groups(self, body: Sequence[nn.Parameter], head: Sequence[nn.Parameter]) -> list[ParameterGroup]:
        """Group the transformer's (or added) parameters and the head's, with their learning rates."""
        from harness.training import ParameterGroup

        return [
            ParameterGroup(body, self.learning_rate, self.weight_decay),
            ParameterGroup(head, self.head_learning_rate, self.weight_decay, anchored=False),
        ]


_SAVED: Final = "_harness_saved"
"""Attribute of a frozen parameter or buffer that is saved with the trained ones."""


def save_too(value: torch.Tensor) -> None:
    """Have a frozen parameter or a buffer saved with the trained ones: files and seed do not give its values."""
    setattr(value, _SAVED, True)


def _is_saved(value: torch.Tensor) -> bool:
    return value.requires_grad or getattr(value, _SAVED, False)


def trained_tensors(model: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Return every parameter and buffer to save, on the host; float32 where it is bfloat16, which numpy lacks."""
    return {
        name: np.asarray(value.detach().to("cpu", _saved_type(value)).numpy())
        for name, value in saved_values(model).items()
    }


def saved_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that require a gradient, and the values that `save_too` marked, by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value for name, value in named if _is_saved(value)}


def expected_parameters(model: nn.Module) -> dict[str, Expected]:
    """Return the types and shapes of every parameter and buffer to save."""
    return {
        name: Expected(tuple(value.shape), str(_saved_type(value)).removeprefix("torch."))
        for name, value in saved_values(model).items()
    }


def _saved_type(value: torch.Tensor) -> torch.dtype:
    import torch

    return torch.float32 if value.dtype is torch.bfloat16 else value.dtype
