"""Checks of the contract of a metric, on made-up rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from harness.metrics import MetricSpec, metrics
from harness.tasks import FORMS, kinds
from harness.testing.checks import Check, expect

N_ROWS: Final = 24


def metric_checks(spec: MetricSpec) -> Iterator[Check]:
    """Return the checks of a metric."""
    checks = [describes_the_metric, follows_from_each_row, is_within_its_range, refuses_what_cannot_be_scored]
    if spec.leave_one_out is not None:
        checks.append(leaves_out_each_row)
    for check in checks:
        yield Check(spec.name, check.__name__.replace("_", " "), functools.partial(check, spec))


def made_up_column(content: str, seed: int) -> Any:
    """Return rows of a metric's inputs (`harness.metrics.MetricSpec.inputs`)."""
    draw = np.random.default_rng(seed)
    numbers = draw.integers(0, 2, N_ROWS)
    texts = [f"the answer {'is' if number else 'was'} {number}" for number in numbers]
    labels = draw.integers(0, 2, (N_ROWS, 3), dtype=np.uint8)
    return {
        "class": numbers,
        "count": numbers + 1,
        "flag": numbers.astype(bool),
        "labels": labels,
        "real": draw.random(N_ROWS),
        "scores": draw.random((N_ROWS, 3)),
        "tags": [["O", "B-PER", "I-PER" if number else "B-LOC", "I-LOC"] for number in numbers],
        "text": texts,
        "texts": [[text] for text in texts],
    }[content]


def _columns(spec: MetricSpec) -> tuple[Any, Any]:
    return made_up_column(spec.inputs[0], 0), made_up_column(spec.inputs[1], 1)


def _statistics(spec: MetricSpec) -> dict[str, Any]:
    """Return the stored statistics of each row; for metrics of class indices, the indices."""
    predictions, references = _columns(spec)
    return spec.row_statistics(predictions, references) or {"predicted": predictions, "target": references}


def describes_the_metric(spec: MetricSpec) -> None:
    """Check the description and the tasks that it scores."""
    expect(metrics.get(spec.name) is spec, "a registered metric (`metrics.add`)", "another metric of that name")
    expect(spec.description and spec.source, "a description and a source", "an empty text")
    known = {*FORMS, *kinds.names(), *(kind.form for kind in kinds)}
    unknown = sorted(spec.scores - known)
    expect(not unknown, f"scores among {', '.join(sorted(known))}", ", ".join(unknown))
    for kind in kinds:
        if spec.scores & {kind.name, kind.form}:
            expect(spec.name in kind.metrics, f"'{spec.name}' among the metrics of {kind.name}", kind.metrics)


def follows_from_each_row(spec: MetricSpec) -> None:
    """Check that the metric of any rows follows from their stored statistics, in any order."""
    whole, stored = spec.compute(*_columns(spec)), _statistics(spec)
    expect(set(stored) >= set(spec.statistics), f"the arrays {', '.join(spec.statistics)}", ", ".join(stored))
    for name in spec.statistics:
        expect(len(stored[name]) == N_ROWS, f"'{name}' of {N_ROWS} rows", len(stored[name]))
    for what, rows in (("in their order", np.arange(N_ROWS)), ("backwards", np.arange(N_ROWS)[::-1])):
        found = spec.from_statistics({name: np.asarray(array)[rows] for name, array in stored.items()})
        close = math.isclose(found, whole, rel_tol=1e-9, abs_tol=1e-12)
        expect(close, f"{whole} of the stored rows {what}", found)
    if spec.mean_over_rows and spec.combine is None:
        each = np.asarray(stored[spec.name], dtype=np.float64)
        expect(math.isclose(each.mean(), whole), f"{whole} as the mean over rows", each.mean())


def is_within_its_range(spec: MetricSpec) -> None:
    """Check values of some rows against the range, and that right answers score best where this applies."""
    high = math.inf if spec.high is None else spec.high
    expect(spec.low < high, "a lower end below the upper end", f"{spec.low} and {high}")
    predictions, references = _columns(spec)
    value = spec.compute(predictions, references)
    expect(spec.low <= value <= high, f"a value within {spec.low} and {high}", value)
    same = spec.inputs[0] == spec.inputs[1] and spec.inputs[0] in ("class", "labels", "real", "tags", "text")
    if same or spec.inputs in (("scores", "labels"), ("text", "texts")):
        right = [texts[0] for texts in references] if spec.inputs[1] == "texts" else references
        best, expected = spec.compute(right, references), high if spec.higher_is_better else spec.low
        expect(math.isclose(best, expected, abs_tol=1e-9), f"{expected} of right answers", best)


def leaves_out_each_row(spec: MetricSpec) -> None:
    """Check that the metric without each row is what its other rows give."""
    assert spec.leave_one_out is not None
    stored = {name: np.asarray(_statistics(spec)[name]) for name in spec.statistics}
    found = spec.leave_one_out(stored)
    expect(np.shape(found) == (N_ROWS,), f"an array of shape ({N_ROWS},)", np.shape(found))
    for row in range(N_ROWS):
        others = spec.from_statistics({name: np.delete(array, row, axis=0) for name, array in stored.items()})
        close = math.isclose(found[row], others, rel_tol=1e-9, abs_tol=1e-9)
        expect(close, f"{others} without row {row}", found[row])


def refuses_what_cannot_be_scored(spec: MetricSpec) -> None:
    """Check that no rows, and unequal numbers of rows, are refused."""
    predictions, references = _columns(spec)
    for what, given in (
        ("no rows", (predictions[:0], references[:0])),
        ("more predictions than references", (predictions, references[:-1])),
    ):
        try:
            spec.compute(*given)
        except ValueError:
            continue
        expect(False, f"a refusal of {what}", "a value")
