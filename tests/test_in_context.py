"""Methods in context: what they compute is what a plain script computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import Method, methods
from harness.methods._demonstrations import draw
from harness.methods._in_context import FittedPrompt
from harness.methods._prompts import Demonstration, PromptWriter, Wording
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.methods.bench import Bench
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError
from harness.tasks import Rows, Task
from tests.tiny_backbones import save_tiny_llama
from tests.toys import make_bench, run_one, test_rows

LONG_LABELS = ("billing invoice", "shipping", "technical crash error")


TEMPLATE = "Input: {text}\nLabel:"


def configured(name: str, **settings: Any) -> Method:
    asks = {} if name == "label-similarity" else {"template": TEMPLATE}
    return methods.get(name)(precision="fp32", **{**asks, **settings})


def fitted_on(task: Task, bench: Bench, method: Method, n_train: int = 24) -> FittedPrompt:
    n_rows = n_train if method.uses_labels else 0
    fitted = method.fit(Worker(bench.device, None).training_rows(task, n_rows, bench.seed, "stratified"), bench)
    assert isinstance(fitted, FittedPrompt)
    return fitted


def some_test_rows(task: Task, n_rows: int) -> Rows:
    return test_rows(task).take(np.arange(n_rows))


def prompt_of(method: Any, bench: Bench, demonstrations: Sequence[Demonstration], text: str) -> str:
    shown = [method.template.replace("{text}", d.text) + " " + d.answer for d in demonstrations]
    instruction = [method.instruction] if method.instruction else []
    return method.separator.join([*instruction, *shown, method.template.replace("{text}", text)])


def plain_causal(files: BackboneFiles, prompt: str, labels: Sequence[str], *, mean: bool) -> np.ndarray:
    """Run prompt and label as one text, for each label, without any cache."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_backbone(files).tokenizer
    model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=torch.float32).eval()
    n_prompt = len(tokenizer(prompt)["input_ids"])
    scores = []
    for label in labels:
        ids = torch.tensor([tokenizer(f"{prompt} {label}")["input_ids"]])
        with torch.no_grad():
            likelihoods = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[n_prompt - 1 :, 0]
        scores.append(float(likelihoods.mean() if mean else likelihoods.sum()))
    return torch.tensor(scores).softmax(0).numpy()


def plain_t5(files: BackboneFiles, prompt: str, labels: Sequence[str], *, mean: bool) -> np.ndarray:
    """The model's own loss of each label, end of sequence included."""
    from transformers import AutoModelForSeq2SeqLM

    tokenizer = load_backbone(files).tokenizer
    model = AutoModelForSeq2SeqLM.from_pretrained(files.folder, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    scores = []
    for label in labels:
        targets = torch.tensor([tokenizer(label)["input_ids"]])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=targets).loss)
        scores.append(-loss * (1 if mean else targets.shape[1]))
    return torch.tensor(scores).softmax(0).numpy()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("zero-shot", {}),
        ("zero-shot", {"instruction": "help with the screen", "normalise": True}),
        ("few-shot", {"k": 4}),
        ("few-shot", {"k": 4, "choose": "random", "normalise": True, "instruction": "please help", "separator": "\n"}),
    ],
)
@pytest.mark.parametrize("architecture", ["causal", "sequence-to-sequence"])
def test_scores_are_those_of_a_plain_script(
    architecture: str,
    name: str,
    settings: dict[str, Any],
    toy: Task,
    tiny_llama: BackboneFiles,
    tiny_t5: BackboneFiles,
    cpu: Device,
) -> None:
    files, plain = (tiny_llama, plain_causal) if architecture == "causal" else (tiny_t5, plain_t5)
    bench = dataclasses.replace(make_bench(toy, files, cpu), label_words=LONG_LABELS)
    method: Any = configured(name, **settings)
    fitted = fitted_on(toy, bench, method)
    assert len(fitted.demonstrations) == settings.get("k", 0)
    rows = some_test_rows(toy, 20)
    expected = [
        plain(files, prompt_of(method, bench, fitted.demonstrations, text), LONG_LABELS, mean=method.normalise)
        for text in rows.texts
    ]
    np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-4)
    assert "dropped_demonstrations" not in bench.ledger.remarks


