"""`harness predict`: what it writes, and what it refuses before it predicts."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import load_model
from harness.backbones.locate import BackboneFiles
from harness.cli.predict import predict_command
from harness.measure.device import Device
from harness.support.errors import DataError, UsageError
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
    assert predict_command(model, data, text, out, "cpu", **more) == 0
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
        tmp_path / "out.xlsx": r"ends in \.csv or \.tsv",
        tmp_path / "mine.csv": "exists and was not written by this command",
        tmp_path / "linked.csv": "a file that this command reads",
        data: "a file that this command reads",
        tmp_path / "folder.csv": "is a folder",
        model / "out.csv": "in the model's folder",
    }
    for out, message in refused.items():
        with pytest.raises(UsageError, match=message):
            predict_command(model, data, "body", out, "cpu")
    for out in (data, tmp_path / "linked.csv"):  # not even when told
        with pytest.raises(UsageError, match="a file that this command reads"):
            predict_command(model, data, "body", out, "cpu", overwrite=True)
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
    from harness.cli import predict as module

    data, out = write(tmp_path / "new.csv", "body\nrefund\nparcel\n"), tmp_path / "out.csv"
    predict(model, data, out)
    before, write_row, written = out.read_text(), module._write_row, []

    def fails(*given: Any) -> None:
        written.append(given)
        if len(written) == 3:
            raise KeyboardInterrupt
        write_row(*given)

    monkeypatch.setattr(module, "_write_row", fails)
    with pytest.raises(KeyboardInterrupt):
        predict(model, data, out)
    assert out.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]
