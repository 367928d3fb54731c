"""Every kind of task, end to end: rows in, score out; bad rows refused by name and rule before anything is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import Architecture, BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.planning.suites import load_suite
from harness.running.worker import Worker
from harness.support.errors import DataError, UsageError
from harness.tasks import Rows, Task, kinds
from harness.testing import Check, checks_of
from harness.testing.kind_checks import (
    overfits_its_training_rows,
    reads_every_row,
    refuses_answers_that_are_none,
    runs_from_data_to_score,
)
from tests.toy_kinds import toy_rows, toy_spec, toy_task
from tests.toys import make_bench, run_one, shorten


def plain_model(files: BackboneFiles) -> tuple[Any, Any, bool]:
    """The language model as transformers loads it, its tokenizer, and whether it is causal."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    is_causal = files.architecture == "causal"
    loader = AutoModelForCausalLM if is_causal else AutoModelForSeq2SeqLM
    return loader.from_pretrained(files.folder).eval(), AutoTokenizer.from_pretrained(files.folder), is_causal


def plain_perplexity(files: BackboneFiles, texts: Sequence[str], max_length: int) -> float:
    """By the model's own loss, a text at a time."""
    model, tokenizer, _ = plain_model(files)
    nll, n_tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :max_length]
        with torch.no_grad():
            nll += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        n_tokens += ids.shape[1] - 1
    return math.exp(nll / n_tokens)


@pytest.mark.parametrize("check", [check for kind in kinds for check in checks_of(kind)], ids=str)
def test_every_kind_keeps_its_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    "check",
    [reads_every_row, refuses_answers_that_are_none, overfits_its_training_rows],
    ids=lambda check: check.__name__,
)
def test_the_likelihood_of_texts_keeps_the_contract_of_kinds(
    check: Callable[[Task], None], toy_kinds: dict[str, Task]
) -> None:
    check(toy_kinds["perplexity"])


@pytest.mark.parametrize(("name", "architecture"), [("perplexity", "causal"), ("question-answering", "encoder")])
def test_toys_of_other_settings_run_from_data_to_score(
    name: str, architecture: Architecture, toy_kinds: dict[str, Task]
) -> None:
    runs_from_data_to_score(toy_kinds[name], architecture)


def test_perplexity_is_a_plain_scripts(toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, cpu: Device) -> None:
    task = toy_kinds["perplexity"]
    record = run_one(task, tiny_llama, methods.get("zero-shot")(precision="fp32"), cpu)
    assert record.score is not None
    assert record.score.value == pytest.approx(plain_perplexity(tiny_llama, task.test.texts, 128), rel=1e-4)


def test_choices_are_scored_as_a_plain_script_scores_them(
    toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, tiny_t5: BackboneFiles, cpu: Device
) -> None:
    task = toy_kinds["multiple-choice"]
    rows = Rows(task.test, np.arange(12))
    for files in (tiny_llama, tiny_t5):
        bench = make_bench(task, files, cpu)
        method = methods.get("few-shot")(precision="fp32", k=2, n_template_rows=0)  # type: ignore[call-arg]
        fitted: Any = method.fit(Worker(cpu, None).training_rows(task, 24, 0, "stratified"), bench)
        found = fitted.predict(rows, bench)
        model, tokenizer, is_causal = plain_model(files)
        shown = [f"{shown.text} {shown.answer}" for shown in fitted.demonstrations]
        for row, probabilities in enumerate(found):
            prompt = "\n\n".join([*shown, f"Question: {task.test.fields['question'][row]}\nAnswer:"])
            scores = []
            for choice in task.test.fields["choices"][row]:
                with torch.no_grad():
                    if is_causal:
                        n_given = len(tokenizer(prompt)["input_ids"])
                        ids = torch.tensor([tokenizer(f"{prompt} {choice}")["input_ids"]])
                        logs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
                        scores.append(float(logs[n_given - 1 :].sum()))
                    else:
                        targets = torch.tensor([tokenizer(choice)["input_ids"]])
                        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
                        scores.append(-float(model(input_ids=ids, labels=targets).loss) * targets.shape[1])
            expected = torch.tensor(scores).softmax(0).numpy()
            np.testing.assert_allclose(probabilities[: len(scores)], expected, atol=1e-4)
            assert not probabilities[len(scores) :].any()


