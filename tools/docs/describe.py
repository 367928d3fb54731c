"""Facts that the command line's catalogue knows of a method, so that pages and `harness methods` say the same."""

from __future__ import annotations

from typing import Any

from harness.cli.catalogue import (
    FAMILIES,
    _family_position,
    _search_text,
    _serves_kind,
    _setting_text,
    _telling_settings,
    audits_of,
    setting_meanings,
)
from harness.support import Registry

__all__ = ["FAMILIES", "audits_of", "family_position", "own", "search_text", "serves_kind", "setting_meanings"]
__all__ += ["setting_text", "telling_settings"]

family_position = _family_position
search_text = _search_text
serves_kind = _serves_kind
setting_text = _setting_text
telling_settings = _telling_settings


def own(registry: Registry[Any], name: str) -> bool:
    """Return whether a member is the harness's own: pages do not depend on what else is installed."""
    return registry.origin(name) is None
