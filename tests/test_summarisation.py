"""Summarisation as a task of the kind `generation`: ROUGE, and articles that are longer than a backbone reads."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from harness.backbones import read_without_weights
from harness.backbones.locate import BackboneFiles
from harness.data.spec import Columns, DataSource, Decoding, Files, TaskSpec
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.report.caption import cautions
from harness.report.views.base import ReportData
from harness.support.errors import UsageError
from harness.tasks import TOPIC_WORDS, Task, kinds
from tests.toys import plan_one, run_one

MAX_LENGTH = 48
ENDING = "\n\nSummary:"


def write_rows(path: Path, n_rows: int, first: int) -> str:
    """Articles of 12 to 132 words whose first words are the summary; the last ones are of another topic."""
    words = random.Random(first)
    with path.open("w") as file:
        for row in range(n_rows):
            summary = " ".join(words.choices(TOPIC_WORDS["billing"], k=6))
            rest = " ".join(words.choices(TOPIC_WORDS["shipping"], k=6 + 20 * (row % 7)))
            file.write(json.dumps({"article": f"{summary} {rest}", "highlights": summary}) + "\n")
    return str(path)


def summaries(folder: Path, **changes: Any) -> Task:
    files = Files(train=write_rows(folder / "a.jsonl", 40, 0), test=write_rows(folder / "b.jsonl", 16, 100))
    spec = TaskSpec(
        **{
            "name": "news",
            "kind": "generation",
            "data": DataSource(files=files),
            "columns": Columns.model_validate({"prompt": "article", "target": "highlights"}),
            "prompt": "{article}" + ENDING,
            "metric": "rouge2",
            "max_length": MAX_LENGTH,
            "truncation_side": "input",
            "decoding": Decoding(max_new_tokens=8),
            **changes,
        }
    )
    return kinds.get("generation").prepare(spec, None)


@pytest.mark.parametrize("architecture", ["causal", "sequence-to-sequence"])
def test_a_long_article_loses_its_end_and_the_prompt_keeps_its_own(
    architecture: str, tmp_path: Path, tiny_backbones: dict[str, BackboneFiles]
) -> None:
    task, backbone = summaries(tmp_path), read_without_weights(tiny_backbones[architecture])
    tokenizer = backbone.tokenizer
    found = task.kind.tokenize(task.test, backbone, MAX_LENGTH)
    assert task.test.prompts is not None
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in task.test.prompts]
    assert found.n_truncated == sum(length > MAX_LENGTH for length in lengths)
    assert 0 < found.n_truncated < 16
    ending = tokenizer(ENDING, add_special_tokens=False)["input_ids"]
    specials = [
        token
        for token in tokenizer("a")["input_ids"]
        if token not in tokenizer("a", add_special_tokens=False)["input_ids"]
    ]
    for prompt, ids, length in zip(task.test.prompts, found.ids, lengths, strict=True):
        whole = tokenizer(prompt)["input_ids"]
        if length <= MAX_LENGTH:
            assert list(ids) == whole
            continue
        assert MAX_LENGTH - 3 <= len(ids) <= MAX_LENGTH
        kept = [token for token in ids if token not in specials]
        body = [token for token in whole if token not in specials]
        n_same = len(kept) - len(ending) - 1  # a merge at the joint may change one token
        assert kept[:n_same] == body[:n_same]
        assert kept[-len(ending) :] == ending


def test_without_it_a_causal_model_loses_the_beginning(tmp_path: Path, tiny_llama: BackboneFiles, cpu: Device) -> None:
    task, backbone = summaries(tmp_path, truncation_side="right"), read_without_weights(tiny_llama)
    for method in parse_methods(["zero-shot", "full[epochs=1,min_steps=1]"]):
        record = run_one(task, tiny_llama, method, cpu, size="16")
        assert record.facts.test_texts is not None, record.error
        assert (record.facts.test_texts.cut_side, bool(record.facts.test_texts.n_cut)) == ("left", True)
    inside = summaries(tmp_path)
    assert task.data != inside.data
    row = max(range(16), key=lambda row: len(task.test.texts[row]))
    shown = [
        backbone.tokenizer.decode(one.kind.tokenize(one.test, backbone, MAX_LENGTH).ids[row]) for one in (task, inside)
    ]
    assert [any(word in text for word in TOPIC_WORDS["billing"]) for text in shown] == [False, True]


@pytest.mark.parametrize("architecture", ["causal", "sequence-to-sequence"])
@pytest.mark.parametrize("method", ["zero-shot", "few-shot[k=1]", "full"])
def test_scores_are_those_of_rouge_score_and_the_record_counts_what_was_cut(
    method: str, architecture: str, tmp_path: Path, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    task, files = summaries(tmp_path), tiny_backbones[architecture]
    [asked] = parse_methods([method])
    if method == "full":
        asked = asked.model_copy(update={"epochs": 1.0, "min_steps": 1})
    assert plan_one(task, files, asked, size="16").unsupported is None
    record = run_one(task, files, asked, cpu, size="16")
    assert record.status == "ok", record.error
    assert record.score is not None
    assert record.predictions is not None
    assert record.predictions.texts is not None
    names = {"rouge1": "rouge1", "rouge2": "rouge2", "rouge_l": "rougeL", "rougeLsum": "rougeLsum"}
    scorer = RougeScorer(list(names.values()))
    each = [
        scorer.score(str(right), text) for right, text in zip(task.test_labels, record.predictions.texts, strict=True)
    ]
    found = {record.score.metric: record.score.value, **record.score.others}
    assert found == pytest.approx(
        {name: np.mean([row[theirs].fmeasure for row in each]) for name, theirs in names.items()}, abs=1e-6
    )
    cut = record.facts.test_texts
    assert cut is not None
    backbone = read_without_weights(files)
    if method == "full":
        assert cut.n_cut == task.kind.tokenize(task.test, backbone, MAX_LENGTH).n_truncated
    assert cut.n_cut
    assert cut.cut_side == "right"
    (panel,) = ReportData([record]).panels
    assert any("of the test texts" in said and "were cut" in said for said in cautions(panel))


def test_other_kinds_have_no_input_within_a_prompt(tmp_path: Path) -> None:
    files = Files(train=write_rows(tmp_path / "a.jsonl", 4, 0))
    spec = TaskSpec(name="news", data=DataSource(files=files), truncation_side="input")
    with pytest.raises(UsageError, match="truncation_side: 'input' is for written answers"):
        kinds.get("classification").resolve(spec)
