"""Metrics of class predictions, over scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.metrics.base import MetricSpec, metrics

if TYPE_CHECKING:
    import evaluate


def _build(name: str, description: str, options: dict[str, Any]) -> evaluate.Metric:
    import datasets
    import evaluate
    from sklearn.metrics import accuracy_score, f1_score

    class ClassMetric(evaluate.Metric):  # type: ignore[misc]
        """One figure over predicted and right class indices."""

        def _info(self) -> evaluate.MetricInfo:
            integer = datasets.Value("int64")
            return evaluate.MetricInfo(
                description=description,
                citation="scikit-learn: Machine Learning in Python, Pedregosa et al., JMLR 12, 2011",
                inputs_description="predictions and references: class indices",
                features=datasets.Features({"predictions": integer, "references": integer}),
            )

        def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
            if name == "accuracy":
                return {name: float(accuracy_score(references, predictions))}
            return {name: float(f1_score(references, predictions, average="macro", zero_division=0))}

    return ClassMetric(config_name=name, **options)


metrics.add(
    "accuracy",
    MetricSpec(
        name="accuracy",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        build=lambda options: _build("accuracy", "The share of rows whose class is predicted.", options),
    ),
)
metrics.add(
    "macro_f1",
    MetricSpec(
        name="macro_f1",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=False,
        build=lambda options: _build("macro_f1", "F1 of each class, averaged over classes.", options),
    ),
)
