"""How in-context methods ask: wordings, their choice by labels, chats, calibration, demonstrations."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness.backbones.chat import end_of_turn_ids
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.data import parse_size
from harness.measure.device import Device
from harness.methods import Bench, Method, methods
from harness.methods._chat import Chat
from harness.methods._choosing import draws_and_scored
from harness.methods._in_context import FittedPrompt
from harness.methods._prompts import Demonstration, PromptWriter, Wording
from harness.methods.artifact import load_artifact, save_artifact
from harness.running.worker import Worker
from harness.serving import Conversation
from harness.support.errors import UnsupportedError
from harness.tasks import Rows, Task, kinds
from tests.tiny_backbones import save_tiny_llama
from tests.toys import make_bench, test_rows

TURNS = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS


def with_chat(folder: Path, template: str = TURNS, **how: Any) -> BackboneFiles:
    """A tiny language model whose tokenizer has a chat template."""
    save_tiny_llama(folder, **how)
    (folder / "chat_template.jinja").write_text(template)
    return locate_backbone(str(folder))


def configured(name: str, **settings: Any) -> Method:
    return methods.get(name)(precision="fp32", **settings)


def training_rows(task: Task, bench: Bench, n_rows: int) -> Rows:
    return Worker(bench.device, None).training_rows(task, n_rows, bench.seed, "stratified")


def fitted_on(task: Task, bench: Bench, method: Method, n_train: int = 24) -> FittedPrompt:
    fitted = method.fit(training_rows(task, bench, n_train if method.uses_labels else 0), bench)
    assert isinstance(fitted, FittedPrompt)
    return fitted


def some_rows(task: Task, n_rows: int) -> Rows:
    return test_rows(task).take(np.arange(n_rows))


def likelihoods(files: BackboneFiles, prompt_ids: list[int], labels: list[list[int]]) -> np.ndarray:
    """Probabilities of the labels after a prompt, each run whole."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=torch.float32).eval()
    scores = []
    for label in labels:
        ids = torch.tensor([[*prompt_ids, *label]])
        with torch.no_grad():
            each = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        scores.append(float(each[len(prompt_ids) - 1 :].sum()))
    return torch.tensor(scores).softmax(0).numpy()


def test_wordings_state_the_task() -> None:
    first, *others = kinds.get("classification").wordings(["billing", "shipping", "crash"])
    assert others
    assert any("billing, shipping or crash" in one.instruction + one.template for one in (first, *others))
    for kind in kinds:
        found = kind.wordings([f"label{n}" for n in range(60)] if kind.form != "tags" else ["O", "B-name"])
        assert found
        if kind.form == "labels":  # an answer is written, so that the model must know all of them
            continue
        assert all("label7" not in one.instruction + one.template for one in found)


def test_a_task_prompt_or_a_template_goes_before_the_wordings(
    toy: Task, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    bench = make_bench(toy, tiny_llama, cpu)
    method: Any = configured("zero-shot")
    assert method.wording(bench).template == toy.kind.wordings(toy.label_words)[0].template
    own = dataclasses.replace(bench, prompt="Help: {text} now")
    assert method.wording(own) == Wording("Help: {text} now", is_whole=True)
    assert configured("zero-shot", template="{text}!", instruction="please").wording(own) == Wording(  # type: ignore[attr-defined]
        "{text}!", instruction="please"
    )


def test_plain_prompts_are_those_of_the_conversation(toy: Task, tiny_llama: BackboneFiles) -> None:
    wording = Wording("Input: {text}\nLabel:", instruction="help")
    writer = PromptWriter(
        load_backbone(tiny_llama), wording, separator="\n\n", max_text_tokens=64, answers=toy.label_words
    )
    shown = [Demonstration("refund", "billing"), Demonstration("parcel", "shipping")]
    conversation = wording.conversation("crash", shown)
    assert writer.write("crash", shown).written == conversation.plain()
    assert conversation.plain() == (
        "help\n\nInput: refund\nLabel: billing\n\nInput: parcel\nLabel: shipping\n\nInput: crash\nLabel:"
    )


@pytest.mark.parametrize("shown_as", ["turns", "message"])
@pytest.mark.parametrize("template", [TURNS, NO_SYSTEM])
def test_chats_are_those_of_the_tokenizers_template(
    template: str, shown_as: str, toy: Task, tmp_path: Path, cpu: Device
) -> None:
    files = with_chat(tmp_path / "chat", template, max_length=512)
    bench = make_bench(toy, files, cpu)
    settings = {"template": "{text} ?", "instruction": "please help", "shown_as": shown_as, "prompt_format": "chat"}
    fitted = fitted_on(toy, bench, configured("few-shot", k=3, **settings))
    tokenizer = load_backbone(files).tokenizer
    rows = some_rows(toy, 6)
    expected = []
    for text in rows.texts:
        shown = [(f"{one.text} ?", one.answer) for one in fitted.demonstrations]
        if shown_as == "turns":
            said = [(role, part) for pair in shown for role, part in zip(("user", "assistant"), pair, strict=True)]
            said.append(("user", f"{text} ?"))
        else:
            said = [("user", "\n\n".join([*(f"{asked} {answer}" for asked, answer in shown), f"{text} ?"]))]
        if template == NO_SYSTEM:
            said[0] = ("user", f"please help\n\n{said[0][1]}")
        else:
            said.insert(0, ("system", "please help"))
        written = "".join(f"<s>{role} {content}</s>" for role, content in said) + "<s>assistant "
        ids = tokenizer(written, add_special_tokens=False)["input_ids"]
        labels = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in toy.label_words]
        expected.append(likelihoods(files, ids, labels))
    np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-4)
    assert bench.ledger.remarks["prompt"] == f"please help | {{text}} ? (chat, demonstrations as {shown_as})"


