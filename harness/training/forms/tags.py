"""One score a tag for each word, from the state of its first token; long sentences are read in overlapping windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import TokenIds, lengths_of, pad, sequences_of, starts_of
from harness.measure import Device, Precision
from harness.tasks import Answers, Floats, Ints, Labels, Rows, words_of
from harness.training.balance import balanced_weights
from harness.training.batches import Batch
from harness.training.forms.base import Examples, Loss, Scores, Workbench, log_softmax
from harness.training.forms.classes import Classes
from harness.training.inputs import TokenInputs
from harness.training.model import AdaptedModel, TokenModel, run_by_length

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs

_IGNORED = -100
"""Target of a token that is no word's first, or whose word is predicted in another window."""


class Tags(Classes):
    """The one head on every token's state; the first token of a word stands for it (Devlin et al., 2019).

    An item is a window, and a row may have several. Each word counts in one of them (`tasks._words`).
    """

    enters_blocks = False

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return a model that scores every token."""
        return TokenModel(transformer, head)

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return one item a window; targets have shape (windows, tokens of the longest)."""
        sequences = bench.token_rows(rows, "encode", reserved)
        tokens = bench.tokens_of(rows, reserved)
        counts = tokens.n_sequences(rows.index)
        starts = starts_of(counts)
        assert tokens.places is not None
        places = [tokens.places[window] for window in tokens.sequences(rows.index)]
        owners = np.repeat(np.arange(len(rows)), counts)
        lengths = lengths_of(sequences)
        targets = np.full((len(sequences), int(lengths.max(initial=0))), _IGNORED, dtype=np.int64)
        for window, (place, row) in enumerate(zip(places, owners, strict=True)):
            targets[window, place[:, 1]] = rows.known_labels[row][place[:, 0]]
        has_words = np.array([len(place) > 0 for place in places], dtype=bool)

        def items_of(positions: Ints) -> Ints:
            items = sequences_of(starts, positions)
            found: Ints = items[has_words[items]]
            return found

        return TagExamples(
            sequences,
            targets,
            np.add.reduceat(lengths, starts[:-1]) if len(rows) else lengths,
            counts,
            items_of=items_of,
            places=places,
            starts=starts,
        )

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Return token ids; the loss of a batch is a mean over words."""
        there, pad_id = bench.device.torch_device(), bench.some_backbone.pad_id
        return TagInputs(model, examples.sequences, pad_id=pad_id, compact=compact, device=there)

    def targets(self, labels: Labels, state: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return the tags of all words, the rows one after another, shape (words,)."""
        return flat_tags(labels)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean cross-entropy over words.

        Args:
            outputs: scores of tokens, shape (windows, tokens, tags), or of words, shape (words, tags).
            targets: tags, shape (windows, tokens) or (words,); other tokens have negative ones.
            label_smoothing: label smoothing.
        """
        from torch.nn import functional

        return functional.cross_entropy(
            outputs.flatten(0, -2), targets.flatten(), ignore_index=_IGNORED, label_smoothing=label_smoothing
        )

    def balanced_loss(self, labels: Labels, bench: Workbench) -> Loss:
        """Return the weighted cross-entropy, a mean over words; weights are those of the tags of the words."""
        import torch
        from torch.nn import functional

        weights = torch.tensor(balanced_weights(flat_tags(labels), bench.n_outputs), dtype=torch.float32)
        weights = weights.to(bench.device.torch_device())

        def loss(outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
            summed = functional.cross_entropy(
                outputs.flatten(0, -2),
                targets.flatten(),
                weight=weights,
                ignore_index=_IGNORED,
                label_smoothing=label_smoothing,
                reduction="sum",
            )
            return summed / (targets >= 0).sum()

        return loss

    def validate(
        self, inputs: Inputs, examples: Examples, rows: Ints, labels: Labels, bench: Workbench, precision: Precision
    ) -> Scores:
        """Return (the task's metric, minus the mean loss of a word). The model is left in training mode."""
        assert isinstance(inputs, TagInputs)
        assert isinstance(examples, TagExamples)
        windows = sequences_of(examples.starts, rows)
        places = [examples.places[window] for window in windows]
        found = inputs.word_scores(windows, places, bench.n_outputs, bench.device, precision)
        counts = examples.counts[rows] if examples.counts is not None else np.ones(len(rows), dtype=np.int64)
        logits = _by_word(found, places, counts, lengths_of(list(labels)), bench.n_outputs)
        return self.quality(logits, labels, examples.state, bench)

    def quality(self, logits: Floats, labels: Labels, state: Mapping[str, Any], bench: Workbench) -> Scores:
        """Return (the task's metric, minus the mean log loss of a word) of logits of shape (words, tags)."""
        flat = flat_tags(labels)
        right = log_softmax(logits)[np.arange(len(flat)), flat]
        return bench.measure(logits, labels), float(right.mean())

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
        """Return probabilities of shape (words, tags), the rows one after another.

        A word without tokens has the tag 0 (`O`) for certain. The arguments are those of `Classes.predict`.
        """
        sequences = bench.token_rows(rows, "predict", reserved)
        tokens = bench.tokens_of(rows, reserved)
        assert tokens.places is not None
        places = [tokens.places[window] for window in tokens.sequences(rows.index)]
        counts = tokens.n_sequences(rows.index)
        with bench.working("predict"):
            found = _word_scores(
                model,
                sequences,
                places,
                bench.n_outputs,
                bench.some_backbone.pad_id,
                bench.device,
                precision,
                training_follows=training_follows,
            )
            return self.answers(_by_word(found, places, counts, words_of(rows), bench.n_outputs))


@dataclasses.dataclass(frozen=True, eq=False)
class TagExamples(Examples):
    """Windows with the words that are predicted in each.

    Attributes:
        places: words of each window (`tasks.base.Sequences`).
        starts: position of each row's first window, and the end, shape (rows + 1,).
    """

    places: Sequence[npt.NDArray[np.int32]] = ()
    starts: Ints = dataclasses.field(default_factory=lambda: np.zeros(1, dtype=np.int64))


class TagInputs(TokenInputs):
    """Token ids of windows, with a target for each token."""

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return ids, mask and targets of the items, padded to the longest."""
        longest = int(self._lengths[items].max())
        return dataclasses.replace(super().batch(items, np.ascontiguousarray(targets[:, :longest])), by_targets=True)

    def word_scores(
        self,
        items: Ints,
        places: Sequence[npt.NDArray[np.int32]],
        n_outputs: int,
        device: Device,
        precision: Precision,
    ) -> list[Floats]:
        """Return the scores of the words of these items without dropout; leaves the model training."""
        rows = [self._rows[item] for item in items]
        found = _word_scores(
            self._model, rows, places, n_outputs, self._pad_id, device, precision, training_follows=True
        )
        self._model.train()
        return found


def flat_tags(labels: Labels) -> Ints:
    """Return the tags of all words, the rows one after another, shape (words,)."""
    return np.concatenate(list(labels)).astype(np.int64) if len(labels) else np.empty(0, dtype=np.int64)


def _word_scores(
    model: AdaptedModel,
    sequences: Sequence[TokenIds],
    places: Sequence[npt.NDArray[np.int32]],
    n_outputs: int,
    pad_id: int,
    device: Device,
    precision: Precision,
    *,
    training_follows: bool,
) -> list[Floats]:
    """Return the scores of the words of each window, shape (words, tags) each.

    Raises:
        FloatingPointError: a score is not finite.
    """
    import torch

    there = device.torch_device()
    found: list[Floats] = [np.empty((0, n_outputs), dtype=np.float32)] * len(sequences)

    def run(members: Ints) -> None:
        ids, mask = pad([sequences[row] for row in members], pad_id)
        outputs = model(torch.from_numpy(ids).to(there), torch.from_numpy(mask).to(there))
        counts = [len(places[member]) for member in members]
        windows = torch.from_numpy(np.repeat(np.arange(len(members)), counts)).to(there)
        tokens = torch.from_numpy(np.concatenate([places[member][:, 1] for member in members]).astype(np.int64))
        scores = outputs[windows, tokens.to(there)].float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError("The model gives scores that are not finite.")
        for member, part in zip(members, np.split(scores, np.cumsum(counts)[:-1]), strict=True):
            found[member] = part

    work = "validate" if training_follows else "predict"
    run_by_length(model, lengths_of(sequences), run, device, precision, training_follows=training_follows, work=work)
    return found


def _by_word(
    scores: Sequence[Floats],
    places: Sequence[npt.NDArray[np.int32]],
    n_windows: Ints,
    n_words: Ints,
    n_outputs: int,
) -> Floats:
    """Return the scores of windows in the order of the words, shape (words of all rows, tags).

    Args:
        scores: scores of the words of each window.
        places: words of each window.
        n_windows: windows of each row, shape (rows,).
        n_words: words of each row, shape (rows,).
        n_outputs: number of tags.
    """
    without = np.full(n_outputs, -1e4, dtype=np.float32)
    without[0] = 0.0
    logits = np.tile(without, (int(n_words.sum()), 1))
    first = np.repeat(starts_of(n_words)[:-1], n_windows)
    for at, part, place in zip(first, scores, places, strict=True):
        logits[at + place[:, 0]] = part
    return logits
