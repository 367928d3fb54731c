"""Loaded data: the splits of a task as they are in the source, with the position of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datasets import Dataset

_N_NAMED = 3


@dataclass(frozen=True)
class Origin:
    """Positions of a split's rows in their source, for messages.

    Attributes:
        name: the file, or the data set and its split.
        unit: what is counted: lines of a text file, or rows.
        numbers: per row, the line it begins at, counted from 1; None where rows are counted themselves.
    """

    name: str
    unit: Literal["line", "row"] = "row"
    numbers: Sequence[int] | None = None

    def at(self, *rows: int) -> str:
        """Name rows (positions from 0) as the source counts them: `line 5`, `lines 5, 9, 12 and 4 more`."""
        shown = [str(row + 1 if self.numbers is None else self.numbers[row]) for row in rows[:_N_NAMED]]
        more = f" and {len(rows) - _N_NAMED} more" if len(rows) > _N_NAMED else ""
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {', '.join(shown)}{more}"

    def of(self, rows: Sequence[int]) -> Origin:
        """Return the origin of some rows, given by their positions from 0, in that order."""
        return Origin(self.name, self.unit, [row + 1 if self.numbers is None else self.numbers[row] for row in rows])


@dataclass(frozen=True)
class RawSplits:
    """The splits of a task, with the source's own columns and values.

    Attributes:
        train: the pool that training rows are drawn from.
        test: the test rows, before the cap.
        validation: the data set's own validation split; None unless requested and present.
        provenance: source of the rows, their revision and the fingerprints of `datasets`, as JSON values.
        origins: positions of the rows of "train" and "test" in the source, for messages.
    """

    train: Dataset
    test: Dataset
    validation: Dataset | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
