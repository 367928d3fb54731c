"""Saved models of numbers, label sets and tags: answers in Python, and columns that `harness predict` writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness import load_model
from harness.api.own_data import own_task
from harness.api.predictions import _joined, predict_file
from harness.backbones.locate import BackboneFiles
from harness.cli.predict import predict_command
from harness.measure.device import Device
from harness.saved.predictions import answers_in_words
from harness.support.errors import UsageError
from harness.tasks import kinds
from tests.toys import save_one

WORDS = ["alpha", "beta", "gamma", "delta", "omega", "sigma"]


def rows_of(kind: str, n: int = 40) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    found = []
    for at in range(n):
        words = [*draw.choice(WORDS, size=4).tolist(), f"w{at}"]
        text = " ".join(words)
        found.append(
            {
                "regression": {"text": text, "label": 2.5e-7 * words.count("alpha")},
                "similarity": {"first": text, "second": " ".join(words[:3]), "score": words.count("alpha") + 0.5},
                "multi-label": {"text": text, "labels": sorted({*words} & {"alpha", "beta"})},
                "question-answering": {"question": "which", "context": text, "answers": words[at % 4]},
                "multiple-choice": {
                    "question": text,
                    "choices": [words[0], "x", "y"][: 2 + at % 2],
                    "answerKey": words[0],
                },
                "token-classification": {
                    "tokens": words,
                    "tags": ["B-GREEK" if word == "alpha" else "O" for word in words],
                },
            }[kind]
        )
    return found


COLUMNS = {
    "similarity": ("first,second", "score"),
    "question-answering": ("question,context", "answers"),
    "multiple-choice": ("question,choices", "answerKey"),
}


def saved(kind: str, method: str, tiny: BackboneFiles, cpu: Device, folder: Path) -> Path:
    text, label = COLUMNS.get(kind, (None, None))
    spec = own_task(pd.DataFrame(rows_of(kind)), text, label, kind=kind)
    save_one(method, kinds.get(kind).prepare(spec, None), tiny, cpu, folder)
    return folder


def written(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_dict("records")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def file_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["regression", "similarity"])
def test_numbers(kind: str, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    folder = saved(kind, "linear-probe", tiny, cpu, tmp_path / "model")
    rows = [{**row, "id": at} for at, row in enumerate(rows_of(kind, 5))]
    blank = dict.fromkeys(rows[0], "")
    data = file_of(tmp_path / "new.jsonl", [*rows, blank])
    text = COLUMNS.get(kind, (None,))[0]
    model = load_model(folder, "cpu")
    inputs: list[Any] = [row["text"] if text is None else (row["first"], row["second"]) for row in rows]
    right = model.predict(inputs)
    assert all(isinstance(value, float) for value in right)
    for ending in (".csv", ".jsonl", ".parquet"):
        done = predict_file(folder, data, tmp_path / f"out{ending}", text, device="cpu")
        assert (done.n_predicted, done.n_rows, done.columns) == (5, 6, ("prediction",))
        found = written(done.out)
        assert [float(row["prediction"]) for row in found[:5]] == right  # 2.5e-7 is not rounded to 0
        assert found[5]["prediction"] in ("", None) or np.isnan(found[5]["prediction"])
        predict_file(folder, data, done.out, text, device="cpu")  # its own output is replaced
    frame = model.predict_frame(pd.DataFrame(rows), text)
    assert frame["prediction"].tolist() == right
    with pytest.raises(UsageError, match="numbers, which have no table of probabilities"):
        model.probabilities(inputs)
    for options, rule in (({"probabilities": True}, "a number has none"), ({"top": 2}, "only a model of classes")):
        with pytest.raises(UsageError, match=rule):
            predict_file(folder, data, tmp_path / "no.csv", text, device="cpu", **options)  # type: ignore[arg-type]


def test_label_sets(tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    folder = saved("multi-label", "tfidf", tiny, cpu, tmp_path / "model")
    data = file_of(tmp_path / "new.jsonl", [{"text": row["text"]} for row in rows_of("multi-label", 12)])
    model = load_model(folder, "cpu")
    texts = [row["text"] for row in rows_of("multi-label", 12)]
    scores = model.probabilities(texts)
    right = [[name for name, score in zip(model.labels, row, strict=True) if score >= 0.5] for row in scores]
    assert model.predict(texts) == right
    assert len({tuple(labels) for labels in right}) > 1
    for ending in (".csv", ".jsonl", ".parquet"):
        done = predict_file(folder, data, tmp_path / f"out{ending}", device="cpu", probabilities=True)
        assert done.columns == ("prediction", "score_alpha", "score_beta")
        found = written(done.out)
        expected = ["|".join(labels) for labels in right] if ending == ".csv" else right
        assert [row["prediction"] if ending == ".csv" else list(row["prediction"]) for row in found] == expected
        np.testing.assert_allclose([float(row["score_beta"]) for row in found], scores[:, 1], atol=1e-6)


def test_tags(tiny: BackboneFiles, cpu: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("token-classification", "linear-probe", tiny, cpu, tmp_path / "model")
    model = load_model(folder, "cpu")
    sentences = [row["tokens"][: at + 1] for at, row in enumerate(rows_of("token-classification", 5))]
    right = model.predict(sentences)
    assert list(map(len, right)) == list(map(len, sentences))
    each = model.probabilities(sentences)
    assert [model.labels[at] for at in each.argmax(axis=1)] == [tag for tags in right for tag in tags]
    listed = file_of(tmp_path / "listed.jsonl", [{"tokens": words} for words in [*sentences, [], ["a", " "], None]])
    joined = file_of(tmp_path / "joined.jsonl", [{"said": "  ".join(words)} for words in sentences])
    for data, text, n_split in ((listed, None, 0), (joined, "said", 5)):
        for ending in (".csv", ".jsonl"):
            done = predict_file(folder, data, tmp_path / f"out-{data.stem}{ending}", text, device="cpu")
            assert (done.n_predicted, done.n_split) == (5, n_split)
            found = [row["prediction"] for row in written(done.out)]
            assert found[:5] == ([" ".join(tags) for tags in right] if ending == ".csv" else right)
            assert not any(found[5:])
            of = [row["words"] for row in written(done.out)][:5]
            assert of == ([" ".join(words) for words in sentences] if ending == ".csv" else sentences)
    reasons = {one.reason for one in predict_file(folder, listed, tmp_path / "l.csv", device="cpu").unpredicted}
    assert reasons == {"blank", "missing", "with a word that is blank"}
    predict_command(folder, joined, tmp_path / "j.csv", text="said", device="cpu")
    assert "5 texts split into words and punctuation marks: see the column 'words'." in capsys.readouterr().out
    frame = model.predict_frame(["Alpha, (beta)!"])  # as a text with marked spans is split in training
    assert frame["words"][0] == ["Alpha", ",", "(", "beta", ")", "!"]
    assert len(frame["prediction"][0]) == 6


@pytest.mark.parametrize("kind", ["question-answering", "multiple-choice"])
def test_answers_out_of_the_input(kind: str, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    folder = saved(kind, "full", tiny, cpu, tmp_path / "model")
    model = load_model(folder, "cpu")
    rows = rows_of(kind, 6)
    first, second = COLUMNS[kind][0].split(",")
    inputs = [(row[first], row[second]) for row in rows]
    right = model.predict(inputs)
    assert all(answer in row[second] for answer, row in zip(right, rows, strict=True))
    frame = model.predict_frame([*inputs, (rows[0][first], None)])
    assert frame["prediction"][:6].tolist() == right
    assert frame["probability"][:6].between(0, 1).all()
    assert frame["prediction"].isna().tolist() == [False] * 6 + [True]
    done = predict_file(folder, file_of(tmp_path / "new.jsonl", rows), tmp_path / "out.csv", COLUMNS[kind][0])
    assert [row["prediction"] for row in written(done.out)] == right
    if kind == "multiple-choice":
        scores = model.probabilities(inputs)
        assert scores.shape == (6, 3)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert (scores[::2, 2] == 0).all()  # rows with two choices
        as_on_the_hub = [(question, {"text": list(choices), "label": [*"ABC"]}) for question, choices in inputs]
        assert model.predict(as_on_the_hub) == right
        with pytest.raises(UsageError, match="without two choices"):
            model.predict([("which", ["one"])])


def test_labels_that_hold_the_separator_are_written_as_json() -> None:
    scores = np.array([[0.9, 0.5], [0.1, 0.49]], dtype=np.float32)
    assert answers_in_words(scores, ["a|b", "c"], "labels") == [["a|b", "c"], []]
    columns = {"prediction": [["a|b", "c"], [], None]}
    assert _joined(columns, "labels", ["a|b", "c"]) == columns
    assert _joined(columns, "labels", ["a", "c"])["prediction"] == ["a|b|c", "", None]