def test_scores_of_a_merging_tokenizer_are_those_of_a_plain_script(mirror: Path, toy: Task, cpu: Device) -> None:
    files = locate_backbone("karpathy/tinyllamas-stories260K", mirror)
    for settings in ({"separator": "\n\n"}, {"separator": " ", "template": "{text} It is"}):
        bench = make_bench(toy, files, cpu)
        method = configured("few-shot", k=3, **settings)
        fitted = fitted_on(toy, bench, method)
        rows = some_test_rows(toy, 6)
        expected = [
            plain_causal(files, prompt_of(method, bench, fitted.demonstrations, text), bench.label_words, mean=False)
            for text in rows.texts
        ]
        np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-4)


def test_the_shared_prefix_is_run_once(toy: Task, tiny_llama: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(toy, tiny_llama, cpu)
    fitted = fitted_on(toy, bench, configured("few-shot", k=6))
    rows = some_test_rows(toy, 30)
    before = fitted.likelihood.n_tokens
    fitted.predict(rows, bench)
    tokenizer = bench.some_backbone.tokenizer
    alone = [len(tokenizer(f"{text}\nLabel:", add_special_tokens=False)["input_ids"]) for text in rows.texts]
    method = configured("few-shot")
    whole = len(tokenizer(prompt_of(method, bench, fitted.demonstrations, rows.texts[0]))["input_ids"])
    assert fitted.likelihood.n_tokens - before == sum(alone) + whole - alone[0]


def test_demonstrations_that_do_not_fit_are_dropped_earliest_first(toy: Task, tmp_path: Path, cpu: Device) -> None:
    files = locate_backbone(str(save_tiny_llama(tmp_path / "short", max_length=64)))
    bench = make_bench(toy, files, cpu)
    method = configured("few-shot", k=8)
    fitted = fitted_on(toy, bench, method)
    rows = some_test_rows(toy, 10)
    probabilities = fitted.predict(rows, bench)
    assert bench.ledger.remarks["dropped_demonstrations"].endswith("of 8 at most, in all rows")
    tokenizer = bench.some_backbone.tokenizer
    for row, text in enumerate(rows.texts):
        n_dropped = next(
            n
            for n in range(9)
            if len(tokenizer(prompt_of(method, bench, fitted.demonstrations[n:], text) + " billing")["input_ids"]) <= 64
        )
        prompt = prompt_of(method, bench, fitted.demonstrations[n_dropped:], text)
        np.testing.assert_allclose(
            probabilities[row], plain_causal(files, prompt, bench.label_words, mean=False), atol=1e-4
        )


@pytest.mark.parametrize("n_tokens", [40, 200])
def test_a_text_too_long_is_cut_before_the_end_of_the_template(
    n_tokens: int, toy: Task, tiny_llama: BackboneFiles
) -> None:
    backbone = load_backbone(tiny_llama)
    writer = PromptWriter(
        backbone,
        Wording("Input: {text}\nLabel:"),
        separator=" ",
        instruction="",
        max_text_tokens=128,
        answers=toy.label_words,
    )
    text = " ".join(["refund"] * n_tokens)
    prompt = writer.write(text, [Demonstration("crash " * 100, toy.label_words[2])])
    words = backbone.tokenizer.convert_ids_to_tokens(prompt.ids)
    n_read = min(n_tokens, 127 - 5)
    assert words == ["<s>", "input", ":", *["refund"] * n_read, "label", ":"]
    assert prompt.n_dropped == 1
    assert prompt.is_cut == (n_tokens > 40)


def test_what_is_cut_is_noted(toy: Task, tiny_llama: BackboneFiles, cpu: Device) -> None:
    bench = dataclasses.replace(make_bench(toy, tiny_llama, cpu), max_length=5)
    fitted = fitted_on(toy, bench, configured("few-shot", k=2))
    assert all(len(shown.text.split()) <= 4 for shown in fitted.demonstrations)  # one of five is <s>
    fitted.predict(test_rows(toy), bench)
    n_long = sum(len(text.split()) > 4 for text in toy.test.texts)
    cut = bench.ledger.facts.test_texts
    assert (cut.n_cut, cut.n_texts) == (n_long, len(toy.test))


def test_a_template_that_does_not_fit_is_refused(toy: Task, tiny_llama: BackboneFiles) -> None:
    writer = PromptWriter(
        load_backbone(tiny_llama),
        Wording("{text}"),
        separator=" ",
        instruction="help " * 200,
        max_text_tokens=128,
        answers=toy.label_words,
    )
    with pytest.raises(UnsupportedError, match="leave room for 127"):
        writer.write("refund", [])


def test_calibration_divides_by_what_is_said_of_no_content(
    toy: Task, tiny_llama: BackboneFiles, tiny_t5: BackboneFiles, cpu: Device
) -> None:
    for files in (tiny_llama, tiny_t5):
        plain = plain_causal if files is tiny_llama else plain_t5
        bench = make_bench(toy, files, cpu)
        method = configured("calibrated-few-shot", k=4)
        fitted = fitted_on(toy, bench, method)
        assert bench.ledger.train_tokens > 0
        assert bench.ledger.train_flops > 0
        assert bench.clock.seconds("fit") is not None
        rows = some_test_rows(toy, 8)

        def asked(text: str) -> np.ndarray:
            prompt = prompt_of(method, bench, fitted.demonstrations, text)  # noqa: B023 - called in this turn only
            return plain(files, prompt, bench.label_words, mean=False)  # noqa: B023

        content_free = np.mean([asked(text) for text in ("N/A", "", "[MASK]")], axis=0)
        divided = np.stack([asked(text) / content_free for text in rows.texts])
        expected = divided / divided.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-4)
        uncalibrated = fitted_on(toy, make_bench(toy, files, cpu), configured("few-shot", k=4))
        assert uncalibrated.demonstrations == fitted.demonstrations
        assert not np.allclose(uncalibrated.predict(rows, bench), expected, atol=1e-3)


