"""Plain rules that choose a method without a model, for comparison with the advice."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from harness.forecast import Point

BEST_ON_AVERAGE: Final = "best on average"
PLAIN_RULES: Final = (
    BEST_ON_AVERAGE,
    "largest backbone's probe",
    "setfit below 16 a class, else full",
    "always full",
    "always linear-probe",
)
"""Names of the rules:

- the best method and backbone on average over the other tasks, at about the same number of labels a class;
- the linear probe of the largest backbone;
- SetFit below 16 labels a class, full fine-tuning from there on, each on the largest backbone;
- full fine-tuning on the largest backbone;
- the linear probe of the backbone with the most measurements.

Where a method was not measured on such a backbone, or does not fit, the next one stands in.
"""

_FEW: Final = 16
"""Labels a class from which the third rule takes full fine-tuning."""

_NEAR: Final = 1.0
"""Largest distance in doublings of labels a class at which sizes count as about the same."""


def plain_choices(
    fitting: Mapping[str, Point], others: Sequence[Point], sizes: Mapping[str, float]
) -> dict[str, str | None]:
    """Return the label that each rule chooses; None where its method was not measured or does not fit.

    Args:
        fitting: measured points at one task and size that fit the limits, by label.
        others: points of other tasks, with the same labels.
        sizes: parameters of the backbones, as far as they are known.
    """
    first = next((point for point in fitting.values() if point.n_train), None)
    each = _each(first) if first is not None else _FEW
    counted = Counter(point.backbone for point in others if point.backbone is not None)

    def on(name: str, order: Callable[[str], float]) -> str | None:
        """Return the label of a method on the first backbone that it fits on, in an order of backbones."""
        found = {p.backbone: m for m, p in fitting.items() if (p.on or p.method) == name and p.backbone in counted}
        return found[max(sorted(filter(None, found)), key=order)] if found else None

    def by_size(backbone: str) -> float:
        return sizes.get(backbone, 0.0)

    return {
        BEST_ON_AVERAGE: _best_on_average(fitting, others, each),
        PLAIN_RULES[1]: on("linear-probe", by_size),
        PLAIN_RULES[2]: on("setfit" if each < _FEW else "full", by_size),
        PLAIN_RULES[3]: on("full", by_size),
        PLAIN_RULES[4]: on("linear-probe", lambda backbone: counted[backbone]),
    }


def _each(point: Point) -> float:
    return point.n_train / (point.classes or 1)


def _best_on_average(fitting: Mapping[str, Point], others: Sequence[Point], each: float) -> str | None:
    """Return the label with the highest effect over the other tasks, at the sizes nearest to so many labels a class.

    Methods were not measured on the same cells. So effects of cells and labels are fitted together, by least squares.
    """
    near: defaultdict[str, list[float]] = defaultdict(list)
    for point in others:
        if point.n_train:
            near[point.task].append(abs(math.log2(_each(point) / each)))
    nearest = {task: min(gaps) for task, gaps in near.items()}
    usable = {task for task, gap in nearest.items() if gap <= _NEAR} or set(nearest)
    rows: list[tuple[str, str, float]] = []
    for point in others:
        if point.task not in usable:
            continue
        if not point.n_train or abs(math.log2(_each(point) / each)) <= nearest[point.task] + 1e-9:
            rows.append((point.task, point.method, point.score * (1 if point.higher_is_better else -1)))
    effects = _effects(rows)
    known = [label for label in fitting if label in effects]
    return max(known, key=lambda label: effects[label]) if known else None


def _effects(rows: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    """Return the effect of each label: least squares of scores on cells and labels, a little shrunk to be unique."""
    cells = {name: i for i, name in enumerate(sorted({cell for cell, _, _ in rows}))}
    labels = {name: i for i, name in enumerate(sorted({label for _, label, _ in rows}))}
    if not labels:
        return {}
    design = np.zeros((len(rows), len(cells) + len(labels)))
    for i, (cell, label, _) in enumerate(rows):
        design[i, cells[cell]] = design[i, len(cells) + labels[label]] = 1.0
    scores = np.array([score for _, _, score in rows])
    ridge = np.diag([1e-9] * len(cells) + [0.01] * len(labels))
    found = np.linalg.solve(design.T @ design + ridge, design.T @ (scores - scores.mean()))
    return {name: float(found[len(cells) + i]) for name, i in labels.items()}
