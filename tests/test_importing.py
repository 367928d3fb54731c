"""Results that others measured, as records: PEFT's method comparison, the harness's own exports, any table."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness.analysis.export import export_records
from harness.analysis.stats import pareto_front
from harness.records.jsonl import write_jsonl
from harness.report.page import page_html
from harness.report.tables import comparison
from harness.store.importing import read_results
from harness.support.errors import UsageError
from tests.record_factory import make_grid, make_record


def test_all_of_pefts_results_come_in_and_their_front_is_that_of_brute_force(evidence):
    records = read_results([evidence], "peft")
    assert len(records) == 63
    assert len({record.id for record in records}) == 63
    assert {record.device for record in records} == {"NVIDIA L40S (imported)"}
    raw = {file.name: json.loads(file.read_text()) for file in evidence.glob("*.json")}
    points = []
    for record in records:
        value = raw[record.facts.imported_from]
        steps = value["train_info"]["metrics"]
        accuracy = steps[-1]["test accuracy"]
        memory = value["train_info"]["accelerator_memory_max"]
        assert record.score.value == accuracy
        assert record.score.others == {"forgetting": steps[-1]["forgetting"]}
        assert record.cost.peak_device_bytes == memory
        assert record.cost.n_trainable == value["train_info"]["num_trainable_params"]
        own = sum(step.get("train time", 0.0) for step in steps)
        assert record.cost.fit_seconds == pytest.approx(own)
        assert own < value["train_info"]["train_time"]
        points.append((memory, accuracy))
    front = pareto_front([p[0] for p in points], [p[1] for p in points])
    for (memory, accuracy), on_front in zip(points, front, strict=True):
        beaten = any(m <= memory and a >= accuracy and (m, a) != (memory, accuracy) for m, a in points)
        assert on_front == (not beaten)
    table = comparison(records)
    assert len(table) == 63
    assert (table["memory"] == "device").all()
    assert "compared without pairing" in page_html(records)


def test_a_file_that_is_no_such_result_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"run_info": {}}')
    with pytest.raises(UsageError, match=r"a\.json is no result of PEFT's method comparison; expected an object"):
        read_results([tmp_path], "peft")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read_results([tmp_path], "peft")
    with pytest.raises(UsageError, match="expected one of harness, eee, inspect, lm-eval, mteb, peft, setfit, table"):
        read_results([tmp_path], "csv")


def test_whole_records_come_back_as_they_were(tmp_path):
    records = make_grid(methods=("full",), sizes=(32,))
    write_jsonl(records, tmp_path / "r.jsonl")
    back = read_results([tmp_path / "r.jsonl"])
    assert [record.to_json() for record in back] == [record.to_json() for record in records]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_exported_table_comes_in_as_figures_of_elsewhere(tmp_path, ending):
    records = [*make_grid(methods=("full", "tfidf"), sizes=(32, 128)), make_record("lora", 32, status="out_of_memory")]
    export_records(records, tmp_path / f"r.{ending}")
    back = read_results([tmp_path / f"r.{ending}"])
    assert len(back) == len(records)
    for one, other in zip(records, back, strict=True):
        for name in ("task", "backbone", "method", "n_train", "seed"):
            assert getattr(other.cell, name) == getattr(one.cell, name)
        assert other.device == f"{one.device} (imported)"
        assert other.status == one.status
        assert (one.score is None) == (other.score is None)
        if one.score is not None:
            assert other.score.value == one.score.value
            assert other.cost.fit_seconds == one.cost.fit_seconds
            assert other.cost.train_seconds == pytest.approx(one.cost.train_seconds)  # `tune_seconds` is no column
    assert len(comparison(records + back)) == 2 * len(comparison(records))  # nothing is pooled


def test_any_table_comes_in_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "paper.csv"
    columns = {"Model": ["BERT"] * 3, "how": ["full", "lora", "full"], "Acc": [0.91, 0.9, 0.92], "sec": [60, 20, ""]}
    pd.DataFrame(columns).to_csv(path, index=False)
    mapping = {"task": "=sst2", "method": "how", "backbone": "Model", "score": "Acc", "metric": "=accuracy"}
    mapping |= {"fit_seconds": "sec", "n_train": "=1000", "device": "=somewhere"}
    with pytest.raises(UsageError, match=r"No field takes .*|No column says n_test"):
        read_results([path], "table", mapping)
    mapping |= {"n_test": "=872"}
    with pytest.raises(UsageError, match="rows 1, 3 are of the same task, backbone, method"):
        read_results([path], "table", mapping)
    mapping |= {"seed": "=row"}
    first, second, third = read_results([path], "table", mapping)
    assert (first.cell.method, first.cell.backbone, first.cell.n_train) == ("full", "BERT", 1000)
    assert (first.cell.seed, third.cell.seed, second.cell.seed) == (0, 1, 0)
    assert first.score.n_test == 872
    assert (first.score.value, first.cost.fit_seconds) == (0.91, 60.0)
    assert third.cost.fit_seconds is None
    assert second.device == "somewhere (imported)"


SIZES = {"n_train": "=8", "n_test": "=100"}


@pytest.mark.parametrize(
    ("content", "mapping", "message"),
    [
        ("method,score\na,1\n", {}, "has no column for task"),
        ("task,method,score\nt,a,x\n", SIZES, "row 1: score is 'x'; expected a number"),
        ("task,method,score\nt,a,\n", SIZES, "row 1: there is no score"),
        ("task,method,score\n,a,1\n", SIZES, "task and method must not be empty"),
        ("task,method,score,n_train\nt,a,1,1.5\n", {"n_test": "=9"}, "n_train is 1.5; expected a whole number"),
        ("task,method,score,status\nt,a,1,fine\n", SIZES, "status is 'fine'; expected one of ok"),
        ("task,method,score\nt,a,1\n", {"scor": "x"}, "Did you mean 'score'"),
        ("task,method,acc\nt,a,1\n", {"score": "ac"}, "Did you mean 'acc'"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_row(tmp_path, content, mapping, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_results([tmp_path / "t.csv"], "table", mapping)
    with pytest.raises(UsageError, match="There is no file"):
        read_results([tmp_path / "absent.csv"], "table", mapping)
