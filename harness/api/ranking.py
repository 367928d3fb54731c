"""Rank backbones for a task before any of them is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.api.display import Display, make_display
from harness.api.own_data import own_task
from harness.api.requests import Several, find_mirror, split_commas
from harness.support import (
    UsageError,
    checked_text,
    given,
    plain,
    quiet_libraries,
    several,
    spelt_for_caller,
    unknown_name,
    whole_number,
)

if TYPE_CHECKING:
    from harness.data import TaskSpec, TextColumns, UserData
    from harness.ranking import Ranking
    from harness.tasks import LabelColumns


@spelt_for_caller
def rank_backbones(
    backbones: Several[str],
    *,
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    task: str | None = None,
    n_train: int | None = None,
    rows: int | None = None,
    max_length: int | None = None,
    strict: bool = False,
    device: str = "auto",
    mirror: str | Path | None = None,
    progress: bool | Display = True,
) -> Ranking:
    """Rank backbones for a task by what full fine-tuning would reach with each. Nothing is fine-tuned.

    At most 1,000 labelled rows are encoded with each frozen backbone. A cross-validated probe, LogME and the H-score of
    these features, and the size of the backbone, give a forecast of the accuracy with an 80 % interval. A backbone that
    is missing or cannot be used gets a message, and the others are ranked.

    Args:
        backbones: hub ids, `ID@REVISION`, local folders, or shapes such as `llama-3.2-1b-like`, which get costs only.
        data: your labelled texts: a data frame, or the path of a file.
        text: column of `data` that holds the texts; several go in the order of the kind's roles, such as
            `premise,hypothesis` or `question,context`. None takes the kind's own names, such as `text`.
        label: column of `data` that holds the labels, or several columns of 0 and 1 such as `["billing", "post"]`. None
            takes the kind's own name, such as `label`.
        kind: kind of the task, such as `regression`; None guesses it from the values of the columns.
        label_separator: text between the labels of a row, such as `|`, for the kind `multi-label`.
        task: a task of a shipped suite, instead of `data`.
        n_train: labels of the fine-tuning to forecast; None is all training rows there are.
        rows: labelled rows to encode, 16 to 1,000; None is half of `n_train`, from 128 to 256.
        max_length: tokens of a text that are read; None is 128.
        strict: whether to refuse rows without a text or a label.
        device: `auto`, `cpu` or `cuda`.
        mirror: folder with models/ and datasets/, searched first; None takes HARNESS_MIRROR.
        progress: whether to show the progress; or a display of your own.

    Returns:
        The backbones, the best forecast first, with their figures, costs, licences and warnings.

    Raises:
        UsageError: no backbone was named, a number out of range, or a task whose labels are not classes.
        DataError: the data cannot be used.

    Warns:
        DataWarning: labels or texts of `data` look wrong.
    """
    from harness.measure import check_device_name, find_device
    from harness.ranking import check_kind, rank
    from harness.tasks import kinds

    names = several("backbones", backbones, (str,), "hub ids, folders or shapes", split=split_commas) or []
    n_train, n_rows = given(whole_number, "n_train", n_train), given(whole_number, "rows", rows)
    check_device_name(device)
    if (data is None) == (task is None):
        raise UsageError("Name either your own file (--data FILE) or a task of a shipped suite (--task NAME).")
    quiet_libraries()
    display = make_display(progress)
    where = find_mirror(mirror)
    if data is not None:
        spec = own_task(
            data,
            text,
            label,
            kind=kind,
            label_separator=label_separator,
            max_length=max_length,
            strict=strict,
        )
    elif strict or any(value is not None for value in (text, label, kind, label_separator, max_length)):
        raise UsageError(
            "--kind, --text, --label, --label-separator, --max-length and --strict go with --data; a suite names its "
            "own kind and columns."
        )
    else:
        spec = _shipped_task(checked_text("task", task))
    served = kinds.get(spec.kind)
    check_kind(served)
    with TemporaryDirectory() as scratch, display.working("Loading data") as show:
        prepared = served.prepare(spec, where)
        display.data(prepared, None)
        return rank(
            prepared,
            names,
            find_device(device),
            Path(scratch),
            mirror=where,
            n_train=n_train,
            n_rows=n_rows,
            say=lambda name: show(f"Encoding with {plain(name)}"),
        )


def _shipped_task(name: str) -> TaskSpec:
    """Return a task of any shipped suite by its name."""
    from harness.planning import load_suite, suite_names

    known = {found: spec for suite in suite_names() for found, spec in load_suite(suite).tasks.items()}
    if name not in known:
        raise unknown_name("task", name, known, "of the shipped suites")
    return known[name]
