"""Linear layers in four bits, with bitsandbytes' numbers and kernels (QLoRA, Dettmers et al., 2023, arXiv:2305.14314)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry, register_flop_formula


@contextmanager
def _fetching_nothing() -> Iterator[None]:
    """Hide the package `kernels`: importing bitsandbytes on some CPUs would download code through it."""
    known = sys.modules.get("kernels")
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logger.setLevel(level)
        if known is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = known


with _fetching_nothing():
    import bitsandbytes as bnb


class FourBitLinear(bnb.nn.Linear4bit):  # type: ignore[misc, unused-ignore]
    """A linear layer whose matrix is kept in four bits and read back for each product.

    It computes as a `torch.nn.Linear` does: in the type of its input, or in autocast's. bitsandbytes' own layer rounds
    its bias for good in the first forward pass. On a CPU with bfloat16 instructions it also repacks the matrix in
    evaluation mode, which rounds the scales, refuses some shapes and loses gradients afterwards.

    Args:
        linear: the layer to quantise; it is left as it is.
        device: where the new layer lies; the matrix is moved there alone, and then quantised.
        quantisation: `nf4` or `fp4`.
        double_quantisation: whether the scales of the blocks of 64 are quantised too.
        computed_in: type of the products in training; the backward pass reads the matrix back in it.
    """

    def __init__(
        self,
        linear: nn.Linear,
        device: torch.device,
        quantisation: Literal["nf4", "fp4"],
        *,
        double_quantisation: bool,
        computed_in: torch.dtype,
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device=torch.device("meta"))
        self.weight = bnb.nn.Params4bit(
            linear.weight.detach(),
            requires_grad=False,
            compress_statistics=double_quantisation,
            quant_type=quantisation,
        ).to(device)
        self.weight.quant_state.dtype = computed_in  # else that of the given matrix, which may be rounder
        self.bias = None
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.detach().to(device, copy=True), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product with the matrix, plus the bias."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        found: torch.Tensor = bnb.matmul_4bit(x.to(dtype), self.weight, bias=bias, quant_state=self.weight.quant_state)
        return found


def quantise_linear_layers(
    module: nn.Module,
    device: torch.device,
    quantisation: Literal["nf4", "fp4"],
    *,
    double_quantisation: bool,
    computed_in: torch.dtype,
    kept: Collection[str] = (),
) -> int:
    """Replace the linear layers inside a module by layers in four bits, one after another.

    A layer that several modules share stays shared. Subclasses of `torch.nn.Linear` are left.

    Args:
        module: changed in place.
        device: where the new layers lie; it holds one matrix at a time besides them.
        quantisation: as in `FourBitLinear`.
        double_quantisation: as in `FourBitLinear`.
        computed_in: as in `FourBitLinear`.
        kept: names of layers, inside their parents, to leave.

    Returns:
        The number of replaced layers.
    """
    _count_operations()
    made: dict[nn.Module, FourBitLinear] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and name not in kept:
                if child not in made:
                    made[child] = FourBitLinear(
                        child, device, quantisation, double_quantisation=double_quantisation, computed_in=computed_in
                    )
                setattr(parent, name, made[child])
    return len(made)


def packed_bytes(parameter: torch.Tensor) -> int:
    """Return the bytes of a parameter as stored; a matrix in four bits has its scales and tables too."""
    held = parameter.numel() * parameter.element_size()
    state: Any = getattr(parameter, "quant_state", None)
    while state is not None:
        tensors = [value for value in (state.absmax, state.code, state.offset) if isinstance(value, torch.Tensor)]
        held += sum(value.numel() * value.element_size() for value in tensors)
        state = state.state2 if state.nested else None
    return held


def _count_operations() -> None:
    """Tell torch's counter the operations of bitsandbytes' product; it counts unknown ones as none."""
    product = torch.ops.bitsandbytes.gemm_4bit
    if product in flop_registry:
        return

    @register_flop_formula(product)  # type: ignore[untyped-decorator, unused-ignore]
    def count(x: Any, _: Any, shape: Any, *__: Any, **___: Any) -> int:
        n_rows = 1
        for size in x[:-1]:
            n_rows *= size
        return int(2 * n_rows * shape[0] * shape[1])
