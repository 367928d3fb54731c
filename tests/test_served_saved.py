"""Saved prompts of served models: the same answers in another process, endpoints that changed, interrupted files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness import load_model
from harness.api.predictions import predict_file
from harness.measure.device import Device
from harness.saved.layout import DESCRIPTION
from harness.support.errors import HarnessError, MissingResourceError, UsageError
from harness.tasks import Task
from tests.commands import run_cli
from tests.fault_server import serving
from tests.served_models import KEY, everything_in, served
from tests.toys import save_one


def save(text: str, task: Task, url: str, cpu: Device, folder: Path, **settings: Any) -> list[int]:
    """Save a prompt, and return the classes that its cell predicted."""
    record = save_one(text, task, served(url, **settings), cpu, folder)
    assert record.predictions is not None
    return [int(one) for one in record.predictions.predicted]  # type: ignore[union-attr]


def texts_of(task: Task) -> list[str]:
    rows = task.test_rows_to_predict
    return [rows.source.texts[at] for at in rows.index]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("zero-shot", {}),
        ("few-shot[k=4,choose=nearest]", {}),
        ("calibrated-few-shot[k=2]", {}),
        ("few-shot[k=2,calibration=batch]", {"echoes": False}),
        ("few-shot[k=2]", {"has_log_probabilities": False, "constraint": "json_schema"}),
    ],
)
def test_a_fresh_process_predicts_the_same(
    text: str, settings: dict[str, Any], toy: Task, cpu: Device, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    with serving(**settings) as (url, _):
        expected = [toy.label_names[at] for at in save(text, toy, url, cpu, folder)]
        with (tmp_path / "new.csv").open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([["text"], *([one] for one in texts_of(toy))])
        run_cli("predict", "--model", "model", "--data", "new.csv", "--out", "out.csv", cwd=tmp_path)
        assert load_model(folder).predict(texts_of(toy)) == expected
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as handle:
        assert [row["prediction"] for row in csv.DictReader(handle)] == expected
    assert not list(tmp_path.glob("*answers*"))


def test_an_endpoint_that_answers_otherwise_is_refused_before_anything_is_predicted(
    toy: Task, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    with serving() as (url, _):
        save("zero-shot", toy, url, cpu, folder)
    with pytest.raises(MissingResourceError, match="cannot be reached"):
        load_model(folder, endpoint=url)
    with serving(model="other") as (url, faults):
        with pytest.raises(UsageError, match="It serves: other"):
            load_model(folder, endpoint=url)
        assert not faults.bodies
    with serving(states="toy-2") as (url, _), pytest.raises(UsageError, match="stated model is toy-2, expected None"):
        load_model(folder, endpoint=url)
    with serving(has_log_probabilities=False) as (url, _), pytest.raises(UsageError, match="log-probabilities"):
        load_model(folder, endpoint=url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(key=KEY) as (url, _):
        with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
            load_model(folder, endpoint=url)
        monkeypatch.setenv("MINE", KEY)
        assert len(load_model(folder, endpoint=url, endpoint_key="MINE").predict(texts_of(toy))) == toy.n_test


def test_an_interrupted_file_goes_on(toy: Task, cpu: Device, tmp_path: Path) -> None:
    folder, data, out = tmp_path / "model", tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts_of(toy)))
    with serving(echoes=False, latency=0.002) as (url, faults):
        save("zero-shot", toy, url, cpu, folder, concurrency=1)
        n_before, reply = faults.n_answered, faults.fault_of
        faults.fault_of = lambda body: _break(faults, n_before, reply(body))  # type: ignore[method-assign]
        faults.stall_seconds = 0.0
        with pytest.raises(HarnessError, match="comes from the model 'broken'"):
            predict_file(folder, data, out)
        assert not out.exists()
        faults.states, n_once = None, faults.n_answered
        faults.fault_of = lambda _: None  # type: ignore[method-assign]
        found = predict_file(folder, data, out)
        texts = [json.dumps(one)[1:-1] for one in texts_of(toy)]
        asked = [n for body, n in faults.answered.items() if any(one in body for one in texts)]
        assert found.n_predicted == len(texts)
        assert faults.n_answered > n_once
        assert sum(asked) <= 2 * len(asked) + 2  # once for the cell, once to predict; the broken answers are lost
    assert not list(tmp_path.glob("*answers*"))


def _break(faults: Any, n_before: int, fault: str | None) -> str | None:
    """Make the server answer as another model after some answers."""
    if faults.n_answered - n_before > 15:
        faults.states = "broken"
    return fault


def test_models_that_ask_no_server_take_no_endpoint(toy: Task, cpu: Device, tmp_path: Path) -> None:
    save_one("tfidf", toy, None, cpu, tmp_path / "model")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="asks no served model"):
        load_model(tmp_path / "model", endpoint="http://127.0.0.1:9/v1")


def test_no_file_of_a_saved_prompt_holds_the_key(
    toy: Task, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", KEY)
    with serving(key=KEY, repeats_key=True, has_log_probabilities=False) as (url, _):
        save("few-shot[k=2]", toy, url, cpu, tmp_path / "model", key="MINE")
        assert len(load_model(tmp_path / "model").predict(texts_of(toy)[:3])) == 3
    assert '"MINE"' in (tmp_path / "model" / DESCRIPTION).read_text()
    assert KEY not in everything_in(tmp_path)
