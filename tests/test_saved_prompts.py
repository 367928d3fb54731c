"""Saved prompts: a saved in-context method of any kind gives the answers of its cell, also in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import load_model
from harness.api.predictions import predict_file
from harness.backbones.locate import BackboneFiles
from harness.data.spec import TaskSpec
from harness.measure.device import Device
from harness.saved.inputs import as_input
from harness.saved.layout import read_description
from harness.saved.write import write_model
from harness.support.errors import UsageError
from harness.tasks import Task, TextAnswers, kinds, prompt_by_roles, prompts_of
from tests.chats import TEMPLATES, save_chat_model
from tests.toy_kinds import TOYS, toy_task
from tests.toys import save_one

PROMPTS: dict[str, str] = {
    "text-pair": "first {first} text {second} label :",
    "regression": "text {text} label :",
    "similarity": "input {first} text {second} label :",
    "multi-label": "text {text} label :",
    "token-classification": "input {text} label :",
    "multiple-choice": "{choices} text {question} label :",
    "question-answering": "text {question} input {context} label :",
    "translation": "input {source} label :",
    "generation": "text {prompt} label :",
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Task]:
    folder = tmp_path_factory.mktemp("toys")
    (folder / "own").mkdir()
    made = {(name, False): toy_task(name, folder) for name in TOYS if name != "perplexity"}
    return made | {(name, True): toy_task(name, folder / "own", prompt=text) for name, text in PROMPTS.items()}


def inputs_of(task: Task) -> list[Any]:
    rows = task.test_rows_to_predict
    columns = [rows.source.fields[role] for role in list(task.kind.roles)[:-1]]
    each = [tuple(column[at] for column in columns) for at in rows.index]
    return [as_input(one if len(columns) > 1 else one[0], task.kind) for one in each]


def decoded(task: Task, answers: Any) -> Any:
    if task.kind.form in ("text", "spans"):
        answers = TextAnswers([str(text) for text in answers[:, 0]])
    found = task.kind.decode(task, answers).to_json()
    found.get("statistics", {}).pop("unscaled", None)
    return found


CASES = [
    case
    for name in PROMPTS
    for case in (
        (name, False, "few-shot[k=3,choose=nearest]"),
        (name, True, "zero-shot"),
        (name, True, "few-shot[k=3]"),
    )
    if case[2] != "zero-shot" or name not in ("regression", "similarity")  # random weights write no numbers
]


@pytest.mark.parametrize(("name", "prompted", "method"), CASES)
def test_a_saved_prompt_answers_as_its_cell_did(
    name: str,
    prompted: bool,
    method: str,
    toys: dict[tuple[str, bool], Task],
    tiny_backbones: dict[str, BackboneFiles],
    cpu: Device,
    tmp_path: Path,
) -> None:
    task = toys[name, prompted]
    files = tiny_backbones["sequence-to-sequence" if prompted else "causal"]
    record = save_one(method, task, files, cpu, tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu")
    assert record.predictions is not None
    expected = record.predictions.to_json()
    expected.get("statistics", {}).pop("unscaled", None)
    assert decoded(task, model._answers(inputs_of(task))) == expected


def test_another_process_predicts_the_same(
    toys: dict[tuple[str, bool], Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    asked, here = {}, {}
    for name in ("multi-label", "token-classification", "generation"):
        task, folder = toys[name, True], tmp_path / name
        save_one("few-shot[k=2]", task, tiny_backbones["causal"], cpu, folder)
        asked[str(folder)] = inputs_of(task)[:4]
        here[str(folder)] = load_model(folder, "cpu").predict(asked[str(folder)])
    code = (
        "import json, sys; from harness import load_model; "
        "print(json.dumps({folder: load_model(folder, 'cpu').predict([tuple(x) if isinstance(x, list) else x "
        "for x in inputs]) for folder, inputs in json.loads(sys.argv[1]).items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(json.dumps(here))


@pytest.mark.parametrize("method", ["full[prompt_format=auto]", "lora[prompt_format=auto]", "lora"])
def test_trained_text_models_are_saved_with_their_format(method: str, cpu: Device, tmp_path: Path) -> None:
    from harness.backbones.locate import locate_backbone

    files = locate_backbone(str(save_chat_model(tmp_path / "backbone", TEMPLATES["chatml"])))
    task = toy_task("translation", tmp_path, truncation_side="input", prompt="{source} in other words:", max_length=40)
    record = save_one(method, task, files, cpu, tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu")
    assert record.predictions is not None
    assert model.predict(inputs_of(task)) == list(record.predictions.texts or ())
    described = read_description(tmp_path / "model")
    assert (described.prompt, described.truncation_side) == ("{source} in other words:", "input")
    assert (tmp_path / "model" / "transformer" / "chat_template.jinja").is_file()


def test_predictions_of_texts_and_spans_are_written_to_files(
    toys: dict[tuple[str, bool], Task], tiny_backbones: dict[str, BackboneFiles], cpu: Device, tmp_path: Path
) -> None:
    for name, text in (("question-answering", "question,context"), ("generation", "prompt")):
        task, folder = toys[name, False], tmp_path / name
        save_one("few-shot[k=2]", task, tiny_backbones["causal"], cpu, folder)
        model, inputs = load_model(folder, "cpu"), inputs_of(task)[:3]
        columns = text.split(",")
        rows = [dict(zip(columns, one if len(columns) > 1 else (one,), strict=True)) for one in inputs]
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        frame = model.predict_frame(inputs)
        assert frame["prediction"].tolist() == model.predict(inputs)
        for ending in (".csv", ".jsonl", ".parquet"):
            done = predict_file(folder, data, tmp_path / f"{name}-out{ending}", text, device="cpu")
            assert done.columns == (("prediction", "probability") if "," in text else ("prediction",))
            read = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True)}.get(
                ending, pd.read_parquet
            )(done.out)
            assert read["prediction"].fillna("").tolist() == model.predict(inputs)
            assert "probability" not in read or read["probability"].isna().all()
        with pytest.raises(UsageError, match="have no table of probabilities"):
            model.probabilities(inputs)


def test_a_likelihood_is_no_model_to_save(cpu: Device, tmp_path: Path) -> None:
    from harness.testing.laboratory import lab

    task = toy_task("perplexity", tmp_path)
    nothing: Any = None
    with pytest.raises(UsageError, match="likelihood of texts"):
        write_model(tmp_path / "model", nothing, nothing, nothing, task, lab().bench(task, None))


def test_columns_of_prompts_are_saved_by_their_roles() -> None:
    data = {"kind": "similarity", "data": {"files": {"train": "x.csv"}}}
    spec = TaskSpec.model_validate(
        {"name": "pairs", **data, "columns": {"first": "second", "second": "other", "label": "y"}}
    )
    template = prompt_by_roles(kinds.get("similarity"), spec, "{{a}} {other} {first} {second}")
    assert template == "{{a}} {second} {first} {first}"  # a column's name comes before a role
    assert prompts_of(template, ["x"], {"first": ["1"], "second": ["2"]}) == ["{a} 2 1 1"]
