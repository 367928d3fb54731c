"""`harness.advise(...)`: the question, the user's own records, and the reference results that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.advice.answer import Advice, advise
from harness.advice.question import Question
from harness.bulk import uncollected
from harness.cost.calibration import probes
from harness.records import Record
from harness.sources import read_source, reference_records


@uncollected()
def ask(store: str | None = None, *, reference: bool = True, **asked: Any) -> Advice:
    """Say which method fits a budget, from what was measured; nothing is run.

    Args:
        store: a store, a .jsonl file of records or a folder of such files; None, or one that is not there, is none.
        reference: whether the reference results that come with the package count too.
        asked: the fields of `Question`: `n_train=500, classes=6, train_seconds=600`, ...

    Raises:
        UsageError: a field that makes no sense, or nothing was measured that an answer could rest on.
    """
    question = Question(**asked)
    return advise(question, [*own_records(store), *(reference_records() if reference else ())], probes())


def own_records(store: str | None) -> list[Record]:
    """The user's records without predictions; none where there is no such store."""
    if store is None or ("://" not in store and not Path(store).exists()):
        return []
    return read_source(store, with_predictions=False)
