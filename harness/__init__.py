"""Compare ways of adapting a pretrained transformer, and say which fits a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.advice.ask import ask as advise
    from harness.saved import load_model

__all__ = ["__version__", "advise", "load_model"]

__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """What the package offers, imported when it is first asked for: `import harness` itself imports nothing."""
    if name == "advise":
        from harness.advice import ask

        return ask
    if name == "load_model":
        from harness.saved import load_model

        return load_model
    raise AttributeError(f"module 'harness' has no attribute '{name}'")
