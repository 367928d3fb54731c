"""Dropout whose random numbers are cheap on a CPU.

For a dropout mask on the CPU, torch draws one 64-bit number an element, one after the other. For a small encoder on
short texts that is a sixth of a training step. Sixteen bits an element are enough: the share dropped is rounded to
1/65,536, and the kept elements are scaled by exactly the share kept, so that the expectation is unchanged.
"""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 1 << 16


class SixteenBitDropout(nn.Module):
    """`nn.Dropout(p)` with a mask made of 16 random bits an element, from torch's global generator.

    Args:
        p: share of elements to drop, 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._n_kept = round((1.0 - p) * _LEVELS)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values; in training with a share of them 0 and the others scaled up."""
        if not self.training or self._n_kept == _LEVELS:
            return values
        words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()].view(values.shape)
        mask = (bits < self._n_kept - _LEVELS // 2).to(values.dtype)
        return values * mask.mul_(_LEVELS / self._n_kept)

    def extra_repr(self) -> str:
        """Return the arguments to show, as `nn.Dropout` does."""
        return f"p={self.p}"


def quicken_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of a model that trains on a CPU; on other devices torch's own is faster."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout and not child.inplace and child.p < 1.0:
                setattr(parent, name, SixteenBitDropout(child.p).train(child.training))


def set_dropout(transformer: nn.Module, p: float) -> None:
    """Give every dropout inside a transformer the rate `p`.

    Architectures keep rates in modules, in attributes of layers (BART's `activation_dropout`), and in configurations
    that are read in every pass (Falcon's `hidden_dropout`). Rates at which whole layers are skipped stay as they are.

    Args:
        transformer: changed in place, and its configuration with it.
        p: share of elements to drop, 0 <= p < 1.
    """
    for module in transformer.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = p
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(vars(holder).items()) if holder is not None else ():
                if _is_rate(name) and isinstance(value, (int, float)) and not isinstance(value, bool):
                    setattr(holder, name, p)


def _is_rate(name: str) -> bool:
    return ("dropout" in name or name.endswith("pdrop")) and "layer" not in name
