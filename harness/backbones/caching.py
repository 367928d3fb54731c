"""Keys and values of attention: keep none where nothing reads them, else keep them in the type that attention reads.

A decoder of `transformers` keeps the keys and values of all blocks unless it is told not to: 28 GiB for 256 rows of 512
tokens on a model of 3 billion parameters. Under autocast, rotary embeddings raise keys to float32, and attention rounds
them to bfloat16 again in every call. A cache that rounds as it stores gives the same bits from half the memory.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def without_cache(model: nn.Module) -> dict[str, Any]:
    """Return the argument by which a model of `transformers` keeps no keys and values; none where it takes no such."""
    model_class: Any = type(model)
    return {"use_cache": False} if _takes_use_cache(model_class) else {}


@functools.cache
def _takes_use_cache(model_class: Any) -> bool:
    return "use_cache" in inspect.signature(model_class.forward).parameters


def rounding_cache(model: nn.Module, dtype: torch.dtype) -> Any:
    """Return an empty cache that rounds keys and values as it stores them; pass it as `past_key_values`.

    Attention under autocast reads the same bits as from a cache without rounding, since autocast rounds them alike.

    Args:
        model: a causal or a sequence-to-sequence model of `transformers`. The latter gets a cache for both attentions.
        dtype: type to store, that of autocast. Layers that keep other states (Mamba's) are left as they are.

    Returns:
        `DynamicCache`, or `EncoderDecoderCache` of two; its layers are a `DynamicLayer` or a
        `DynamicSlidingWindowLayer` each, by inheritance.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    config: Any = model.config

    def rounding() -> DynamicCache:
        cache = DynamicCache(config=config)
        cache.layers = [_rounding(layer, dtype) for layer in cache.layers]
        return cache

    if getattr(config, "is_encoder_decoder", False):
        return EncoderDecoderCache(rounding(), rounding())
    return rounding()


def _rounding(layer: Any, dtype: torch.dtype) -> Any:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layer_class: Any = type(layer)
    if layer_class not in (DynamicLayer, DynamicSlidingWindowLayer):
        return layer
    layer.__class__ = _rounding_class(layer_class)
    layer.stored_dtype = dtype
    return layer


@functools.cache
def _rounding_class(layer_class: Any) -> Any:
    """Return a subclass of a layer of a cache that rounds what it is given to its `stored_dtype`."""

    def update(self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **more: Any) -> Any:
        kept = self.stored_dtype
        return layer_class.update(self, key_states.to(kept), value_states.to(kept), *args, **more)

    return type(f"Rounding{layer_class.__name__}", (layer_class,), {"update": update})
