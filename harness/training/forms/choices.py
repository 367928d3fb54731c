"""One vector for each choice of a row, one score each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.features import pad
from harness.measure import Device, Precision
from harness.tasks import Answers, Floats, Ints, Labels, Rows
from harness.training.batches import Batch, shuffled, to_device
from harness.training.forms.base import (
    AnswerForm,
    Examples,
    Scores,
    Workbench,
    linear_head,
    reads_segments,
    sequences_of,
    sizes_of,
    starts_of,
)
from harness.training.forms.classes import score_logits
from harness.training.inputs import TokenInputs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs
    from harness.training.loop import Batches
    from harness.training.model import AdaptedModel


class Choices(AnswerForm):
    """The one head with a single score, on each choice read with what is asked; a softmax over the choices of a row."""

    enters_blocks = False

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """Dropout and one linear layer to one score, whatever the number of choices."""
        return linear_head(width, 1, dropout)

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Pooled as the backbone's authors declare."""
        from harness.training.model import ChoiceModel

        pooling = bench.some_backbone.files.pooling
        return ChoiceModel(transformer, head, pooling, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """An item is a row with all its choices."""
        sequences = bench.token_rows(rows, "encode", reserved)
        counts = bench.tokens_of(rows, reserved).n_sequences(rows.index)
        lengths = np.add.reduceat(sizes_of(sequences), starts_of(counts)[:-1])
        return Examples(sequences, rows.known_labels, lambda positions: positions, lengths, counts)

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Token ids, grouped by rows."""
        assert examples.counts is not None
        return ChoiceInputs(
            model,
            examples.sequences,
            examples.counts,
            pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
            compact=compact,
            device=bench.device.torch_device(),
        )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross-entropy over the choices that a row has."""
        from harness.training.model import one_of

        return one_of(outputs, targets, label_smoothing)

    def validate(
        self,
        inputs: Inputs,
        examples: Examples,
        rows: Ints,
        labels: Labels,
        bench: Workbench,
        precision: Precision,
    ) -> Scores:
        """(the task's metric, minus the log loss)."""
        return score_logits(inputs.logits(rows, bench.n_outputs, bench.device, precision), labels, bench)

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """Probabilities of shape (rows, most choices); 0 where a row has no such choice."""
        from harness.training.model import predict_logits, softmax

        sequences = bench.token_rows(rows, "predict", reserved)
        counts = bench.tokens_of(rows, reserved).n_sequences(rows.index)
        with bench.working("predict"):
            scores = predict_logits(
                model,
                sequences,
                1,
                pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
                device=bench.device,
                precision=precision,
            )
            return softmax(by_row(scores[:, 0], counts, bench.n_outputs))


def by_row(scores: Floats, counts: Ints, n_outputs: int) -> Floats:
    """Scores of sequences as a matrix of shape (rows, n_outputs), `NO_SCORE` where a row has no such choice."""
    from harness.training.model import NO_SCORE

    matrix = np.full((len(counts), n_outputs), NO_SCORE, dtype=np.float32)
    matrix[np.arange(n_outputs) < counts[:, None]] = scores
    return matrix


class ChoiceInputs(TokenInputs):
    """Token ids of rows of several sequences.

    Args:
        counts: sequences of each row, shape (rows,); the other arguments are `TokenInputs`'.
    """

    def __init__(
        self,
        model: AdaptedModel,
        sequences: list[npt.NDArray[np.int32]],
        counts: Ints,
        *,
        pad_id: int,
        compact: bool,
        device: torch.device,
    ) -> None:
        super().__init__(model, sequences, pad_id=pad_id, compact=compact, device=device)
        self._counts = counts
        self._starts = starts_of(counts)

    def batches(self, positions: Ints, targets: Ints, *, batch_size: int, seed: int) -> Batches:
        """Batches of rows of like length."""
        groups = [self.rows[self._starts[row] : self._starts[row + 1]] for row in positions]
        made: Batches = ChoiceBatches(
            groups, targets, pad_id=self._pad_id, batch_size=batch_size, seed=seed, device=self._device
        )
        return made

    def logits(self, positions: Ints, n_classes: int, device: Device, precision: Precision) -> Floats:
        """Logits without dropout, shape (rows, n_classes)."""
        flat = super().logits(sequences_of(self._starts, positions), 1, device, precision)
        return by_row(flat[:, 0], self._counts[positions], n_classes)


class ChoiceBatches:
    """Batches of rows of several sequences, padded to the longest; a row with fewer repeats its first, unscored.

    Args:
        groups: token ids of each row's sequences.
        targets: position of the right one.
        pad_id, batch_size, seed, device: see `training.batches.TokenBatches`.
    """

    def __init__(
        self,
        groups: list[list[npt.NDArray[np.int32]]],
        targets: npt.NDArray[np.int64],
        *,
        pad_id: int,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._groups = groups
        self._targets = targets
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        longest = (max(len(ids) for ids in group) for group in groups)
        self._lengths = np.fromiter(longest, dtype=np.int64, count=len(groups))

    def __len__(self) -> int:
        return -(-len(self._groups) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all rows."""
        for members in shuffled(len(self._groups), self._batch_size, self._lengths, self._seed, number):
            groups = [self._groups[row] for row in members]
            most = max(len(group) for group in groups)
            exists = np.array([[at < len(group) for at in range(most)] for group in groups])
            placed = [ids for group in groups for ids in [*group, *[group[0]] * (most - len(group))]]
            ids, mask = (values.reshape(len(groups), most, -1) for values in pad(placed, self._pad_id))
            there = to_device((ids, mask, exists, self._targets[members]), self._device)
            yield Batch(
                inputs=tuple(there[:3]),
                targets=there[3],
                n_rows=len(groups),
                length=ids.shape[2],
                n_tokens=sum(len(ids) for group in groups for ids in group),
                texts_per_row=most,
            )
