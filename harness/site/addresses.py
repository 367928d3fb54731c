"""Permanent addresses of figures and tables.

An address depends on what a figure shows: its own name, and the task, data, device, budget and metric. It does not
depend on the other figures or records of the report.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.records import encode
from harness.report import Panel

_LONGEST = 60
_HASH = 8


def address_of(name: str) -> str:
    """Return a name as part of an address: lower-case ASCII letters, digits and hyphens.

    A name that loses letters, or is too long, gets a hash of the whole, so that two names rarely share an address.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if words and len(words) <= _LONGEST and not any(sign.isalnum() and not sign.isascii() for sign in name):
        return words
    return f"{words[: _LONGEST - _HASH - 1].strip('-') or 'unnamed'}-{_digest(name)}"


def panel_addresses(panels: Sequence[Panel]) -> dict[str, str]:
    """Return the start of the addresses of each panel by its title: the task, and a hash of its whole setting.

    The hash covers the task, the data's fingerprint, the device, the budget and the metric. It covers no backbone and
    no method: a panel keeps its address when some are added. Where a panel without a backbone has the setting of
    another one, its address says so.
    """
    found = {panel.title: f"{address_of(panel.task)}-{_digest(_setting(panel))}" for panel in panels}
    counts = Counter(found.values())
    for panel in panels:
        if counts[found[panel.title]] > 1 and panel.rows["backbone"].isna().all():
            found[panel.title] += "-no-backbone"
    return _apart(found)


def _setting(panel: Panel) -> list[Any]:
    return [panel.task, panel.data, panel.device, panel.budget, panel.metric]


def _digest(value: Any) -> str:
    return hashlib.sha256(encode(value).encode()).hexdigest()[:_HASH]


def _apart(addresses: dict[str, str]) -> dict[str, str]:
    """Return the same with a hash of the title where two titles share an address."""
    counts = Counter(addresses.values())
    return {title: one if counts[one] == 1 else f"{one}-{_digest(title)}" for title, one in addresses.items()}
