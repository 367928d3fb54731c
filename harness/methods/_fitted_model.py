"""The fitted model of methods that train inside the transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from harness.measure import PrecisionPolicy
from harness.methods._gradient import trained_tensors
from harness.methods._modules import count_parameter
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.tasks import Answers, Rows

if TYPE_CHECKING:
    from harness.training import AdaptedModel


class FittedModel(Fitted):
    """A fitted transformer with its head.

    Args:
        model: the fitted model.
        precision: precision of its forward passes.
        seed: seed of the fit.
        reserved_tokens: positions that the method takes from the text.
        answers: state of its form of answers (`AnswerForm.state`).
        in_format: function that gives a bench the method's format of prompts.
    """

    def __init__(
        self,
        model: AdaptedModel,
        precision: PrecisionPolicy,
        seed: int,
        reserved_tokens: int = 0,
        answers: Mapping[str, Any] | None = None,
        in_format: Callable[[Bench], Bench] = lambda bench: bench,
    ) -> None:
        self.model = model
        self._answers = answers or {}
        self._in_format = in_format
        self._precision = precision
        self._seed = seed
        self._reserved_tokens = reserved_tokens
        self.n_parameters = sum(count_parameter(parameter) for parameter in model.parameters())
        self.n_trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Return the model's answers for the rows."""
        bench = self._in_format(bench)
        precision = bench.precision(self._precision)
        raw = bench.form.predict(self.model, rows, bench, precision, self._reserved_tokens)
        return bench.form.finish(raw, self._answers)

    def adapted_model(self) -> AdaptedModel:
        """Return the adapted model."""
        return self.model

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the trained parameters, and other values to save, by their names in the model."""
        return trained_tensors(self.model)

    def state(self) -> dict[str, Any]:
        """Return the seed, which restores values that are drawn and never trained, and what the answers need."""
        return {"seed": self._seed, **({"answers": dict(self._answers)} if self._answers else {})}