def test_what_is_written_is_what_generate_writes_row_by_row(
    toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, tiny_t5: BackboneFiles, cpu: Device
) -> None:
    task = toy_kinds["translation"]
    rows = Rows(task.test, np.arange(16))
    for files in (tiny_llama, tiny_t5):
        bench = make_bench(task, files, cpu)
        fitted = methods.get("zero-shot")(precision="fp32").fit(rows.take(np.arange(0)), bench)  # type: ignore[call-arg]
        answers: Any = fitted.predict(rows, bench)
        model, tokenizer, is_causal = plain_model(files)
        for row, text in enumerate(answers.texts):
            ids = tokenizer(task.test.fields["source"][row] + "\n", return_tensors="pt")["input_ids"]
            ids = ids[:, :-1] if is_causal and ids[0, -1] == tokenizer.eos_token_id else ids
            new = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            new = new[0, ids.shape[1] if is_causal else 1 :]
            assert text == tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_long_context_is_read_in_windows_and_nothing_is_left_out(
    toy_kinds: dict[str, Task], tiny: BackboneFiles
) -> None:
    from harness.backbones.model import load_backbone

    task = toy_kinds["question-answering"]
    backbone = load_backbone(tiny)
    read = task.kind.tokenize(task.train, backbone, 12)
    assert read.first is not None
    assert read.places is not None
    assert max(len(ids) for ids in read.ids) <= 12
    for row, context in enumerate(task.train.fields["context"]):
        windows = range(read.first[row], read.first[row + 1])
        assert len(windows) > 1
        seen = {tuple(place) for window in windows for place in read.places[window].tolist() if place[0] >= 0}
        letters = {at for first, last in seen for at in range(first, last)}
        assert letters == {at for at, letter in enumerate(context) if letter != " "}


def test_pairs_are_read_with_their_segments(toy_kinds: dict[str, Task], tiny: BackboneFiles) -> None:
    from harness.backbones.model import load_backbone

    backbone = load_backbone(tiny)
    task = toy_kinds["text-pair"]
    read = task.kind.tokenize(task.train, backbone, 64)
    one, other = (backbone.tokenizer(task.train.fields[role][0])["input_ids"] for role in ("first", "second"))
    ids = [token if token >= 0 else -1 - token for token in read.ids[0]]
    assert ids == [*one, *other[1:]]
    if backbone.reads_segments:
        assert [token < 0 for token in read.ids[0]] == [False] * len(one) + [True] * (len(other) - 1)


