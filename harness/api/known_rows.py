"""Lend the texts of prepared tasks to a report, which shows those of the worst errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report import KnownTexts
    from harness.tasks import Task

_READABLE = frozenset({"files", "DataFrame", "embedded", "mirror"})
"""Sources whose texts a report may show. Texts of a hub are left out: a report may go where their licence may not."""


_SHOWN = frozenset({"classes", "number"})
"""Forms of answers whose worst errors a report shows."""


def known_texts(tasks: Iterable[Task]) -> KnownTexts:
    """Return the test rows of tasks whose data lie on this machine, by fingerprint; of classes and numbers only."""
    from harness.report import KnownRows

    found = {}
    for task in tasks:
        if task.kind.form not in _SHOWN or task.provenance.get("from") not in _READABLE:
            continue
        rows = task.test_rows_to_predict
        found[task.test_rows] = KnownRows(rows.parts, tuple(task.label_names))
    return found
