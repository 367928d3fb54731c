"""One pooled vector a row, one score a label, each the logit of a yes or no of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.tasks import Answers, Floats, Labels
from harness.training.balance import balanced_weights
from harness.training.forms.base import Loss, Scores, Workbench
from harness.training.forms.classes import Classes
from harness.training.thresholds import choose_threshold, scores_at

if TYPE_CHECKING:
    import torch
    from torch import nn


class LabelSets(Classes):
    """The protocol's one head with a sigmoid; a label is given above a threshold that validation rows decide."""

    holds_out = True
    state_names = ("threshold",)

    def start(self, head: nn.Module, labels: Labels) -> nn.Module:
        """Return the head with biases at the log-odds of each label (Lin et al., 2017, arXiv:1708.02002).

        Most labels are rare. From a bias of 0, most of a short fit would go into unlearning them.
        """
        import torch
        from torch import nn

        odds = (labels.sum(axis=0) + 0.5) / (len(labels) - labels.sum(axis=0, dtype=np.int64) + 0.5)
        last = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            last.bias.copy_(torch.from_numpy(np.log(odds).astype(np.float32)))
        return head

    def state(self, labels: Labels) -> dict[str, Any]:
        """Return the threshold before any is chosen: 0.5."""
        return {"threshold": 0.5}

    def conclude(self, state: Mapping[str, Any], answers: Answers, labels: Labels, bench: Workbench) -> dict[str, Any]:
        """Return the threshold with the best main metric on validation rows."""
        assert isinstance(answers, np.ndarray)
        return {"threshold": choose_threshold(answers, labels, bench.measure)}

    def finish(self, answers: Answers, state: Mapping[str, Any]) -> Answers:
        """Return scores in which the threshold has become 0.5."""
        assert isinstance(answers, np.ndarray)
        return scores_at(answers, state["threshold"])

    def targets(self, labels: Labels, state: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return 0 or 1 for each label, float32, shape (rows, labels)."""
        return labels.astype(np.float32)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean binary cross-entropy over rows and labels."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs, targets)

    def balanced_loss(self, labels: Labels, bench: Workbench) -> Loss:
        """Return the mean binary cross-entropy in which, for each label, rows with and without it count the same."""
        import torch
        from torch.nn import functional

        pairs = np.stack([balanced_weights(label, 2) for label in labels.astype(np.int64).T])
        without, given = torch.tensor(pairs.T, dtype=torch.float32).to(bench.device.torch_device())

        def loss(outputs: torch.Tensor, targets: torch.Tensor, _: float) -> torch.Tensor:
            weight = torch.where(targets > 0, given, without)
            return functional.binary_cross_entropy_with_logits(outputs, targets, weight=weight)

        return loss

    def quality(self, logits: Floats, labels: Labels, state: Mapping[str, Any], bench: Workbench) -> Scores:
        """Return (the task's metric at the best threshold, minus the mean binary cross-entropy)."""
        raw = self.answers(logits)
        threshold = choose_threshold(raw, labels, bench.measure)
        signed = np.where(labels > 0, logits, -logits).astype(np.float64)
        return bench.measure(scores_at(raw, threshold), labels), -float(np.logaddexp(0.0, -signed).mean())

    def answers(self, logits: Floats) -> Floats:
        """Return the probability of each label."""
        return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64))), dtype=np.float32)
