"""Tables of published results: what a table leaves open is asked for, and nothing in it is averaged away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.forecast.evidence import usable
from harness.store.importing import read_results
from harness.store.store import Store
from harness.support.errors import UsageError

PUBLISHED = """method,task,shots_per_class,split,measure,score
setfit,sst5,8,0,acc,40.0
setfit,sst5,8,1,acc,41.0
setfit,sst5,64,0,acc,50.0
setfit,sst5,64,1,acc,51.0
full,sst5,8,0,acc,39
"""
MAPPING = {"labels_per_class": "shots_per_class", "classes": "=5", "seed": "split", "metric": "measure"}
MAPPING |= {"n_test": "=2210"}


def table(folder: Path, content: str) -> Path:
    (folder / "t.csv").write_text(content)
    return folder / "t.csv"


def read(folder: Path, content: str, mapping: dict[str, str], **options: Any) -> list[Any]:
    return read_results([table(folder, content)], "table", mapping, **options)


def test_a_published_table_is_asked_about_in_one_message(tmp_path: Path) -> None:
    mixed = PUBLISHED.replace("acc,39\n", "acc,0.39\n")
    with pytest.raises(UsageError) as caught:
        read(tmp_path, mixed, {})
    message = str(caught.value)
    for part in (
        "No column says n_train",
        "No column says n_test",
        "No field takes the columns shots_per_class, split, measure",
        "score mixes percentages (rows 1, 2, 3, 4) with fractions (rows 5)",
        "--map labels_per_class=COLUMN",
        "--ignore",
    ):
        assert part in message
    with pytest.raises(
        UsageError, match=r"score of acc mixes percentages \(rows 1, 2, 3, 4\) with fractions \(rows 5\)"
    ):
        read(tmp_path, mixed, MAPPING, scale="percent")


def test_every_row_of_a_published_table_becomes_the_cell_that_it_states(tmp_path: Path) -> None:
    records = read(tmp_path, PUBLISHED, MAPPING, scale="percent")
    found = [(r.cell.method, r.cell.n_train, r.cell.seed, r.score.value, r.score.n_test) for r in records]
    assert found == [
        ("setfit", 40, 0, 0.40, 2210),
        ("setfit", 40, 1, 0.41, 2210),
        ("setfit", 320, 0, 0.50, 2210),
        ("setfit", 320, 1, 0.51, 2210),
        ("full", 40, 0, 0.39, 2210),
    ]
    assert {record.score.metric for record in records} == {"acc"}


HEAD = "task,method,n_train,n_test,metric,score\n"


@pytest.mark.parametrize(
    ("rows", "scale", "expected"),
    [
        ("t,a,8,9,accuracy,0.4\n", None, [0.4]),
        ("t,a,8,9,accuracy,0.4\n", "fraction", [0.4]),
        ("t,a,8,9,accuracy,40\n", "percent", [0.4]),
        ("t,a,8,9,matthews,-0.4\n", None, [-0.4]),
        ("t,a,8,9,rmse,40\nt,b,8,9,accuracy,0.5\n", None, [40.0, 0.5]),
        ("t,a,8,9,test_mse,40\nt,b,8,9,accuracy,50\n", "percent", [40.0, 0.5]),
        ("t,a,8,9,bleu,27.3\nt,b,8,9,bleu,0.7\n", None, [27.3, 0.7]),
    ],
)
def test_scores_become_fractions_unless_their_metric_has_a_scale_of_its_own(tmp_path, rows, scale, expected) -> None:
    assert [record.score.value for record in read(tmp_path, HEAD + rows, {}, scale=scale)] == expected


@pytest.mark.parametrize(
    ("rows", "scale", "message"),
    [
        ("t,a,8,9,accuracy,40\n", None, "beyond 1 in rows 1. Are these percentages"),
        ("t,a,8,9,accuracy,40\n", "fraction", "beyond 1 in rows 1; expected fractions"),
        ("t,a,8,9,accuracy,0.4\n", "percent", "look like fractions"),
        ("t,a,8,9,accuracy,400\n", "percent", "beyond 100 in rows 1"),
        ("t,a,8,9,accuracy,40\n", "per cent", "expected percent or fraction"),
        (
            "t,a,8,9,accuracy,40\nt,b,8,9,accuracy,0.5\n",
            None,
            r"mixes percentages \(rows 1\) with fractions \(rows 2\)",
        ),
        ("t,a,8,9,accuracy,1_0\n", None, "score is '1_0'; expected a number"),
        ("t,a,8,9,accuracy,nan\n", None, "score is 'nan'; expected a number"),
        ("t,a,8,0,accuracy,1\n", None, "n_test is 0; expected the number of test rows"),
        ("t,a,8,,accuracy,1\n", None, "n_test is None; expected the number of test rows"),
        ("t,a,,9,accuracy,1\n", None, "row 1: n_train is missing"),
        (
            "t,a,8,9,accuracy,0.1\nt,a,8,9,accuracy,0.2\nt,a,8,9,accuracy,0.1\n",
            None,
            "rows 1, 2, 3 are of the same task",
        ),
        ("t,a,8,9,accuracy,0.1\n", {"ignore": ["x"]}, "Unknown column 'x' of t.csv"),
    ],
)
def test_what_a_table_leaves_open_is_refused_with_its_rows(tmp_path, rows, scale, message) -> None:
    options = scale if isinstance(scale, dict) else {"scale": scale}
    with pytest.raises(UsageError, match=message):
        read(tmp_path, HEAD + rows, {}, **options)


def test_columns_may_be_left_out_or_joined(tmp_path: Path) -> None:
    content = "task,method,n_train,n_test,score,rank,alpha,note\nt,lora,8,9,0.4,4,8,x\nt,lora,8,9,0.5,8,8,y\n"
    with pytest.raises(UsageError, match=r"rows 1, 2 are of the same task.*variant=COLUMN\+COLUMN"):
        read(tmp_path, content, {}, ignore=["rank", "alpha", "note"])
    records = read(tmp_path, content, {"variant": "rank+alpha"}, ignore=["note"])
    assert [record.cell.config["variant"] for record in records] == ["rank=4, alpha=8", "rank=8, alpha=8"]
    assert len({record.id for record in records}) == 2


def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    content = "task,method,n_train,labels_per_class,classes,n_test,score\nt,a,16,8,2,9,0.4\nt,b,16,8,3,9,0.4\n"
    with pytest.raises(UsageError, match="row 2: n_train is 16, but 8 labels of each of 3 classes are 24"):
        read(tmp_path, content, {})


def test_an_unknown_number_of_test_rows_is_no_evidence_of_one_row(tmp_path: Path) -> None:
    records = read(tmp_path, "task,method,n_train,score\nt,a,8,0.4\n", {"n_test": "=unknown"})
    assert records[0].score.n_test == 0
    assert usable(records) == []


def test_texts_keep_their_zeros_and_directions_are_not_guessed(tmp_path: Path) -> None:
    content = "task,method,n_train,n_test,metric,score,higher_is_better\n007,01,8,9,eval_loss,0.5,\nt,b,8,9,x,0.5,no\n"
    first, second = read(tmp_path, content, {})
    assert (first.cell.task, first.cell.method) == ("007", "01")
    assert (first.score.higher_is_better, second.score.higher_is_better) == (False, False)
    with pytest.raises(UsageError, match="row 2: higher_is_better is 'nope'; expected true or false"):
        read(tmp_path, content.replace(",no\n", ",nope\n"), {})
    with pytest.raises(UsageError, match="several columns named 'score'"):
        read(tmp_path, content.replace("metric,score", "score,score"), {})


def test_a_copy_in_one_file_is_said_to_be_there_and_not_in_an_empty_store(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD.replace("score", "score,seed") + "t,a,8,9,accuracy,0.4,0\n" * 2)
    arguments = ["import", str(path), "--format", "table", "--store", str(tmp_path / "s.sqlite")]
    result = CliRunner().invoke(app, arguments)
    assert "rows 1, 2 are of the same task" in str(result.exception)
    assert "already" not in str(result.exception)
    assert not (tmp_path / "s.sqlite").exists()


def test_the_command_takes_scale_and_columns(tmp_path: Path) -> None:
    path = table(tmp_path, PUBLISHED)
    maps = [part for field, column in MAPPING.items() for part in ("--map", f"{field}={column}")]
    arguments = ["import", str(path), "--format", "table", *maps, "--scale", "percent"]
    result = CliRunner().invoke(app, [*arguments, "--store", str(tmp_path / "s.sqlite")])
    assert "5 records imported" in result.output, result.exception
    with Store.open(tmp_path / "s.sqlite", read_only=True) as store:
        assert sorted(r.score.value for r in store.records()) == pytest.approx([0.39, 0.4, 0.41, 0.5, 0.51])


# ---- PEFT's comparisons


def peft_image_result(drift: float) -> dict[str, Any]:
    """A result of the image comparison, shortened, laid out as that comparison writes it."""
    config = {
        "model_id": "maker/FLUX-like",
        "dataset_id": "someone/cat-images",
        "dtype": "bfloat16",
        "batch_size": 2,
        "max_steps": 750,
        "seed": 0,
        "instance_prompts": ["sks cat"] * 20,
        "valid_size": 2,
        "test_size": 4,
        "dino_model_id": "some/dino",
    }
    steps = [
        {"step": 100, "valid dino_similarity": 0.72, "train loss": 0.77, "train time": 73.0},
        {"step": 200, "valid dino_similarity": 0.70, "train loss": 0.75, "train time": 74.0},
        {"step": 750, "test dino_similarity": 0.697, "drift": drift, "train loss": 0.73},
    ]
    train = {"accelerator_memory_max": 10**10, "train_time": 759.2, "file_size": 1000, "num_trainable_params": 10}
    train |= {"num_total_params": 100, "status": "success", "metrics": steps}
    info = {"sha": "abc", "created_at": "2026-01-01T00:00:00+00:00"}
    return {
        "run_info": {
            "created_at": "2026-06-09T09:44:03+00:00",
            "experiment_name": "lora/flux-default",
            "train_config": config,
            "peft_config": {"peft_type": "LORA"},
            "error_msg": "",
        },
        "train_info": train,
        "meta_info": {
            "model_info": info,
            "dataset_info": info,
            "package_info": {"peft-version": "0.19", "peft-commit-hash": "f00"},
            "system_info": {"system": "Linux", "machine": "x86_64", "accelerator": "NVIDIA L40S"},
        },
    }


def test_image_results_of_peft_come_in_with_their_own_metric(tmp_path: Path) -> None:
    for name, drift in (("a", 0.26), ("b", float("nan"))):
        (tmp_path / f"{name}.json").write_text(json.dumps(peft_image_result(drift)))
    first, second = read_results([tmp_path], "peft")
    assert (first.cell.task, first.kind, first.cell.method) == ("dreambooth-image-gen", "image-generation", "lora")
    assert (first.score.metric, first.score.value, first.score.n_test) == ("dino_similarity", 0.697, 4)
    assert first.score.low is None
    assert first.score.others == {"drift": 0.26}
    assert second.score.others == {}  # it diverged
    assert first.cell.n_train == 14  # 20 images, less those of validation and test
    assert first.cost.fit_seconds == 147.0
    assert [point.validation for point in first.curve] == [0.72, 0.70]


def test_a_result_of_an_unknown_comparison_is_refused_with_its_metrics(tmp_path: Path) -> None:
    value = peft_image_result(0.1)
    del value["run_info"]["train_config"]["dino_model_id"]
    value["train_info"]["metrics"] = [{"step": 1, "test wer": 0.1}]
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"a\.json is of an unknown comparison: its metrics are step, test wer"):
        read_results([tmp_path], "peft")


def test_every_part_that_a_peft_result_lacks_is_named(tmp_path: Path) -> None:
    """Leave out each part in turn: a record or an error of the harness, never another."""
    whole = peft_image_result(0.1)
    for part in ("run_info", "train_info", "meta_info"):
        for name in whole[part]:
            value = json.loads(json.dumps(whole))
            del value[part][name]
            (tmp_path / "a.json").write_text(json.dumps(value))
            try:
                read_results([tmp_path / "a.json"], "peft")
            except UsageError as error:
                assert "a.json" in str(error)  # noqa: PT017
                assert "KeyError" not in str(error)  # noqa: PT017
