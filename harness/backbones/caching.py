"""Keep no keys and values of attention where nothing reads them.

A decoder of `transformers` keeps the keys and values of all blocks unless it is told not to: 28 GiB for 256 rows of 512
tokens on a model of 3 billion parameters.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def without_cache(model: nn.Module) -> dict[str, Any]:
    """Return the argument by which a model of `transformers` keeps no keys and values; none where it takes no such."""
    model_class: Any = type(model)
    return {"use_cache": False} if _takes_use_cache(model_class) else {}


@functools.cache
def _takes_use_cache(model_class: Any) -> bool:
    return "use_cache" in inspect.signature(model_class.forward).parameters
