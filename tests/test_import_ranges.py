"""Imports and exports keep the direction and range of a metric, and refuse scores that it cannot have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.store.eee.write import evaluation_of, export_eee
from harness.store.importing.read import read_results
from harness.support import UsageError
from tests.record_factory import make_record

MAPPING = {"task": "task", "method": "method", "score": "score", "n_train": "n", "n_test": "m"}


def table(folder: Path, metric: str, *scores: float) -> Path:
    path = folder / "table.csv"
    rows = [f"t{i},a,{score},10,100" for i, score in enumerate(scores)]
    path.write_text("\n".join(["task,method,score,n,m", *rows]))
    return path


@pytest.mark.parametrize(
    ("metric", "score", "higher_is_better", "highest"),
    [
        ("ter", 55.0, False, 100.0),
        ("chrf", 55.0, True, 100.0),
        ("brier_score", 0.2, False, 1.0),
        ("ece", 0.1, False, 1.0),
        ("log_loss", 2.3, False, None),
        ("wer", 1.2, False, None),
        ("edit_distance", 0.3, False, 1.0),
        ("spearman", -0.2, True, 1.0),
        ("accuracy", 0.9, True, 1.0),
    ],
)
def test_a_table_keeps_direction_and_range(
    tmp_path: Path, metric: str, score: float, *, higher_is_better: bool, highest: float | None
) -> None:
    (record,) = read_results([table(tmp_path, metric, score)], "table", {**MAPPING, "metric": f"={metric}"})
    assert record.score is not None
    assert (record.score.value, record.score.higher_is_better, record.score.highest) == (
        score,
        higher_is_better,
        highest,
    )


@pytest.mark.parametrize(("metric", "score"), [("accuracy", -0.3), ("macro_f1", -0.01), ("perplexity", 0.4)])
def test_a_score_that_its_metric_cannot_have_is_refused(tmp_path: Path, metric: str, score: float) -> None:
    with pytest.raises(UsageError, match=f"row 1: {metric} is {score}; expected"):
        read_results([table(tmp_path, metric, score)], "table", {**MAPPING, "metric": f"={metric}"})


def test_percentages_of_other_tools_are_refused(tmp_path: Path) -> None:
    value = {
        "config": {"model_args": "pretrained=a/b"},
        "lm_eval_version": "0.4.9",
        "results": {"x": {"acc,none": 55.0}},
    }
    path = tmp_path / "results_2026-01-31T12-00-00.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"accuracy is 55; expected 0 to 1\. Is it a percentage"):
        read_results([path], "lm-eval")


def test_an_export_names_the_direction_of_further_metrics() -> None:
    others = {"loss": 2.5, "brier_score": 0.2, "accuracy standard error": 0.01, "quality": 0.5}
    record = make_record()
    assert record.score is not None
    record = dataclasses.replace(record, score=dataclasses.replace(record.score, others=others))
    metrics = [result["metric_config"] for result in evaluation_of(record)["evaluation_results"]]
    assert {one["metric_name"]: one["lower_is_better"] for one in metrics} == {
        **{"accuracy": False, "loss": True, "brier_score": True, "accuracy standard error": True, "quality": False}
    }


def test_half_a_character_in_a_backbone_s_name_is_exported(tmp_path: Path) -> None:
    exported = export_eee([make_record(backbone="org/\ud800model")], tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert exported.n_files == 1
    assert path.parent.name == "_model"
