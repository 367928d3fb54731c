"""A bottleneck adapter (Houlsby et al., 2019, arXiv:1902.00751) behind a linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

_NEAR_ZERO = 1e-3
"""Standard deviation of initial weights, small enough for a near-identity adapter (section 3.6 of the paper)."""


class Bottleneck(nn.Module):
    """`values + up(gelu(down(values)))`, for values of shape (..., size).

    Args:
        size: width of inputs and outputs.
        width: width of the bottleneck.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(size, width)
        self.up = nn.Linear(width, size)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=_NEAR_ZERO, a=-2 * _NEAR_ZERO, b=2 * _NEAR_ZERO)
            nn.init.zeros_(linear.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values of the same shape."""
        added: torch.Tensor = self.up(functional.gelu(self.down(values)))
        return values + added


class WithAdapter(nn.Module):
    """A layer that ends a sub-layer, and the adapter behind it."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        weight: Any = layer.weight
        # GPT-2's layers store their matrix transposed.
        size = weight.shape[0] if isinstance(layer, nn.Linear) else weight.shape[1]
        self.adapter = Bottleneck(int(size), width)

    @property
    def weight(self) -> torch.Tensor:
        """The layer's own weight: some architectures look at its type."""
        weight: Any = self.layer.weight
        tensor: torch.Tensor = weight
        return tensor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the adapted outputs, shape (..., size)."""
        outputs = self.layer(values)
        if not torch.is_autocast_enabled(outputs.device.type):  # T5 rounds to the type of a stored matrix
            outputs = outputs.to(self.adapter.down.weight.dtype)
        adapted: torch.Tensor = self.adapter(outputs)
        return adapted
