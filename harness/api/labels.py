"""Say how many labels a user's task needs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.api.display import Display, make_display
from harness.api.own_data import own_task
from harness.api.requests import Several, find_mirror, read_methods, read_seconds
from harness.support import (
    HarnessError,
    UsageError,
    cache_folder,
    find_store,
    quiet_libraries,
    real_number,
    spelt_for_caller,
    wrong_argument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.backbones import BackboneFiles
    from harness.choose import Candidate, Runner
    from harness.data import TextColumns, UserData
    from harness.forecast import Slopes
    from harness.labels import LabelsNeeded
    from harness.methods import Method
    from harness.tasks import LabelColumns, Task

WITHIN: Final = "2m"
"""Time limit where none is given."""


@spelt_for_caller
def labels_needed(
    *,
    data: UserData,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    test: UserData | None = None,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    methods: Several[str] | None = None,
    backbone: str | Path | None = None,
    within: str | float = WITHIN,
    min_score: float | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    mirror: str | Path | None = None,
    reference: bool = True,
    progress: bool | Display = True,
) -> LabelsNeeded:
    """Say what two and four times the labels would buy, by method, with 80 % intervals.

    Each method is fitted to an eighth, a quarter, a half and all of the labels, and scored on rows that the fit has not
    seen. A learning curve goes through these scores. Curves of other tasks say how steep such a curve is and how it
    flattens. Without `test`, rows are scored in folds.

    Args:
        data: your labelled texts: a data frame, or the path of a file.
        text: column of `data` that holds the texts; several go in the order of the kind's roles, such as
            `premise,hypothesis` or `question,context`. None takes the kind's own names, such as `text`.
        label: column of `data` that holds the labels, or several columns of 0 and 1 such as `["billing", "post"]`. None
            takes the kind's own name, such as `label`.
        kind: kind of the task, such as `regression`; None guesses it from the values of the columns.
        label_separator: text between the labels of a row, such as `|`, for the kind `multi-label`.
        test: rows to score on, of the same sort as `data`; their labels are not counted.
        metric: main metric, one of the kind's (`harness kinds`); None is the kind's first, such as accuracy.
        max_length: tokens of a text that are read; None is 128.
        strict: whether to refuse rows without a text or a label.
        methods: methods to fit; None takes the quick ones: on words, and on frozen features.
        backbone: a hub id, `ID@REVISION` or a local folder; None takes the default.
        within: time for all fits, such as `2m`, or in seconds. Methods that do not fit into it are left out.
        min_score: score to reach; the answer then says how many labels each method needs for it.
        device: `auto`, `cpu` or `cuda`.
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`. Recorded fits are not
            run again.
        mirror: folder with models/, searched first; None takes HARNESS_MIRROR.
        reference: whether learning curves of the package's reference results are used.
        progress: whether to show the progress; or a display of your own.

    Returns:
        The outlook of each method, where the best method changes, and the labels needed for `min_score`.

    Raises:
        UsageError: a number out of range, too few labels for a learning curve, or no method that serves the task.
        DataError: the data cannot be used.
        HarnessError: no method could be fitted; the message says why.

    Warns:
        DataWarning: labels or texts of `data` look wrong.
    """
    start = time.monotonic()
    from harness.measure import check_device_name, find_device, host_limit_bytes

    seconds = read_seconds(within, "--within")
    if seconds is None:
        raise wrong_argument("within", within, "a duration such as '2m', or a number of seconds above 0")
    check_device_name(device)
    target = None if min_score is None else real_number("min_score", min_score, "a score")
    quiet_libraries()
    from harness.labels import (
        answer_labels,
        check_parts,
        check_scored,
        labels_of,
        measure_curves,
        parts_of,
        scoring_in_words,
    )
    from harness.methods import parse_methods
    from harness.schedule import Claims, Limits, LocalWorkers
    from harness.store import Store
    from harness.tasks import kinds

    texts = read_methods(methods)
    asked = None if texts is None else parse_methods(texts)
    display = make_display(progress)
    spec = own_task(
        data,
        text,
        label,
        test,
        kind=kind,
        label_separator=label_separator,
        metric=metric,
        max_length=max_length,
        strict=strict,
    )
    check_scored(kinds.get(spec.kind), spec.metric or "")
    where = find_mirror(mirror)
    files = _backbone(spec.name, backbone, asked, where, display)
    task = kinds.get(spec.kind).prepare(spec, where)
    display.data(task, files)
    _check_score(target, task)
    parts = parts_of(task)
    check_parts(task, parts)
    candidates = _candidates(task, files, asked, find_device(device).kind, seconds)

    def say(line: str) -> None:
        display.say(f"{time.monotonic() - start:6.1f} s  {line}")

    say(scoring_in_words(task, parts))
    with (
        LocalWorkers(device, cache_folder(), limits=Limits(None, host_limit_bytes())) as workers,
        Store.open(find_store(store)) as opened,
        Claims(opened, workers.device.name) as claims,
    ):

        def runner(tasks: Sequence[Task]) -> Runner:
            from harness.choose import Runner

            known = {one.name: one for one in tasks}
            return Runner(workers, opened, claims, known, () if files is None else (files,), suite="labels")

        measured, out = measure_curves(task, parts, candidates, runner, start + seconds, say)
    if not measured:
        why = "; ".join(f"{label}: {reason}" for label, reason in out.items())
        raise HarnessError(f"No method has a learning curve on these labels. {why}. Give more time with --within.")
    slopes = _slopes(task, reference=reference)
    took = time.monotonic() - start
    found = answer_labels(task, labels_of(task), measured, slopes, min_score=target, skipped=out, seconds=took)
    return dataclasses.replace(found, seconds=time.monotonic() - start)


def _backbone(
    task: str, backbone: str | Path | None, asked: Sequence[Method] | None, mirror: Path | None, display: Display
) -> BackboneFiles | None:
    """Return the backbone's files; None where no method uses one."""
    if asked is not None and not any(method.serves for method in asked):
        return None
    from harness.backbones import DEFAULT_BACKBONE
    from harness.schedule import find_backbones

    found = find_backbones({task: [DEFAULT_BACKBONE if backbone is None else str(backbone)]}, mirror, weights=True)
    if not found.backbones[task]:
        raise found.errors[0] if len(found.errors) == 1 else found.error()
    for line in found.notes:
        display.say(line)
    return found.backbones[task][0]


def _candidates(
    task: Task, files: BackboneFiles | None, asked: Sequence[Method] | None, device: str, seconds: float
) -> list[Candidate]:
    """Return the methods to fit: those asked for, or those that learn from labels in a moment."""
    from harness.choose import find_candidates

    found = find_candidates(asked, task, () if files is None else (files,), device, within=seconds)
    learning = [one for one in found if one.method.uses_labels and one.method.role != "floor" and not one.is_served]
    if asked is None:
        learning = [one for one in learning if one.is_cheap and not one.is_prompted]
    if not learning:
        raise UsageError(
            "None of the named methods learns from labels on this task and backbone. `harness methods` lists them."
            if asked is not None
            else f"No quick method learns from labels on a task of the kind {task.kind.name}. Name some with "
            "--methods, such as lora,full."
        )
    return learning


def _check_score(score: float | None, task: Task) -> None:
    """Refuse a score that the metric cannot have."""
    from harness.metrics import metrics

    spec = metrics.get(task.metric)
    if score is None or (spec.low <= score and (spec.high is None or score <= spec.high)):
        return
    most = "any number above" if spec.high is None else f"{spec.high:g}"
    raise UsageError(
        f"--min-score {score:g} was given; expected a value of {task.metric}, from {spec.low:g} to {most}."
    )


def _slopes(task: Task, *, reference: bool) -> Slopes:
    """Return the expected slopes, from tasks of the same kind; from all kinds where it has no curves."""
    from harness.forecast import Slopes, gather, known_curves
    from harness.store import reference_records

    points = gather(reference_records()).points if reference else ()
    own = Slopes(known_curves(point for point in points if point.kind == task.kind.name))
    return own if own.n_curves else Slopes(known_curves(points))