def test_demonstrations_of_a_chat_are_read_once(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = with_chat(tmp_path / "chat", max_length=512)
    bench = make_bench(toy, files, cpu)
    fitted = fitted_on(toy, bench, configured("few-shot", k=6, template="{text} ?", prompt_format="chat"))
    rows = some_rows(toy, 20)
    before = fitted.likelihood.n_tokens
    fitted.predict(rows, bench)
    lengths = [len(fitted._writer.write(text, fitted.demonstrations).ids) for text in rows.texts]
    n_shared = len(fitted._writer.shared(fitted.demonstrations))
    assert n_shared > 0.7 * min(lengths)
    assert fitted.likelihood.n_tokens - before == sum(lengths) - (len(lengths) - 1) * n_shared


def test_a_chat_that_is_too_long_loses_demonstrations_first(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = with_chat(tmp_path / "short", max_length=64)
    bench = make_bench(toy, files, cpu)
    fitted = fitted_on(toy, bench, configured("few-shot", k=8, template="{text} ?", prompt_format="chat"))
    prompts = [fitted._writer.write(text, fitted.demonstrations) for text in some_rows(toy, 10).texts]
    assert all(0 < prompt.n_dropped < 8 and not prompt.is_cut and len(prompt.ids) <= 64 for prompt in prompts)
    fitted.predict(some_rows(toy, 10), bench)
    assert bench.ledger.remarks["dropped_demonstrations"].endswith("of 8 at most, in all rows")


def test_the_end_of_a_turn_ends_writing(tmp_path: Path) -> None:
    files = with_chat(tmp_path / "chat")
    tokenizer = load_backbone(files).tokenizer
    assert end_of_turn_ids(tokenizer, files)[0] == tokenizer.convert_tokens_to_ids("</s>")


def test_chats_need_a_chat_template(tmp_path: Path, tiny_llama: BackboneFiles) -> None:
    method = configured("zero-shot", prompt_format="chat")
    reason = method.why_unsupported("classification", tiny_llama, "cpu")
    assert reason is not None
    assert "no chat template" in reason
    assert method.why_unsupported("classification", with_chat(tmp_path / "chat"), "cpu") is None
    older = tmp_path / "older"
    save_tiny_llama(older)
    settings = json.loads((older / "tokenizer_config.json").read_text())
    (older / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TURNS}))
    assert locate_backbone(str(older)).has_chat_template
    assert with_chat(tmp_path / "other", NO_SYSTEM).fingerprint != locate_backbone(str(tmp_path / "chat")).fingerprint


def test_a_template_that_refuses_any_chat_is_refused(tmp_path: Path) -> None:
    files = with_chat(tmp_path / "broken", "{{ raise_exception('never') }}")
    with pytest.raises(UnsupportedError, match=r"never.*prompt_format=plain"):
        Chat(load_backbone(files).tokenizer)


