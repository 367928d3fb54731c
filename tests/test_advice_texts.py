"""What costs go by: the longest text of each size, words and pairs of them; and configurations that state a default."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.advice.answer import answer_question
from harness.advice.question import Question
from harness.forecast.evidence import gather
from harness.forecast.texts import KnownTexts, TaskTexts
from harness.forecast.work import log_bytes, longest_read
from harness.records.facts import Facts, TextLengths
from harness.records.record import Record
from tests.record_factory import make_grid, with_facts

SIZES = (32, 256, 2048)


def counted(records: list[Record], train: dict[int, float], test: float) -> list[Record]:
    """Copies that say how many tokens their longest texts have, by labels."""
    found = []
    for r in records:
        lengths = replace(r.facts.train_texts or TextLengths(), longest=train[r.cell.n_train] + r.cell.seed)
        found.append(with_facts(r, train_texts=lengths, test_texts=TextLengths(longest=test)))
    return found


def known(records: list[Record]) -> KnownTexts:
    return KnownTexts.of_records(records, {(r.cell.task, r.cell.data): r.cell.task for r in records})


def test_the_longest_text_is_that_of_a_size_in_the_mean_over_seeds() -> None:
    train = {32: 20.0, 256: 40.0, 2048: 100.0}
    texts = known(counted(make_grid(sizes=SIZES), train, 60.0))
    (task,) = {r.cell.task for r in make_grid(sizes=SIZES)}
    at = {n: texts.of(task, n, 2) for n in (*SIZES, 300)}
    assert [at[n].longest for n in SIZES] == [21.0, 41.0, 101.0]  # seeds 0, 1 and 2
    assert [at[n].longest_read for n in SIZES] == [60.0, 60.0, 101.0]
    assert at[300].longest == 41.0  # the nearest size
    assert texts.of("another", 32, 2).longest is None  # nothing tells how long its texts are


def test_what_a_question_says_of_its_texts_comes_before_what_is_usual() -> None:
    records = counted(make_grid(sizes=SIZES), dict.fromkeys(SIZES, 63.0), 128.0)  # 64 in the mean
    texts = known(records)
    (task,) = {r.cell.task for r in records}
    own = texts.filled(Question(n_train=256, tokens=10.0, longest=30.0, terms=500.0).texts)
    assert (own.longest, own.longest_read, own.terms) == (30.0, 30.0, 500.0)
    assert texts.filled(Question(n_train=256, longest=30.0, longest_to_predict=90.0).texts).longest_read == 90.0
    measured = texts.filled(Question(n_train=256, task=task).texts)
    assert (measured.longest, measured.longest_read) == (64.0, 128.0)
    usual = texts.filled(Question(n_train=256, tokens=2 * texts.tokens[task]).texts)
    assert (usual.longest, usual.longest_read) == (128.0, 256.0)  # as many times the mean as measured


def test_terms_grow_as_a_power_of_the_tokens() -> None:
    """Heaps' law, put into records of TF-IDF, comes back at sizes and for tasks that were not measured."""
    records = []
    for r in make_grid(sizes=SIZES):
        if r.cell.method == "tfidf":
            terms = round(30 * (r.cell.n_train * 20.0) ** 0.6)
            r = with_facts(r, n_terms=terms)
        elif r.facts.role == "fine-tuning":
            r = with_facts(r, train_texts=TextLengths(mean=20.0))
        records.append(r)
    texts = known(records)
    found = texts.filled(TaskTexts(None, 1000, tokens=50.0)).terms
    assert found == pytest.approx(30 * 50_000**0.6, rel=0.01)
    (task,) = {r.cell.task for r in records}
    assert texts.of(task, 512, 2).terms == pytest.approx(30 * (512 * 20) ** 0.6, rel=0.01)
    assert texts.of(task, 256, 2).terms == round(30 * (256 * 20) ** 0.6)


def test_bytes_go_by_the_texts_that_a_method_holds() -> None:
    evidence = gather(counted(make_grid(sizes=SIZES), dict.fromkeys(SIZES, 63.0), 128.0))
    texts = evidence.texts.of(evidence.points[0].task, 256, 2)
    points = {point.name: point for point in evidence.points}
    points["linear-probe"] = replace(points["linear-probe"], facts=Facts(role="frozen features"))
    assert longest_read(points["full"], texts) == 64.0
    assert longest_read(points["linear-probe"], texts) == 128.0
    twice = replace(texts, longest=128.0, longest_read=256.0)
    features = log_bytes(points["linear-probe"], twice) - log_bytes(points["linear-probe"], texts)
    usual = min(texts.tokens or 32.0, 128.0)  # beside the longest ones; 20 tokens are held whatever the texts
    assert features == pytest.approx(np.log((256 + usual + 20) / (128 + usual + 20)))
    assert 0 < log_bytes(points["full"], twice) - log_bytes(points["full"], texts) < np.log(2)
    many = replace(texts, terms=1e6, classes=77)
    assert np.exp(log_bytes(points["tfidf"], many)) > 20e9  # 77 million coefficients under L-BFGS


def test_longer_texts_at_one_size_take_more_memory() -> None:
    records = [
        r
        for task, scale in (("a", 1.0), ("b", 2.0), ("c", 3.0))
        for r in counted(make_grid(sizes=SIZES, task=task), dict.fromkeys(SIZES, 32 * scale), 32 * scale)
    ]
    short, long = (answer_question(Question(n_train=256, tokens=20.0, longest=at), records) for at in (40.0, 120.0))
    before = {c.method: c.peak_memory_bytes for c in short.choices}
    assert all(c.peak_memory_bytes > before[c.method] for c in long.choices if c.method != "tfidf")


def test_a_default_that_is_not_stated_is_not_another_setting() -> None:
    """Words were once taken for characters: a configuration that does not say which for an older one that does not."""
    records = make_grid(sizes=SIZES)
    words = [r for r in records if r.cell.method == "tfidf"]
    characters = [replace(r, cell=replace(r.cell, config={**r.cell.config, "analyzer": "char"})) for r in words]
    points = gather(records + characters).points
    assert {p.method for p in points if p.name == "tfidf"} == {"tfidf", "tfidf[analyzer=char]"}
    assert all("analyzer" not in p.config for p in points if p.method == "tfidf")
    assert {p.method for p in gather(characters).points} == {"tfidf[analyzer=char]"}  # told even where it is alone
    older = [replace(r, cell=replace(r.cell, config={})) for r in words]  # before it had any settings
    assert {p.method for p in gather(records + older).points if p.name == "tfidf"} == {"tfidf"}
