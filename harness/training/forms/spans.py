"""Two scores a token: for being an answer's first, and its last. Overlapping windows cover a long context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import TokenIds, lengths_of, pad, sequences_of, starts_of
from harness.measure import Device, Precision
from harness.tasks import Answers, Ints, Rows, TextAnswers
from harness.training.forms.base import (
    AnswerForm,
    Examples,
    Workbench,
    log_softmax,
    reads_segments,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.model import AdaptedModel

LONGEST_ANSWER = 30
"""Maximum number of tokens of an answer, as in BERT's own evaluation on SQuAD."""

N_BEST = 20
"""Number of first and of last tokens of a window that are combined, as in the same evaluation."""


class Spans(AnswerForm):
    """One linear layer on every token's state; an item is a window, and a row may have several.

    In a window without the whole answer, the first token stands for "not here" (Devlin et al., 2019).
    """

    n_scores = 2

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return a model that scores every token."""
        from harness.training.model import SpanModel

        return SpanModel(transformer, head, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return one item a window, whose target is the first and the last token of the row's first answer."""
        sequences = bench.token_rows(rows, "encode", reserved)
        tokens = bench.tokens_of(rows, reserved)
        counts = tokens.n_sequences(rows.index)
        starts = starts_of(counts)
        assert tokens.places is not None
        places = [tokens.places[window] for window in tokens.sequences(rows.index)]
        answers = [answer for answer, count in zip(rows.known_labels, counts, strict=True) for _ in range(count)]
        targets = [_place_answer(place, *answer.first) for place, answer in zip(places, answers, strict=True)]
        lengths = np.add.reduceat(lengths_of(sequences), starts[:-1])
        return Examples(
            sequences,
            np.array(targets, dtype=np.int64).reshape(-1, 2),
            lengths,
            counts,
            items_of=lambda positions: sequences_of(starts, positions),
        )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean cross-entropy of the first and of the last token, over the tokens of a window."""
        from harness.training.model import choice_loss

        return choice_loss(outputs, targets, label_smoothing)

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """Return the best span of each row's windows, as the context writes it."""
        sequences = bench.token_rows(rows, "predict", reserved)
        tokens = bench.tokens_of(rows, reserved)
        assert tokens.places is not None
        starts = starts_of(tokens.n_sequences(rows.index))
        contexts = rows.source.fields["context"]
        windows = tokens.sequences(rows.index)
        with bench.working("predict"):
            scores = window_scores(model, sequences, bench.some_backbone.pad_id, bench.device, precision)
            texts, confidence = [], np.zeros(len(rows), dtype=np.float32)
            for row, position in enumerate(rows.index):
                span = range(starts[row], starts[row + 1])
                found = [_best_span(scores[at], tokens.places[windows[at]]) for at in span]
                _, first, last, sure = max(found, key=lambda one: one[0])
                texts.append(contexts[position][first:last])
                confidence[row] = sure
        return TextAnswers(texts, confidence)


def _place_answer(places: npt.NDArray[np.int32], first: int, last: int) -> tuple[int, int]:
    """Return the first and last token of a window that cover an answer; (0, 0) if it is not all there.

    Args:
        places: start and end characters of each token in the context, shape (tokens, 2); -1 outside it.
        first: first character of the answer in the context.
        last: character behind its end.
    """
    begins = np.flatnonzero((places[:, 0] <= first) & (places[:, 1] > first) & (places[:, 0] >= 0))
    ends = np.flatnonzero((places[:, 0] < last) & (places[:, 1] >= last) & (places[:, 0] >= 0))
    if len(begins) == 0 or len(ends) == 0 or ends[-1] < begins[0]:
        return 0, 0
    return int(begins[0]), int(ends[-1])


def _best_span(scores: npt.NDArray[Any], places: npt.NDArray[np.int32]) -> tuple[float, int, int, float]:
    """Return the likeliest span of a window.

    Args:
        scores: scores for being the first and the last, shape (2, tokens).
        places: start and end characters of each token in the context, shape (tokens, 2); -1 outside it.

    Returns:
        (score, first character, character behind the last, probability in the window).
    """
    inside = np.flatnonzero(places[:, 0] >= 0)
    if len(inside) == 0:
        return -np.inf, 0, 0, 0.0
    best = [inside[np.argsort(-side[inside], kind="stable")[:N_BEST]] for side in scores]
    firsts, lasts = best[0][:, None], best[1][None, :]
    total = scores[0][firsts] + scores[1][lasts]
    total = np.where((lasts >= firsts) & (lasts < firsts + LONGEST_ANSWER), total, -np.inf)
    at = int(total.argmax())
    if not np.isfinite(total.flat[at]):  # none of the best go together: the likeliest token alone
        first = last = int(inside[(scores[0] + scores[1])[inside].argmax()])
    else:
        first, last = int(firsts[at // total.shape[1], 0]), int(lasts[0, at % total.shape[1]])
    logs = log_softmax(scores)
    sure = float(np.exp(logs[0, first] + logs[1, last]))
    return float(scores[0, first] + scores[1, last]), int(places[first, 0]), int(places[last, 1]), sure


def window_scores(
    model: AdaptedModel, sequences: Sequence[TokenIds], pad_id: int, device: Device, precision: Precision
) -> list[npt.NDArray[np.float32]]:
    """Return the scores of each window's tokens, shape (2, tokens) each.

    Raises:
        FloatingPointError: a score is not finite: no span would be the likeliest.
    """
    import torch

    from harness.training.model import run_by_length

    there = device.torch_device()
    found: list[npt.NDArray[np.float32]] = [np.empty((2, 0), dtype=np.float32)] * len(sequences)

    def run(members: Ints) -> None:
        ids, mask = pad([sequences[row] for row in members], pad_id)
        scores = model(torch.from_numpy(ids).to(there), torch.from_numpy(mask).to(there)).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError("The model gives scores that are not finite.")
        for place, member in enumerate(members):
            found[member] = scores[place, :, : len(sequences[member])].copy()

    run_by_length(model, lengths_of(sequences), run, device, precision)
    return found
