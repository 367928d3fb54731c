"""Keys and values that many rows continue: each is kept once, and joined to the new ones only while a layer attends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

from harness.support import UnsupportedError

Past = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each of shape (rows, heads, tokens, width)."""


class SharedLayer(DynamicLayer):
    """Keys and values of one layer.

    A layer keeps all tokens, those outside a sliding window too: the model's mask hides them.

    Args:
        shared: tokens before all rows, shape (1, heads, tokens, width).
        own: tokens after them, for each row.
        rows: row of `own` that each row of a batch continues; None is one each.
        keeps: whether to keep the keys and values of the next forward pass. Without it, they last as long as the
            attention of the layer.
    """

    def __init__(
        self,
        shared: tuple[torch.Tensor, torch.Tensor] | None = None,
        own: tuple[torch.Tensor, torch.Tensor] | None = None,
        rows: torch.Tensor | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        super().__init__()
        self._before = tuple(part for part in (shared, own) if part is not None)
        self._own = own
        self._rows = rows
        self._keeps = keeps
        self._n_before = sum(keys.shape[2] for keys, _ in self._before)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of all tokens, the new ones last, in the precision that attention computes in."""
        keys, values = _as_computed(key_states), _as_computed(value_states)
        if self._keeps:
            self.keys, self.values, self.is_initialized = keys, values, True
        if not self._before:
            return keys, values
        return self._joined(0, keys), self._joined(1, values)

    def _joined(self, which: int, new: torch.Tensor) -> torch.Tensor:
        parts = []
        for part in self._before:
            states = part[which]
            if part is not self._own:
                states = states.expand(len(new), -1, -1, -1)
            elif self._rows is not None:
                states = states[self._rows]
            parts.append(states)
        return torch.cat([*parts, new], dim=2)

    def get_seq_length(self) -> int:
        """Return the number of tokens before those of the next forward pass."""
        return self._n_before + (self.keys.shape[2] if self.keys is not None else 0)


def continuing(n_layers: int, shared: Past | None, own: Past | None = None, **how: Any) -> Cache:
    """Return a cache whose rows continue the shared tokens and their own; `how` as for `SharedLayer`."""
    return Cache(
        layers=[
            SharedLayer(shared[layer] if shared else None, own[layer] if own else None, **how)
            for layer in range(n_layers)
        ]
    )


def kept(cache: Cache, n_tokens: int | None = None) -> Past:
    """Return the keys and values that the last forward pass left in a cache, or those of its first tokens.

    Raises:
        UnsupportedError: the model left none.
    """
    if any(layer.keys is None for layer in cache.layers):
        raise UnsupportedError(_REFUSAL.format("no keys and values in some layers"))
    return [(layer.keys[:, :, :n_tokens], layer.values[:, :, :n_tokens]) for layer in cache.layers]


def n_layers_of(model: Any) -> int:
    """Return the number of layers of a language model's decoder.

    Raises:
        UnsupportedError: the model keeps something other than keys and values, such as recurrent states.
    """
    import inspect

    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise UnsupportedError(_REFUSAL.format("no cache of keys and values"))
    layers = DynamicCache(config=model.config).layers
    other = [layer for layer in layers if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer)]
    if other or not layers:
        what = f"{type(other[0]).__name__} in its cache" if other else "no cache of keys and values"
        raise UnsupportedError(_REFUSAL.format(what))
    return len(layers)


def with_encoder(own: Cache, cross: Cache, rows: torch.Tensor | None = None) -> EncoderDecoderCache:
    """Return a decoder's cache, with the encoder's keys and values of the given rows."""
    if rows is not None:
        chosen = DynamicCache()
        for at, layer in enumerate(cross.layers):
            chosen.update(layer.keys[rows], layer.values[rows], at)
        cross = chosen
    return EncoderDecoderCache(own, cross)


def _as_computed(states: torch.Tensor) -> torch.Tensor:
    """Return states in the precision of autocast: attention would round them there."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


_REFUSAL = (
    "This backbone keeps {} of a prompt; scoring classes needs a transformer that keeps the keys and values of its "
    "attention."
)