def test_a_model_that_writes_is_asked_by_chat(toy_kinds: dict[str, Task], tmp_path: Path, cpu: Device) -> None:
    files = with_chat(tmp_path / "chat", max_length=512)
    for name, format_ in (("question-answering", "chat"), ("text-pair", "plain")):
        bench = make_bench(toy_kinds[name], files, cpu)
        fitted = fitted_on(toy_kinds[name], bench, configured("zero-shot"))
        assert fitted.asking.format.startswith(format_)


@pytest.mark.parametrize("n_train", [8, 40])
def test_the_wording_with_the_best_score_on_other_rows_is_used(
    n_train: int, toy: Task, tmp_path: Path, cpu: Device
) -> None:
    files = with_chat(tmp_path / "chat", max_length=512)
    bench = make_bench(toy, files, cpu)
    method: Any = configured("few-shot", k=8)
    fitted = fitted_on(toy, bench, method, n_train)
    assert bench.clock.seconds("tune")
    rows = training_rows(toy, bench, n_train)
    shown = [int(row) for row in bench.ledger.remarks["demonstrations"].split()]
    at = [int(np.flatnonzero(rows.index == row)[0]) for row in shown]
    if n_train == 8:
        folds = [(at[::2], at[1::2]), (at[1::2], at[::2])]
    else:
        folds = [(at, [row for row in range(n_train) if row not in at])]
    scores = []
    candidates = method.askings(bench)
    assert not any(one.is_chat for one in candidates)  # classes are scored after plain text
    for asking in candidates:
        n_right = n_scored = 0
        for given, asked in folds:
            chosen = rows.take(np.array(given))
            words = [toy.label_words[label] for label in chosen.known_labels]
            examples = [Demonstration(*pair) for pair in zip(chosen.texts, words, strict=True)]
            alone = FittedPrompt(method, make_bench(toy, files, cpu), examples, asking=asking)
            scored = rows.take(np.array(asked))
            n_right += int((np.asarray(alone.predict(scored.without_labels(), bench)).argmax(1) == scored.labels).sum())
            n_scored += len(scored)
        scores.append(n_right / n_scored)
    assert fitted.asking == candidates[int(np.argmax(scores))]
    said = "; ".join(f"{score:.3f} {one.in_words()}" for one, score in zip(candidates, scores, strict=True))
    assert bench.ledger.remarks["prompt_scores"] == said
    assert bench.ledger.remarks["prompt_spread"].startswith(f"{max(scores) - min(scores):.3f} ")


