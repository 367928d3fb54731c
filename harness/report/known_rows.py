"""Texts of test rows for a report. Records hold none: whoever has the data at hand lends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.blocks import Words, said
from harness.support import text

_NO_TEXTS = (
    "The records hold no texts, so rows are shown by their number, from 0. The report of `harness run` shows the texts "
    "of your own data and of a mirror. The same command again runs nothing twice."
)
NO_TEXTS = Words(_NO_TEXTS, said(_NO_TEXTS.replace("`", "")).html)
"""Paragraph above rows whose texts are not known."""

QUOTED = said(
    "The texts are quoted from the data and shortened. Check that you may share them before you share this report."
)
"""Paragraph above rows that are quoted."""

_MOST_CHARACTERS = 200
"""Maximum length of a text in a report."""

_BETWEEN = " ‖ "
"""Separator of the texts of one row."""


@dataclass(frozen=True, eq=False)
class KnownRows:
    """The texts of a task's test rows, in the order of its predictions.

    Attributes:
        fields: the parts of each row: one list of texts, or two for pairs.
        class_names: names of the classes.
    """

    fields: tuple[Sequence[str], ...]
    class_names: tuple[str, ...] = ()

    def excerpt(self, row: int) -> str:
        """Return the texts of a row on one line of about 200 characters, without control characters."""
        each = _MOST_CHARACTERS // len(self.fields)
        return _BETWEEN.join(_cut(str(values[row]), each) for values in self.fields)


KnownTexts = Mapping[str, KnownRows]
"""Known test rows by the fingerprint of the rows and their order (`Predictions.rows`).

The fingerprint covers texts and labels, so that no text stands beside another row's prediction."""


def _cut(value: str, most: int) -> str:
    line = text.plain(value[: 4 * most])
    return line if len(line) <= most and len(value) <= 4 * most else line[: most - 1].rstrip() + "…"
