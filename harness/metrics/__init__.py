"""Metrics as `evaluate` modules that need no network, each with its direction and range.

`evaluate.load` fetches a script from the hub; these are the same interface over scikit-learn, kept in the project.
"""

from __future__ import annotations

from harness.metrics.base import MetricSpec, metrics

__all__ = ["MetricSpec", "metrics"]
