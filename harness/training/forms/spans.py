"""Two scores a token: of being an answer's first, and its last. A long context is read in overlapping windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import pad
from harness.measure import Device, Precision, show_progress
from harness.tasks import Answers, Ints, Labels, Rows, TextAnswers
from harness.training.forms.base import (
    AnswerForm,
    Examples,
    Scores,
    Workbench,
    linear_head,
    log_softmax,
    reads_segments,
    sequences_of,
    sizes_of,
    starts_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel

LONGEST_ANSWER = 30
"""Tokens of an answer, at most (as in BERT's own evaluation on SQuAD)."""

N_BEST = 20
"""First and last tokens that are tried with each other, of each window (likewise)."""


class Spans(AnswerForm):
    """One linear layer on every token's state; an item is a window, of which a row may have several.

    In a window without the whole answer, the first token stands for "not here" (Devlin et al., 2019).
    """

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """Dropout and one linear layer, to two scores."""
        return linear_head(width, 2, dropout)

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Scores of every token."""
        from harness.training.model import SpanModel

        return SpanModel(transformer, head, reads_segments=reads_segments(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """An item is a window; its target is the first and the last token of the row's first answer."""
        sequences = bench.token_rows(rows, "encode", reserved)
        tokens = bench.tokens_of(rows, reserved)
        counts = tokens.n_sequences(rows.index)
        starts = starts_of(counts)
        assert tokens.places is not None
        places = [tokens.places[window] for window in tokens.sequences(rows.index)]
        answers = [answer for answer, count in zip(rows.known_labels, counts, strict=True) for _ in range(count)]
        targets = [place_answer(place, *answer.first) for place, answer in zip(places, answers, strict=True)]
        lengths = np.add.reduceat(sizes_of(sequences), starts[:-1])
        return Examples(
            sequences,
            np.array(targets, dtype=np.int64).reshape(-1, 2),
            lambda positions: sequences_of(starts, positions),
            lengths,
            counts,
        )

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Token ids of windows."""
        from harness.training.inputs import TokenInputs

        return TokenInputs(
            model,
            examples.sequences,
            pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
            compact=compact,
            device=bench.device.torch_device(),
        )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross-entropy over the tokens of a window, of the first and the last alike."""
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
        """Minus the mean loss over the windows of these rows."""
        from harness.training.inputs import mean_loss

        items = examples.items_of(rows)
        return (-mean_loss(inputs, items, examples.targets[items], self.loss, bench.device, precision),)

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """The best span of each row's windows, as the context writes it."""
        sequences = bench.token_rows(rows, "predict", reserved)
        tokens = bench.tokens_of(rows, reserved)
        assert tokens.places is not None
        starts = starts_of(tokens.n_sequences(rows.index))
        contexts = rows.source.fields["context"]
        windows = tokens.sequences(rows.index)
        with bench.working("predict"):
            pad_id = int(bench.some_backbone.tokenizer.pad_token_id)
            scores = window_scores(model, sequences, pad_id, bench.device, precision)
            texts, confidence = [], np.zeros(len(rows), dtype=np.float32)
            for row, position in enumerate(rows.index):
                span = range(starts[row], starts[row + 1])
                found = [best_span(scores[at], tokens.places[windows[at]]) for at in span]
                _, first, last, sure = max(found, key=lambda one: one[0])
                texts.append(contexts[position][first:last])
                confidence[row] = sure
        return TextAnswers(texts, confidence)


def place_answer(places: npt.NDArray[np.int32], first: int, last: int) -> tuple[int, int]:
    """The first and last token of a window whose characters are those of an answer; (0, 0) if it is not all there.

    Args:
        places: characters of the context that each token stands for, shape (tokens, 2); -1 outside it.
        first: the character of the context that the answer begins with.
        last: the character behind its end.
    """
    begins = np.flatnonzero((places[:, 0] <= first) & (places[:, 1] > first) & (places[:, 0] >= 0))
    ends = np.flatnonzero((places[:, 0] < last) & (places[:, 1] >= last) & (places[:, 0] >= 0))
    if len(begins) == 0 or len(ends) == 0 or ends[-1] < begins[0]:
        return 0, 0
    return int(begins[0]), int(ends[-1])


def best_span(scores: npt.NDArray[Any], places: npt.NDArray[np.int32]) -> tuple[float, int, int, float]:
    """The likeliest span of a window.

    Args:
        scores: of being the first and the last, shape (2, tokens).
        places: characters of the context that each token stands for, shape (tokens, 2); -1 outside it.

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
    model: AdaptedModel, sequences: list[npt.NDArray[np.int32]], pad_id: int, device: Device, precision: Precision
) -> list[npt.NDArray[np.float32]]:
    """Return the scores of each window's tokens, shape (2, tokens) each.

    Raises:
        FloatingPointError: a score is not finite: no span would be the likeliest.
    """
    import torch

    from harness.training.model import PREDICT_ROWS

    there = device.torch_device()
    found: list[npt.NDArray[np.float32]] = [np.empty((2, 0), dtype=np.float32)] * len(sequences)
    order: Ints = np.argsort(sizes_of(sequences), kind="stable")
    size = PREDICT_ROWS[device.kind]
    model.eval()
    with torch.inference_mode(), torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for at in range(0, len(order), size):
            members = order[at : at + size]
            ids, mask = pad([sequences[row] for row in members], pad_id)
            scores = model(torch.from_numpy(ids).to(there), torch.from_numpy(mask).to(there)).float().cpu().numpy()
            if not np.isfinite(scores).all():
                raise FloatingPointError("The model gives scores that are not finite.")
            for place, member in enumerate(members):
                found[member] = scores[place, :, : len(sequences[member])].copy()
            show_progress()
    return found
