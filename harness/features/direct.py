"""Features that are computed anew for each request, in batches of its own rows: what predicting needs in use.

`FeatureStore` fills each batch up to a fixed size, so that features keep their bits. One text alone then costs as much
as sixteen. Whoever uses a model has no need of that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from harness.backbones import Backbone, Pooling, Weights
from harness.features.encode import FeatureStore
from harness.features.layers import Layer, Word, canonical_layer
from harness.features.table import Encoded
from harness.features.tokens import Tokens, pad
from harness.measure import Device, Precision, rows_of_pass
from harness.tasks import Floats, Ints, Source

_MOST_ROWS: Final = 512


class DirectFeatures(FeatureStore):
    """Features of the rows that are asked for, without a cache, a clock or a meter.

    Args:
        device: where encoding runs.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device, None)

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
        """Return features of the sequences at `index`, as `FeatureStore.pooled` does; costs are 0."""
        import torch

        model: Any = backbone.resident(self._device.torch_device(), precision, weights)
        layer = canonical_layer(layer, backbone.pristine)
        pad_id = int(backbone.tokenizer.pad_token_id)
        found: list[Floats] = []
        at = 0
        with torch.inference_mode():
            while at < len(index):
                members = index[at : at + _MOST_ROWS]
                longest = int(tokens.lengths[members].max())
                members = members[: rows_of_pass(self._device.kind, _MOST_ROWS, longest)]
                rows = [int(row) for row in members]
                ids, mask = pad([tokens.row(row) for row in rows], pad_id)
                places = None if word is None or tokens.places is None else [tokens.places[row] for row in rows]
                read = word or pooling or backbone.files.pooling
                vectors = self._forward(model, ids, mask, precision, read, places, layer)
                found.append(vectors.float().cpu().numpy())
                at += len(rows)
        values = np.concatenate(found) if found else np.zeros((0, backbone.hidden_size), dtype=np.float32)
        n_tokens = int(tokens.lengths[index].sum())
        return Encoded(values, 0.0, n_tokens, 0.0, 0, 0, reused=False, fresh=True)
