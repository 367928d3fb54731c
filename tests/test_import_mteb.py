"""MTEB's results: its JSON files and tables of them become records, or are refused whole."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from harness.records.facts import Facts
from harness.store import pack, published_encoders
from harness.store.importing import locate_results, read_mteb_table, read_results
from harness.store.published import published_source
from harness.store.store import Store
from harness.support.errors import UsageError

HEADER = "model,revision,task,dataset_revision,accuracy,sd,n_experiments,n_parameters,embed_dim,licence,trained_on\n"
ROW = "org/one,abc,Banking77Classification,r1,0.8,0.01,10,22700000,384,apache-2.0,no\n"


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "mteb.csv"
    path.write_text(header + "".join(rows))
    return path


def results(folder: Path, **changes: Any) -> Path:
    """Write a result file as MTEB does, and its model_meta.json."""
    where = folder / "org__one" / "abc"
    where.mkdir(parents=True)
    draws = [0.8, 0.82, 0.78]
    entry = {"accuracy": 0.8, "f1": 0.79, "hf_subset": "default", "main_score": 0.8}
    entry["scores_per_experiment"] = [{"accuracy": value, "f1": value} for value in draws]
    value = {
        "dataset_revision": "r1",
        "task_name": "Banking77Classification",
        "mteb_version": "1.38.9",
        "evaluation_time": 65.3,
        "scores": {"test": [entry]},
    }
    meta = {
        "name": "org/one",
        "revision": "abc",
        "n_parameters": 22_700_000,
        "embed_dim": 384,
        "max_tokens": 512.0,
        "license": "mit",
        "open_weights": True,
        "use_instructions": True,
        "training_datasets": ["MSMARCO"],
    }
    meta |= changes.pop("meta", {})
    entry |= changes.pop("entry", {})
    (where / "Banking77Classification.json").write_text(json.dumps(value | changes))
    (where / "model_meta.json").write_text(json.dumps(meta))
    return folder


def test_a_result_file_says_who_measured_what_and_how(tmp_path: Path) -> None:
    (record,) = read_results([results(tmp_path)], "mteb")
    assert (record.cell.task, record.cell.backbone, record.cell.weights) == (
        "Banking77Classification",
        "org/one",
        "revision abc",
    )
    assert record.score is not None
    assert record.score.value == 0.8
    assert record.score.others["sd_over_draws"] == pytest.approx(statistics.pstdev([0.8, 0.82, 0.78]))
    assert record.cell.n_train == 77 * 8
    facts = record.facts
    assert (facts.measured_by, facts.n_draws, facts.has_seen_task, facts.is_evidence) == ("MTEB", 3, False, True)
    assert facts.encoder is not None
    assert facts.encoder.n_parameters == 22_700_000
    assert facts.encoder.pretraining == "instruct embedding"
    assert facts.encoder.licence == "mit"
    assert "logistic regression" in (facts.protocol or "")
    assert record.cost.train_seconds is None
    assert record.memory_bytes is None
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_task_that_the_encoder_was_trained_on_is_no_evidence(tmp_path: Path) -> None:
    (record,) = read_results([results(tmp_path, meta={"training_datasets": ["Banking77Classification"]})], "mteb")
    assert record.facts.has_seen_task
    assert not record.facts.is_evidence


def test_the_english_part_of_a_task_in_several_languages_is_taken(tmp_path: Path) -> None:
    folder = results(tmp_path)
    file = next(folder.rglob("Banking77Classification.json"))
    value = json.loads(file.read_text())
    german = {**value["scores"]["test"][0], "hf_subset": "de", "accuracy": 0.5}
    value["scores"]["test"][0]["hf_subset"] = "en"
    value["scores"]["test"].insert(0, german)
    file.write_text(json.dumps(value))
    (record,) = read_results([folder], "mteb")
    assert record.score is not None
    assert record.score.value == 0.8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entry": {"accuracy": 80.0}}, "accuracy is 80; expected a fraction"),
        ({"entry": {"accuracy": 0.7}}, "the mean of its 3 draws is 0.8. The file is damaged"),
        ({"entry": {"accuracy": None}}, "accuracy is missing"),
        ({"scores": {"other": [{"accuracy": 0.5, "scores_per_experiment": []}]}}, "there are no scores of the splits"),
        ({"scores": {"test": [{"ndcg_at_10": 0.5}]}}, "holds no result of MTEB's classification tasks"),
        ({"meta": {"name": ""}}, "name is missing"),
        ({"meta": {"n_parameters": "many"}}, "n_parameters is 'many'; expected a number"),
    ],
)
def test_a_bad_result_file_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_results([results(tmp_path, **changes)], "mteb")


def test_a_task_without_a_test_split_names_the_split_that_it_is_scored_on(tmp_path: Path) -> None:
    entry = {"accuracy": 0.5, "scores_per_experiment": [], "hf_subset": "default"}
    (record,) = read_results([results(tmp_path, scores={"validation": [entry]})], "mteb")
    assert record.score is not None
    assert record.score.value == 0.5
    assert record.cell.data == "MTEB r1, split validation"


def test_a_result_without_its_encoder_is_refused(tmp_path: Path) -> None:
    folder = results(tmp_path)
    next(folder.rglob("model_meta.json")).unlink()
    with pytest.raises(UsageError, match=r"there is no model_meta\.json beside it"):
        read_results([folder], "mteb")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW.replace("0.8,", "80,")], "row 1: accuracy is 80; expected a fraction"),
        ([ROW, ROW.replace("0.8,", "nan,")], "row 2: accuracy is 'nan'"),
        ([ROW.replace("0.8,", ",")], "row 1: accuracy is missing"),
        ([ROW.replace(",no", ",perhaps")], "row 1: trained_on is 'perhaps'; expected yes, no"),
        ([ROW.replace("0.01", "0.9")], "row 1: sd is 0.9; expected at most 0.5"),
        ([ROW.replace("org/one", "")], "row 1: model is missing"),
        ([ROW, ROW], "row 2: org/one on Banking77Classification is there already"),
        ([ROW, ROW.replace("abc", "abd").replace("384", "768")], "has other metadata than in .*row 1"),
        ([ROW, "org/one,abc\n"], "rows 2 do not have 11 values"),
        ([], "holds no rows"),
    ],
)
def test_a_bad_row_of_a_table_is_named_and_nothing_is_imported(tmp_path: Path, rows: list[str], said: str) -> None:
    path = table(tmp_path, *rows)
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        with pytest.raises(UsageError, match=said):
            store.add_new(pack(locate_results([path], "mteb")))
        assert list(store.records()) == []


def test_an_unknown_column_is_refused_unless_it_is_left_out_on_purpose(tmp_path: Path) -> None:
    path = table(tmp_path, ROW.replace(",no", ",no,1"), header=HEADER.replace("trained_on", "trained_on,mood"))
    with pytest.raises(UsageError, match="the column 'mood' is not known"):
        read_results([path], "mteb")
    assert len(read_results([path], "mteb", ignore=["mood"])) == 1
    with pytest.raises(UsageError, match="lacks the column accuracy"):
        read_results([table(tmp_path, ROW, header=HEADER.replace("accuracy", "acc"))], "mteb")


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, ROW, ROW.replace("org/one", "org/two"))
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        assert store.add_new(pack(locate_results([path], "mteb")))[:2] == (2, 0)
        assert store.add_new(pack(locate_results([path], "mteb")))[:2] == (0, 2)


def test_the_shipped_encoders_name_their_source_and_hold_a_known_figure() -> None:
    encoders = {encoder.name: encoder for encoder in published_encoders()}
    assert len(encoders) == 231
    assert sum(len(encoder.results) for encoder in encoders.values()) == 1759
    of = {result.task: result for result in encoders["sentence-transformers/all-MiniLM-L6-v2"].results}
    assert of["Banking77Classification"].accuracy == pytest.approx(0.8004, abs=5e-5)
    assert published_source()["commit"] == "f4cc6c8b"


def test_the_shipped_encoders_are_those_of_the_table() -> None:
    path = Path(__file__).resolve().parents[2] / "shared" / "evidence" / "mteb-classification" / "results.csv"
    if not path.is_file():
        pytest.skip("MTEB's table does not lie beside this checkout")
    shipped = {(e.name, r.task): r for e in published_encoders() for r in e.results}
    table_ = {(e.name, r.task): r for e in read_mteb_table(path) for r in e.results}
    assert shipped.keys() == table_.keys()
    for key, found in shipped.items():
        assert found.accuracy == pytest.approx(table_[key].accuracy, abs=1e-6)
        assert found.has_seen_task == table_[key].has_seen_task
        assert found.revision == table_[key].revision
