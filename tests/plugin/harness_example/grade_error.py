"""A metric: what it scores, its range and how it is computed, in one file."""

from __future__ import annotations

import numpy as np

from harness.metrics import MetricSpec, metrics

grade_error = MetricSpec(
    name="grade_error",
    scores=frozenset({"grading"}),
    higher_is_better=False,
    low=0.0,
    high=None,
    mean_over_rows=False,
    description="Mean distance between the predicted grade and the right one, in grades.",
    source="Mean absolute error of ordinal regression: Baccianella et al., 2009, doi:10.1109/ISDA.2009.230",
    inputs=("class", "class"),
    measure=lambda predicted, target: {"predicted": predicted, "target": target},
    statistics=("predicted", "target"),
    combine=lambda rows: float(np.abs(rows["predicted"] - rows["target"]).mean()),
)
metrics.add(grade_error.name, grade_error)
