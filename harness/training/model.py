"""The models that gradient methods train: a transformer under a head, one model for each form of answers.

The model of generated text, whose head is the backbone's own, is in `generative.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.backbones import Pooling, pool, without_cache
from harness.features import TokenIds, lengths_of, pad
from harness.measure import BatchLimit, Device, FlopsModel, Precision, fit_flops, rows_of_pass, show_progress
from harness.tasks import Floats, Ints
from harness.training.blocks import transformers_model
from harness.training.masks import known_padding, padded_on_the_right

NO_SCORE = -1e4
"""Score of a position without a choice or token: its probability and its gradient are 0 in float32."""

PREDICT_ROWS = {"cpu": 32, "cuda": 256}
"""Maximum number of rows of a batch when predicting, by kind of device; long rows on an accelerator make it smaller."""


@contextmanager
def predicting_at_once(n_rows: int) -> Iterator[None]:
    """Let predictions inside the block run in batches of up to `n_rows`."""
    usual = dict(PREDICT_ROWS)
    PREDICT_ROWS.update(dict.fromkeys(usual, n_rows))
    try:
        yield
    finally:
        PREDICT_ROWS.update(usual)


class AdaptedModel(nn.Module):
    """A model that a method trains: a transformer, adapted or not, and its head."""

    transformer: nn.Module
    head: nn.Module

    def predict_logits(
        self,
        rows: Sequence[TokenIds],
        n_outputs: int,
        *,
        pad_id: int,
        device: Device,
        precision: Precision,
        training_follows: bool = False,
    ) -> Floats:
        """Return logits without dropout, shape (rows, outputs), in the order given; leaves the model evaluating.

        Args:
            rows: token ids of each row.
            n_outputs: number of logits of a row.
            pad_id: id of the padding.
            device: where the model is.
            precision: precision of the forward pass.
            training_follows: whether the model is trained on afterwards (`run_by_length`).
        """
        logits = np.empty((len(rows), n_outputs), dtype=np.float32)
        there = device.torch_device()

        def run(members: Ints) -> None:
            ids, mask = pad([rows[row] for row in members], pad_id)
            outputs = self(torch.from_numpy(ids).to(there), torch.from_numpy(mask).to(there))
            logits[members] = outputs.float().cpu().numpy()

        work = "validate" if training_follows else "predict"
        run_by_length(self, lengths_of(rows), run, device, precision, training_follows=training_follows, work=work)
        return logits

    def count_flops(self, device: torch.device, *, backward: bool = True) -> FlopsModel:
        """Return the operations by batch shape: forward and, unless told otherwise, backward to what is trained.

        Weights, gradients, the mode and the random state stay as they were.
        """

        def run(n_rows: int, length: int) -> None:
            ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
            with known_padding(full=True):
                self.run_once(lambda: self(ids, torch.ones_like(ids)), backward=backward)

        return self.counting(lambda: fit_flops(run), device)

    def run_once(self, forward: Callable[[], torch.Tensor], *, backward: bool) -> None:
        """Run forward and, if `backward`, backward; leaves no gradients."""
        with torch.set_grad_enabled(backward):
            outputs = forward()
        if backward:
            outputs.sum().backward()
            self.zero_grad(set_to_none=True)

    def counting(self, count: Callable[[], FlopsModel], device: torch.device) -> FlopsModel:
        """Return what `count` returns with the model in training mode; restores the mode and the random state."""
        training = self.training
        self.train()  # attention takes another path with dropout than without
        # Outside autocast, each bfloat16 matrix would be raised to float32, and kept for the backward pass.
        narrow = any(value.dtype is torch.bfloat16 for value in self.transformer.parameters())
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=narrow),
        ):
            counted = count()
        self.train(training)
        return counted


class HeadedModel(AdaptedModel):
    """A transformer under a new head.

    Args:
        transformer: a module that returns hidden states for ids and mask.
        head: a module from hidden states, or a vector pooled from them, to scores.
        reads_segments: whether the transformer is told the segment of each token: the mask is 2 for tokens of the
            second text (`features.pad`).
    """

    def __init__(self, transformer: nn.Module, head: nn.Module, *, reads_segments: bool = False) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        self._segments: torch.Tensor | None = None
        if reads_segments:
            # On the model inside, since peft passes no segments on where it puts virtual tokens before the text.
            transformers_model(transformer).register_forward_pre_hook(self._give_segments, with_kwargs=True)

    def _give_segments(
        self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._segments is None:
            return None
        ids = given.get("input_ids")
        length = (given["inputs_embeds"] if ids is None else ids).shape[1]
        # Virtual tokens come first, and are of the first segment.
        segments = nn.functional.pad(self._segments, (length - self._segments.shape[1], 0))
        return args, {**given, "token_type_ids": segments}

    def read(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states of the text, shape (rows, length, width), and the mask of ones and zeros."""
        self._segments = (mask == 2).long()
        mask = mask.clamp(max=1)
        unkept = without_cache(transformers_model(self.transformer))
        with padded_on_the_right(self.transformer, ids.device):
            hidden = self.transformer(input_ids=ids, attention_mask=mask, **unkept).last_hidden_state
        # A soft prompt's virtual tokens come first; only the real tokens' states are read.
        return hidden[:, hidden.shape[1] - mask.shape[1] :], mask

    def score(self, states: torch.Tensor) -> torch.Tensor:
        """Return the head's scores, computed in float32, which costs little and avoids rounding."""
        with torch.autocast(states.device.type, enabled=False):
            scores: torch.Tensor = self.head(states.float())
        return scores


