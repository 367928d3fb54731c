"""Pooled features of a frozen backbone, encoded once in canonical shapes and kept on disk.

The number of rows of a batch, and the length that they are padded to, depend on the row alone. With a fixed shape, a
row's features do not depend on its neighbours or its place (tests compare them bit for bit). Warm and cold runs
therefore give the same bits, and exactly the rows that a cell needs are encoded. A row's cost does not depend on the
request either: a batch's seconds are divided evenly among its places, which all hold the same padded tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from harness.backbones import Backbone, Pooling, Weights, without_cache
from harness.features.disk import FeatureDisk, Shard
from harness.features.layers import Layer, Word, canonical_layer, pool_layer, word_vectors
from harness.features.shape import EncodingShape
from harness.features.table import Encoded, Table
from harness.features.tokens import Tokens, lengths_of, pad
from harness.measure import (
    Device,
    Failures,
    FlopsModel,
    MemoryMeter,
    Precision,
    Steadiness,
    counted,
    fit_flops,
    fits,
    package_versions,
    release,
    show_progress,
    too_large,
)
from harness.support import put_aside
from harness.tasks import Floats, Ints, Source

if TYPE_CHECKING:
    import torch

PAGE_FLOATS = 1024
"""Numbers of at most 4 bytes of which at least one lies in each page of memory."""

_FORMAT = 5


class FeatureStore:
    """Features by split, backbone, pooling, layer, length, precision and device.

    Args:
        device: where encoding runs.
        disk: cache between runs; None keeps features in memory only.
    """

    def __init__(self, device: Device, disk: FeatureDisk | None) -> None:
        self._device = device
        self._disk = disk
        self._tables: dict[str, Table] = {}
        self._flops: dict[str, FlopsModel] = {}
        self._touched: set[str] = set()
        self._warm: set[tuple[str, str, int, int, Pooling | Word, Layer]] = set()
        self._halvings: dict[tuple[str, Precision], int] = {}
        self._trusts_disturbed = True

    def forget_disturbed(self) -> None:
        """Encode again what was encoded while other work disturbed the machine, from the next request on."""
        self._trusts_disturbed = False
        for table in self._tables.values():
            table.forget_disturbed()

    def pooled(
        self,
        source: Source,
        index: Ints,
        tokens: Tokens,
        backbone: Backbone,
        max_length: int,
        precision: Precision,
        *,
        pooling: Pooling | None = None,
        layer: Layer = "last",
        word: Word | None = None,
        weights: Weights = "auto",
    ) -> Encoded:
        """Return features of the sequences at `index` of `source`'s tokens, and encode those that are missing.

        Where a batch does not fit in memory, all of the split is encoded in batches of half the rows. Features of
        different shapes are kept apart and never mixed in one answer.

        Args:
            source: the split.
            index: positions of its sequences (`Tokens.sequences`), shape (rows,).
            tokens: tokens of the whole split.
            backbone: the encoder; all of it runs, and is charged, whichever layer is read.
            max_length: maximum number of tokens of a row.
            precision: precision of the forward pass.
            pooling: how tokens are pooled; None is the backbone's own pooling.
            layer: the hidden states to read.
            word: which tokens make up the vector of a word; None returns one vector per sequence. The vectors of words
                come in the order of the sequences and of their words (`Tokens.places`).
            weights: how the frozen weights are stored.

        Raises:
            UsageError: the backbone has no such block.
            UnsupportedError: `weights` and `precision` do not go together.
            OutOfMemoryError: a single row does not fit in memory.
        """
        read = word or pooling or backbone.files.pooling
        layer = canonical_layer(layer, backbone.pristine)
        began = time.perf_counter()
        encoder = backbone.files.fingerprint, precision
        while True:
            shape = EncodingShape(self._device.kind, self._halvings.get(encoder, 0))
            key, table = self._table(
                source, tokens, backbone, max_length, precision, read, word is not None, layer, shape, weights
            )
            missing = table.missing(index)
            batches = table.batches_for(missing)
            encoded: list[tuple[Shard, float]] = []
            if not batches:
                break
            model = backbone.resident(self._device.torch_device(), precision, weights)

            def encode(
                table: Table = table, batches: list[Ints] = batches, model: Any = model, encoded: list[Any] = encoded
            ) -> None:
                encoded.append(
                    self._encode(table, batches, tokens, backbone, model, precision, read, word is not None, layer)
                )

            if fits(encode):
                break
            if shape.rows(int(table.padded_lengths[missing].max())) == 1:
                raise too_large("encode")
            self._halvings[encoder] = shape.halvings + 1
        warming = 0.0
        for shard, seconds in encoded:
            warming = seconds
            table.put(shard)
            if self._disk is not None:
                self._disk.write(_name(key), key, shard)
        found = table.share(index, self._flops_model(backbone, precision, weights))
        return dataclasses.replace(
            found,
            reused=not batches,
            fresh=len(missing) == len(np.unique(index)),
            warmup_seconds=warming,
            spare_seconds=time.perf_counter() - began - warming - table.seconds_of(missing),
            halved=table.halved(index),
            halvings=shape.halvings,
        )

    def _table(
        self,
        source: Source,
        tokens: Tokens,
        backbone: Backbone,
        max_length: int,
        precision: Precision,
        read: Pooling | Word,
        by_word: bool,
        layer: Layer,
        shape: EncodingShape,
        weights: Weights,
    ) -> tuple[str, Table]:
        """Return the key of these features, and the table of those that are known."""
        # Only a rounded vocabulary changes the numbers.
        rounded = backbone.form(precision, weights) == "bfloat16 with embeddings" and not backbone.is_bfloat16
        key = json.dumps(
            {
                **({"weights": "bfloat16"} if rounded else {}),
                **({"vectors": "words"} if by_word else {}),
                "format": _FORMAT,
                "rows": source.key,
                "backbone": backbone.files.fingerprint,
                "pooling": read,
                "layer": layer,
                "max_length": max_length,
                "precision": precision,
                "shape": shape.key,
                "device": self._device.name,
                "packages": {name: package_versions().get(name) for name in ("torch", "transformers", "tokenizers")},
            },
            sort_keys=True,
        )
        name = _name(key)
        if name not in self._tables:
            counts = None
            if by_word:
                assert tokens.places is not None
                counts = lengths_of(tokens.places)
            table = Table(tokens, backbone.hidden_size, max_length, shape, counts)
            for shard in self._disk.read(name) if self._disk is not None else ():
                table.put(shard)
            if not self._trusts_disturbed:
                table.forget_disturbed()
            self._tables[name] = table
        return key, self._tables[name]

    def warm_up(self, backbone: Backbone) -> None:
        """Read the weights into memory, before a cell is measured; nothing is made resident on an accelerator.

        They are mapped from their file and read page by page on first use: no cell should pay that memory.
        """
        if backbone.files.fingerprint not in self._touched:
            for parameter in backbone.pristine.parameters():
                parameter.detach().flatten()[::PAGE_FLOATS].sum()
            self._touched.add(backbone.files.fingerprint)

    def _encode(
        self,
        table: Table,
        batches: list[Ints],
        tokens: Tokens,
        backbone: Backbone,
        model: torch.nn.Module,
        precision: Precision,
        read: Pooling | Word,
        by_word: bool,
        layer: Layer,
    ) -> tuple[Shard, float]:
        """Return features of batches, and the seconds that choosing kernels took."""
        import torch

        device = self._device.torch_device()
        rows = np.concatenate(batches)
        values: list[Floats] = []
        seconds = np.empty(len(rows))
        peaks, device_peaks = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
        at, warming = 0, 0.0
        release()  # memory that the allocator keeps after a fit would be counted for the next encoding
        failures = Failures()
        steadiness = failures.guard("steadiness", Steadiness)
        with MemoryMeter(device) as meter, torch.inference_mode():
            for members in batches:
                length = int(table.padded_lengths[members[0]])
                size = table.shape.rows(length)
                # Spare places repeat the last row: the shape must not change.
                placed = np.concatenate([members, np.repeat(members[-1:], size - len(members))])
                pad_id = int(backbone.tokenizer.pad_token_id)
                ids, mask = pad([tokens.row(int(row)) for row in placed], pad_id, length)
                its_words = (
                    [tokens.places[int(row)] for row in members] if by_word and tokens.places is not None else None
                )
                shape = (backbone.files.fingerprint, precision, size, length, read, layer)
                if shape not in self._warm:  # kernels are chosen on a shape's first use: no row's cost
                    started = time.perf_counter()
                    self._forward(model, ids, mask, precision, read, its_words, layer)
                    self._device.synchronise()
                    self._warm.add(shape)
                    warming += time.perf_counter() - started
                started = time.perf_counter()
                vectors = self._forward(model, ids, mask, precision, read, its_words, layer)
                values.append((vectors if by_word else vectors[: len(members)]).cpu().numpy())
                its = slice(at, at + len(members))
                seconds[its] = (time.perf_counter() - started) / size
                # Batches grow longer, so that the highest peak so far is about this batch's.
                peaks[its] = meter.current_peak_above_baseline_bytes()
                device_peaks[its] = meter.current_device_peak_bytes()
                at += len(members)
                show_progress()
        noticed = None if steadiness is None else failures.guard("steadiness", steadiness.disturbance)
        disturbed = np.full(len(rows), noticed is not None)
        return Shard(rows, np.concatenate(values), seconds, peaks, device_peaks, disturbed), warming

    def _forward(
        self,
        model: torch.nn.Module,
        ids: Ints,
        mask: Ints,
        precision: Precision,
        read: Pooling | Word,
        words: Sequence[npt.NDArray[np.int32]] | None,
        layer: Layer,
    ) -> torch.Tensor:
        import torch

        device = self._device.torch_device()
        on_device = torch.from_numpy(mask).to(device)
        asked = without_cache(model)
        if layer != "last":
            asked["output_hidden_states"] = True
        if mask.max() > 1:
            asked["token_type_ids"] = (on_device == 2).long()
            on_device = on_device.clamp(max=1)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(input_ids=torch.from_numpy(ids).to(device), attention_mask=on_device, **asked)
        if words is not None:
            return word_vectors(outputs, on_device, words, cast("Word", read), layer)
        return pool_layer(outputs, on_device, cast("Pooling", read), layer)

    def _flops_model(self, backbone: Backbone, precision: Precision, weights: Weights) -> FlopsModel:
        """Return the operations of encoding a batch, counted once per backbone; not a number where counting fails."""
        import torch

        known = self._flops.get(backbone.files.fingerprint)
        if known is None:
            device = self._device.torch_device()
            model = backbone.resident(device, precision, weights)

            def run(n_rows: int, length: int) -> None:
                ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"),
                ):
                    model(input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(model))

            with put_aside():  # counting is no part of the cell
                known = self._flops[backbone.files.fingerprint] = counted(lambda: fit_flops(run))
        return known


def _name(key: str) -> str:
    """Return the name of a key's folder on the disk."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]
