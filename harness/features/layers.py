"""Which hidden states features are read from: the last ones, those of one block, or the mean over all blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.backbones import Pooling, pool
from harness.support import UsageError

if TYPE_CHECKING:
    import torch

Layer = int | Literal["last", "average"]
"""`last`: what the backbone puts out, behind its final norm if it has one. An index counts blocks from 1, or from the
end if it is negative (-1 is the last block); 0 is the output of the embeddings. `average`: the mean over the outputs
of all blocks, without the embeddings."""

COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
ENCODER_COUNTS = ("encoder_layers", "num_layers", "num_hidden_layers")
"""Names that configurations give the number of blocks; of the encoder where there is a decoder too."""


def declared_blocks(folder: Path) -> int | None:
    """How many blocks the `config.json` in a backbone's folder speaks of; None if it does not say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return blocks_of(config) if isinstance(config, dict) else None


def blocks_of(config: Mapping[str, Any]) -> int | None:
    """How many blocks a configuration speaks of, of the encoder where there is a decoder too; None if it does not."""
    names = ENCODER_COUNTS if config.get("is_encoder_decoder") else COUNTS
    found = (config.get(name) for name in names)
    return next((count for count in found if isinstance(count, int) and not isinstance(count, bool)), None)


def why_no_such_layer(layer: Layer, n_blocks: int) -> str | None:
    """The reason why a backbone of `n_blocks` blocks has no such layer; None if it has."""
    if isinstance(layer, str) or -n_blocks <= layer <= n_blocks:
        return None
    return (
        f"Layer {layer} was asked for and the backbone has {n_blocks} blocks; expected 1 to {n_blocks}, "
        f"-1 to -{n_blocks} from the end, 0 (embeddings), last or average."
    )


def canonical_layer(layer: Layer, model: torch.nn.Module) -> Layer:
    """The one spelling of a layer: `last`, `average`, or an index from 0 to one below the number of blocks.

    Raises:
        UsageError: the backbone has no such block, or does not say how many it has.
    """
    if isinstance(layer, str):
        return layer
    config: Any = model.config
    n_blocks = getattr(config, "num_hidden_layers", None)
    if n_blocks is None:
        raise UsageError(f"Layer {layer} was asked for and the backbone does not say how many blocks it has; try last.")
    reason = why_no_such_layer(layer, int(n_blocks))
    if reason is not None:
        raise UsageError(reason)
    index = layer if layer >= 0 else int(n_blocks) + 1 + layer
    return "last" if index == n_blocks and index > 0 else index


def pool_layer(outputs: Any, mask: torch.Tensor, pooling: Pooling, layer: Layer) -> torch.Tensor:
    """One float32 vector per row from what a transformer returned.

    Args:
        outputs: of the transformer; with all hidden states unless `layer` is `last`.
        mask: 1 for real tokens and 0 for padding, shape (rows, length).
        pooling: which tokens are read.
        layer: canonical.

    Returns:
        Shape (rows, width).
    """
    import torch

    if layer == "last":
        return pool(outputs.last_hidden_state, mask, pooling)
    states = outputs.hidden_states  # of the embeddings, then of each block
    if layer == "average":
        # Whether the last entry lies before or behind the final norm differs between architectures; the last output
        # is always behind it.
        blocks = [*states[1:-1], outputs.last_hidden_state]
        if pooling == "max":  # the one mode that is not linear: the states are averaged first
            return pool(torch.stack([block.float() for block in blocks]).mean(0), mask, pooling)
        # The mean of the pooled vectors is the pooled mean of the states, and takes less memory.
        return torch.stack([pool(block, mask, pooling) for block in blocks]).mean(0)
    return pool(states[layer], mask, pooling)
