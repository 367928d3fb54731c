"""Table: every two methods compared at each size (pairs.csv)."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from harness.report.contrasts import contrasts
from harness.report.observations import RecordSource
from harness.report.views.base import View, views


def all_pairs(source: RecordSource) -> pd.DataFrame:
    """Return every pair of methods at each training size of each panel, one row each.

    Columns: panel, task, backbone, device, budget, n_train, draw, variant, baseline, difference (score of the first
    less that of the second), low and high (95 % interval), p_value (two-sided), p_corrected (Holm's correction over
    the pairs of that panel and size), n_seeds and n_rows that both share (0 rows: not paired), basis.

    Raises:
        UsageError: if there is no record.
    """
    return contrasts(source, lambda rivals: [list(combinations(rivals, 2))])


views.add("pairs", View(position=25, csv=lambda report: all_pairs(report.observations)))