def test_nearest_shows_the_most_similar_last(toy: Task, tiny_llama: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(toy, tiny_llama, cpu)
    method = configured("few-shot", k=3, choose="nearest")
    pool = Worker(cpu, None).training_rows(toy, 48, 0, "stratified")
    fitted = method.fit(pool, bench)
    rows = some_test_rows(toy, 6)
    train, test = (bench.pooled(these, "encode", "fp32") for these in (pool, rows))
    cosines = test @ train.T / np.linalg.norm(test, axis=1)[:, None] / np.linalg.norm(train, axis=1)[None]
    expected = []
    for text, similar in zip(rows.texts, cosines, strict=True):
        chosen = sorted(range(48), key=lambda row: similar[row])[-3:]
        shown = [Demonstration(pool.texts[row], toy.label_words[pool.known_labels[row]]) for row in chosen]
        prompt = prompt_of(method, bench, shown, text)
        expected.append(plain_causal(tiny_llama, prompt, bench.label_words, mean=False))
    np.testing.assert_allclose(fitted.predict(rows, bench), expected, atol=1e-4)
    assert bench.ledger.remarks["demonstrations"] == "the 3 nearest to each text of 48"


@pytest.mark.parametrize("k", [1, 2, 3, 8, 24, 100])
def test_balanced_draws_are_balanced(k: int) -> None:
    labels = np.array([0] * 14 + [1] * 7 + [2] * 3)
    drawn = [draw(labels, 3, k, "balanced", seed) for seed in (0, 1)]
    for chosen in drawn:
        assert len(set(chosen.tolist())) == min(k, 24)
        counts = np.bincount(labels[chosen], minlength=3)
        unlimited = counts[counts < [14, 7, 3]]
        assert len(unlimited) == 0 or counts.max() <= unlimited.min() + 1
    assert k == 1 or drawn[0].tolist() != drawn[1].tolist()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("zero-shot", {}),
        ("few-shot", {"k": 4}),
        ("few-shot", {"k": 4, "choose": "nearest"}),
        ("calibrated-few-shot", {"k": 4, "choose": "random"}),
    ],
)
def test_saved_without_the_training_rows_predicts_the_same(
    name: str,
    settings: dict[str, Any],
    toy: Task,
    tiny_llama: BackboneFiles,
    tiny_t5: BackboneFiles,
    cpu: Device,
    tmp_path: Path,
) -> None:
    method = configured(name, **settings)
    for files in (tiny_llama, tiny_t5):
        bench = dataclasses.replace(make_bench(toy, files, cpu), label_words=LONG_LABELS)
        fitted = fitted_on(toy, bench, method)
        rows = some_test_rows(toy, 12)
        expected = fitted.predict(rows, bench)
        folder = tmp_path / files.architecture
        assert save_artifact(fitted, method, folder, bench) == artifact_size_bytes(fitted, method)
        elsewhere = make_bench(toy, files, cpu, seed=7)  # the words of the classes come from the artifact
        _, restored = load_artifact(folder, elsewhere)
        np.testing.assert_array_equal(restored.predict(rows, elsewhere), expected)


