"""Say after how many predictions training pays, from records of prompted and of trained methods."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.results import Records, html_of, records_of
from harness.records import Record
from harness.support import (
    UsageError,
    checked_text,
    find_store,
    given,
    real_number,
    spelt_for_caller,
    uncollected,
    unknown_name,
    whole_number,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class BreakEvens:
    """Trained methods beside prompted ones, with the number of predictions after which training pays.

    Attributes:
        table: one row for each pair on one task (columns: `to_frame`).
        notes: sentences on what the table rests on.
    """

    table: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each pair of a trained method and a prompted one that saw no more labels.

        Columns are those of fine_tune_or_prompt.csv (`docs/reference/report-files.md`).
        """
        return self.table.copy()

    def to_dict(self) -> dict[str, Any]:
        """Return the pairs and the notes as plain values."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"pairs": rows, "notes": list(self.notes)}

    def _repr_html_(self) -> str:
        from harness.report import terminal_pairs

        return "".join(html_of(table) for table in terminal_pairs(self.table))


@uncollected()
@spelt_for_caller
def break_even(
    source: Records | None = None,
    *,
    task: str | None = None,
    n_train: int | None = None,
    predictions: float | None = None,
    price_per_hour: float | None = None,
    label_price: float | None = None,
    prices: str | Path | None = None,
) -> BreakEvens:
    """Say after how many predictions training pays, beside each prompted method on the same task.

    Costs are compared in money where both methods have prices. Else they are compared in seconds, on one device alone.

    Args:
        source: records of prompted and of trained methods; None takes the default store.
        task: only this task.
        n_train: only trained methods with this number of labels.
        predictions: number of predictions to give total costs for.
        price_per_hour: price of an hour of the machine; None takes the price that the records state.
        label_price: price of one label; None counts labels as free.
        prices: YAML file of prices of machines and served models; None takes the file that HARNESS_PRICES names.

    Raises:
        UsageError: no task has both a prompted and a trained method with a score, or a price is no number from 0 on.
        StoreError: the records cannot be read.
    """
    from harness.analysis import asked_prices
    from harness.report import pairs_table, prompting_notes

    given(checked_text, "task", task)
    size = given(whole_number, "n_train", n_train)
    count = None if predictions is None else checked_predictions(predictions)
    stated = asked_prices(price_per_hour, label_price, prices)
    records: Iterable[Record] = records_of("source", find_store(None) if source is None else source)
    table = pairs_table(records, stated, count)
    if table.empty:
        raise UsageError(
            "No task has a prompted method (zero-shot, few-shot) and a trained one (linear-probe, lora) with a score. "
            "Run both on one task first: `harness run SUITE --methods zero-shot,linear-probe`."
        )
    if task is not None and not (table["task"] == task).any():
        raise unknown_name("task", task, set(table["task"]), "with a prompted and a trained method")
    if task is not None:
        table = table[table["task"] == task]
    if size is not None and not (table["n_train"] == size).any():
        known = ", ".join(f"{one:,}" for one in sorted(set(table["n_train"])))
        raise UsageError(f"--n-train {size} was given; trained methods have {known} labels.")
    if size is not None:
        table = table[table["n_train"] == size]
    table = table.reset_index(drop=True)
    return BreakEvens(table, tuple(prompting_notes(table)))


def checked_predictions(predictions: Any) -> float:
    """Return a number of predictions.

    Raises:
        UsageError: it is not above 0, or no number.
    """
    count = float(real_number("predictions", predictions, "a number of predictions, such as 100000"))
    if not 0 < count < math.inf:
        raise UsageError(f"--predictions {count:g} was given; expected a number above 0, such as 100000.")
    return count
