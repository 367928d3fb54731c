"""Pooled features of a frozen backbone, encoded once in canonical batches and kept on disk.

A row is always encoded together with the same other rows: the batches are fixed by the split's content, not by which
cell asks first. So warm and cold runs give the same bits, and what a row costs does not depend on who asks either: a
batch's measured seconds are shared out among its rows by tokens.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.backbones.model import Backbone, pool
from harness.features.disk import FeatureDisk, Shard
from harness.features.tokens import Tokens, pad
from harness.measure.device import Device, Precision
from harness.measure.flops import FlopsModel, fit_flops
from harness.measure.memory import MemoryMeter
from harness.tasks.base import Floats, Ints, Source

if TYPE_CHECKING:
    import torch

BATCH_ROWS = {"cpu": 16, "cuda": 256}
"""Rows of a canonical batch: enough to fill the device, few enough that asking for one row encodes little else."""

_FORMAT = 1


@dataclass(frozen=True)
class Encoded:
    """Features of some rows and what they are charged at.

    Attributes:
        values: shape (rows, width), float32.
        seconds: measured when they were computed, prorated by tokens.
        tokens: real tokens of these rows.
        flops: operations of encoding them, as padded in their canonical batches.
        peak_rss_above_baseline_bytes: what encoding needed when it was done.
        reused: whether all of them came from the cache.
    """

    values: Floats
    seconds: float
    tokens: int
    flops: float
    peak_rss_above_baseline_bytes: int
    reused: bool


class FeatureStore:
    """Features by split, backbone, pooling, length, precision and device.

    Args:
        device: where encoding runs.
        disk: where they are kept between runs; None keeps them in memory only.
    """

    def __init__(self, device: Device, disk: FeatureDisk | None) -> None:
        self._device = device
        self._disk = disk
        self._tables: dict[str, _Table] = {}
        self._flops: dict[str, FlopsModel] = {}

    def pooled(
        self, source: Source, index: Ints, tokens: Tokens, backbone: Backbone, max_length: int, precision: Precision
    ) -> Encoded:
        """Features of the rows at `index` of `source`; encodes what is missing, in whole canonical batches."""
        key = json.dumps(
            {
                "format": _FORMAT,
                "rows": source.key,
                "backbone": backbone.files.fingerprint,
                "pooling": backbone.files.pooling,
                "layer": "last",
                "max_length": max_length,
                "precision": precision,
                "batch_rows": BATCH_ROWS[self._device.kind],
                "device": self._device.name,
            },
            sort_keys=True,
        )
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        if name not in self._tables:
            table = _Table(source, tokens, backbone.hidden_size, BATCH_ROWS[self._device.kind])
            for shard in self._disk.read(name) if self._disk is not None else ():
                table.put(shard)
            self._tables[name] = table
        table = self._tables[name]
        missing = table.missing_batches(index)
        if len(missing):
            shard = self._encode(table, missing, tokens, backbone, precision)
            table.put(shard)
            if self._disk is not None:
                self._disk.write(name, key, shard)
        flops_model = self._flops_model(backbone)
        return table.share(index, flops_model, reused=not len(missing))

    def _encode(
        self, table: _Table, batches: Ints, tokens: Tokens, backbone: Backbone, precision: Precision
    ) -> Shard:
        import torch

        device = self._device.torch_device()
        model = backbone.pristine.to(device)
        pad_id = int(backbone.tokenizer.pad_token_id)
        seconds = np.zeros(len(batches))
        rows = [table.members(int(batch)) for batch in batches]
        with MemoryMeter(device) as meter, torch.inference_mode():
            values = np.empty((sum(map(len, rows)), backbone.hidden_size), dtype=np.float32)
            at = 0
            for position, members in enumerate(rows):
                ids, mask = pad([tokens.row(int(row)) for row in members], pad_id)
                if position == 0:  # kernels are chosen and compiled on first use: no row's cost
                    self._forward(model, ids, mask, backbone, precision)
                started = time.perf_counter()
                pooled = self._forward(model, ids, mask, backbone, precision)
                values[at : at + len(members)] = pooled.cpu().numpy()
                seconds[position] = time.perf_counter() - started
                at += len(members)
        return Shard(batches, values, seconds, meter.peak_rss_above_baseline_bytes)

    def _forward(
        self, model: torch.nn.Module, ids: Ints, mask: Ints, backbone: Backbone, precision: Precision
    ) -> torch.Tensor:
        import torch

        device = self._device.torch_device()
        on_device = torch.from_numpy(mask).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            hidden = model(input_ids=torch.from_numpy(ids).to(device), attention_mask=on_device).last_hidden_state
        return pool(hidden, on_device, backbone.files.pooling)

    def _flops_model(self, backbone: Backbone) -> FlopsModel:
        """FLOPs of encoding one batch, counted once per backbone."""
        import torch

        known = self._flops.get(backbone.files.fingerprint)
        if known is None:
            device = self._device.torch_device()

            def run(n_rows: int, length: int) -> None:
                ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
                with torch.inference_mode():
                    backbone.pristine.to(device)(input_ids=ids, attention_mask=torch.ones_like(ids))

            known = self._flops[backbone.files.fingerprint] = fit_flops(run)
        return known


class _Table:
    """Features of one split as they become known: canonical batches, and each row's share of their cost."""

    def __init__(self, source: Source, tokens: Tokens, width: int, batch_rows: int) -> None:
        self._lengths = tokens.lengths
        digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in source.texts]
        # Equal lengths side by side waste no padding; the digest makes the order one of content, not of position.
        order = sorted(range(len(source)), key=lambda row: (int(self._lengths[row]), digests[row], row))
        self._order = np.asarray(order, dtype=np.int64)
        self._batch_of = np.empty(len(source), dtype=np.int64)
        self._batch_of[self._order] = np.arange(len(source)) // batch_rows
        self._batch_rows = batch_rows
        self._values = np.zeros((len(source), width), dtype=np.float32)
        self._seconds = np.zeros(len(source))
        self._known = np.zeros(int(self._batch_of.max(initial=-1)) + 1, dtype=bool)
        self._peak_bytes = 0

    def members(self, batch: int) -> Ints:
        """Rows of a canonical batch."""
        return self._order[batch * self._batch_rows : (batch + 1) * self._batch_rows]

    def missing_batches(self, index: Ints) -> Ints:
        """Canonical batches that these rows need and that are not known yet."""
        needed = np.unique(self._batch_of[index])
        return needed[~self._known[needed]]

    def put(self, shard: Shard) -> None:
        """Take in encoded batches; their seconds are shared out by tokens."""
        at = 0
        for batch, seconds in zip(shard.batches, shard.seconds, strict=True):
            members = self.members(int(batch))
            self._values[members] = shard.values[at : at + len(members)]
            lengths = self._lengths[members]
            self._seconds[members] = seconds * lengths / max(1, int(lengths.sum()))
            at += len(members)
        self._known[shard.batches] = True
        self._peak_bytes = max(self._peak_bytes, shard.peak_rss_above_baseline_bytes)

    def share(self, index: Ints, flops: FlopsModel, *, reused: bool) -> Encoded:
        """These rows and their share of what their batches cost."""
        padded = np.array([int(self._lengths[self.members(int(batch))].max()) for batch in self._batch_of[index]])
        return Encoded(
            values=self._values[index],
            seconds=float(self._seconds[index].sum()),
            tokens=int(self._lengths[index].sum()),
            flops=float(sum(flops.batch(1, int(length)) for length in padded)),
            peak_rss_above_baseline_bytes=self._peak_bytes,
            reused=reused,
        )
