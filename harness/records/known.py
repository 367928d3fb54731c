"""Protocol of tables that know records by their JSON, so that it need not be parsed and checked again."""

from __future__ import annotations

from typing import Protocol

from harness.records.record import Record


class KnownTexts(Protocol):
    """Rows of records that were read and found valid before, by the JSON that they were read from."""

    def find(self, text: str | bytes, *, whole: bool) -> int | None:
        """Return the row of a text; None without one, or, with `whole`, where its predictions were not checked."""

    def unread(self, text: str, row: int) -> Record:
        """Return the record of a row, without predictions, which parses its JSON only when somebody asks for more."""

    def keep(self, record: Record, row: int) -> None:
        """Note the row of a record that was parsed."""

    def add(self, text: str | bytes, record: Record, *, whole: bool) -> None:
        """Add a record that was parsed and found valid; with `whole`, its predictions too."""
