"""Runs on served models: records, resuming, limits, and keys that appear nowhere."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.data.table import table_task
from harness.measure.device import Device
from harness.methods._in_context import CONTENT_FREE
from harness.methods._served_prompt import NearestByWords, _lettered
from harness.methods.configure import parse_methods
from harness.planning import load_suite
from harness.store.store import Store
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Task, kinds
from tests.commands import command, run_cli
from tests.fault_server import likelihood, serving
from tests.served_models import KEY, arguments, everything_in, record_of, served
from tests.toys import run_one, write_toy_table


def probabilities(prompt: str, words: tuple[str, ...]) -> np.ndarray:
    scores = np.exp([likelihood(prompt, word) for word in words])
    return np.asarray(scores / scores.sum())


def test_zero_shot_predicts_the_likeliest_words(toy: Task, cpu: Device) -> None:
    with serving() as (url, faults):
        record = record_of("zero-shot", toy, url, cpu)
    assert record.status == "ok", record.error
    assert record.predictions is not None
    words, ask = toy.label_words, toy.kind.wordings(toy.label_words)[0].template
    texts = [toy.test.texts[row] for row in range(toy.n_test)]
    expected = [int(np.argmax(probabilities(ask.replace("{text}", text), words))) for text in texts]
    assert list(record.predictions.predicted) == expected
    facts = record.facts.served
    assert facts is not None
    assert facts.n_requests == toy.n_test * len(words)
    assert facts.scoring == "log-probabilities"
    assert not facts.is_reproducible
    assert record.cell.backbone == "served:toy"
    assert record.cost.n_parameters is None
    assert record.cost.predict_seconds is not None
    assert all(body["temperature"] == 0 for body in faults.bodies)


def test_calibration_divides_by_content_free_answers(toy: Task, cpu: Device) -> None:
    with serving() as (url, faults):
        record = record_of("calibrated-few-shot[k=2,n_template_rows=0]", toy, url, cpu)
        prompts = {body["prompt"] for body in faults.bodies if "prompt" in body}
    assert record.status == "ok", record.error
    assert record.predictions is not None
    words = toy.label_words
    before, after = toy.kind.wordings(words)[0].template.split("{text}")
    first = f"{before}{toy.test.texts[0]}{after}"
    asked = next(p for p in prompts if first in p)
    shown = asked[: asked.index(first)]
    bias = np.mean([probabilities(f"{shown}{before}{text}{after}", words) for text in CONTENT_FREE], axis=0)
    expected = [
        int(np.argmax(probabilities(f"{shown}{before}{toy.test.texts[row]}{after}", words) / bias))
        for row in range(toy.n_test)
    ]
    assert list(record.predictions.predicted) == expected


@pytest.mark.parametrize("text", ["", ",choose=nearest", ",choose=random"])
def test_demonstrations_are_turns_of_a_chat(text: str, toy: Task, cpu: Device) -> None:
    with serving(has_log_probabilities=False, constraint="json_schema") as (url, faults):
        record = record_of(f"few-shot[k=4,n_template_rows=0{text}]", toy, url, cpu, n_train=12)
        body = faults.bodies[-1]
    assert record.status == "ok", record.error
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]
    assert body["messages"][0]["content"].startswith(f"Answer with one of: {', '.join(toy.label_words)}.")
    assert {m["content"] for m in body["messages"] if m["role"] == "assistant"} <= set(toy.label_words)
    assert ("nearest_by" in record.facts.remarks) == ("nearest" in text)


def test_labels_inside_other_words_are_not_named(cpu: Device, tmp_path: Path) -> None:
    path = tmp_path / "toy.csv"
    rows = [("a fine day", "able") if row % 2 else ("a grey day", "no") for row in range(40)]
    path.write_text("text,label\n" + "".join(f"{text} {row},{label}\n" for row, (text, label) in enumerate(rows)))
    task = kinds.get("classification").prepare(table_task(path, "text", "label", name="toy"), None)
    with serving(has_log_probabilities=False) as (url, faults):
        record = record_of("zero-shot[template='A table of notes: {text}. It is']", task, url, cpu)
    assert record.status == "ok", record.error
    assert faults.bodies[-1]["messages"][0]["content"].startswith("Answer with one of: ")


def test_wordings_are_compared_and_the_record_counts_the_answers_to_test_rows(toy: Task, cpu: Device) -> None:
    with serving(has_log_probabilities=False, favourite="perhaps") as (url, _):
        record = record_of("few-shot[k=2]", toy, url, cpu, n_train=16)
    assert record.status == "ok", record.error
    facts, remarks = record.facts.served, record.facts.remarks
    assert facts is not None
    assert facts.n_requests == toy.n_test + 14 * len(toy.kind.wordings(toy.label_words))
    assert facts.n_unreadable == toy.n_test
    assert remarks["unreadable_answers"] == f"{toy.n_test} of {toy.n_test}"
    assert remarks["prompt"].startswith(toy.kind.wordings(toy.label_words)[0].template.split("\n")[0])
    assert remarks["prompt"].endswith("(chat, demonstrations as turns)")


@pytest.mark.parametrize(
    ("text", "n_before"),
    [
        ("few-shot[k=2]", None),
        ("few-shot[k=2,n_template_rows=0,tune=2]", None),
        ("calibrated-few-shot[k=2,n_template_rows=0]", 3),
        ("few-shot[k=2,n_template_rows=0]", 0),
    ],
)
def test_requests_before_the_first_prediction_are_counted_apart(
    text: str, n_before: int | None, toy: Task, cpu: Device, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("currency: EUR\nmodels:\n  toy: {prompt_per_million: 1000, completion_per_million: 0}\n")
    with serving(echoes=False) as (url, _):
        record = record_of(text, toy, url, cpu, n_train=48, prices=prices)
    assert record.status == "ok", record.error
    facts = record.facts.served
    assert facts is not None
    assert facts.n_requests is not None
    assert facts.fit_requests == facts.n_requests - toy.n_test
    assert n_before in (None, facts.fit_requests)
    assert (facts.fit_requests > 0) == (n_before != 0)
    assert facts.in_predictions is not None
    assert facts.in_predictions.prompt_tokens is not None
    assert facts.in_predictions.price == pytest.approx(facts.in_predictions.prompt_tokens / 1000)
    assert facts.fit_price == pytest.approx((facts.fit_prompt_tokens or 0) / 1000)


def test_unreadable_answers_of_trials_do_not_count(toy: Task, cpu: Device) -> None:
    with serving(has_log_probabilities=False, favourite="perhaps") as (url, _):
        record = record_of("few-shot[k=2,n_template_rows=0,tune=3]", toy, url, cpu, n_train=48)
    assert record.status == "ok", record.error
    assert record.facts.served is not None
    assert record.facts.served.n_unreadable == toy.n_test
    assert record.facts.remarks["unreadable_answers"] == f"{toy.n_test} of {toy.n_test}"


def test_answers_that_name_no_class_are_counted_and_given_no_class(toy: Task, cpu: Device) -> None:
    with serving(has_log_probabilities=False, favourite="perhaps") as (url, _):
        record = record_of("zero-shot", toy, url, cpu)
    assert record.status == "ok", record.error
    assert record.facts.served is not None
    assert record.facts.served.n_unreadable == toy.n_test
    assert record.facts.remarks["unreadable_answers"] == f"{toy.n_test} of {toy.n_test}"


def test_long_prompts_lose_demonstrations_first(toy: Task, cpu: Device) -> None:
    longest = max(len(text.split()) for text in toy.test.texts)
    with serving(context=3 * longest + 20) as (url, _):
        record = record_of("few-shot[k=8]", toy, url, cpu, n_train=16)
    assert record.status == "ok", record.error
    assert "of 8 at most" in record.facts.remarks["dropped_demonstrations"]
    assert record.facts.test_texts is None or not record.facts.test_texts.n_cut


def test_methods_that_cannot_ask_are_refused_when_planned(toy: Task, cpu: Device) -> None:
    with serving(has_log_probabilities=False) as (url, _):
        model = served(url)
    for text, said in (
        ("lora", "this one is served"),
        ("linear-probe", "this one is served"),
        ("calibrated-few-shot", "divides probabilities"),
        ("zero-shot[normalise=true]", "normalise=true needs"),
        ("zero-shot[weights=float32]", "weights=float32"),
    ):
        (method,) = parse_methods([text])
        assert said in str(method.why_not(toy, model, "cpu")), text
    assert parse_methods(["few-shot"])[0].why_not(toy, model, "cpu") is None


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_kind_that_prompts_serve_is_served(api: str, toy_kinds: dict[str, Task], cpu: Device) -> None:
    for echoes in (True, False) if api == "completions" else (False,):
        with serving(echoes=echoes) as (url, _):
            model = served(url, api=api)
            for name, task in toy_kinds.items():
                (method,) = parse_methods(["few-shot[k=2]"])
                if method.why_not(task, model, "cpu") is not None:
                    continue
                record = run_one(task, model, method, cpu, size="6")
                assert record.status == "ok", (name, record.error)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_demonstrations_answer_with_letters_as_rows_do(api: str, toy_kinds: dict[str, Task], cpu: Device) -> None:
    task = toy_kinds["multiple-choice"]
    fields, labels = task.train.fields, task.train_labels
    right = {tuple(fields["choices"][row]): fields["choices"][row][int(labels[row])] for row in range(len(labels))}
    with serving(echoes=False) as (url, faults):
        model = served(url, api=api, scoring="log-probabilities")
        n_before = len(faults.bodies)
        record = run_one(task, model, parse_methods(["few-shot[k=2,n_template_rows=0]"])[0], cpu, size="6")
    assert record.status == "ok", record.error
    for body in faults.bodies[n_before:]:
        text = body.get("prompt") or "\n".join(message["content"] for message in body["messages"])
        *shown, last = text.split("Answer with the letter of the right choice:")
        assert len(shown) == 3
        assert not last.strip()
        for asked, answered in itertools.pairwise(shown):
            listed = dict(re.findall(r"^([A-Z])\. (.+)$", asked, re.MULTILINE))
            letter = answered.strip()[0]
            assert listed[letter] == right[tuple(listed.values())]


def test_more_choices_than_letters_are_refused_before_anything_is_sent() -> None:
    assert _lettered("Which?", list("abc")).splitlines()[1:4] == ["A. a", "B. b", "C. c"]
    with pytest.raises(UnsupportedError, match="27 choices; at most 26"):
        _lettered("Which?", ["x"] * 27)


def test_nearest_rows_share_the_most_words() -> None:
    nearest = NearestByWords(["a red apple", "the blue sea", "a green apple tree", ""], 2)
    assert nearest.positions(["an apple tree", "deep blue sea"]).tolist()[0] == [0, 2]
    assert nearest.positions(["deep blue sea"]).tolist()[0][-1] == 1
    assert NearestByWords(["", "?"], 1).positions(["x"]).tolist() == [[0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_table(tmp_path / "toy.csv", n_rows=90)
    return tmp_path


def test_a_run_resumes_from_stored_answers(folder: Path) -> None:
    with serving(echoes=False, fails=0.1) as (url, faults):
        run_cli(*arguments(url, methods="zero-shot,majority"), cwd=folder)
        n_answered = faults.n_answered
        assert (folder / "results" / "harness.answers.sqlite").exists()
        (folder / "results" / "harness.sqlite").unlink()
        run_cli(*arguments(url), cwd=folder)
        assert faults.n_answered <= n_answered + 12
    with Store.open(folder / "results" / "harness.sqlite", read_only=True) as store:
        (record,) = store.records()
    assert record.facts.served is not None
    assert record.facts.served.n_reused == record.facts.served.n_requests


def test_a_reached_limit_fails_the_cell_and_says_how_to_go_on(folder: Path) -> None:
    with serving(echoes=False) as (url, faults):
        said = run_cli(*arguments(url, "--max-tokens", "400", methods="zero-shot,few-shot"), cwd=folder, code=1)
        assert "limit of 400 tokens is reached" in said
        n_answered = faults.n_answered
        said = run_cli(*arguments(url, "--max-tokens", "1000000", "--retry-failed"), cwd=folder)
        assert faults.n_answered > n_answered
        assert "failed" not in said


def test_bad_endpoints_end_with_one_clear_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(model="other", key=KEY) as (url, _):
        assert "OPENAI_API_KEY is not set" in run_cli(*arguments(url), cwd=folder, code=2)
        assert "It serves: other" in run_cli(*arguments(url), cwd=folder, code=2, OPENAI_API_KEY=KEY)
        assert KEY not in run_cli(*arguments(url, "--endpoint-key", KEY), cwd=folder, code=2)
    assert "cannot be reached" in run_cli(*arguments(url), cwd=folder, code=2)
    assert "--endpoint-model" in run_cli(*arguments(url)[:-2], cwd=folder, code=2)
    assert not (folder / "results" / "harness.sqlite").exists()


def test_plan_and_status_take_an_endpoint(folder: Path) -> None:
    with serving() as (url, _):
        given = arguments(url, methods="zero-shot,lora")[1:]
        said = run_cli("plan", *given, cwd=folder)
        assert "this one is served" in said
        run_cli(*arguments(url), cwd=folder)
        assert "ok" in run_cli("status", *arguments(url)[1:], cwd=folder)


def test_suites_state_endpoints(tmp_path: Path) -> None:
    write_toy_table(tmp_path / "toy.csv", n_rows=90)
    with serving() as (url, _):
        suite = tmp_path / "mine.yaml"
        text = (
            "methods: [zero-shot]\nsizes: [12]\nseeds: [0]\n"
            f"endpoint: {{url: '{url}', model: toy, concurrency: 2}}\n"
            "tasks:\n  toy:\n    kind: classification\n    data: {files: {train: toy.csv}}\n"
            "    columns: {text: text, label: label}\n"
        )
        suite.write_text(text)
        found = load_suite(suite)
        assert found.endpoint is not None
        assert found.endpoint.model == ("toy",)
        for wrong, said in (
            (text.replace("concurrency: 2", f"key: {KEY}"), "looks like a key"),
            (text.replace("concurrency: 2", f"api_key: {KEY}"), "unknown key"),
            (text.replace("concurrency: 2", "api: batch"), "accepted: 'auto', 'chat' or 'completions'"),
        ):
            suite.write_text(wrong)
            with pytest.raises(UsageError, match=said) as caught:
                load_suite(suite)
            assert KEY not in str(caught.value)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_key_is_in_no_file_and_no_line(breaks: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(key=KEY, repeats_key=True, has_log_probabilities=False, fails=0.2) as (url, faults):
        said = run_cli(*arguments(url, "--endpoint-key", "MY_KEY", "--max-tokens", "100000"), cwd=folder)
        if breaks:
            faults.key = "another"
            more = arguments(url, "--endpoint-key", "MY_KEY", methods="few-shot")
            said += run_cli(*more, cwd=folder, code=2)
        said += run_cli("export", "out.jsonl", cwd=folder)
    assert "***" in everything_in(folder) or breaks
    assert KEY not in said
    assert KEY not in everything_in(folder)
    assert KEY[3:] not in everything_in(folder)


def test_a_failing_server_repeats_the_key_and_the_record_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(key=KEY, repeats_key=True) as (url, faults):
        model = served(url, key="MY_KEY")
        faults.model = "gone"
        task = load_task(folder)
        record = run_one(task, model, parse_methods(["zero-shot"])[0], cpu_device(), size="12")
    assert record.status == "failed"
    assert "no model toy Bearer ***" in str(record.error)
    assert KEY not in str(record)


def load_task(folder: Path) -> Task:
    return kinds.get("classification").prepare(write_toy_table(folder / "toy.csv", n_rows=90), None)


def cpu_device() -> Device:
    from harness.measure.device import find_device

    return find_device("cpu")


@pytest.mark.slow
def test_nothing_answered_is_sent_again_after_a_kill(folder: Path) -> None:
    environment = {**os.environ, "HARNESS_STORE": "results/harness.sqlite", "HARNESS_CACHE": str(folder / "cache")}
    with serving(echoes=False, fails=0.1, latency=0.05) as (url, faults):
        process = subprocess.Popen(
            command(*arguments(url, "--concurrency", "2")), cwd=folder, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 120
        while faults.n_answered < 16 and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.0)  # the worker ends with its driver
        run_cli(*arguments(url, "--concurrency", "2"), cwd=folder)
        twice = [body for body, n in faults.answered.items() if n > 1 and "logprobs" in body and "Is water" not in body]
    assert len(twice) <= 2  # requests whose answers were on their way when the process was killed
    with Store.open(folder / "results" / "harness.sqlite", read_only=True) as store:
        (record,) = store.records(with_predictions=True)
    assert record.status == "ok"
    assert record.score is not None
    assert record.predictions is not None
    assert len(record.predictions.predicted) == record.score.n_test


def test_python_takes_an_endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with serving() as (url, _):
        result = harness.run(
            data="toy.csv", methods="zero-shot", sizes=12, seeds=0, endpoint={"url": url, "model": "toy"},
            reports=None, progress=False,
        )  # fmt: skip
    (record,) = result.records
    assert record.cell.backbone == "served:toy"