def test_no_choice_of_wordings_takes_the_first(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = with_chat(tmp_path / "chat")
    for settings in ({"n_template_rows": 0}, {"template": "{text} :"}):
        bench = make_bench(toy, files, cpu)
        fitted = fitted_on(toy, bench, configured("few-shot", k=2, **settings))
        assert fitted.asking == fitted.method.askings(bench)[0]
        assert not fitted.asking.is_chat
        assert bench.clock.seconds("tune") is None


@pytest.mark.parametrize("name", ["zero-shot", "few-shot", "calibrated-few-shot"])
def test_batch_calibration_divides_by_the_mean_over_the_rows(
    name: str, toy: Task, tiny_llama: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    settings = {"template": "{text} :", **({} if name == "zero-shot" else {"k": 4})}
    rows = some_rows(toy, 16)
    bench = make_bench(toy, tiny_llama, cpu)
    plain = np.asarray(
        fitted_on(toy, bench, configured(name.removeprefix("calibrated-"), **settings)).predict(rows, bench)
    )
    method = configured(name, calibration="batch", **settings)
    fitted = fitted_on(toy, bench, method)
    divided = plain / plain.mean(axis=0)
    expected = divided / divided.sum(axis=1, keepdims=True)
    with pytest.raises(UnsupportedError, match="at least two rows"):
        fitted.predict(rows.take(np.array([0])), bench)
    np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-5)
    save_artifact(fitted, method, tmp_path / "saved", bench)
    _, restored = load_artifact(tmp_path / "saved", bench)
    np.testing.assert_allclose(restored.predict(rows.take(np.array([3])), bench), expected[3:4], atol=1e-5)


def test_content_free_calibration_of_few_shot_is_that_of_calibrated_few_shot(
    toy: Task, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    rows = some_rows(toy, 8)
    found = []
    for name, settings in (("few-shot", {"calibration": "content-free"}), ("calibrated-few-shot", {})):
        bench = make_bench(toy, tiny_llama, cpu)
        fitted = fitted_on(toy, bench, configured(name, k=4, template="{text} :", **settings))
        found.append(fitted.predict(rows, bench))
    np.testing.assert_array_equal(*found)


def test_calibration_is_for_classes(tiny_llama: BackboneFiles) -> None:
    reason = configured("zero-shot", calibration="batch").why_unsupported("multiple-choice", tiny_llama, "cpu")
    assert reason is not None
    assert "needs classes" in reason


def test_validated_demonstrations_are_the_best_of_several_draws(
    toy: Task, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    bench = make_bench(toy, tiny_llama, cpu)
    method: Any = configured("few-shot", k=4, choose="validated", n_draws=5, template="{text} :")
    fitted = fitted_on(toy, bench, method, 40)
    rows = training_rows(toy, bench, 40)
    draws, scored = draws_and_scored(rows, bench, 4, 5, 64)
    assert len(scored) == 20
    assert not {int(row) for one in draws for row in one} & set(scored.tolist())
    scores = []
    for one in draws:
        chosen = rows.take(one)
        words = [toy.label_words[label] for label in chosen.known_labels]
        examples = [Demonstration(*pair) for pair in zip(chosen.texts, words, strict=True)]
        alone = FittedPrompt(method, make_bench(toy, tiny_llama, cpu), examples)
        held = rows.take(scored)
        scores.append(float((np.asarray(alone.predict(held.without_labels(), bench)).argmax(1) == held.labels).mean()))
    best = rows.take(draws[int(np.argmax(scores))])
    assert [shown.text for shown in fitted.demonstrations] == best.texts
    assert bench.ledger.remarks["validated_draws"].startswith(f"draw {int(np.argmax(scores)) + 1} of 5, by 20 ")
    assert bench.clock.seconds("tune")


def test_many_demonstrations_are_the_same_for_all_rows(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = locate_backbone(str(save_tiny_llama(tmp_path / "longer", max_length=256)))
    bench = dataclasses.replace(make_bench(toy, files, cpu), max_length=20)
    fitted = fitted_on(toy, bench, configured("few-shot", k=60, template="{text} :", separator=" "), 60)
    n_shown = len(fitted.demonstrations)
    assert 8 < n_shown < 60
    tokenizer = load_backbone(files).tokenizer

    def n_tokens(n_dropped: int) -> int:
        chosen = training_rows(toy, bench, 60)
        by_row = {int(row): at for at, row in enumerate(chosen.index)}
        order = [by_row[int(row)] for row in bench.ledger.remarks["demonstrations"].split()]
        parts = [f"{chosen.texts[at]} : {toy.label_words[chosen.known_labels[at]]}" for at in order[n_dropped:]]
        return len(tokenizer(" ".join([*parts, " :"]))["input_ids"])

    room = 256 - max(len(label) for label in fitted._writer.labels) - 19
    assert n_tokens(60 - n_shown) <= room < n_tokens(59 - n_shown)
    before = fitted.likelihood.n_tokens
    rows = some_rows(toy, 12)
    fitted.predict(rows, bench)
    assert bench.ledger.remarks["dropped_demonstrations"] == f"{60 - n_shown} of 60 at most, in all rows"
    assert fitted.likelihood.n_tokens - before < 256 + 12 * 24


def test_pairs_are_asked_about_as_two_texts(toy_kinds: dict[str, Task], tiny_llama: BackboneFiles, cpu: Device) -> None:
    task = toy_kinds["text-pair"]
    bench = make_bench(task, tiny_llama, cpu)
    fitted = fitted_on(task, bench, configured("few-shot", k=1, n_template_rows=0))
    rows = some_rows(task, 1)
    first, second = (rows.source.fields[role][rows.index[0]] for role in ("first", "second"))
    wording = fitted.asking.wording
    asked = wording.template.format(first=first, second=second)
    from harness.methods._demonstrations import asked as questions

    assert questions(rows, wording) == [asked]
    shown = fitted.demonstrations[0]
    whole = Conversation(wording.instruction, ((shown.text, shown.answer),), asked).plain()
    assert fitted._writer.write(asked, fitted.demonstrations).written == whole


def test_a_user_words_the_question(tmp_path: Path) -> None:
    from harness.api.own_data import own_task
    from harness.support.errors import UsageError

    table = tmp_path / "reviews.csv"
    rows = [f"text {n} is here,{'good' if n % 2 else 'bad'}" for n in range(40)]
    table.write_text("\n".join(["body,mood", *rows]))
    spec = own_task(table, "body", "mood", prompt=r"Review: {body}\nMood:")
    assert spec.prompt == "Review: {body}\nMood:"
    task = kinds.get("classification").prepare(spec, None)
    assert task.prompt == spec.prompt
    assert task.train.prompts is not None
    assert task.train.prompts[0] == f"Review: {task.train.texts[0]}\nMood:"
    for prompt, reason in (
        ("Review:", "no column in braces"),
        ("Review: {text} {other}", "unknown column {other}"),
        ("{0}", "unknown column {0}"),
        ("{text.x}", "not plain"),
    ):
        with pytest.raises(UsageError, match=re.escape(reason)):
            own_task(table, "body", "mood", prompt=prompt)
    with pytest.raises(UsageError, match="its own kind, columns, prompt"):
        harness.plan("quickstart", prompt="{text}")


def test_a_prompt_of_the_user_changes_the_cells_of_prompts_alone(tmp_path: Path, tiny_llama: BackboneFiles) -> None:
    from harness.api.own_data import own_task
    from harness.planning import plan_cells
    from harness.records import Budget, variants

    table = tmp_path / "reviews.csv"
    table.write_text("\n".join(["body,mood", *(f"text {n} is here,{'good' if n % 2 else 'bad'}" for n in range(40))]))
    found, cells = {}, []
    for prompt in (None, "Review: {body} Mood:", "{body} It is"):
        task = kinds.get("classification").prepare(own_task(table, "body", "mood", prompt=prompt), None)
        planned = plan_cells(
            tasks=[task],
            backbones={task.name: [tiny_llama]},
            methods=[methods.get("zero-shot")(), methods.get("linear-probe")()],  # type: ignore[call-arg]
            sizes=[parse_size("16")],
            seeds=[0],
            budgets=[Budget()],
            device="cpu",
        )
        cells += [one.cell for one in planned]
        found[prompt] = {one.cell.method: one.cell.id for one in planned}
        assert [one.method_label for one in planned if one.cell.method == "zero-shot"] == ["zero-shot"]
        assert {one.method.config() == one.cell.config for one in planned} == {True}
    assert len({ids["linear-probe"] for ids in found.values()}) == 1
    assert len({ids["zero-shot"] for ids in found.values()}) == 3
    asked = [cell for cell in cells if cell.method == "zero-shot"]
    assert variants(asked[1:2], [{"prompt": ""}]) == ["zero-shot"]
    assert len(set(variants(asked, [{"prompt": ""}] * 3))) == 3  # several prompts of one task are told apart


def test_nearest_demonstrations_are_turns_of_a_chat(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = with_chat(tmp_path / "chat", max_length=512)
    settings: dict[str, Any] = {"k": 3, "template": "{text} ?", "prompt_format": "chat"}
    bench = make_bench(toy, files, cpu)
    method: Any = configured("few-shot", choose="nearest", **settings)
    fitted = fitted_on(toy, bench, method)
    rows = some_rows(toy, 4)
    assert fitted._nearest is not None
    positions = fitted._nearest.positions(rows, bench)
    found = np.asarray(fitted.predict(rows, bench))
    for row in range(4):
        shown = [fitted.demonstrations[position] for position in positions[row]]
        alone = FittedPrompt(configured("few-shot", **settings), make_bench(toy, files, cpu), shown)  # type: ignore[arg-type]
        np.testing.assert_allclose(alone.predict(rows.take(np.array([row])), bench), found[[row]], atol=1e-5)


def test_nearest_rows_are_not_calibrated_by_content_free_texts() -> None:
    from harness.methods.configure import parse_methods
    from harness.running.proposals import Proposals
    from harness.support import UsageError

    with pytest.raises(UsageError, match="calibration=batch"):
        parse_methods(["few-shot[choose=nearest,calibration=content-free]"])
    parse_methods(["few-shot[choose=nearest,calibration=batch]"])
    (method,) = parse_methods(["few-shot[calibration=content-free,tune=8]"])
    proposals = Proposals(method, 0, 8)
    tried = []
    while (settings := proposals.next()) is not None:
        tried.append(type(method)(**{**method.config(), **settings}))
        proposals.learn(settings, 0.5)
    assert len(tried) == 8
