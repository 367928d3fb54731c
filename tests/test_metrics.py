"""Metrics of classes, confidences and likelihoods against scikit-learn and plain loops; the contract of all metrics."""

from __future__ import annotations

import itertools
import subprocess
import sys

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from harness.metrics import MetricSpec, metrics

TEXT = "the a cat dog, sat on The mat. läuft über 12 $3,000 #### 7.00 -4 Überraschung!"

classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)
two_classes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


def columns(pairs):
    return [np.array(side) for side in zip(*pairs, strict=True)]


def some_rows(spec: MetricSpec, n_rows: int, seed: int):
    """Predictions and references of the kind that a metric reads."""
    generator = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(generator.choice(TEXT.split(), size=generator.integers(0, 12)))

    made = {
        "class": lambda: generator.integers(0, 2, n_rows),
        "count": lambda: generator.integers(1, 50, n_rows),
        "flag": lambda: generator.random(n_rows) < 0.7,
        "labels": lambda: generator.integers(0, 2, (n_rows, 3)),
        "real": lambda: generator.random(n_rows),
        "scores": lambda: generator.integers(0, 9, (n_rows, 3)) / 8,
        "tags": lambda: [list(generator.choice(["O", "B-A", "I-A", "B-B", "E-A", "S-C"], 9)) for _ in range(n_rows)],
        "text": lambda: [text() for _ in range(n_rows)],
        "texts": lambda: [[f"{text()} {at}" for at in range(generator.integers(1, 4))] for _ in range(n_rows)],
    }
    return tuple(made[content]() for content in spec.inputs)


def take(column, rows):
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


@pytest.fixture(params=metrics.names())
def spec(request: pytest.FixtureRequest) -> MetricSpec:
    return metrics.get(request.param)


def test_names_and_ranges():
    assert {
        spec.name: (spec.higher_is_better, spec.low, spec.high, spec.mean_over_rows) for spec in metrics
    } == {
        "accuracy": (True, 0, 1, True),
        "bleu": (True, 0, 100, False),
        "calibration_error": (False, 0, 1, False),
        "chrf": (True, 0, 100, False),
        "exact_number": (True, 0, 1, True),
        "f1": (True, 0, 1, False),
        "macro_f1": (True, 0, 1, False),
        "matthews": (True, -1, 1, False),
        "macro_f1_labels": (True, 0, 1, False),
        "mae": (False, 0, None, True),
        "mean_average_precision": (True, 0, 1, False),
        "micro_f1": (True, 0, 1, False),
        "pearson": (True, -1, 1, False),
        "perplexity": (False, 1, None, False),
        "rmse": (False, 0, None, False),
        "rouge1": (True, 0, 1, True),
        "rouge2": (True, 0, 1, True),
        "rougeLsum": (True, 0, 1, True),
        "rouge_l": (True, 0, 1, True),
        "span_f1": (True, 0, 1, False),
        "span_f1_macro": (True, 0, 1, False),
        "spearman": (True, -1, 1, False),
        "squad_exact_match": (True, 0, 1, True),
        "squad_f1": (True, 0, 1, True),
        "subset_accuracy": (True, 0, 1, True),
        "token_accuracy": (True, 0, 1, False),
    }  # fmt: skip