def test_the_last_blocks_of_a_translator_are_its_decoders(tiny_t5: BackboneFiles) -> None:
    from harness.backbones.model import load_backbone
    from harness.training.blocks import Stack

    model = load_backbone(tiny_t5).fresh_language_model(torch.device("cpu"))
    groups = Stack(model).parameters_by_depth()
    name_of = {id(value): name for name, value in model.named_parameters()}
    listed = [name_of[id(value)] for group in groups for value in group]
    assert sorted(listed) == sorted(name_of.values())
    assert len(groups) == 1 + 2 + 2
    assert any(name.startswith("shared") for name in (name_of[id(value)] for value in groups[0]))
    for depth, stack, block in ((1, "encoder", 0), (2, "encoder", 1), (3, "decoder", 0), (4, "decoder", 1)):
        names = [name_of[id(value)] for value in groups[depth]]
        assert any(name.startswith(f"{stack}.block.{block}.") for name in names)
        other = "decoder" if stack == "encoder" else "encoder"
        assert not any(name.startswith(other) for name in names)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "an answer that is not in its context": (
        "question-answering",
        {"answers": {"text": ["nowhere"], "answer_start": [0]}},
        "line 3.*'nowhere'.*is not at character 0 of it.*part of the context",
    ),
    "no answer": ("question-answering", {"answers": {"text": [], "answer_start": []}}, "line 3.*has no answer"),
    "an answer key outside the choices": (
        "multiple-choice",
        {"answer": "Z"},
        "line 3.*'Z'.*not one of the row's choices.*A, B",
    ),
    "one choice": (
        "multiple-choice",
        {"choices": {"text": ["alone"], "label": ["A"]}, "answer": "A"},
        "line 3.*at least two choices",
    ),
    "an empty target": ("translation", {"target": " "}, "line 3.*'target'"),
    "an empty story": ("perplexity", {"target": ""}, "line 3.*'target'"),
    "a missing label": ("text-pair", {"label": None}, "line 3.*'label'"),
    "an empty second text": ("text-pair", {"second": ""}, "line 3.*'second'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_with_the_rule_that_it_breaks(what: str, tmp_path: Path) -> None:
    name, change, message = BAD[what]
    rows = toy_rows(name, 12)
    rows[2] = {**rows[2], **change}
    spec = toy_spec(name, tmp_path, rows).model_copy(update={"strict": True})
    with pytest.raises(DataError, match=f"(?s){message}"):
        kinds.get(spec.kind).prepare(spec, None)


def test_labels_missing_in_training_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "label": "is"} for row in toy_rows("text-pair", 30)]
    spec = toy_spec("text-pair", tmp_path, rows)
    with pytest.raises(DataError, match="every row has the label 'is'"):
        kinds.get(spec.kind).prepare(spec, None)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "text-pair",
            {"prompt": "{first} {third}"},
            r"prompt: \{third\} names no input column; accepted: first, second",
        ),
        ("translation", {"prompt": "{source.upper}"}, "prompt: the field .* is not plain"),
        ("translation", {"prompt": "{source"}, "prompt: .* is not a template"),
        ("translation", {"metric": "accuracy"}, "metric: 'accuracy' does not score a translation task; accepted: bleu"),
        ("generation", {"metric": "perplexity"}, "columns.prompt: 'perplexity' scores the texts themselves"),
        ("perplexity", {"metric": "rouge_l"}, "columns.prompt: missing"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(name: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    spec = toy_spec(name, tmp_path, **change)
    with pytest.raises(UsageError, match=message):
        kinds.get(spec.kind).prepare(spec, None)


def test_how_translations_are_scored_is_recorded(toy_kinds: dict[str, Task]) -> None:
    signatures = toy_kinds["translation"].provenance["signatures"]
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert "signatures" not in toy_kinds["text-pair"].provenance


def test_f1_needs_two_classes(tmp_path: Path) -> None:
    rows = [{**row, "label": "maybe"} for row in toy_rows("text-pair", 30)] + toy_rows("text-pair", 60, seed=2)
    spec = toy_spec("text-pair", tmp_path, rows, metric="f1")
    with pytest.raises(UsageError, match="'f1' is of two classes; this task has 3"):
        kinds.get(spec.kind).prepare(spec, None)


def test_the_tasks_own_words_are_part_of_its_identity(tmp_path: Path, toy_kinds: dict[str, Task]) -> None:
    plain = toy_kinds["translation"]
    for change in ({"prompt": "reverse: {source}\n"}, {"decoding": None}):
        other = toy_task("translation", tmp_path, **change)
        assert other.data != plain.data
        assert other.provenance["content"] == plain.provenance["content"]
    assert toy_task("translation", tmp_path).data == plain.data


def test_a_tasks_prompt_is_what_language_models_are_asked(
    tmp_path: Path, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    task = toy_task("text-pair", tmp_path, prompt="{first} and {second} is it", label_names=("not", "is"))
    bench = make_bench(task, tiny_llama, cpu)
    fitted: Any = methods.get("few-shot")(k=2).fit(  # type: ignore[call-arg]
        Worker(cpu, None).training_rows(task, 24, 0, "stratified"), bench
    )
    assert all(shown.text.endswith(" is it") and " and " in shown.text for shown in fitted.demonstrations)
    bench = dataclasses.replace(bench, max_length=4)  # a prompt that is too long keeps its end, which asks
    cut: Any = methods.get("few-shot")(k=2).fit(  # type: ignore[call-arg]
        Worker(cpu, None).training_rows(task, 24, 0, "stratified"), bench
    )
    assert all(shown.text.endswith("is it") for shown in cut.demonstrations)


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> tuple[Task, BackboneFiles]:
    mirror = request.getfixturevalue("mirror")
    spec = load_suite("generation").task("tinystories")
    files = locate_backbone("karpathy/tinyllamas-stories260K", mirror)
    return kinds.get(spec.kind).prepare(spec, mirror), files


def test_zero_shot_perplexity_of_a_real_model_is_a_plain_scripts(
    stories: tuple[Task, BackboneFiles], cpu: Device
) -> None:
    task, files = stories
    task = shorten(task, n_test=100, max_length=512)
    record = run_one(task, files, methods.get("zero-shot")(), cpu)
    assert record.score is not None
    assert record.score.value == pytest.approx(plain_perplexity(files, task.test.texts, 512), rel=0.01)
