"""The export to Every Eval Ever: valid by its published schema, and back again without loss."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from harness.records.predictions import Predictions
from harness.records.record import Record, Score
from harness.store import export_eee, pack
from harness.store.eee.write import evaluation_of
from harness.store.importing import locate_results, read_results
from harness.store.store import Store
from harness.support.errors import StoreError, UsageError
from tests.commands import run_apart
from tests.record_factory import make_grid, make_record, with_facts

SCHEMAS = Path(__file__).parents[1] / "harness" / "store" / "eee" / "schema"


def schema(name: str) -> Any:
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def exported(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def without_predictions(record: Record) -> Record:
    return dataclasses.replace(record, predictions=None)


def regression(value: float = 0.4) -> Record:
    """A record whose metric has no upper end, with a score for each row."""
    rows = Predictions(rows="r" * 8, statistics={"estimate": np.array([1.0, 2.0]), "truth": np.array([1.0, 2.8])})
    score = Score("mae", value, 0.1, 0.7, False, 2, others={"rmse": 0.5, "own_figure": 12.0}, highest=None)
    return dataclasses.replace(make_record("full", 64), kind="regression", score=score, predictions=rows)


def prompted() -> Record:
    record = make_record("few-shot", 4, config={"max_new_tokens": 16, "prompt": "Label: "})
    return with_facts(record, role="prompting", has_seen_task=True)


def records() -> list[Record]:
    local = make_record("lora", 32, backbone="/models/data/my: model")
    return [*make_grid(sizes=(32, 128)), regression(), prompted(), local]


def test_the_pinned_schemas_are_those_that_the_readme_names() -> None:
    readme = (SCHEMAS / "README.md").read_text()
    for name in ("eval", "instance_level_eval"):
        digest = hashlib.sha256((SCHEMAS / f"{name}.schema.json").read_bytes()).hexdigest()
        assert digest in readme
    assert "MIT" in (SCHEMAS / "LICENSE").read_text()


def test_every_file_and_every_row_matches_the_published_schema(tmp_path: Path) -> None:
    given = records()
    found = export_eee(given, tmp_path, instances=True)
    assert (found.n_files, found.n_without_score, found.n_with_instances) == (len(given), 0, len(given))
    files = exported(tmp_path)
    assert len(files) == len(given)
    for file in files:
        value = json.loads(file.read_text())
        schema("eval").validate(value)
        reference = value["detailed_evaluation_results"]
        samples = tmp_path / reference["file_path"]
        assert samples == file.with_name(f"{file.stem}_samples.jsonl")
        assert hashlib.sha256(samples.read_bytes()).hexdigest() == reference["checksum"]
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        assert len(rows) == reference["total_rows"]
        for row in rows:
            schema("instance_level_eval").validate(row)
            assert row["evaluation_id"] == value["evaluation_id"]
        main = value["evaluation_results"][0]
        low, high = main["metric_config"]["min_score"], main["metric_config"]["max_score"]
        assert float(low) <= main["score_details"]["score"] <= float(high)
        # The folders are those that the collection's own check derives from the model's name.
        organisation, model = value["model_info"]["id"].split("/")
        assert file.relative_to(tmp_path).parts[:4] == ("data", "adaptation-harness", organisation, model)


def test_a_row_says_answer_reference_and_score(tmp_path: Path) -> None:
    record = make_record("full", 32)
    export_eee([record], tmp_path, instances=True)
    (samples,) = tmp_path.rglob("*_samples.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert record.predictions is not None
    predicted, target = record.predictions.classes
    assert [row["output"]["raw"] for row in rows] == [[str(one)] for one in predicted]
    assert [row["input"]["reference"] for row in rows] == [[str(one)] for one in target]
    assert [row["evaluation"]["is_correct"] for row in rows] == (predicted == target).tolist()


def test_rows_of_a_metric_that_is_no_mean_do_not_point_to_it(tmp_path: Path) -> None:
    record = make_record("full", 32)
    assert record.score is not None
    record = dataclasses.replace(record, score=dataclasses.replace(record.score, metric="macro_f1", value=0.5))
    export_eee([record], tmp_path, instances=True)
    (samples,) = tmp_path.rglob("*_samples.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert not any("evaluation_result_id" in row for row in rows)
    (back,) = read_results([tmp_path], "eee")
    assert back.predictions is not None
    assert record.predictions is not None
    assert np.array_equal(back.predictions.classes[0], record.predictions.classes[0])


def test_what_the_harness_knows_is_told_to_other_tools() -> None:
    value = evaluation_of(make_record("lora", 32, seed=3, config={"rank": 8}))
    told = value["model_info"]["additional_details"]
    assert (told["adaptation_method"], told["n_train"], told["seed"]) == ("lora", "32", "3")
    assert json.loads(told["adaptation_config"]) == {"rank": 8}
    (result,) = value["evaluation_results"]
    assert float(result["score_details"]["details"]["cost.fit_seconds"]) == 0.5
    assert result["score_details"]["uncertainty"]["num_samples"] == 200
    assert value["eval_library"] == {**value["eval_library"], "name": "adaptation-harness", "version": "0.1.0"}
    mae, *others = evaluation_of(regression())["evaluation_results"]
    assert (mae["metric_config"]["lower_is_better"], mae["metric_config"]["max_score"]) == (True, "Infinity")
    assert [one["metric_config"]["metric_id"] for one in others] == ["rmse", "adaptation_harness.own_figure"]
    few = evaluation_of(prompted())
    assert few["evaluation_results"][0]["generation_config"]["generation_args"] == {"max_tokens": 16}
    assert few["source_metadata"]["additional_details"]["contaminated"] == "true"


def test_scores_configuration_costs_and_rows_come_back_as_they_were(tmp_path: Path) -> None:
    given = records()
    export_eee(given, tmp_path, instances=True)
    back = {record.id: record for record in read_results([tmp_path], "eee")}
    assert back.keys() == {record.id for record in given}
    for record in given:
        other = back[record.id]
        assert (other.score, other.cell, other.cost) == (record.score, record.cell, record.cost)
        assert (other.provenance, other.curve, other.train_score) == (
            record.provenance,
            record.curve,
            record.train_score,
        )
        assert other.device == f"{record.device} (imported)"
        assert (other.facts.imported_from or "").endswith(".json")
        assert record.predictions is not None
        assert other.predictions is not None
        metric = record.score.metric if record.score else ""
        ours, theirs = record.predictions.row_scores(metric), other.predictions.row_scores(metric)
        assert np.array_equal(np.asarray(ours, float), np.asarray(theirs, float))
        assert other.predictions.rows == record.predictions.rows


def test_imported_results_survive_the_way_out_and_back(tmp_path: Path) -> None:
    others = Path(__file__).parent / "fixtures" / "others"
    given = [*read_results([others / "lm-eval"], "lm-eval"), *read_results([others / "peft-image-gen"], "peft")]
    export_eee(given, tmp_path)
    back = {record.id: record for record in read_results([tmp_path], "eee")}
    for record in given:
        assert without_predictions(back[record.id]).to_json() == without_predictions(record).to_json()
    documents = [json.loads(file.read_text())["source_metadata"] for file in exported(tmp_path)]
    assert {one["source_type"] for one in documents} == {"documentation"}


def test_an_export_is_the_same_twice_and_is_imported_once(tmp_path: Path) -> None:
    given = make_grid(sizes=(32,))
    export_eee(given, tmp_path / "a")
    export_eee(given, tmp_path / "b")
    for one, other in zip(exported(tmp_path / "a"), exported(tmp_path / "b"), strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        added = [store.add_new(pack(locate_results([tmp_path / name], "eee"))) for name in ("a", "b")]
    assert [one.n_added for one in added] == [len(given), 0]


def test_a_record_without_a_score_has_no_file(tmp_path: Path) -> None:
    found = export_eee([make_record("full", 32, status="failed", error="it broke")], tmp_path)
    assert (found.n_files, found.n_without_score) == (0, 1)
    assert not exported(tmp_path)


def edited(folder: Path, change: Any) -> Path:
    export_eee([make_record("full", 32)], folder, instances=True)
    (file,) = exported(folder)
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["evaluation_results"][0]["score_details"].update(score=0.99), "accuracy is 0.99, but the record"),
        (lambda v: v.update(evaluation_results=[]), "evaluation_results is empty"),
        (lambda v: v.update(model_info=[]), "expected an object"),
        (
            lambda v: v["source_metadata"]["additional_details"].update(adaptation_harness_record="{}"),
            "adaptation_harness_record is no record",
        ),
        (lambda v: v["detailed_evaluation_results"].update(checksum="0" * 64), "has another checksum"),
    ],
)
def test_an_edited_export_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    file = edited(tmp_path, change)
    if said == "expected an object":
        value = json.loads(file.read_text())
        del value["source_metadata"]["additional_details"]["adaptation_harness_record"]
        file.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=said):
        read_results([file], "eee")


# ---- files of others


def foreign(folder: Path, **changes: Any) -> Path:
    value = json.loads((Path(__file__).parent / "fixtures" / "others" / "eee-0.3.json").read_text())
    first = value["evaluation_results"][0]
    first["metric_config"] |= changes.pop("metric", {})
    first["score_details"] |= changes.pop("score", {})
    path = folder / "one.json"
    path.write_text(json.dumps(value | changes))
    return path


def test_metrics_of_one_evaluation_make_one_record_and_contamination_is_marked(tmp_path: Path) -> None:
    hellaswag, wikitext = read_results([foreign(tmp_path)], "eee")
    assert hellaswag.score is not None
    assert (hellaswag.score.metric, hellaswag.score.value) == ("accuracy", 0.57)
    assert hellaswag.score.others == {"acc_norm": 0.76}
    assert hellaswag.score.low == pytest.approx(0.57 - 1.959964 * 0.005)
    assert (hellaswag.cell.n_train, hellaswag.cell.method) == (10, "lm-eval")
    assert hellaswag.facts.measured_by == "An organisation"
    assert wikitext.score is not None
    assert (wikitext.score.higher_is_better, wikitext.score.highest) == (False, None)
    assert (wikitext.facts.has_seen_task, wikitext.facts.is_evidence) == (True, False)


def test_percentages_get_a_metric_of_their_own(tmp_path: Path) -> None:
    path = foreign(tmp_path, metric={"max_score": 100}, score={"score": 57.0})
    first, _ = read_results([path], "eee")
    assert first.score is not None
    assert first.score.metric == "accuracy (of 100)"


def test_a_metric_that_only_its_description_names_loses_the_name_of_the_evaluation(tmp_path: Path) -> None:
    said = {"metric_id": None, "metric_name": None, "evaluation_description": "Exact Match on hellaswag"}
    first, *_ = read_results([foreign(tmp_path, metric=said)], "eee")
    assert first.score is not None
    assert first.score.metric == "exact_match"


def test_the_very_first_layout_names_its_data_once(tmp_path: Path) -> None:
    metric = {"lower_is_better": False, "score_type": "continuous", "min_score": 0.0, "max_score": 1.0}
    metric["evaluation_description"] = "A board accuracy for task Arabic"
    value = {
        "schema_version": "0.0.1",
        "evaluation_id": "org/board/2025-11-28T00:41:43.993483Z",
        "evaluation_source": {"evaluation_source_name": "A board", "evaluation_source_type": "leaderboard"},
        "retrieved_timestamp": "2025-11-28T00:41:43.993483Z",
        "source_data": ["https://board.example"],
        "source_metadata": {"source_organization_name": "A lab", "evaluator_relationship": "third_party"},
        "model_info": {"name": "Model", "id": "org/model"},
        "evaluation_results": [
            {"evaluation_name": "Arabic", "metric_config": metric, "score_details": {"score": 0.9}},
        ],
    }
    (tmp_path / "one.json").write_text(json.dumps(value))
    (record,) = read_results([tmp_path / "one.json"], "eee")
    assert (record.cell.task, record.facts.measured_by) == ("A board: Arabic", "A lab")
    assert record.score is not None
    assert (record.score.metric, record.score.value) == ("A board accuracy", 0.9)


def test_version_0_2_is_read() -> None:
    (record,) = read_results([Path(__file__).parent / "fixtures" / "others" / "eee-0.2.json"], "eee")
    assert record.score is not None
    assert (record.score.low, record.score.high, record.score.n_test) == (0.0, 0.98, 3)
    assert (record.cell.task, record.cell.method) == ("ai2_arc: choice", "inspect")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": {"score": 57.0}}, r"score is 57, outside min_score to max_score"),
        ({"score": {"score": "0.5"}}, r"score_details.score is '0.5'; expected a number"),
        ({"metric": {"lower_is_better": None}}, "lower_is_better is None; expected true or false"),
        ({"metric": {"max_score": "many"}}, "max_score is 'many'; expected a number"),
        ({"score": {"uncertainty": {"confidence_interval": {"lower": 0.9, "upper": 0.1}}}}, "lower is 0.9 and upper"),
        ({"model_info": {"additional_details": {}}}, "model_info.id is missing"),
        ({"evaluation_results": [{"source_data": {}}]}, r"evaluation_results\[0\].evaluation_name is missing"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = foreign(tmp_path, **changes)
    with pytest.raises(UsageError, match=said) as error:
        read_results([path], "eee")
    assert str(path) in str(error.value)


# ---- the command


def test_the_command_writes_a_folder_and_refuses_what_it_must_not_replace(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "s.sqlite")) as store:
        for record in make_grid(sizes=(32,)):
            store.add(record)
    arguments = ("export", "out", "--format", "eee", "--store", "s.sqlite")
    code, out, _ = run_apart(*arguments, "--instances", "--json", cwd=tmp_path)
    found = json.loads(out)
    assert code == 0
    assert found["n_files"] == found["n_with_instances"] == len(exported(tmp_path / "out"))
    assert run_apart(*arguments, cwd=tmp_path)[0] == 0  # its own folder may be written again
    (tmp_path / "mine" / "data").mkdir(parents=True)
    code, _, error = run_apart("export", "mine", "--format", "eee", "--store", "s.sqlite", cwd=tmp_path)
    assert code == 2
    assert "did not write" in error
    code, _, error = run_apart("export", "t.csv", "--instances", "--store", "s.sqlite", cwd=tmp_path)
    assert code == 2
    assert "applies only to --format eee" in error


def test_a_value_that_breaks_the_schema_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.store.eee import write

    monkeypatch.setattr(write, "VERSION", 3)
    with pytest.raises(StoreError, match=r"does not match the schema .*: schema_version: 3 is not of type 'string'"):
        export_eee([make_record("full", 32)], tmp_path)
    assert not exported(tmp_path)
