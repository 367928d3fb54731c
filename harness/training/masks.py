"""Masks that transformers would look into on the device are decided on the host.

Code that looks into a mask waits until the device has done all its work so far. The harness pads on the right, and
knows the lengths. So there is no need to look:

- Causal attention never looks to the right. No real token sees padding, with or without a mask. Without one, torch
  runs its flash kernels.
- A batch without padding needs no mask.
- In other cases the mask is needed, and is made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

_FULL: ContextVar[bool | None] = ContextVar("full", default=None)
"""Whether no text of the batch is padded; None where nobody said."""

_KINDS: Final = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
"""The kinds of attention whose masks are decided here, by transformers' names."""


@contextmanager
def known_padding(*, full: bool) -> Iterator[None]:
    """Say for the forward passes in the context whether all texts of the batch are of the same length."""
    token = _FULL.set(full)
    try:
        yield
    finally:
        _FULL.reset(token)


@contextmanager
def padded_on_the_right(transformer: Any, device: torch.device) -> Iterator[None]:
    """Decide on masks without a look at them while the context lasts; all padding must come after the text.

    It fills a place that transformers has for other makers of masks (`AttentionMaskInterface`), and empties it again.
    The mask of virtual tokens, which peft makes on the host and copies, is made on the device.

    Args:
        transformer: the model to run; may be peft's.
        device: where it is.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MAKERS

    filled = []
    for kind in _KINDS:
        if kind in MAKERS and kind not in MAKERS._local_mapping:
            MAKERS[kind] = _deciding(MAKERS[kind], _FULL.get())
            filled.append(kind)
    has_virtual_tokens = getattr(getattr(transformer, "active_peft_config", None), "is_prompt_learning", False)
    try:
        with device if has_virtual_tokens and device.type != "cpu" else nullcontext():
            yield
    finally:
        for kind in filled:
            del MAKERS[kind]


def _deciding(make: Callable[..., Any], full: bool | None) -> Callable[..., Any]:
    """Return a maker of masks that calls transformers' own, with its questions answered."""

    def decide(
        *args: Any,
        attention_mask: Any = None,
        allow_is_causal_skip: bool = True,
        allow_is_bidirectional_skip: bool = False,
        local_size: int | None = None,
        **more: Any,
    ) -> Any:
        given = {
            "attention_mask": attention_mask,
            "allow_is_causal_skip": allow_is_causal_skip,
            "allow_is_bidirectional_skip": allow_is_bidirectional_skip,
            "local_size": local_size,
        }
        n_queries, n_keys = more.get("q_length"), more.get("kv_length")
        if args or attention_mask is None or attention_mask.ndim != 2 or attention_mask.shape[1] != n_keys:
            return make(*args, **given, **more)
        whole = local_size is None or n_keys < local_size
        if allow_is_causal_skip and not allow_is_bidirectional_skip and whole and n_queries == n_keys:
            return make(**{**given, "attention_mask": None}, **more)
        if attention_mask.device.type == "cpu" or full is None:
            return make(**given, **more)
        if full:
            return make(**{**given, "attention_mask": None}, **more)
        return make(**{**given, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}, **more)

    return decide
