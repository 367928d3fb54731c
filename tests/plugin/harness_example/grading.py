"""A kind of task with a head of its own: classes that have an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.tasks import Classification, Toys, kinds
from harness.training import Classes

SCALE = 4.0
"""Steepness of the odds: with it, the learning rates of other heads suit this one."""


class OrderedClasses(Classes):
    """Proportional odds: one score of a text, and a threshold between each grade and the next."""

    def head(self, width: int, n_outputs: int, dropout: float) -> Any:
        """Return a module from vectors of shape (rows, width) to log-probabilities of shape (rows, grades)."""
        import torch
        from torch import nn
        from torch.nn import functional

        class Thresholds(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.score = nn.Linear(width, 1, bias=False)
                nn.init.normal_(self.score.weight, std=0.02)
                self.first = nn.Parameter(torch.tensor(-1.0))
                self.steps = nn.Parameter(torch.zeros(n_outputs - 2))
                self.dropout = nn.Dropout(dropout)

            def forward(self, vectors: torch.Tensor) -> torch.Tensor:
                steps = functional.softplus(self.steps)  # above 0: the thresholds are in order
                thresholds = torch.cat([self.first[None], self.first + steps.cumsum(0)])
                at_most = torch.sigmoid(SCALE * (thresholds - self.score(self.dropout(vectors))))
                end = torch.ones_like(at_most[:, :1])
                grades = torch.cat([at_most, end], dim=1) - torch.cat([0 * end, at_most], dim=1)
                return grades.clamp_min(1e-6).log()

        return Thresholds()


class Grading(Classification):
    """One text, one of several grades, in the order of `label_names`."""

    name = "grading"
    roles: ClassVar[Mapping[str, str | None]] = {"text": "text", "label": "label"}
    main_metric = "grade_error"

    def answer_form(self) -> Any:
        """Return the head with thresholds."""
        return OrderedClasses()

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a text whose words tell its topic; the topics stand for grades, in the order of their names."""
        topic = toys.topic()
        return {"text": toys.sentence(4, toys.word(topic), toys.word(topic)), "label": topic}


grading = Grading()
kinds.add(grading.name, grading)
