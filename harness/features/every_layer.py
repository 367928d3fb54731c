"""Pooled features of every block of a frozen backbone, from one forward pass per text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.backbones import Backbone, pool, without_cache
from harness.features.shape import ENCODE_ROWS, LENGTH_STEP
from harness.features.tokens import Tokens, pad
from harness.measure import Device, MemoryMeter, Precision, fits, release, rows_of_pass, show_progress, too_large
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LayerFeatures:
    """Features of some rows at the output of each block, and the cost of encoding them.

    Attributes:
        values: shape (rows, blocks, width), float32; the last block is the backbone's output, behind its final norm.
        seconds: seconds of the forward passes; the choice of kernels is included.
        peak_bytes: memory above the baseline, on the accelerator if there is one.
        n_encoded: number of distinct texts, each encoded once.
        n_tokens: number of real tokens of these texts.
    """

    values: Floats
    seconds: float
    peak_bytes: int
    n_encoded: int
    n_tokens: int

    @property
    def last(self) -> Floats:
        """Features of the backbone's output, shape (rows, width)."""
        return np.ascontiguousarray(self.values[:, -1])

    @property
    def mean(self) -> Floats:
        """Mean over the blocks, without the embeddings, shape (rows, width): the layer mean of TransformerRanker."""
        return np.asarray(self.values.mean(axis=1), dtype=np.float32)


def encode_every_layer(
    backbone: Backbone, tokens: Tokens, index: Ints, device: Device, precision: Precision
) -> LayerFeatures:
    """Return the features of the sequences at `index`, pooled as the backbone pools.

    Equal sequences are encoded once. Batches hold sequences of similar lengths; they are halved where memory runs out.

    Args:
        backbone: the encoder.
        tokens: tokens of the whole split.
        index: positions of the sequences, shape (rows,).
        device: where encoding runs.
        precision: precision of the forward pass.

    Raises:
        OutOfMemoryError: a single row does not fit in memory.
    """
    distinct: dict[bytes, int] = {}
    place = np.array([distinct.setdefault(tokens.row(int(row)).tobytes(), len(distinct)) for row in index])
    first = index[np.unique(place, return_index=True)[1]]
    by_length = np.argsort(tokens.lengths[first], kind="stable")
    halvings, values = 0, None
    while values is None:
        batches = _batches(tokens.lengths[first], by_length, device.kind, halvings)
        release()
        found: list[npt.NDArray[np.float32]] = []

        def encode(batches: list[Ints] = batches, found: list[Any] = found) -> None:
            found.append(_encode(backbone, tokens, first, batches, device, precision))

        started = time.perf_counter()
        with MemoryMeter(device.torch_device()) as meter:
            done = fits(encode)
            on_device = device.kind != "cpu"
            peak = meter.current_device_peak_bytes() if on_device else meter.current_peak_above_baseline_bytes()
        if done:
            values = found[0]
        elif max(map(len, batches)) == 1:
            raise too_large("encode")
        else:
            halvings += 1
    return LayerFeatures(
        values=values[place],
        seconds=time.perf_counter() - started,
        peak_bytes=max(0, peak),
        n_encoded=len(first),
        n_tokens=int(tokens.lengths[first].sum()),
    )


def _batches(lengths: Ints, order: Ints, kind: str, halvings: int) -> list[Ints]:
    """Return the rows of each batch, from short to long; padded places of a batch are bounded."""
    batches, at = [], 0
    while at < len(order):
        n_rows = ENCODE_ROWS[kind]
        members = order[at : at + n_rows]
        n_rows = max(1, rows_of_pass(kind, n_rows, int(lengths[members].max())) >> halvings)
        batches.append(order[at : at + n_rows])
        at += n_rows
    return batches


def _encode(
    backbone: Backbone, tokens: Tokens, first: Ints, batches: list[Ints], device: Device, precision: Precision
) -> npt.NDArray[np.float32]:
    """Return the pooled states of each block, shape (distinct texts, blocks, width)."""
    import torch

    where = device.torch_device()
    model = backbone.resident(where, precision)
    values: npt.NDArray[np.float32] | None = None
    longest = max(backbone.max_length, int(tokens.lengths[first].max()))
    with torch.inference_mode():
        for members in batches:
            step = LENGTH_STEP[device.kind]  # few lengths, since kernels are chosen for each
            length = min(-(-int(tokens.lengths[first[members]].max()) // step) * step, longest)
            ids, mask = pad([tokens.row(int(first[row])) for row in members], backbone.pad_id, length)
            pooled = _forward(model, ids, mask, backbone, where, precision).cpu().numpy()
            if values is None:
                values = np.empty((len(first), *pooled.shape[1:]), dtype=np.float32)
            values[members] = pooled
            show_progress()
    assert values is not None
    return values


def _forward(
    model: torch.nn.Module, ids: Ints, mask: Ints, backbone: Backbone, where: torch.device, precision: Precision
) -> torch.Tensor:
    import torch

    on_device = torch.from_numpy(mask).to(where)
    asked = without_cache(model)
    if mask.max() > 1:
        asked["token_type_ids"] = (on_device == 2).long()
        on_device = on_device.clamp(max=1)
    with torch.autocast(where.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(
            input_ids=torch.from_numpy(ids).to(where), attention_mask=on_device, output_hidden_states=True, **asked
        )
    # Architectures differ in whether the last entry lies before or behind the final norm.
    blocks = [*outputs.hidden_states[1:-1], outputs.last_hidden_state]
    return torch.stack([pool(block, on_device, backbone.files.pooling) for block in blocks], dim=1)
