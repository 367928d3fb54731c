"""Parts of Llama-like transformers that keep less for the backward pass, and compute it faster.

Written in single operations, an RMS norm keeps two copies of its input's size. A gated layer keeps three of its inner
width. The functions here give the same numbers forward, and compute again what is cheap. They follow Liger Kernel
(Hsu et al., 2024, arXiv:2410.10989), without kernels of their own.

Only classes of transformers that are known are changed, in the copy of one fit. Each is tried beside the original
first, and stays as it is where a number differs.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from harness.backbones import plain_class
from harness.training.kept import Kept, current

LIKE_LLAMA: Final = frozenset(
    ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "phi3", "smollm3", "granite", "olmo2")
)
"""Modules of transformers whose norms, gated layers and attention are written as Llama's."""

_ATTENTION: Final = "harness_causal"
_FASTER_IN_FLOAT32: Final = 256
"""Tokens below which torch's backward pass of attention on a CPU is faster in float32 than in bfloat16."""


class _RmsNorm(torch.autograd.Function):
    """w * x / rms(x), computed in float32; keeps x and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (gradient * normed.to(x.dtype)).flatten(0, -2).sum(0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None
        inner = (gradient * weight).to(x.dtype).float()
        along = (inner * normed).mean(-1, keepdim=True)
        return inner.sub_(normed.mul_(along)).mul_(scale).to(x.dtype), to_weight, None


class _Gated(torch.autograd.Function):
    """silu(gate) * up; keeps both, and not their product's factor."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        product: torch.Tensor = functional.silu(gate).mul_(up)
        return product

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        to_up = gradient * functional.silu(gate)
        to_gate: torch.Tensor = torch.ops.aten.silu_backward(gradient * up, gate)
        return to_gate, to_up


class _FrozenGated(torch.autograd.Function):
    """silu(x @ gate.T) * (x @ up.T) in bfloat16, with matrices that stay; rounds x once, and needs no copies of both.

    Autocast rounds x in each product. Here the products go to memory of `kept.Kept`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, memory: Kept) -> torch.Tensor:
        narrow = x.to(gate.dtype).flatten(0, -2)
        found = [memory.empty((len(narrow), len(matrix)), gate.dtype) for matrix in (gate, up)]
        for matrix, place in zip((gate, up), found, strict=True):
            torch.mm(narrow, matrix.t(), out=place)
        ctx.save_for_backward(*found, gate, up)
        ctx.of = x.dtype
        product = functional.silu(found[0]).mul_(found[1])
        return product.view(*x.shape[:-1], product.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gated, raised, gate, up = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        to_up = torch.mm(flat * functional.silu(gated), up).to(ctx.of)
        to_gate = torch.mm(torch.ops.aten.silu_backward(flat * raised, gated), gate).to(ctx.of)
        return to_gate.add_(to_up).view(*gradient.shape[:-1], gate.shape[1]), None, None, None


class _CausalAttention(torch.autograd.Function):
    """Causal attention by torch's kernel for CPUs, whose backward pass runs in float32.

    In bfloat16 that kernel takes three times as long on short texts, and rounds more.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output: torch.Tensor
        output, sums = kernel(query, key, value, 0.0, True, scale=scale)
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, sums = ctx.saved_tensors
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        wide = (tensor.float() for tensor in (gradient, query, key, value, output))
        found = kernel(*wide, sums, 0.0, True, scale=ctx.scale)
        return (*(tensor.to(query.dtype) for tensor in found), None)


def make_lean(transformer: nn.Module) -> list[str]:
    """Replace the forward passes of known modules of a transformer that only this fit holds.

    Args:
        transformer: changed in place; its parameters, names and classes stay.

    Returns:
        Names of the changed classes.
    """
    changed = set()
    module: Any
    for module in transformer.modules():
        kind: Any = type(module)
        if not _is_known(kind) or "forward" in vars(module):
            continue
        if kind.__name__.endswith("RMSNorm") and _agrees(_norm, kind):
            module.forward = types.MethodType(_norm, module)
        elif kind.__name__.endswith("MLP") and _is_gated(module):
            if not _agrees(_mlp, kind):
                continue
            module.forward = types.MethodType(_mlp, module)
        elif kind.__name__.endswith("Attention") and _attends_by_sdpa(module):
            module.config = copy.copy(module.config)  # the mask is still made as for sdpa
            module.config._attn_implementation_internal = _attention_name()
        else:
            continue
        changed.add(kind.__name__)
    return sorted(changed)


