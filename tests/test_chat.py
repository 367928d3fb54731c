"""Chat templates: the tokens of training and of writing are those of transformers' own `apply_chat_template`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.chat import chat_frame, end_of_turn_ids
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.methods import methods
from harness.support.errors import UnsupportedError
from harness.tasks import Reply, Rows, Task
from harness.testing.laboratory import lab
from harness.training.forms import answer_form
from harness.training.generative import GenerativeModel
from tests.chats import TEMPLATES, save_chat_model
from tests.toy_kinds import toy_task


@pytest.fixture(scope="session")
def chat_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BackboneFiles]:
    folder = tmp_path_factory.mktemp("chat")
    made = {name: save_chat_model(folder / name.replace(" ", "-"), text) for name, text in TEMPLATES.items()}
    made["none"] = save_chat_model(folder / "none", None)
    made["old"] = save_chat_model(folder / "old", TEMPLATES["chatml"], file=False)
    return {name: locate_backbone(str(path)) for name, path in made.items()}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return toy_task("generation", tmp_path_factory.mktemp("task"))


def chat_bench(task: Task, files: BackboneFiles, **settings: Any) -> Any:
    return methods.get("full")(prompt_format="chat", **settings).in_format(lab().bench(task, files))


def some_rows(task: Task, n_rows: int = 20) -> Rows:
    return Rows(task.train, np.arange(n_rows), task.train_labels[:n_rows], task.train_strata[:n_rows])


@pytest.mark.parametrize("n_over", [0, 30])
def test_a_plain_prompt_as_long_as_the_positions_keeps_its_end_in_training(
    n_over: int, task: Task, chat_models: dict[str, BackboneFiles]
) -> None:
    bench, rows = lab().bench(task, chat_models["none"]), some_rows(task, 2)
    n_places, prompts = bench.some_backbone.max_length, rows.source.prompts
    assert prompts is not None
    bench = dataclasses.replace(bench, max_length=n_places)
    tokenizer = bench.some_backbone.tokenizer
    n_more = n_places + n_over - len(tokenizer(prompts[0])["input_ids"])
    long = n_more * "7" + prompts[0]  # no two digits are one token
    source = dataclasses.replace(rows.source, key=f"long {n_over}/train", prompts=[long, prompts[1]])
    examples = answer_form("text").examples(dataclasses.replace(rows, source=source), bench, 0)
    asked = tokenizer(long)["input_ids"]
    assert len(asked) == n_places + n_over
    assert examples.targets[0] == n_places - 1
    assert list(examples.sequences[0][: n_places - 1]) == asked[len(asked) - n_places + 1 :]
    assert bench.ledger.remarks["truncated_replies"] == "1 of 2"


def conversations(tokenizer: Any, rows: Rows) -> list[list[int]]:
    """The whole conversation of each row, as transformers tokenises it."""
    assert rows.source.prompts is not None
    return [
        list(
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": rows.source.prompts[at].rstrip()},
                    {"role": "assistant", "content": str(label)},
                ],
                return_dict=False,
            )
        )
        for at, label in zip(rows.index, rows.known_labels, strict=True)
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_training_reads_the_tokens_of_the_whole_conversation(
    name: str, task: Task, chat_models: dict[str, BackboneFiles]
) -> None:
    bench, rows = chat_bench(task, chat_models[name]), some_rows(task)
    tokenizer = bench.some_backbone.tokenizer
    examples = answer_form("text").examples(rows, bench, 0)
    end = end_of_turn_ids(tokenizer, bench.files)[0]
    expected_end = "</s>" if name in ("instructs", "no mark") else "<|end|>"
    assert end == tokenizer.convert_tokens_to_ids(expected_end)
    assert "truncated_replies" not in bench.ledger.remarks
    for ids, given, whole, label in zip(
        examples.sequences, examples.targets, conversations(tokenizer, rows), rows.known_labels, strict=True
    ):
        if name == "no mark":  # the template marks no end of a turn
            assert list(ids) == [*whole[: len(whole) - len(tokenizer("\n")["input_ids"])], end]
        else:
            assert list(ids) == whole[: len(whole) - whole[::-1].index(end)]
        target = tokenizer.decode(ids[given:])
        assert target.removesuffix(expected_end).strip() == str(label).strip()


def test_the_prompt_of_training_is_the_prompt_of_writing(task: Task, chat_models: dict[str, BackboneFiles]) -> None:
    for name in TEMPLATES:
        bench, rows = chat_bench(task, chat_models[name]), some_rows(task)
        examples = answer_form("text").examples(rows, bench, 0)
        prompts = bench.token_rows(rows, "predict")
        for ids, given, prompt in zip(examples.sequences, examples.targets, prompts, strict=True):
            assert list(ids[:given]) == list(prompt)


def test_a_plain_bench_has_other_tokens_of_the_same_rows(task: Task, chat_models: dict[str, BackboneFiles]) -> None:
    plain = lab().bench(task, chat_models["chatml"])
    chat = methods.get("full")(prompt_format="chat").in_format(plain)  # the same store of tokens
    rows = some_rows(task, 3)
    before, after, again = (bench.token_rows(rows, "predict") for bench in (plain, chat, plain))
    assert all(len(one) < len(other) for one, other in zip(before, after, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(before, again, strict=True))


@pytest.mark.parametrize("ending", [None, "\nAnswer:"])
@pytest.mark.parametrize("max_length", [24, 30])
def test_a_long_prompt_keeps_the_template(
    ending: str | None, max_length: int, task: Task, chat_models: dict[str, BackboneFiles]
) -> None:
    from harness.tasks._chat import tokenize_chat

    backbone = load_backbone(chat_models["chatml"])
    long = " ".join(f"word{number}" for number in range(60)) + (ending or "")
    found = tokenize_chat([long, "short" + (ending or "")], ending, backbone, max_length)
    first, short = (backbone.tokenizer.decode(ids) for ids in found.ids)
    assert found.n_truncated == 1
    assert len(found.ids[0]) <= max_length
    assert len(found.ids[0]) > max_length - 6
    assert first.startswith("<s><|user|>\n")
    assert first.endswith("<|end|>\n<|model|>\n")
    assert short == f"<s><|user|>\nshort{ending or ''}<|end|>\n<|model|>\n"
    inside = first.removeprefix("<s><|user|>\n").removesuffix("<|end|>\n<|model|>\n")
    if ending is None:
        assert long.endswith(inside)  # the beginning is lost
    else:
        assert inside.endswith(ending)
        assert long.startswith(inside.removesuffix(ending))  # the end of the input is lost
    with pytest.raises(UnsupportedError, match="tokens without any text; there is room for 5"):
        tokenize_chat([long], ending, backbone, 5)


def test_answers_end_at_the_end_of_the_turn(
    task: Task, chat_models: dict[str, BackboneFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = chat_bench(task, chat_models["chatml"])
    bench = dataclasses.replace(bench, reply=Reply(max_new_tokens=12))
    tokenizer = bench.some_backbone.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    script = [*tokenizer("alpha beta")["input_ids"], end, *tokenizer("gamma")["input_ids"]]

    model = bench.some_backbone.language_model(bench.device.torch_device(), "fp32", "auto").model
    real, n_given = model.forward, []

    def scripted(*args: Any, **kwargs: Any) -> Any:
        outputs = real(*args, **kwargs)
        step = len(n_given)
        n_given.append(step)
        outputs.logits = torch.zeros_like(outputs.logits)
        outputs.logits[:, -1, script[min(step, len(script) - 1)]] = 9.0
        return outputs

    monkeypatch.setattr(model, "forward", scripted)
    written = GenerativeModel(model, is_causal=True).answer(
        bench.token_rows(some_rows(task, 1), "predict"), bench, "fp32"
    )
    assert list(written.texts) == ["alpha beta"]
    assert written.n_cut == 0
    n_given.clear()
    plain = dataclasses.replace(bench, chat=False)
    written = GenerativeModel(model, is_causal=True).answer(
        plain.token_rows(some_rows(task, 1), "predict"), plain, "fp32"
    )
    assert "gamma" in written.texts[0]


def test_stated_ends_count_beside_a_file_of_the_template(tmp_path: Path) -> None:
    folder = save_chat_model(tmp_path / "model", TEMPLATES["chatml"])
    before = locate_backbone(str(folder))
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": [1, 7]}), encoding="utf-8")
    files = locate_backbone(str(folder))
    assert files.fingerprint != before.fingerprint
    assert end_of_turn_ids(load_backbone(files).tokenizer, files) == (5, 1, 7)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert locate_backbone(str(folder)).fingerprint != files.fingerprint


def test_today_is_the_same_day_every_day(tmp_path: Path) -> None:
    dated = (
        "{{ strftime_now('%d %B %Y') }}{% if not date_string is defined %}{% set date_string = strftime_now('%Y') %}"
    )
    template = dated + "{% endif %}{{ date_string }}" + TEMPLATES["chatml"]
    tokenizer = load_backbone(locate_backbone(str(save_chat_model(tmp_path / "model", template)))).tokenizer
    from harness.backbones.chat import render_chat

    found = render_chat(tokenizer, [{"role": "user", "content": "x"}], asks=True)
    assert found.startswith("26 July 202426 Jul 2024<s>")


def test_what_cannot_be_a_chat_is_refused_when_it_is_planned(
    task: Task, chat_models: dict[str, BackboneFiles], tmp_path: Path
) -> None:
    chat, auto = (methods.get("lora")(prompt_format=name) for name in ("chat", "auto"))
    assert chat_models["old"].has_chat_template
    for name in ("chatml", "old"):
        assert chat.why_not(task, chat_models[name], "cpu") is None
    assert "no chat template" in str(chat.why_not(task, chat_models["none"], "cpu"))
    assert auto.why_not(task, chat_models["none"], "cpu") is None
    assert "no turns" in str(chat.why_not(task, lab().backbone("sequence-to-sequence"), "cpu"))
    assert auto.why_not(task, lab().backbone("sequence-to-sequence"), "cpu") is None
    assert "Leave it out" in str(chat.why_unsupported("classification", chat_models["chatml"], "cpu"))
    likely = toy_task("perplexity", tmp_path)
    assert "without a prompt" in str(chat.why_not(likely, chat_models["chatml"], "cpu"))
    assert auto.why_not(likely, chat_models["chatml"], "cpu") is None
    backwards = "{% for m in messages | reverse %}{{ m.content }}<|end|>{% endfor %}"
    files = locate_backbone(str(save_chat_model(tmp_path / "backwards", backwards)))
    with pytest.raises(UnsupportedError, match="elsewhere than after its generation prompt"):
        chat_frame(load_backbone(files).tokenizer)


@pytest.mark.parametrize("name", ["chatml", "none"])
def test_the_format_is_in_the_configuration_and_noted(
    name: str, task: Task, chat_models: dict[str, BackboneFiles]
) -> None:
    quick = {"min_steps": 2, "epochs": 1}
    plain, auto = (methods.get("lora")(prompt_format=how, **quick) for how in ("plain", "auto"))
    assert "prompt_format" not in plain.config()
    assert plain.config() == methods.get("lora")(**quick).config()
    assert auto.config()["prompt_format"] == "auto"
    record = lab().run(task, chat_models[name], auto, size="8")
    assert record.status == "ok", record.error
    assert record.facts.remarks.get("prompt_format") == ("chat" if name == "chatml" else None)


def test_training_on_turns_teaches_the_answer_and_its_end(task: Task, chat_models: dict[str, BackboneFiles]) -> None:
    settings = {"epochs": 60, "min_steps": 1, "learning_rate": 2e-3, "dropout": 0.0, "transformer_dropout": 0.0}
    method = methods.get("full")(prompt_format="chat", **settings)
    record = lab().run(task, chat_models["chatml"], method, size="16")
    assert record.status == "ok", record.error
    assert record.train_score is not None
    assert record.train_score > 0.8
    assert "cut_answers" not in record.facts.remarks
