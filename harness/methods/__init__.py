"""Ways to adapt a pretrained transformer (and baselines that use none), one file each."""

from __future__ import annotations

from harness.methods.base import Bench, Fitted, Method, method, methods

__all__ = ["Bench", "Fitted", "Method", "method", "methods"]
