"""One pooled vector a row, one score a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.measure import Precision
from harness.tasks import Answers, Floats, Ints, Labels, Rows
from harness.training.forms.base import (
    AnswerForm,
    Examples,
    Scores,
    Workbench,
    linear_head,
    log_softmax,
    reads_segments,
    sizes_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel


class Classes(AnswerForm):
    """The protocol's one head: the backbone's own pooling over real tokens, dropout, one linear layer."""

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """Dropout and one linear layer."""
        return linear_head(width, n_outputs, dropout)

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Pooled as the backbone's authors declare."""
        from harness.training.model import PooledModel

        pooling = bench.some_backbone.files.pooling
        return PooledModel(transformer, head, pooling, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """A row is a sequence is an item."""
        sequences = bench.token_rows(rows, "encode", reserved)
        return Examples(sequences, rows.known_labels, lambda positions: positions, sizes_of(sequences))

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Token ids."""
        from harness.training.inputs import TokenInputs

        return TokenInputs(
            model,
            examples.sequences,
            pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
            compact=compact,
            device=bench.device.torch_device(),
        )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def validate(
        self,
        inputs: Inputs,
        examples: Examples,
        rows: Ints,
        labels: Labels,
        bench: Workbench,
        precision: Precision,
    ) -> Scores:
        """(the task's metric, minus the log loss): the loss tells apart what a small split cannot."""
        return score_logits(inputs.logits(rows, bench.n_outputs, bench.device, precision), labels, bench)

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """Probabilities of shape (rows, classes)."""
        from harness.training.model import predict_logits, softmax

        sequences = bench.token_rows(rows, "predict", reserved)
        with bench.working("predict"):
            logits = predict_logits(
                model,
                sequences,
                bench.n_outputs,
                pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
                device=bench.device,
                precision=precision,
            )
            return softmax(logits)


def score_logits(logits: Floats, targets: Labels, bench: Workbench) -> Scores:
    """(the task's metric, minus the log loss) of logits of shape (rows, outputs)."""
    right = log_softmax(logits)[np.arange(len(targets)), targets]
    return bench.measure(logits, targets), float(right.mean())
