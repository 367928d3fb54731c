"""The models that gradient methods train: a transformer under a head, one model for each form of answers.

Of generated text, whose head is the backbone's own, the model is in `language.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones import Pooling, pool
from harness.features import pad
from harness.measure import Device, FlopsModel, Precision, fit_flops, show_progress
from harness.tasks import Floats

NO_SCORE = -1e4
"""What stands where there is nothing to score: its probability is 0 in float32, and its gradient too."""

PREDICT_ROWS = {"cpu": 32, "cuda": 256}
"""Rows of a batch when predicting."""


class AdaptedModel(nn.Module):
    """What a method trains: a transformer, adapted or not, and what stands on top of it."""

    transformer: nn.Module
    head: nn.Module


class HeadedModel(AdaptedModel):
    """A transformer under a new head.

    Args:
        transformer: anything called with ids and mask that returns hidden states.
        head: from hidden states, or what is made of them, to scores.
        reads_segments: whether the transformer is told which of two texts a token is of: the mask is 2 for those of the
            second (`features.tokens.pad`).
    """

    def __init__(self, transformer: nn.Module, head: nn.Module, *, reads_segments: bool = False) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        self._segments: torch.Tensor | None = None
        if reads_segments:
            # On the model inside, since peft passes no segments on where it puts virtual tokens before the text.
            inner: nn.Module = transformer.get_base_model() if hasattr(transformer, "get_base_model") else transformer  # type: ignore[operator]
            inner.register_forward_pre_hook(self._give_segments, with_kwargs=True)

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
        """Hidden states of the real tokens' places, shape (rows, length, width), and the mask of ones and zeros."""
        self._segments = (mask == 2).long()
        mask = mask.clamp(max=1)
        hidden = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        # A soft prompt's virtual tokens come first; only the real tokens' states are read.
        return hidden[:, hidden.shape[1] - mask.shape[1] :], mask

    def score(self, states: torch.Tensor) -> torch.Tensor:
        """What the head makes of states, in float32: a few thousand products are not worth the rounding."""
        with torch.autocast(states.device.type, enabled=False):
            scores: torch.Tensor = self.head(states.float())
        return scores


class PooledModel(HeadedModel):
    """Token ids of shape (rows, length) to logits of shape (rows, classes).

    Args:
        transformer, head, reads_segments: see `HeadedModel`; the head reads a pooled vector.
        pooling: which tokens the vector is made of.
    """

    def __init__(
        self, transformer: nn.Module, head: nn.Module, pooling: Pooling, *, reads_segments: bool = False
    ) -> None:
        super().__init__(transformer, head, reads_segments=reads_segments)
        self._pooling: Pooling = pooling

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        return self.score(pool(*self.read(ids, mask), self._pooling))


class ChoiceModel(PooledModel):
    """One score for each choice of a row, each choice read in a sequence of its own with what is asked."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, exists: torch.Tensor | None = None) -> torch.Tensor:
        """Scores in float32.

        Args:
            ids: shape (sequences, length), or (rows, choices, length).
            mask: of the same shape.
            exists: with the latter, which choices there are, shape (rows, choices): others score `NO_SCORE`.

        Returns:
            Shape (sequences, 1), or (rows, choices).
        """
        flat = super().forward(ids.flatten(0, -2), mask.flatten(0, -2))
        if exists is None:
            return flat
        return flat.view(exists.shape).masked_fill(~exists, NO_SCORE)


class SpanModel(HeadedModel):
    """Two scores a token: of being the first of the answer, and the last."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Scores in float32, shape (rows, 2, length); padding scores `NO_SCORE`."""
        hidden, real = self.read(ids, mask)
        return self.score(hidden).transpose(1, 2).masked_fill(real.unsqueeze(1) == 0, NO_SCORE)


def predict_logits(
    model: nn.Module,
    rows: Sequence[npt.NDArray[np.int32]],
    n_classes: int,
    *,
    pad_id: int,
    device: Device,
    precision: Precision,
    no_grad: bool = False,
) -> Floats:
    """Logits of shape (rows, classes), in the order given; rows of like length are batched together.

    `no_grad` keeps torch out of inference mode, for a model that goes on training: a tensor cached under it (the
    weights that autocast has rounded) could not be used in a backward pass.
    """
    there = device.torch_device()
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    logits = np.empty((len(rows), n_classes), dtype=np.float32)
    size = PREDICT_ROWS[device.kind]
    model.eval()
    quiet = torch.no_grad() if no_grad else torch.inference_mode()
    with quiet, torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for at in range(0, len(order), size):
            members = order[at : at + size]
            ids, mask = pad([rows[row] for row in members], pad_id)
            outputs = model(torch.from_numpy(ids).to(there), torch.from_numpy(mask).to(there))
            logits[members] = outputs.float().cpu().numpy()
            show_progress()
    return logits


def one_of(scores: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Mean cross-entropy where some scores may be `NO_SCORE`: smoothing is shared among the others.

    Args:
        scores: shape (rows, n).
        targets: position of what is right, shape (rows,).
        label_smoothing: probability mass that is spread evenly over all that exist.
    """
    logs = scores.log_softmax(-1)
    right = -logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if label_smoothing == 0:
        return right.mean()
    exists = scores > NO_SCORE / 2
    evenly = -(logs.masked_fill(~exists, 0).sum(-1) / exists.sum(-1))
    return ((1 - label_smoothing) * right + label_smoothing * evenly).mean()


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def count_batch_flops(model: AdaptedModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
    """FLOPs by batch shape: forward and, unless told otherwise, backward to what is trained and no further.

    Leaves weights, gradients, the mode and the random state as they were.
    """

    def run(n_rows: int, length: int) -> None:
        ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
        with torch.set_grad_enabled(backward):
            outputs = model(ids, torch.ones_like(ids))
        if backward:
            outputs.sum().backward()
            model.zero_grad(set_to_none=True)

    training = model.training
    model.train()  # attention takes another path with dropout than without
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        counted = fit_flops(run)
    model.train(training)
    return counted
