"""`harness predict`: what it writes, and what it refuses before it predicts."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from harness import load_model
from harness.api.predictions import predict_file
from harness.backbones.locate import BackboneFiles
from harness.cli.predict import predict_command
from harness.measure.device import Device
from harness.saved.layout import read_description
from harness.saved.predictions import class_columns, prediction_columns, tabulate_predictions
from harness.support.errors import DataError, HarnessError, UsageError
from harness.tasks.base import Task
from tests.toys import save_one


@pytest.fixture(scope="module")
def model(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_one("tfidf", toy, tiny, cpu, folder)
    return folder


def write(path: Path, rows: list[dict[str, Any]] | str) -> Path:
    text = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


def predict(model: Path, data: Path, out: Path, text: str = "body", **more: Any) -> list[list[str]]:
    assert predict_command(model, data, out, text=text, device="cpu", **more) == 0
    assert not list(out.parent.glob("*.part"))
    return read(out)


def test_rows_without_a_text_have_no_prediction(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["refund please", "half \ud83d", "parcel", "  ", None, 5]
    data = write(tmp_path / "new.jsonl", [{"body": text, "id": at} for at, text in enumerate(texts)])
    header, *rows = predict(model, data, tmp_path / "out.csv")
    assert header == ["body", "id", "prediction", "probability"]
    right = load_model(model, "cpu").predict(["refund please", "parcel"])
    assert [row[2] for row in rows] == [right[0], "", right[1], "", "", ""]
    assert [bool(row[3]) for row in rows] == [bool(row[2]) for row in rows]
    assert [row[0] for row in rows] == ["refund please", "half \\ud83d", "parcel", "  ", "", "5"]
    said = capsys.readouterr().out
    assert "2 predictions" in said
    assert "4 rows have no prediction: 1 not valid Unicode (it holds half a surrogate pair) (line 2)" in said
    assert "1 blank (line 4), 1 missing (line 5), 1 of type int, not text (line 6)" in said


def test_nothing_is_written_where_no_row_has_a_text(model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "new.csv", "body,id\n ,1\n,2\n")
    with pytest.raises(DataError, match=r"holds no text to predict: 2 blank \(lines 2, 3\)"):
        predict(model, data, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_half_a_surrogate_in_another_column_is_spelt_out(model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "new.jsonl", [{"body": "a refund", "who": "a"}, {"body": "a parcel", "who": "b\ud83d"}])
    rows = predict(model, data, tmp_path / "out.csv")
    assert [row[1] for row in rows] == ["who", "a", "b\\ud83d"]
    assert all(row[2] for row in rows)


def test_a_doubled_column_that_is_not_needed_is_kept(model: Path, tmp_path: Path) -> None:
    rows = predict(model, write(tmp_path / "new.csv", "body,note,note\nrefund,a,b\n"), tmp_path / "out.csv")
    assert rows[0] == ["body", "note", "note.1", "prediction", "probability"]
    assert rows[1][:3] == ["refund", "a", "b"]
    with pytest.raises(DataError, match="2 columns 'body'"):
        predict(model, write(tmp_path / "two.csv", "body,body\na,b\n"), tmp_path / "o.csv")


def test_no_field_is_a_formula_and_numbers_stay(model: Path, tmp_path: Path) -> None:
    fields = ["=1+1", "+x", "-5", "-1.5e3", "@cmd", "\tx", 'say "a, b"', "1\n2", "\rx", "-", "+49 30"]
    data = write(tmp_path / "new.jsonl", [{"body": "a refund", "x": field, "n": -2} for field in fields])
    for ending in (".csv", ".tsv"):
        out = tmp_path / f"out{ending}"
        predict(model, data, out)
        with out.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t" if ending == ".tsv" else ","))
        guarded = ["'=1+1", "'+x", "-5", "-1.5e3", "'@cmd", "'\tx", 'say "a, b"', "1\n2", "'\rx", "'-", "'+49 30"]
        assert [row["x"] for row in rows] == guarded
        assert {row["n"] for row in rows} == {"-2"}


def test_nested_values_are_json(model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "new.jsonl", [{"body": "a refund", "tags": ["a", "é"], "more": {"b": None}, "ok": True}])
    assert predict(model, data, tmp_path / "out.csv")[1][1:4] == ['["a", "é"]', '{"b": null}', "True"]


def test_the_output_is_checked_before_anything_is_predicted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.saved.load_model", lambda *_: pytest.fail("the model was loaded"))
    data = write(tmp_path / "new.csv", "body\nrefund\n")
    (tmp_path / "mine.csv").write_text("mine\n")
    os.link(data, tmp_path / "linked.csv")
    (tmp_path / "folder.csv").mkdir()
    refused = {
        tmp_path / "no" / "such" / "out.csv": "there is no folder",
        tmp_path / "out.xlsx": r"ends in \.csv, \.tsv, \.jsonl or \.parquet",
        tmp_path / "mine.csv": "exists and was not written by this command",
        tmp_path / "linked.csv": "a file that this command reads",
        data: "a file that this command reads",
        tmp_path / "folder.csv": "is a folder",
        model / "out.csv": "in the model's folder",
    }
    for out, message in refused.items():
        with pytest.raises(UsageError, match=message):
            predict_command(model, data, out, text="body", device="cpu")
    for out in (data, tmp_path / "linked.csv"):  # not even when told
        with pytest.raises(UsageError, match="a file that this command reads"):
            predict_command(model, data, out, text="body", device="cpu", overwrite=True)
    assert data.read_text() == "body\nrefund\n"
    assert (tmp_path / "mine.csv").read_text() == "mine\n"


def test_its_own_output_is_replaced_and_others_when_told(model: Path, tmp_path: Path) -> None:
    data, out = write(tmp_path / "new.csv", "body\nrefund\n"), tmp_path / "out.csv"
    first = predict(model, data, out)
    assert predict(model, data, out) == first
    out.write_text("mine\n")
    with pytest.raises(UsageError, match="--overwrite"):
        predict(model, data, out)
    assert predict(model, data, out, overwrite=True) == first


def test_writing_that_fails_leaves_what_was_there(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.api import predictions as module

    data, out = write(tmp_path / "new.csv", "body\nrefund\nparcel\n"), tmp_path / "out.csv"
    predict(model, data, out)
    before, write_row, written = out.read_text(), module.write_row, []

    def fails(*given: Any) -> None:
        written.append(given)
        if len(written) == 3:
            raise KeyboardInterrupt
        write_row(*given)

    monkeypatch.setattr(module, "write_row", fails)
    with pytest.raises(KeyboardInterrupt):
        predict(model, data, out)
    assert out.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


# ---- All probabilities, and the most probable classes


def test_probabilities_are_the_softmax_of_the_logits_of_the_model(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    save_one("full[precision=fp32]", toy, tiny, cpu, tmp_path / "model")
    loaded = load_model(tmp_path / "model", "cpu")
    texts = list(toy.test.texts[:6])
    found = loaded.predict_frame([*texts, " "], probabilities=True, top=3)
    # transformers reads the encoder that was saved; pooling and head are written out here.
    folder = tmp_path / "model" / "transformer"
    encoder, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    head = load_file(tmp_path / "model" / "adapted.safetensors")
    weight, bias = (next(v for name, v in head.items() if name.endswith(end)) for end in ("weight", "bias"))
    logits = []
    with torch.no_grad():
        for text in texts:
            states = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy().astype(np.float64)
            logits.append(states.mean(axis=0) @ weight.T.astype(np.float64) + bias)
    expected = scipy.special.softmax(np.array(logits), axis=1)
    columns = [f"probability_{label}" for label in toy.label_names]
    assert np.abs(found[columns].to_numpy()[:6] - expected).max() < 1e-5
    assert np.abs(found[columns].to_numpy()[:6].sum(axis=1) - 1).max() < 1e-6
    assert found.loc[6].isna().all()
    order = np.argsort(-expected, axis=1)
    for place in range(3):
        assert list(found[f"top_{place + 1}"][:6]) == [toy.label_names[k] for k in order[:, place]]
    assert list(found["prediction"][:6]) == loaded.predict(texts)


def test_ties_rank_as_the_prediction_does() -> None:
    labels = ["b", "a", "c", "d"]
    found = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4], [0.0, 0.5, 0.5, 0.0]], dtype=np.float32)
    columns = tabulate_predictions(found, labels, probabilities=True, top=4)
    assert columns["top_1"].tolist() == columns["prediction"].tolist() == ["b", "a", "a"]
    assert (columns["top_1_probability"] == columns["probability"]).all()
    ranked = np.array([columns[f"top_{place}"] for place in (1, 2, 3, 4)]).T.tolist()
    assert ranked == [["b", "a", "c", "d"], ["a", "d", "b", "c"], ["a", "c", "b", "d"]]


def test_columns_of_classes_have_names_of_their_own() -> None:
    labels = ["=1+1", "a\nb", "a b", "1", "prediction", "\u202eabc"]
    names = class_columns(labels)
    assert list(names) == labels
    assert list(names.values()) == [
        "probability_=1+1", "probability_a b", "probability_a b.1", "probability_1", "probability_prediction",
        "probability_abc",
    ]  # fmt: skip
    every = prediction_columns(labels, probabilities=True, top=6)
    assert len(set(every)) == len(every) == 2 + 12 + 6


def test_every_format_holds_the_same_predictions(model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "new.jsonl", [{"body": text, "n": 7} for text in ("refund please", " ", "a parcel")])
    expected = load_model(model, "cpu").predict_frame(
        pd.DataFrame({"body": ["refund please", " ", "a parcel"]}), "body", probabilities=True, top=2
    )
    readers: dict[str, Any] = {
        "csv": pd.read_csv,
        "tsv": lambda path: pd.read_csv(path, sep="\t"),
        "jsonl": lambda path: pd.read_json(path, lines=True),
        "parquet": pd.read_parquet,
    }
    for ending, read_frame in readers.items():
        out = tmp_path / f"out.{ending}"
        for _ in range(2):  # its own output is replaced
            assert predict_file(model, data, out, "body", device="cpu", probabilities=True, top=2).n_predicted == 2
        found = read_frame(out)
        assert list(found.columns) == ["body", "n", *expected.columns]
        assert list(found["n"]) == [7, 7, 7]
        for name in expected.columns:
            if pd.api.types.is_float_dtype(expected[name].dtype):
                assert np.allclose(found[name].astype(float), expected[name], atol=1e-6, equal_nan=True)
            else:
                assert list(found[name].dropna()) == list(expected[name].dropna())
        shares = found[[name for name in found.columns if name.startswith("probability_")]].dropna()
        assert np.allclose(shares.sum(axis=1), 1.0, atol=3e-6)
        predict_file(model, data, out, "body", device="cpu")  # so is one with other columns of predictions
        assert list(read_frame(out).columns) == ["body", "n", "prediction", "probability"]
        predict_file(model, write(tmp_path / "other.csv", "text,n\na parcel,7\n"), tmp_path / f"else.{ending}", "text")
        (tmp_path / f"else.{ending}").replace(out)
        with pytest.raises(UsageError, match="was not written by this command"):
            predict_file(model, data, out, "body", device="cpu")


def test_top_and_clashes_are_refused_before_anything_is_predicted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.saved.load_model", lambda *_: pytest.fail("the model was loaded"))
    data = write(tmp_path / "new.csv", "body,probability_refund,top_2\nrefund,1,2\n")
    for top in (0, 4, -1):
        with pytest.raises(UsageError, match=rf"--top {top} was given; expected a number from 1 to 3,"):
            predict_file(model, data, tmp_path / "out.csv", "body", top=top)
    label = next(iter(class_columns(read_description(model).labels).values()))
    data.write_text(data.read_text().replace("probability_refund", label))
    for how, column in (({"probabilities": True}, label), ({"top": 2}, "top_2")):
        with pytest.raises(DataError, match=f"has a column '{column}' already"):
            predict_file(model, data, tmp_path / "out.csv", "body", **how)


def test_a_frame_keeps_its_index_and_python_spells_its_arguments(model: Path) -> None:
    loaded = load_model(model, "cpu")
    frame = pd.DataFrame({"text": ["refund", None, "parcel"]}, index=["x", "y", "x"])
    found = loaded.predict_frame(frame)
    assert list(found.columns) == ["prediction", "probability"]
    assert list(found.index) == ["x", "y", "x"]
    assert list(found["prediction"].isna()) == [False, True, False]
    assert len(loaded.predict_frame([])) == 0
    with pytest.raises(UsageError, match=r"^top=9 was given; expected a number from 1 to 3"):
        loaded.predict_frame(["a"], top=9)
    with pytest.raises(UsageError, match="top"):
        loaded.predict_frame(["a"], top=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["knn", "prototypes", "majority", "random-forest-probe"])
def test_shares_and_similarities_are_said_to_be_such(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_one(name, toy, tiny, cpu, tmp_path / "model")
    data = write(tmp_path / "new.csv", "body,id\nrefund,1\n")
    predict(tmp_path / "model", data, tmp_path / "out.csv", probabilities=True)
    said = capsys.readouterr().out
    assert "1 prediction:" in said
    assert f"the probabilities of {name}" in said


def test_numbers_that_are_no_probabilities_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(model, "cpu")
    for answers in ([[2.0, 1.0, -2.0]], [[0.5, 0.2, 0.2]]):
        given = np.array(answers, dtype=np.float32)
        monkeypatch.setattr(type(loaded._members[0].fitted), "predict", lambda *_, given=given: given)
        with pytest.raises(HarnessError, match="no probabilities"):
            loaded.predict(["a text"])
