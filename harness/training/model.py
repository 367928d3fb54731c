"""The model that gradient methods train: a transformer, the backbone's own pooling, the kind's head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones.locate import Pooling
from harness.backbones.model import pool
from harness.features.tokens import pad
from harness.measure.device import Device, Precision
from harness.measure.flops import FlopsModel, fit_flops
from harness.tasks.base import Floats

PREDICT_ROWS = {"cpu": 32, "cuda": 256}
"""Rows of a batch when predicting."""


class PooledModel(nn.Module):
    """Token ids of shape (rows, length) to logits of shape (rows, classes).

    Args:
        transformer: anything called with ids and mask that returns hidden states.
        head: from a pooled vector to logits.
        pooling: which tokens the vector is made of.
    """

    def __init__(self, transformer: nn.Module, head: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head
        self._pooling: Pooling = pooling

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits in float32."""
        hidden = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        # A soft prompt's virtual tokens come first; only the real tokens' states are read.
        pooled = pool(hidden[:, hidden.shape[1] - mask.shape[1] :], mask, self._pooling)
        with torch.autocast(pooled.device.type, enabled=False):  # a few thousand products: not worth the rounding
            logits: torch.Tensor = self.head(pooled)
        return logits


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
    return logits


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def count_batch_flops(model: PooledModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
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
