"""`harness.advise(...)`: the question, the user's own records, and the reference results that come with the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from harness.advice.answer import Advice, answer_question
from harness.advice.own_texts import question_about
from harness.advice.question import Question
from harness.cost import probes
from harness.data import UserData
from harness.forecast import usable
from harness.records import Record
from harness.store import read_source, reference_records
from harness.support import spelt_for_caller, uncollected


@uncollected()
@spelt_for_caller
def advise(
    store: str | Path | None = None, *, data: UserData | None = None, reference: bool = True, **asked: Any
) -> Advice:
    """Say which method fits a budget, from what was measured; nothing is run.

    Args:
        store: a store, a .jsonl file of records or a folder of such files; None, or a missing one, is none.
        data: labelled texts, as a data frame or a file: they give the number, the classes and the lengths.
        reference: whether the reference results that come with the package count too.
        asked: columns of `data` (`text`, `label`), and fields of `Question`: `n_train=500, train_seconds="10m"`, ...

    Raises:
        UsageError: a field has no valid value, or nothing was measured that an answer could rest on.
    """
    own = own_records(None if store is None else str(store))
    answer, _ = answer_from(question_about(data, **asked), own, reference=reference)
    return answer


def answer_from(question: Question, own: list[Record], *, reference: bool) -> tuple[Advice, int]:
    """Return the answer from the user's own records and the reference results, and how many of the former count.

    Args:
        question: the question.
        own: the user's records.
        reference: whether the reference results count too.
    """
    mine = [record for record in usable(own) if record.kind == question.kind]
    devices = Counter(record.device for record in mine)
    own_devices = [device for device, _ in devices.most_common()]
    records = [*own, *(reference_records() if reference else ())]
    return answer_question(question, records, probes(), own_devices), len(mine)


def own_records(store: str | None) -> list[Record]:
    """Return the user's records without predictions; none where there is no such store."""
    if store is None or ("://" not in store and not Path(store).exists()):
        return []
    return read_source(store, with_predictions=False)