class PooledModel(HeadedModel):
    """A model from token ids of shape (rows, length) to logits of shape (rows, classes).

    Args:
        transformer: as in `HeadedModel`.
        head: reads a pooled vector.
        pooling: how the vector is pooled from the tokens.
        reads_segments: as in `HeadedModel`.
    """

    def __init__(
        self, transformer: nn.Module, head: nn.Module, pooling: Pooling, *, reads_segments: bool = False
    ) -> None:
        super().__init__(transformer, head, reads_segments=reads_segments)
        self._pooling: Pooling = pooling

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return logits in float32."""
        return self.score(pool(*self.read(ids, mask), self._pooling))


class ChoiceModel(PooledModel):
    """A model that scores each choice of a row; each choice is read with the question in a sequence of its own."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, exists: torch.Tensor | None = None) -> torch.Tensor:
        """Return scores in float32.

        Args:
            ids: shape (sequences, length), or (rows, choices, length).
            mask: of the same shape.
            exists: with the latter, which choices exist, shape (rows, choices): others score `NO_SCORE`.

        Returns:
            Shape (sequences, 1), or (rows, choices).
        """
        flat = super().forward(ids.flatten(0, -2), mask.flatten(0, -2))
        if exists is None:
            return flat
        return flat.view(exists.shape).masked_fill(~exists, NO_SCORE)


class SpanModel(HeadedModel):
    """A model with two scores a token: for being the first of the answer, and the last."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return scores in float32, shape (rows, 2, length); padding scores `NO_SCORE`."""
        hidden, real = self.read(ids, mask)
        return self.score(hidden).transpose(1, 2).masked_fill(real.unsqueeze(1) == 0, NO_SCORE)


class TokenModel(HeadedModel):
    """A model that gives every token the head's scores."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return scores in float32, shape (rows, length, outputs)."""
        return self.score(self.read(ids, mask)[0])


def run_by_length(
    model: nn.Module,
    lengths: Ints,
    run: Callable[[Ints], None],
    device: Device,
    precision: Precision,
    *,
    training_follows: bool = False,
    work: str = "predict",
) -> None:
    """Call `run` with the positions of each batch, short rows first; leaves the model evaluating.

    A batch that does not fit in memory is run again in halves.

    Args:
        model: run in evaluation mode, without gradients.
        lengths: tokens of each row.
        run: called under autocast as `precision` says; writes its results at the end.
        device: where the model is.
        precision: precision of the forward pass.
        training_follows: whether the model is trained on afterwards. Then torch stays out of inference mode: a tensor
            that is cached under it (the weights that autocast has rounded) could not be used in a backward pass.
        work: word for the remark about halved batches.

    Raises:
        OutOfMemoryError: a single row does not fit.
    """
    kind = device.torch_device().type
    order: Ints = np.argsort(lengths, kind="stable")
    limit = BatchLimit(work, PREDICT_ROWS[device.kind])
    at = 0
    model.eval()
    quiet = torch.no_grad() if training_follows else torch.inference_mode()
    with quiet, torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
        while at < len(order):
            members = _next(order, at, lengths, limit.rows, device.kind)
            if limit.holds(len(members), lambda members=members: run(members)):  # type: ignore[misc]
                at += len(members)
            show_progress()


def _next(order: Ints, at: int, lengths: Ints, most_rows: int, kind: str) -> Ints:
    """Return the rows of the next batch from `at` on; `order` sorts them by length."""
    members = order[at : at + most_rows]
    while len(members) > (n_rows := rows_of_pass(kind, most_rows, int(lengths[members[-1]]))):
        members = members[: max(n_rows, len(members) // 2)]  # a shorter batch ends in a shorter row: look again
    return members


def choice_loss(scores: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the mean cross-entropy where some scores may be `NO_SCORE`: the others share the smoothing.

    Args:
        scores: shape (rows, n).
        targets: position of the right score, shape (rows,).
        label_smoothing: probability mass that is spread evenly over the scores that exist.
    """
    logs = scores.log_softmax(-1)
    right = -logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if label_smoothing == 0:
        return right.mean()
    exists = scores > NO_SCORE / 2
    evenly = -(logs.masked_fill(~exists, 0).sum(-1) / exists.sum(-1))
    return ((1 - label_smoothing) * right + label_smoothing * evenly).mean()


def softmax(logits: Floats) -> Floats:
    """Return probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)
