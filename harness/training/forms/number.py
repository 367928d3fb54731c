"""One pooled vector a row, one number: the loss is the squared error of targets standardised on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.tasks import Answers, Floats, Labels
from harness.training.forms.base import Scores, Workbench
from harness.training.forms.classes import Classes

if TYPE_CHECKING:
    import torch


class Number(Classes):
    """The protocol's one head with a single output; answers are in the units of the target."""

    state_names = ("mean", "deviation")
    weighs_classes = False

    def state(self, labels: Labels) -> dict[str, Any]:
        """Return the mean and the standard deviation of the training targets; a deviation of 0 counts as 1."""
        deviation = float(np.std(labels))
        return {"mean": float(np.mean(labels)), "deviation": deviation if deviation > 0 else 1.0}

    def targets(self, labels: Labels, state: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return the standardised targets, float32, shape (rows,)."""
        return np.asarray((labels - state["mean"]) / state["deviation"], dtype=np.float32)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean squared error."""
        from torch.nn import functional

        return functional.mse_loss(outputs.squeeze(-1), targets)

    def quality(self, logits: Floats, labels: Labels, state: Mapping[str, Any], bench: Workbench) -> Scores:
        """Return (the task's metric, minus the mean squared error)."""
        errors = logits[:, 0] - self.targets(labels, state)
        return bench.measure(self.finish(logits, state), labels), -float(np.mean(errors**2))

    def answers(self, logits: Floats) -> Floats:
        """Return the outputs as they are: standardised estimates."""
        return logits

    def finish(self, answers: Answers, state: Mapping[str, Any]) -> Answers:
        """Return estimates in the units of the target, shape (rows, 1)."""
        assert isinstance(answers, np.ndarray)
        return np.asarray(answers * np.float32(state["deviation"]) + np.float32(state["mean"]), dtype=np.float32)
