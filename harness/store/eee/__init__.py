"""Write records in the format of Every Eval Ever, check them against its schema, and read its files."""

from __future__ import annotations

from harness.store.eee.write import Exported, export_eee

__all__ = ["Exported", "export_eee"]
