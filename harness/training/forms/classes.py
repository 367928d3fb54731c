"""One pooled vector a row, one score a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import lengths_of
from harness.measure import Precision
from harness.tasks import Answers, Floats, Ints, Labels, Rows
from harness.training.balance import balanced_weights
from harness.training.forms.base import AnswerForm, Examples, Loss, Scores, Workbench, log_softmax, reads_segments

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel


class Classes(AnswerForm):
    """The protocol's one head: the backbone's own pooling over real tokens, dropout, one linear layer."""

    weighs_classes = True

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return a model that pools as the backbone's authors declare."""
        from harness.training.model import PooledModel

        pooling = bench.some_backbone.files.pooling
        return PooledModel(transformer, head, pooling, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return one sequence and one item a row."""
        sequences = bench.token_rows(rows, "encode", reserved)
        state = self.state(rows.known_labels)
        return Examples(sequences, self.targets(rows.known_labels, state), lengths_of(sequences), state=state)

    def targets(self, labels: Labels, state: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return the targets of the loss, first axis rows."""
        return labels

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def balanced_loss(self, labels: Labels, bench: Workbench) -> Loss:
        """Return the weighted cross-entropy, a mean over rows.

        torch divides by the weights of the rows of a batch. On all training rows that is the same. A mean over rows
        also is the same whether a batch passes at once or in pieces.
        """
        import torch
        from torch.nn import functional

        weights = torch.tensor(balanced_weights(labels, bench.n_outputs), dtype=torch.float32)
        weights = weights.to(bench.device.torch_device())

        def loss(outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
            summed = functional.cross_entropy(
                outputs, targets, weight=weights, label_smoothing=label_smoothing, reduction="sum"
            )
            return summed / len(targets)

        return loss

    def validate(
        self, inputs: Inputs, examples: Examples, rows: Ints, labels: Labels, bench: Workbench, precision: Precision
    ) -> Scores:
        """Return (the task's metric, minus the loss): the loss tells apart models with equal metrics."""
        logits = inputs.logits(rows, bench.n_outputs, bench.device, precision)
        return self.quality(logits, labels, examples.state, bench)

    def quality(self, logits: Floats, labels: Labels, state: Mapping[str, Any], bench: Workbench) -> Scores:
        """Return (the task's metric, minus the mean loss) of logits of shape (rows, outputs)."""
        right = log_softmax(logits)[np.arange(len(labels)), labels]
        return bench.measure(logits, labels), float(right.mean())

    def answers(self, logits: Floats) -> Floats:
        """Return raw answers from logits, both of shape (rows, outputs): the probabilities."""
        from harness.training.model import softmax

        return softmax(logits)

    def predict(
        self,
        model: AdaptedModel,
        rows: Rows,
        bench: Workbench,
        precision: Precision,
        reserved: int,
        *,
        training_follows: bool = False,
    ) -> Answers:
        """Return raw answers of shape (rows, outputs): probabilities, where answers are classes.

        Args:
            model: the model.
            rows: rows to predict.
            bench: the cell's bench.
            precision: precision of the forward pass.
            reserved: positions of the backbone that are left for what is not text.
            training_follows: whether the model is trained on afterwards.
        """
        sequences = bench.token_rows(rows, "predict", reserved)
        n_scores, pad_id = self.n_scores or bench.n_outputs, bench.some_backbone.pad_id
        with bench.working("predict"):
            scores = model.predict_logits(
                sequences,
                n_scores,
                pad_id=pad_id,
                device=bench.device,
                precision=precision,
                training_follows=training_follows,
            )
            return self.answers(self.arrange(scores, rows, bench, reserved))

    def arrange(self, scores: Floats, rows: Rows, bench: Workbench, reserved: int) -> Floats:
        """Return the scores of sequences as logits of shape (rows, outputs)."""
        return scores
