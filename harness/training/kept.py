"""Memory for the tensors that the backward pass reads, apart from that for passing results, on a CPU.

The C library's heap mixes both. A passing result then leaves a hole between tensors that stay, and an aligned request
of the same size does not fit into it: half of the heap is holes. Here the tensors that stay are copied into blocks of
memory that serve every step. The values are the same.

Saved tensors are reached by torch's hooks (https://docs.pytorch.org/docs/stable/autograd.html#saved-tensors-hooks).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

import torch

from harness.measure import release

_BLOCK_BYTES: Final = 64 << 20
"""Bytes of a block. Above 32 MiB, the C library maps it apart from the heap, and only what is written takes memory."""

_SMALLEST_BYTES: Final = 64 << 10
"""Bytes below which a tensor stays where it is."""

_ALIGNMENT: Final = 64


class Kept:
    """Copies of saved tensors, packed one after another; their memory serves again once all of them are gone.

    Args:
        lasting: tensors that live throughout, such as parameters; they are not copied.
    """

    def __init__(self, lasting: Iterable[torch.Tensor]) -> None:
        self._lasting = {tensor.untyped_storage().data_ptr() for tensor in lasting}
        self._blocks: list[torch.Tensor] = []
        self._block = 0
        self._used = 0
        self._counter = _Counter()
        self._latest: dict[object, torch.Tensor] = {}

    def begin(self) -> None:
        """Begin a forward pass: take the blocks again, or new ones where an earlier pass still needs its own."""
        if self._counter.alive:
            self._blocks, self._counter = [], _Counter()  # the graph holds the old ones
        self._block = self._used = 0
        self._latest.clear()

    def pack(self, tensor: torch.Tensor) -> _Slot | torch.Tensor:
        """Return a slot with a copy, or the tensor itself where it is small, lasting, or has gaps."""
        n_bytes = tensor.numel() * tensor.element_size()
        if n_bytes < _SMALLEST_BYTES or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            return tensor
        sizes, strides = tensor.shape, tensor.stride()
        last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        place = tensor.untyped_storage().data_ptr()
        if last + 1 != tensor.numel() or place in self._lasting:
            return tensor
        with torch.no_grad():
            if any(place == block.data_ptr() for block in self._blocks):
                return _Slot(tensor.detach(), self._counter)
            kind = (tensor.dtype, sizes, strides)
            latest = self._latest.get(kind)
            if latest is not None and _same_bits(latest, tensor):  # several layers round the same input
                return _Slot(latest, self._counter)
            copy = self._room(n_bytes).view(tensor.dtype).as_strided(sizes, strides)
            copy.copy_(tensor)
            self._latest[kind] = copy
        return _Slot(copy, self._counter)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor that needs no copy when it is saved."""
        return self._room(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)

    def unpack(self, slot: _Slot | torch.Tensor) -> torch.Tensor:
        """Return the values that were packed."""
        return slot.values if isinstance(slot, _Slot) else slot

    def _room(self, n_bytes: int) -> torch.Tensor:
        taken = -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
        while self._block < len(self._blocks) and self._used + taken > len(self._blocks[self._block]):
            self._block, self._used = self._block + 1, 0
        if self._block == len(self._blocks):
            release()  # what counting operations and validating left in the heap
            self._blocks.append(torch.empty(max(taken, _BLOCK_BYTES), dtype=torch.uint8))
        start, self._used = self._used, self._used + taken
        return self._blocks[self._block][start : start + n_bytes]


class _Counter:
    """Number of slots in use."""

    alive = 0


class _Slot:
    """A copy in a block, counted as long as the graph holds it."""

    __slots__ = ("_counter", "values")

    def __init__(self, values: torch.Tensor, counter: _Counter) -> None:
        self.values = values
        self._counter = counter
        counter.alive += 1

    def __del__(self) -> None:
        self._counter.alive -= 1


_current: Kept | None = None


def current() -> Kept | None:
    """Return the memory of the forward pass that is running; None outside of `keeping_apart`."""
    return _current


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors of one type, shape and layout hold the same bits."""
    n_bytes = one.numel() * one.element_size()
    a, b = (x.as_strided((x.numel(),), (1,)).view(torch.uint8) for x in (one, other))
    few = min(n_bytes, 64)
    return torch.equal(a[:few], b[:few]) and torch.equal(a, b)


def keeping_apart(forward: Callable[..., torch.Tensor], lasting: Iterable[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a forward pass whose saved tensors lie apart from the heap (`Kept`).

    Args:
        forward: a forward pass on a CPU.
        lasting: parameters and buffers, which are not copied.
    """
    kept = Kept(lasting)

    def run(*given: object) -> torch.Tensor:
        global _current
        kept.begin()
        before, _current = _current, kept
        try:
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
                return forward(*given)
        finally:
            _current = before

    return run