@pytest.mark.parametrize("n_rows", [1, 2, 37])
@pytest.mark.parametrize("seed", [0, 1])
def test_statistics_of_rows_give_the_metric_of_any_of_them(spec, n_rows, seed):
    predictions, references = some_rows(spec, n_rows, seed)
    stored = spec.row_statistics(predictions, references)
    if spec.inputs == ("class", "class"):
        assert stored == {}
        stored = {"predicted": predictions.astype(np.int8), "target": references.astype(np.int8)}
    else:
        assert tuple(stored) == spec.statistics
    assert all(len(array) == n_rows and array.ndim <= 3 for array in stored.values())
    generator = np.random.default_rng(seed)
    samples = [
        np.arange(n_rows),
        generator.permutation(n_rows)[: n_rows // 2 + 1],
        generator.integers(0, n_rows, n_rows),
    ]
    for rows in samples:
        expected = spec.compute(take(predictions, rows), take(references, rows))
        sample = {name: array[rows] for name, array in stored.items()}
        assert spec.from_statistics({**sample, "another": np.zeros(1)}) == pytest.approx(expected, rel=1e-12)
        if spec.mean_over_rows and spec.name in sample:
            assert sample[spec.name].mean() == pytest.approx(expected, rel=1e-12)
            assert np.array_equal(spec.row_statistics(take(predictions, rows), take(references, rows))[spec.name],
                                  sample[spec.name])  # fmt: skip
        assert spec.low - 1e-9 <= expected <= (np.inf if spec.high is None else spec.high + 1e-9)


def test_each_is_an_evaluate_metric(spec):
    predictions, references = some_rows(spec, 9, 3)
    module = spec.as_evaluate()
    assert isinstance(module, evaluate.Metric)
    assert module.compute(predictions=predictions, references=references) == {
        spec.name: spec.compute(predictions, references)
    }


def test_no_rows_make_no_figure(spec):
    with pytest.raises(ValueError, match=rf"{spec.name} of no rows"):
        spec.compute([], [])
    with pytest.raises(ValueError, match=rf"{spec.name} of no rows"):
        spec.row_statistics([], [])
    with pytest.raises(ValueError, match=rf"{spec.name} of no rows"):
        spec.from_statistics({name: np.zeros((0, 4)) for name in spec.statistics})
    predictions, references = some_rows(spec, 4, 0)
    with pytest.raises(ValueError, match="3 predictions for 4 references"):
        spec.compute(predictions[:3], references)
    with pytest.raises(ValueError, match=rf"rests on .*missing: .*{spec.statistics[-1]}; given: nothing"):
        spec.from_statistics({})


def test_what_is_not_what_a_metric_reads_is_refused(spec):
    predictions, references = some_rows(spec, 4, 0)
    wrong = ["one"] * 4 if spec.inputs[0] == "real" else np.ones(4)
    with pytest.raises(ValueError, match=rf"{spec.name}: the prediction of"):
        spec.compute(wrong, references)
    with pytest.raises(ValueError, match=rf"{spec.name}: the reference of"):
        spec.compute(predictions, [None] * 4)


def test_only_sacrebleu_signs(spec):
    _, references = some_rows(spec, 4, 0)
    assert (spec.signature(references) is not None) == (spec.name in ("bleu", "chrf"))


def test_a_mean_is_over_the_array_that_bears_its_name():
    with pytest.raises(ValueError, match="declare how it is combined"):
        MetricSpec(
            name="two", higher_is_better=True, low=0, high=1, mean_over_rows=True, description="", source="",
            inputs=("text", "text"), measure=lambda *_: {}, statistics=("one", "other"),
        )  # fmt: skip


def test_importing_metrics_imports_no_library():
    code = (
        "import sys; from harness.metrics import metrics; metrics.names();"
        "print({'evaluate', 'datasets', 'sklearn', 'sacrebleu', 'rouge_score', 'nltk'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_scoring_does_not_import_evaluate():
    """Which takes seconds, as it imports the pipelines of transformers."""
    code = (
        "import sys; import numpy as np; from harness.metrics import metrics;"
        "print(metrics.get('accuracy').compute(np.array([0, 1]), np.array([0, 0])));"
        "assert round(metrics.get('bleu').compute(['a b c d e'], [['a b c d e']])) == 100;"
        "print({'evaluate', 'transformers'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["0.5", "set()"]


@settings(deadline=None, max_examples=25)
@given(classes)
def test_class_metrics_are_scikit_learns_to_the_bit(pairs):
    predicted, target = columns(pairs)
    assert metrics.get("accuracy").compute(predicted, target) == accuracy_score(target, predicted)
    macro = f1_score(target, predicted, average="macro", zero_division=0)
    assert metrics.get("macro_f1").compute(predicted, target) == macro
    assert metrics.get("matthews").compute(predicted, target) == matthews_corrcoef(target, predicted)


@settings(deadline=None, max_examples=25)
@given(two_classes)
def test_f1_is_that_of_class_one(pairs):
    predicted, target = columns(pairs)
    assert metrics.get("f1").compute(predicted, target) == f1_score(target, predicted, zero_division=0)
    hits = 2 * ((predicted == 1) & (target == 1)).sum()
    expected = hits / max((predicted == 1).sum() + (target == 1).sum(), 1)
    assert metrics.get("f1").compute(predicted, target) == pytest.approx(expected)


def test_f1_of_more_than_two_classes_is_refused():
    with pytest.raises(ValueError, match=r"classes \[0, 1, 2\]: try macro_f1"):
        metrics.get("f1").compute([0, 1, 2], [0, 1, 1])


def test_one_class_alone_has_no_correlation():
    assert metrics.get("matthews").compute([1, 1, 1], [0, 1, 1]) == 0
    assert metrics.get("matthews").compute([1, 0, 0], [0, 1, 1]) == pytest.approx(-1)


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Guo et al., equation 3, as its authors bin: above a bin's lower edge and up to its upper one."""
    edges = np.linspace(0, 1, 16)
    error = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n_rows", [1, 15, 2000])
def test_calibration_error_is_a_plain_loops(n_rows, dtype):
    generator = np.random.default_rng(n_rows)
    confidence = generator.uniform(0.01, 1, n_rows).astype(dtype)
    confidence[: n_rows // 5] = np.linspace(0, 1, 16)[generator.integers(1, 16, n_rows // 5)]  # on the edges
    correct = generator.random(n_rows) < confidence**2
    spec = metrics.get("calibration_error")
    expected = expected_calibration_error(correct, confidence.astype(np.float64))
    assert spec.compute(correct, confidence) == pytest.approx(expected, rel=1e-9)
    stored = spec.row_statistics(correct, confidence)
    assert (stored["correct"].dtype, stored["confidence"].dtype) == (bool, dtype)


def test_calibration_error_by_hand():
    spec = metrics.get("calibration_error")
    assert spec.compute([True, False], [1.0, 1.0]) == pytest.approx(0.5)
    assert spec.compute([True, True, False, False], [0.75, 0.74, 0.75, 0.74]) == pytest.approx(0.245)
    assert spec.compute([True, False], [0.0, 0.0]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the prediction of each row is to be true or false"):
        spec.compute([0.9, 0.8], [True, False])
    for outside in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match="within 0 and 1"):
            spec.compute([True], [outside])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perplexity_is_that_of_the_mean_token(dtype):
    generator = np.random.default_rng(0)
    tokens = [generator.exponential(2, size).astype(dtype) for size in generator.integers(0, 40, 50)]
    nll, n_tokens = np.array([row.sum() for row in tokens], dtype=dtype), np.array([len(row) for row in tokens])
    spec = metrics.get("perplexity")
    every = np.concatenate(tokens).astype(np.float64)
    tolerance = 1e-12 if dtype is np.float64 else 1e-6  # a row's sum is given in single precision
    assert spec.compute(nll, n_tokens) == pytest.approx(np.exp(every.mean()), rel=tolerance)
    assert spec.compute(nll, n_tokens) == pytest.approx(np.exp(nll.sum(dtype=np.float64) / n_tokens.sum()), rel=1e-12)
    stored = spec.row_statistics(nll, n_tokens)
    assert (stored["nll"].dtype, stored["n_tokens"].dtype) == (dtype, np.int32)


def test_perplexity_of_extremes():
    spec = metrics.get("perplexity")
    assert spec.compute([0.0, 0.0], [3, 0]) == 1
    assert spec.compute([5 * np.log(32_000)], [5]) == pytest.approx(32_000)
    assert spec.compute([1e5], [1]) == np.inf
    with pytest.raises(ValueError, match="mean over tokens"):
        spec.compute([0.0], [0])
    with pytest.raises(ValueError, match="mean over tokens"):
        spec.compute([1.0, 2.0], [3, -1])
    with pytest.raises(ValueError, match="is nan, not within"):
        spec.compute([np.nan, 2.0], [3, 1])
    with pytest.raises(ValueError, match=r"not within 1\.0 and inf"):  # log-likelihoods, not negative ones
        spec.compute([-8.0], [4])
