"""Import results that others measured, as records with another device and protocol."""

from __future__ import annotations

from harness.store.importing.mteb import read_mteb_table
from harness.store.importing.read import locate_results, read_results

__all__ = ["locate_results", "read_mteb_table", "read_results"]