def is_lean(model: nn.Module) -> bool:
    """Return whether `make_lean` replaced a gated layer of a model."""
    return any(getattr(vars(module).get("forward"), "__func__", None) is _mlp for module in model.modules())


def _apply(function: Any, *given: Any) -> torch.Tensor:
    result: torch.Tensor = function.apply(*given)
    return result


def _is_known(kind: type) -> bool:
    parts = kind.__module__.split(".")
    return parts[:2] == ["transformers", "models"] and len(parts) == 4 and parts[2] in LIKE_LLAMA


def _norm(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    return _apply(_RmsNorm, hidden_states, self.weight, self.variance_epsilon)


def _mlp(self: Any, x: torch.Tensor) -> torch.Tensor:
    memory = current()
    if memory is not None and x.requires_grad and _is_narrow(self.gate_proj) and _is_narrow(self.up_proj):
        product = _apply(_FrozenGated, x, self.gate_proj.weight, self.up_proj.weight, memory)
    else:
        product = _apply(_Gated, self.gate_proj(x), self.up_proj(x))
    result: torch.Tensor = self.down_proj(product)
    return result


def _is_narrow(layer: Any) -> bool:
    """Return whether a layer is a product with a frozen bfloat16 matrix under autocast, and nothing else."""
    plain = plain_class(layer) is nn.Linear and layer.bias is None and not layer._forward_hooks
    return (
        plain
        and not layer._forward_pre_hooks
        and not layer.weight.requires_grad
        and layer.weight.dtype is torch.bfloat16
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )


def _is_gated(module: nn.Module) -> bool:
    parts = {name: type(part).__name__ for name, part in module.named_children()}
    return set(parts) == {"gate_proj", "up_proj", "down_proj", "act_fn"} and parts["act_fn"] in (
        "SiLU",
        "SiLUActivation",
    )


def _attends_by_sdpa(module: Any) -> bool:
    config = getattr(module, "config", None)
    return getattr(config, "_attn_implementation", None) == "sdpa" and getattr(module, "is_causal", None) is True


@functools.cache
def _attention_name() -> str:
    """Register the attention with transformers, once a process; return its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)
    return _ATTENTION


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' sdpa does; the backward pass is another on a CPU, for short texts in bfloat16."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    plain = attention_mask is None and dropout == 0.0 and not {k for k, v in more.items() if v is not None} & _CHANGING
    short = 1 < query.shape[2] == key.shape[2] < _FASTER_IN_FLOAT32
    if plain and short and query.device.type == "cpu" and query.requires_grad and torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(kind) for tensor in (query, key, value))
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        output = _apply(_CausalAttention, query, key, value, scale)
        return output.transpose(1, 2).contiguous(), None
    found: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
    )
    return found


_CHANGING: Final = frozenset(("is_causal", "position_bias", "cache", "softcap"))
"""Arguments that ask for another attention than the plain causal one."""


@functools.cache
def _agrees(forward: Callable[..., torch.Tensor], kind: Any) -> bool:
    """Return whether a forward pass gives the numbers of a class's own, and nearly its gradients."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.device("cpu"):
            torch.manual_seed(0)
            module = _small(kind)
            given = torch.randn(2, 5, 8)
            found: list[tuple[torch.Tensor, list[Any]]] = []
            for run in (functools.partial(kind.forward, module), functools.partial(forward, module)):
                module.zero_grad()
                x = given.clone().requires_grad_(True)
                output = run(x)
                output.pow(2).sum().backward()
                found.append((output.detach(), [x.grad, *(value.grad for value in module.parameters())]))
    except Exception:  # noqa: BLE001 - a class that is built or called in another way stays as it is
        return False
    (output, gradients), (own_output, own_gradients) = found
    close = (torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(gradients, own_gradients, strict=True))
    return torch.equal(output, own_output) and all(close)


def _small(kind: Any) -> nn.Module:
    if kind.__name__.endswith("RMSNorm"):
        module: nn.Module = kind(8)
    else:
        config = types.SimpleNamespace(hidden_size=8, intermediate_size=12, mlp_bias=False, hidden_act="silu")
        module = kind(config)
    for value in module.parameters():
        nn.init.normal_(value)
    return module
