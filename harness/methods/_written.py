"""Read what a language model has written as answers of the kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.methods._prompts import Demonstration, Wording
from harness.methods.bench import Bench
from harness.tasks import Answers, Rows, Unscaled

if TYPE_CHECKING:
    from harness.methods._in_context import InContextMethod


def read_written(
    method: InContextMethod,
    texts: Sequence[str],
    rows: Rows,
    bench: Bench,
    label_words: Sequence[str],
    demonstrations: Sequence[Demonstration],
    wording: Wording,
) -> tuple[Answers, int]:
    """Return the answers that written ones stand for, and the number of those that could not be read.

    Args:
        method: settings of the method.
        texts: written answers, one a row.
        rows: the rows.
        bench: bench of the cell, whose ledger notes what could not be read.
        label_words: names of the labels or tags in words.
        demonstrations: rows that prompts show.
        wording: wording of the prompts.
    """
    found, n_unread = bench.kind.read_replies(texts, rows, label_words, [one.answer for one in demonstrations])
    bench.ledger.remarks["unreadable_answers"] = f"{n_unread} of {len(rows)}"
    if bench.kind.form == "labels":
        bench.ledger.remarks["scores"] = "1 for a label that is written and 0 for others: they rank no rows"
    is_own = (own := method.question(bench)) is not None and own[0] == wording.template
    if isinstance(found, Unscaled) and not is_own:  # the task's or the user's wording states the scale
        return found.values[:, None], n_unread
    return found, n_unread
