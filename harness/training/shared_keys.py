"""Keys and values that many rows continue, and room for those of the tokens that are written.

Shared ones are kept once, and joined to a row's own only while a layer attends.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
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
        super().__init__()  # type: ignore[no-untyped-call]
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


def continuing_cache(n_layers: int, shared: Past | None, own: Past | None = None, **how: Any) -> Cache:
    """Return a cache whose rows continue the shared tokens and their own; `how` as for `SharedLayer`."""
    return Cache(
        layers=[
            SharedLayer(shared[layer] if shared else None, own[layer] if own else None, **how)
            for layer in range(n_layers)
        ]
    )


def kept_keys(cache: Cache, n_tokens: int | None = None) -> Past:
    """Return the keys and values that the last forward pass left in a cache, or those of its first tokens.

    Raises:
        UnsupportedError: the model left none.
    """
    layers: Sequence[Any] = cache.layers
    if any(layer.keys is None for layer in layers):
        raise UnsupportedError(_REFUSAL.format("no keys and values in some layers"))
    return [(layer.keys[:, :, :n_tokens], layer.values[:, :, :n_tokens]) for layer in layers]


def count_kept_layers(model: Any) -> int:
    """Return the number of layers of a language model's decoder.

    Raises:
        UnsupportedError: the model keeps something other than keys and values, such as recurrent states.
    """
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
        layers: Sequence[Any] = cross.layers
        for at, layer in enumerate(layers):
            chosen.update(layer.keys[rows], layer.values[rows], at)
        cross = chosen
    return EncoderDecoderCache(own, cross)


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer with room for more tokens: a step writes one place and copies nothing.

    Args:
        room: tokens that fit behind the first ones.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room
        self._buffers: list[torch.Tensor] = []
        self._n_tokens = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of all tokens, in the precision that attention computes in."""
        new = [_as_computed(key_states), _as_computed(value_states)]
        begin, end = self._n_tokens, self._n_tokens + new[0].shape[2]
        if not self._buffers or end > self._buffers[0].shape[2]:
            buffers = [states.new_empty((*states.shape[:2], end + self._room, states.shape[3])) for states in new]
            for buffer, old in zip(buffers, self._buffers, strict=False):
                buffer[:, :, :begin] = old[:, :, :begin]
            self._buffers = buffers
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[:, :, begin:end] = states
        self._n_tokens = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        self.is_initialized = True
        return self.keys, self.values


def roomy_cache(n_layers: int, room: int) -> Cache:
    """Return an empty cache for writing `room` tokens after a text."""
    return Cache(layers=[RoomyLayer(room) for _ in range(n_layers)])


def left_padded(cache: Cache, shared: Past, own: Past | None, lengths: Sequence[int]) -> None:
    """Enter the keys and values of rows into an empty cache, padded on the left.

    Args:
        cache: an empty cache for batches.
        shared: tokens before all rows.
        own: tokens after them, padded on the right; None for none.
        lengths: number of own tokens of each row.
    """
    longest = max(lengths)
    n_shared = shared[0][0].shape[2]
    places = torch.arange(n_shared + longest)[None] - (longest - torch.tensor(lengths))[:, None]
    places = places.clamp(min=0)[:, None, :, None].to(shared[0][0].device)
    for at, layer in enumerate(shared):
        both = []
        for which, states in enumerate(layer):
            whole = states.expand(len(lengths), -1, -1, -1)
            if own is not None:
                whole = torch.cat([whole, own[at][which]], dim=2)
            both.append(whole.gather(2, places.expand(-1, whole.shape[1], -1, whole.shape[3])))
        cache.update(both[0], both[1], at)


@contextlib.contextmanager
def grouped_heads(kind: str) -> Iterator[None]:
    """Let attention on a CPU read keys that several heads share in place, also under a mask: same bits, less time.

    `transformers` copies them for each head otherwise, since CUDA has no fast kernel for that.

    Args:
        kind: kind of device; nothing changes on others than a CPU.
    """
    before = os.environ.get(_GROUPED)
    if kind == "cpu":
        os.environ[_GROUPED] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_GROUPED, None)
        else:
            os.environ[_GROUPED] = before


_GROUPED = "TRANSFORMERS_SDPA_FORCE_GQA"
"""Variable that `transformers` reads in each attention."""


def _as_computed(states: torch.Tensor) -> torch.Tensor:
    """Return states in the precision of autocast: attention would round them there."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


_REFUSAL = (
    "This backbone keeps {} of a prompt; scoring classes needs a transformer that keeps the keys and values of its "
    "attention."
)
