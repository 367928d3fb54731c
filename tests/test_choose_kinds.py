"""Choosing on every kind whose models can be saved: in time, with the score of the saved model, and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import harness
from harness.backbones.locate import BackboneFiles
from harness.choose.choosing import _as_share
from harness.choose.evaluation import EVALUATION
from harness.forecast.evidence import Point, gather
from harness.store.reading import reference_records
from tests.toy_kinds import toy_rows

HEADINGS = {
    "regression": "## Largest residuals",
    "similarity": "## Largest residuals",
    "multi-label": "## Scores by label",
    "token-classification": "## Scores by type",
}
QUICK = ["majority", "tfidf", "word-features", "linear-probe", "head", "last-layers", "contrastive-cosine"]


def files_of(folder: Path, rows: list[dict[str, Any]], name: str) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", HEADINGS)
def test_a_model_is_chosen_in_time_scored_and_saved(kind: str, tiny: BackboneFiles, tmp_path: Path) -> None:
    roles = list(toy_rows(kind, 1)[0])
    test = toy_rows(kind, 40, seed=1)
    chosen = harness.choose(
        files_of(tmp_path, toy_rows(kind, 200), "train"),
        within="40s",
        save=tmp_path / "model",
        text=roles[:-1],
        label=roles[-1],
        kind=kind,
        test=files_of(tmp_path, test, "test"),
        methods=QUICK,
        backbone=str(tiny.folder),
        store=tmp_path / "store.sqlite",
        device="cpu",
        reference=False,
        progress=False,
    )
    assert chosen.seconds <= 40
    assert HEADINGS[kind] in (tmp_path / "model" / EVALUATION).read_text("utf-8")
    inputs = [row[roles[0]] if len(roles) == 2 else (row[roles[0]], row[roles[1]]) for row in test]
    predicted = harness.load_model(tmp_path / "model", device="cpu").predict(inputs)
    right = [row[roles[-1]] for row in test]
    expected = {
        "regression": lambda: float(np.sqrt(np.mean((np.array(predicted) - np.array(right)) ** 2))),
        "similarity": lambda: float(spearmanr(predicted, right).statistic),
        "multi-label": lambda: _f1([{(at, x) for x in one} for at, one in enumerate(predicted)], right),
        "token-classification": lambda: _seqeval(predicted, right),
    }[kind]()
    assert chosen.score.value == pytest.approx(expected, abs=2e-3)


def _f1(predicted: list[set[Any]], right: list[list[str]]) -> float:
    given, wanted = set().union(*predicted), {(at, label) for at, labels in enumerate(right) for label in labels}
    return 2 * len(given & wanted) / (len(given) + len(wanted))


def _seqeval(predicted: list[list[str]], right: list[list[str]]) -> float:
    from seqeval.metrics import f1_score

    return float(f1_score(right, predicted))


def test_evidence_of_other_metrics_enters_as_shares() -> None:
    points = gather(reference_records()).points
    point = next(one for one in points if one.metric == "accuracy")
    assert _as_share(point, "macro_f1") is point

    def share(known: str, score: float, asked: str) -> float | None:
        found: Point | None = _as_share(_with(point, known, score), asked)
        return None if found is None else found.score

    assert share("micro_f1", 0.4, "micro_f1") == pytest.approx(0.4)
    assert share("spearman", 0.5, "spearman") == pytest.approx(0.75)  # from -1 to 1
    assert share("micro_f1", 0.4, "span_f1") is None
    # The best line through estimates with a correlation r leaves sqrt(1 - r^2) of the deviation.
    draw = np.random.default_rng(0)
    estimate = draw.normal(size=100_000)
    truth = 0.6 * estimate + 0.8 * draw.normal(size=100_000)
    line = np.polynomial.Polynomial.fit(estimate, truth, 1)(estimate)
    left = np.sqrt(np.mean((truth - line) ** 2)) / truth.std()
    assert share("pearson", 0.6, "rmse") == pytest.approx(1 - left, abs=0.01)
    assert share("pearson", -0.6, "mae") == 0.0


def _with(point: Point, metric: str, score: float) -> Point:
    import dataclasses

    return dataclasses.replace(point, metric=metric, score=score)
