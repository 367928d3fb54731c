"""Weights of bitsandbytes on a simulated device; its operations compute on the CPU."""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.nn import Params4bit

from tests.simulated.tensor import SimulatedTensor

_KEPT = ("blocksize", "compress_statistics", "quant_type", "quant_storage", "quant_state", "module")


class Simulated4bit(SimulatedTensor, Params4bit):
    """A quantised weight on a simulated device."""

    def detach(self) -> Simulated4bit:  # type: ignore[override]
        """Return itself: it never trains, and a copy would lose its scales."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return itself where it lies there already."""
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is None or (device.type == "cuda" and device.index in (None, self.device.index)):
            return self
        return torch.Tensor.to(self, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            state = self.quant_state.__class__(**{**vars(self.quant_state), "absmax": self.quant_state.absmax.clone()})
            memo[id(self)] = _as_weight(SimulatedTensor(self.inner.clone(), self.device.index), self, state)
        return memo[id(self)]


def _as_weight(packed: Any, like: Params4bit, state: Any) -> Simulated4bit:
    packed.__class__ = Simulated4bit
    for name in _KEPT:
        setattr(packed, name, getattr(like, name))
    packed.quant_state, packed.bnb_quantized = state, True
    if like.module is not None:
        like.module.quant_state = state
    return packed


def _quantise(self: Params4bit, device: torch.device) -> Any:
    """Return a weight on the device instead of changing this one."""
    packed, state = bnb.functional.quantize_4bit(
        self.data.contiguous().to(device),
        blocksize=self.blocksize,
        compress_statistics=self.compress_statistics,
        quant_type=self.quant_type,
        quant_storage=self.quant_storage,
    )
    return _as_weight(packed, self, state)


Params4bit._quantize = _quantise
