"""Results that others measured, as records of another device and protocol, to stand beside one's own."""

from __future__ import annotations

from harness.store.importing.read import FORMATS, locate_results, read_results

__all__ = ["FORMATS", "locate_results", "read_results"]
