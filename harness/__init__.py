"""Compare ways of adapting a pretrained transformer, and say which fits a budget."""

import sys
import types
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"


class _Package(types.ModuleType):
    """The package, whose functions `report`, `choose` and `replay` have the names of rooms."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import of a room sets an attribute of this package, which would replace the function.
        if not (name in ("report", "choose", "replay") and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
