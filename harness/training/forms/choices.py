"""One vector for each choice of a row, one score each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.features import TokenIds, lengths_of, pad, sequences_of, starts_of
from harness.measure import Device, Precision
from harness.tasks import Floats, Ints, Rows
from harness.training.batches import Batch, to_device
from harness.training.forms.base import Examples, Workbench, reads_segments
from harness.training.forms.classes import Classes
from harness.training.inputs import TokenInputs
from harness.training.model import NO_SCORE, AdaptedModel, ChoiceModel, choice_loss

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs


class Choices(Classes):
    """The one head with a single score, on each choice read with the question; a softmax over the choices of a row."""

    enters_blocks = False
    n_scores = 1
    weighs_classes = False  # the place of the right choice is no class

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return a model that pools as the backbone's authors declare."""
        pooling = bench.some_backbone.files.pooling
        return ChoiceModel(transformer, head, pooling, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return one item a row, with all its choices."""
        sequences = bench.token_rows(rows, "encode", reserved)
        counts = bench.tokens_of(rows, reserved).n_sequences(rows.index)
        lengths = np.add.reduceat(lengths_of(sequences), starts_of(counts)[:-1])
        return Examples(sequences, rows.known_labels, lengths, counts)

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Return token ids, grouped by rows."""
        assert examples.counts is not None
        there, pad_id = bench.device.torch_device(), bench.some_backbone.pad_id
        return ChoiceInputs(model, examples.sequences, examples.counts, pad_id=pad_id, compact=compact, device=there)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the cross-entropy over the choices that a row has."""
        return choice_loss(outputs, targets, label_smoothing)

    def arrange(self, scores: Floats, rows: Rows, bench: Workbench, reserved: int) -> Floats:
        """Return one score a choice, shape (rows, most choices); `NO_SCORE` where a row has no such choice."""
        return _by_row(scores, bench.tokens_of(rows, reserved).n_sequences(rows.index), bench.n_outputs)


def _by_row(scores: Floats, counts: Ints, n_outputs: int) -> Floats:
    """Return scores of sequences, shape (sequences, 1), as a matrix of shape (rows, n_outputs)."""
    matrix = np.full((len(counts), n_outputs), NO_SCORE, dtype=np.float32)
    matrix[np.arange(n_outputs) < counts[:, None]] = scores[:, 0]
    return matrix


class ChoiceInputs(TokenInputs):
    """Token ids of items of several sequences.

    Args:
        model: as in `TokenInputs`.
        sequences: token ids of each sequence.
        counts: sequences of each item, shape (items,).
        pad_id: as in `TokenInputs`.
        compact: as in `TokenInputs`.
        device: as in `TokenInputs`.
    """

    def __init__(
        self,
        model: AdaptedModel,
        sequences: Sequence[TokenIds],
        counts: Ints,
        *,
        pad_id: int,
        compact: bool,
        device: torch.device,
    ) -> None:
        super().__init__(model, sequences, pad_id=pad_id, compact=compact, device=device)
        self._counts = counts
        self._starts = starts_of(counts)
        self._lengths = np.maximum.reduceat(self._lengths, self._starts[:-1])  # the longest choice pads the others

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return a batch padded to the longest choice; a row with fewer choices repeats its first, unscored."""
        groups = [self._rows[self._starts[item] : self._starts[item + 1]] for item in items]
        most = max(len(group) for group in groups)
        exists = np.arange(most) < self._counts[items, None]
        placed = [ids for group in groups for ids in [*group, *[group[0]] * (most - len(group))]]
        ids, mask = (values.reshape(len(groups), most, -1) for values in pad(placed, self._pad_id))
        *inputs, there = to_device((ids, mask, exists, targets), self._device)
        n_tokens = sum(len(ids) for group in groups for ids in group)
        return Batch(tuple(inputs), there, len(groups), ids.shape[2], n_tokens, texts_per_row=most)

    def logits(self, items: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """Return logits without dropout, shape (items, outputs); leaves the model training."""
        flat = super().logits(sequences_of(self._starts, items), 1, device, precision)
        return _by_row(flat, self._counts[items], n_outputs)
