"""Use bitsandbytes: linear layers in four bits (QLoRA, Dettmers et al., 2023, arXiv:2305.14314) and AdamW in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import bitsandbytes as bnb
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from harness.backbones import plain_class


class FourBitLinear(bnb.nn.Linear4bit):  # type: ignore[misc, unused-ignore]
    """A linear layer whose matrix is kept in four bits and read back for each product.

    It computes as a `torch.nn.Linear` does: in the type of its input, or in autocast's. bitsandbytes' own layer (0.50)
    rounds its bias for good in the first forward pass. On a CPU it reads a matrix wrongly whose rows are no multiple of
    64 numbers; and if the CPU has bfloat16 instructions, it repacks the matrix in evaluation mode, which rounds the
    scales, refuses some shapes and loses gradients afterwards. So this layer multiplies on a CPU itself.

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
        if kind == "cpu":
            product = _CpuProduct.apply(x.to(dtype), self.weight, bias)  # type: ignore[no-untyped-call]
        else:
            product = bnb.matmul_4bit(x.to(dtype), self.weight, bias=bias, quant_state=self.weight.quant_state)
        return product  # type: ignore[no-any-return, unused-ignore]


class _CpuProduct(torch.autograd.Function):
    """A product that reads the matrix anew in the backward pass, instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight = weight
        return nn.functional.linear(x, dequantise(weight, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        [gradient] = gradients
        return gradient @ dequantise(ctx.weight, gradient.dtype), None, None


def dequantise(weight: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix that a weight in four bits stands for, shape (outputs, inputs)."""
    state = weight.quant_state
    scales = state.absmax
    if state.nested:
        scales = bnb.functional.dequantize_blockwise(scales, state.state2) + state.offset
    # In one row: the CPU's kernel starts a new block of 64 in each row, unlike the one that quantises.
    flat = (1, state.shape.numel())
    found: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        weight.detach(), scales, state.blocksize, state.quant_type, flat, dtype
    )
    return found.view(state.shape)


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
            if isinstance(child, nn.Linear) and plain_class(child) is nn.Linear and name not in kept:
                if child not in made:
                    made[child] = FourBitLinear(
                        child, device, quantisation, double_quantisation=double_quantisation, computed_in=computed_in
                    )
                setattr(parent, name, made[child])
    return len(made)


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


class EightBitAdamW(bnb.optim.AdamW8bit):  # type: ignore[misc, unused-ignore]
    """AdamW with moments in 8 bits, scaled by blocks of 256 (Dettmers et al., 2022, arXiv:2110.02861).

    Tensors of fewer than 4,096 numbers keep moments in float32. bitsandbytes' own step waits for the device after each
    parameter; this one never does.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update every parameter that has a gradient."""
        for at, group in enumerate(self.param_groups):
            for number, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self.init_state(group, parameter, at, number)
                self.update_step(group, parameter, at, number)
