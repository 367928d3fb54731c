"""Hidden states that features are read from: the last ones, those of one block, or the mean over all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from harness.backbones import Pooling, pool
from harness.support import UsageError

if TYPE_CHECKING:
    import torch

Word = Literal["first", "mean"]
"""The vector of a word: the state of its first token, or the mean over its tokens."""

Layer = int | Literal["last", "average"]
"""The hidden states to read. `last` is the backbone's output, behind its final norm if it has one. `average` is the
mean over the outputs of all blocks, without the embeddings. An index counts blocks from 1, or from the end if it is
negative (-1 is the last block); 0 is the output of the embeddings."""


def why_no_such_layer(layer: Layer, n_blocks: int) -> str | None:
    """Return the reason why a backbone of `n_blocks` blocks has no such layer; None if it has one."""
    if isinstance(layer, str) or -n_blocks <= layer <= n_blocks:
        return None
    return (
        f"Layer {layer} was asked for, but the backbone has {n_blocks} blocks; expected 1 to {n_blocks}, "
        f"-1 to -{n_blocks} from the end, 0 (embeddings), last or average."
    )


def canonical_layer(layer: Layer, model: torch.nn.Module) -> Layer:
    """Return the canonical name of a layer: `last`, `average`, or an index from 0 to one below the number of blocks.

    Raises:
        UsageError: the backbone has no such block, or does not state how many it has.
    """
    if isinstance(layer, str):
        return layer
    config: Any = model.config
    n_blocks = getattr(config, "num_hidden_layers", None)
    if n_blocks is None:
        raise UsageError(f"Layer {layer} was asked for, but the backbone states no number of blocks; try last.")
    reason = why_no_such_layer(layer, int(n_blocks))
    if reason is not None:
        raise UsageError(reason)
    index = layer if layer >= 0 else int(n_blocks) + 1 + layer
    return "last" if index == n_blocks and index > 0 else index


def pool_layer(outputs: Any, mask: torch.Tensor, pooling: Pooling, layer: Layer) -> torch.Tensor:
    """Return one float32 vector per row from a transformer's outputs.

    Args:
        outputs: the transformer's outputs, with all hidden states unless `layer` is `last`.
        mask: 1 for real tokens and 0 for padding, shape (rows, length).
        pooling: how tokens are pooled.
        layer: a canonical layer.

    Returns:
        Shape (rows, width).
    """
    import torch

    if layer == "last":
        return pool(outputs.last_hidden_state, mask, pooling)
    states = outputs.hidden_states  # of the embeddings, then of each block
    if layer == "average":
        # Architectures differ in whether the last entry lies before or behind the final norm; the last output is
        # always behind it.
        blocks = [*states[1:-1], outputs.last_hidden_state]
        if pooling == "max":  # the one mode that is not linear: the states are averaged first
            return pool(torch.stack([block.float() for block in blocks]).mean(0), mask, pooling)
        # The mean of the pooled vectors is the pooled mean of the states, and takes less memory.
        return torch.stack([pool(block, mask, pooling) for block in blocks]).mean(0)
    return pool(states[layer], mask, pooling)


def word_vectors(
    outputs: Any, mask: torch.Tensor, places: Sequence[npt.NDArray[np.int32]], word: Word, layer: Layer
) -> torch.Tensor:
    """Return one float32 vector per word from a transformer's outputs.

    Args:
        outputs: the transformer's outputs, with all hidden states unless `layer` is `last`.
        mask: 1 for real tokens and 0 for padding, shape (rows, length).
        places: words of each row: position, first token, token behind the last, shape (words, 3).
        word: which tokens of a word are read.
        layer: a canonical layer.

    Returns:
        Shape (words of all rows, width).
    """
    import torch
    from torch import nn

    states = outputs.last_hidden_state
    if layer == "average":
        blocks = [*outputs.hidden_states[1:-1], outputs.last_hidden_state]
        states = torch.stack([block.float() for block in blocks]).mean(0)
    elif layer != "last":
        states = outputs.hidden_states[layer]
    every = np.concatenate([np.asarray(place, dtype=np.int64) for place in places])
    rows = torch.from_numpy(np.repeat(np.arange(len(places)), [len(place) for place in places])).to(mask.device)
    begins, ends = (torch.from_numpy(np.ascontiguousarray(every[:, at])).to(mask.device) for at in (1, 2))
    if word == "first":
        found: torch.Tensor = states[rows, begins].float()
        return found
    sums = nn.functional.pad(states.double().cumsum(1), (0, 0, 1, 0))
    return ((sums[rows, ends] - sums[rows, begins]) / (ends - begins).unsqueeze(1)).float()
