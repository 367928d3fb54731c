"""Declaration of a metric, and the registry of metrics."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.metrics.columns import Content, check_n_rows, feature, read_columns
from harness.support import Registry

if TYPE_CHECKING:
    import evaluate

Statistics = dict[str, npt.NDArray[Any]]
"""Arrays by name, the first axis of each the rows."""

Values = npt.NDArray[Any] | Sequence[Any]
"""One item per row: an array of shape (rows,) or (rows, k), a list of texts or a list of lists of texts."""

IN_UNITS = frozenset({"mae", "rmse"})
"""Metrics in the units of the target: they do not compare across tasks, nor do estimates on another scale have them."""

_ROUNDING = 1e-6
"""Distance by which rounding may move a metric out of its range."""

_IN_EVERY_RECORD = frozenset({"predicted", "target"})
"""Arrays in the stored predictions of every classification task."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric: its inputs, the tasks that it scores, its direction and range, and its computation in two steps.

    `measure` gives one or a few numbers for each row; `combine` makes the metric of them. The metric of any rows, or
    of rows drawn with repetition, follows from these numbers. They are its sufficient statistics: records store them,
    and not the texts.

    Attributes:
        name: name in suites and records.
        scores: tasks that it may be the main metric of: names of kinds ("translation") and of forms of answers
            ("classes"), which stand for every kind of that form. Empty where it is only kept beside a main metric.
        higher_is_better: direction.
        low, high: range of its values; `high` is None without an upper end.
        mean_over_rows: whether it is the mean of one value per test row (accuracy is, F1 is not); intervals over
            rows rest on it.
        description: one sentence.
        source: the paper or the page that defines it.
        inputs: contents of a prediction and of a reference.
        measure: function of (predictions, references), already checked, that returns the arrays of `statistics`.
        statistics: names of these arrays; the metric's own name for the mean of one value per row.
        combine: function from these arrays to the metric; None for the mean of one array.
        combine_over: function from these arrays and the classes to average over to the metric; None where classes are
            not averaged.
        leave_one_out: function from these arrays, of two rows or more, to the metric without each row, shape (rows,):
            the same as to combine the other rows for each, and faster. None where there is none.
        sign: function from references to the library's signature of the computation; None where there is none.
    """

    name: str
    scores: frozenset[str] = frozenset()
    higher_is_better: bool
    low: float
    high: float | None
    mean_over_rows: bool
    description: str
    source: str
    inputs: tuple[Content, Content]
    measure: Callable[[Any, Any], Statistics]
    statistics: tuple[str, ...]
    combine: Callable[[Statistics], float] | None = None
    combine_over: Callable[[Statistics, npt.NDArray[np.int64]], float] | None = None
    leave_one_out: Callable[[Statistics], npt.NDArray[np.float64]] | None = None
    sign: Callable[[list[list[str]]], str] | None = None

    def __post_init__(self) -> None:
        if self.combine is None and not (self.mean_over_rows and self.statistics == (self.name,)):
            raise ValueError(f"{self.name} is not the mean of one array of its name: declare how it is combined.")

    def without_classes(self, unscored: Collection[int] = ()) -> MetricSpec:
        """Return the metric averaged over the classes of the references only, without those in `unscored`.

        A prediction of any other class is still wrong for its row, but adds no class to the average. The classes are
        then the same for every method. A metric that averages no classes is returned as it is.

        Args:
            unscored: class indices to leave out even if references have them, as validation rows may.
        """
        combine_over, whole = self.combine_over, self.combine
        if combine_over is None or whole is None:
            return self

        def combine(indices: Statistics) -> float:
            classes = np.setdiff1d(indices["target"], list(unscored))
            return combine_over(indices, classes) if classes.size else whole(indices)

        return replace(self, combine=combine, leave_one_out=None)

    def compute(self, predictions: Values, references: Values) -> float:
        """Return the metric; the same as its `evaluate.Metric`, which takes five seconds to import.

        Args:
            predictions: one a row, with the content `inputs[0]`.
            references: one a row, with the content `inputs[1]`.

        Raises:
            ValueError: there are no rows, or they hold something else.
        """
        checked = read_columns(self.name, self.inputs, predictions, references)
        return self.from_statistics(self.measure(*checked))

    def row_statistics(self, predictions: Values, references: Values) -> Statistics:
        """Return the statistics of each row, in the smallest types that hold them exactly.

        Nothing is returned for metrics of class indices, since those are stored anyway (`predicted`, `target`).

        Args:
            predictions: as for `compute`.
            references: as for `compute`.

        Returns:
            The arrays that `statistics` names, the first axis of each the rows. Where `mean_over_rows`, the mean
            of the one array is the metric.
        """
        checked = read_columns(self.name, self.inputs, predictions, references)
        return {} if _IN_EVERY_RECORD.issuperset(self.statistics) else self.measure(*checked)

    def from_statistics(self, statistics: Mapping[str, npt.NDArray[Any]]) -> float:
        """Return the metric of some rows, some of which may occur twice.

        Args:
            statistics: rows of what `row_statistics` returned; for metrics of class indices `predicted` and `target`.
                Further arrays are ignored.

        Raises:
            ValueError: an array is missing, they differ in rows, or there are none.
        """
        missing = [name for name in self.statistics if name not in statistics]
        if missing:
            raise ValueError(
                f"{self.name} rests on {', '.join(self.statistics)}; "
                f"missing: {', '.join(missing)}; given: {', '.join(statistics) or 'nothing'}."
            )
        arrays = {name: np.asarray(statistics[name]) for name in self.statistics}
        n_rows = {len(array) for array in arrays.values()}
        if len(n_rows) > 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(f"{self.name} needs as many rows of each array; given: {shapes}.")
        check_n_rows(self.name, *n_rows)
        value = float(arrays[self.name].mean(dtype=np.float64) if self.combine is None else self.combine(arrays))
        high = math.inf if self.high is None else self.high
        if not self.low - _ROUNDING <= value <= high + _ROUNDING:  # NaN is not within either
            raise ValueError(
                f"{self.name} of these rows is {value}, not within {self.low} and {high}: check its inputs."
            )
        return value

    def signature(self, references: Values) -> str | None:
        """Return the library's signature of the computation, for records; None where there is none.

        Args:
            references: as for `compute`; sacrebleu's signatures say how many each row has.
        """
        if self.sign is None:
            return None
        _, checked = read_columns(self.name, ("text", "texts"), [""] * len(references), references)
        return self.sign(checked)  # type: ignore[arg-type]  # "texts" are lists of texts

    def as_evaluate(self) -> evaluate.Metric:
        """Return the metric as a module of Hugging Face's `evaluate`, without a network; one instance per process."""
        return _module(self)


@functools.cache
def _module(spec: MetricSpec) -> evaluate.Metric:
    import datasets
    import evaluate

    class RowsMetric(evaluate.Metric):  # type: ignore[misc]
        """Measure each row, combine."""

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=spec.description,
                citation=spec.source,
                inputs_description=f"predictions: one {spec.inputs[0]} a row; references: one {spec.inputs[1]} a row",
                features=datasets.Features(
                    {"predictions": feature(spec.inputs[0]), "references": feature(spec.inputs[1])}
                ),
            )

        def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
            checked = read_columns(spec.name, spec.inputs, predictions, references)
            return {spec.name: spec.from_statistics(spec.measure(*checked))}

    # evaluate makes its cache folder even when it keeps everything in memory; a read-only home must not matter, nor
    # whose the folders in a shared /tmp are
    with tempfile.TemporaryDirectory() as folder:
        return RowsMetric(config_name=spec.name, keep_in_memory=True, cache_dir=folder)


metrics: Registry[MetricSpec] = Registry(
    "metric",
    "harness.metrics",
    expected="a harness.metrics.MetricSpec",
    why_not=lambda member: None if isinstance(member, MetricSpec) else f"{member!r:.80} is a {type(member).__name__}",
)