@pytest.mark.parametrize("name", ["zero-shot", "few-shot", "calibrated-few-shot", "label-similarity"])
def test_records_say_what_it_cost(
    name: str, toy: Task, tiny_llama: BackboneFiles, tiny_t5: BackboneFiles, cpu: Device
) -> None:
    for files in (tiny_llama, tiny_t5):
        worker = Worker(cpu, None)
        first, again = (run_one(toy, files, configured(name), cpu, worker=worker) for _ in range(2))
        assert first.status == "ok", first.error
        assert first.cost.n_trainable == 0
        device = torch.device("cpu")
        backbone = load_backbone(files)
        read = backbone.pristine if name == "label-similarity" else backbone.language_model(device).model
        assert first.cost.n_parameters == sum(value.numel() for value in read.parameters())
        assert first.cost.predict_seconds
        assert first.cost.load_seconds == again.cost.load_seconds
        assert ("language model" in again.cost.reused) == (name != "label-similarity")
        assert first.predictions is not None
        assert again.predictions is not None
        np.testing.assert_array_equal(first.predictions.confidence, again.predictions.confidence)
        if name == "few-shot":
            measured = first.facts.remarks
            assert len(measured["demonstrations"].split()) == 8
            other = run_one(toy, files, configured(name), cpu, worker=worker, seed=1).facts.remarks
            assert other["demonstrations"] != measured["demonstrations"]


def test_zero_shot_sees_no_training_row(toy: Task, tiny_llama: BackboneFiles, cpu: Device) -> None:
    for name in ("zero-shot", "label-similarity"):
        assert run_one(toy, tiny_llama, configured(name), cpu).cell.n_train == 0


def test_classes_that_the_tokenizer_cannot_tell_apart_are_refused(
    toy: Task, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    bench = dataclasses.replace(make_bench(toy, tiny_llama, cpu), label_words=("unheard", "of", "billing"))
    with pytest.raises(UnsupportedError, match=r"'of' has the same tokens as 'unheard'.*label_words"):
        fitted_on(toy, bench, configured("zero-shot"))


def test_a_template_needs_a_place_for_the_text() -> None:
    for template in ("no place", "{text} and {text}"):
        with pytest.raises(ValueError, match="once in the template"):
            configured("few-shot", template=template)


def test_label_similarity_is_the_cosine_with_each_description(toy: Task, minilm: BackboneFiles, cpu: Device) -> None:
    from harness.backbones.pooling import pool

    backbone = load_backbone(minilm)

    def embedded(text: str) -> torch.Tensor:
        inputs = backbone.tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            hidden = backbone.pristine(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        return torch.nn.functional.normalize(pool(hidden, inputs["attention_mask"], "mean"), dim=1)[0]

    bench = make_bench(toy, minilm, cpu)
    method = configured("label-similarity", description="This text is about {label}.", temperature=0.1)
    rows = some_test_rows(toy, 10)
    probabilities = method.fit(rows.take(np.arange(0)), bench).predict(rows, bench)
    descriptions = torch.stack([embedded(f"This text is about {words}.") for words in toy.label_words])
    expected = torch.stack([(descriptions @ embedded(text) / 0.1).softmax(0) for text in rows.texts])
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-4)
    record = run_one(toy, minilm, configured("label-similarity"), cpu)
    assert record.score is not None
    assert record.score.value > 0.6  # "invoice" is nearer to "billing" than to "shipping"


def test_few_shot_with_a_real_language_model(mirror: Path, sst2: Task, cpu: Device) -> None:
    files = locate_backbone("karpathy/tinyllamas-stories260K", mirror)
    for name in ("zero-shot", "few-shot", "calibrated-few-shot"):
        bench = make_bench(sst2, files, cpu)
        fitted = fitted_on(sst2, bench, configured(name))
        probabilities = fitted.predict(some_test_rows(sst2, 8), bench)
        assert probabilities.shape == (8, 2)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
