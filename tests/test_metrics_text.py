"""Metrics of texts against sacrebleu's command line and plain implementations from their published definitions."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from harness.metrics import metrics
from harness.metrics.text import find_answer

MADE_UP = [
    ("The cat sat on the mat.", ["The cat sat on the mat.", "A cat was sitting on the mat."]),
    ("", ["Nothing was said here.", "Nobody said anything."]),
    ("Il est 5 heures 30, n'est-ce pas ?", ["Il est cinq heures et demie, n'est-ce pas ?", "Il est 5 h 30 , non ?"]),
    ("Ein Mann läuft über die Straße", ["Ein Mann rennt über die Straße.", "Ein Mann läuft auf der Straße."]),
    ("no", ["yes", "no"]),
    ('He said: "It\'s $3,000.50 (or so)" & left &quot;quickly&quot;.', ['He said "$3,000.50" and left.', "He left."]),
    ("完全に別のもの です。", ["まったく別の物です。", "別の物だ。"]),
]
ANSWERS = "the The a an AN answer, (Answer) U.S. it's well-known Beyoncé 1,976 1976 and theatre naïve – of !"


def rows_of(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def corrupt(text: str, generator: np.random.Generator) -> str:
    """Drop, repeat and swap a few words."""
    words = [word for word in text.split() for _ in range(generator.choice([0, 1, 1, 1, 1, 1, 1, 2]))]
    if len(words) > 1:
        at = generator.integers(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def by_command_line(predictions: list[str], references: list[list[str]], folder: Path) -> dict[str, dict]:
    """What `sacrebleu` says of files with one sentence a line; every row has as many references."""
    hypotheses = folder / "hypotheses.txt"
    hypotheses.write_text("".join(f"{text}\n" for text in predictions), encoding="utf-8")
    files = []
    for rank, texts in enumerate(zip(*references, strict=True)):
        files.append(folder / f"references-{rank}.txt")
        files[-1].write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *files, "-i", hypotheses, "-m", "bleu", "chrf", "-w", "12", "-f", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {found["name"].removesuffix("2").lower(): found for found in json.loads(run.stdout)}


def check_by_command_line(predictions: list[str], references: list[list[str]], folder: Path) -> None:
    theirs = by_command_line(predictions, references, folder)
    for name in ("bleu", "chrf"):
        spec = metrics.get(name)
        assert spec.compute(predictions, references) == pytest.approx(theirs[name]["score"], abs=1e-10)
        stored = spec.row_statistics(predictions, references)
        assert spec.from_statistics(stored) == pytest.approx(theirs[name]["score"], abs=1e-10)
        assert spec.signature(references) == theirs[name]["signature"]
        assert {array.dtype for array in stored.values()} == {np.dtype(np.int32)}


def test_made_up_sentences_score_as_on_sacrebleus_command_line(tmp_path):
    predictions, references = (list(side) for side in zip(*MADE_UP, strict=True))
    check_by_command_line(predictions, references, tmp_path)


def test_german_sentences_score_as_on_sacrebleus_command_line(mirror, tmp_path):
    generator = np.random.default_rng(0)
    german = [row["de"] for row in rows_of(mirror / "datasets/bentrevett/multi30k/test.jsonl")][:300]
    predictions = [corrupt(text, generator) for text in german]
    check_by_command_line(predictions, [[text] for text in german], tmp_path)
    for name in ("bleu", "chrf"):  # one reference may be given as it is
        spec = metrics.get(name)
        assert 20 < spec.compute(predictions, german) < 95
        assert spec.compute(predictions, german) == spec.compute(predictions, [[text] for text in german])


def test_rows_may_have_different_numbers_of_references():
    from sacrebleu.metrics import BLEU, CHRF

    predictions = [text for text, _ in MADE_UP]
    references = [several[: 1 + at % 2] for at, (_, several) in enumerate(MADE_UP)]
    by_rank = [[several[0] for several in references], [[*several, None][1] for several in references]]
    for name, scorer in (("bleu", BLEU()), ("chrf", CHRF())):
        spec = metrics.get(name)
        assert spec.compute(predictions, references) == pytest.approx(scorer.corpus_score(predictions, by_rank).score)
        assert spec.signature(references) == scorer.get_signature().format()
        assert "nrefs:var" in spec.signature(references)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge_l", "squad_f1", "squad_exact_match"])
def test_a_perfect_text_has_the_highest_score_and_an_empty_one_the_lowest(name):
    spec = metrics.get(name)
    texts = ["A man walks his dog in the park.", "Two children are playing football outside."]
    assert spec.compute(texts, texts) == pytest.approx(spec.high)
    assert spec.compute(["", ""], texts) == spec.low
    assert spec.compute(["\ud800", "b"], texts) >= spec.low  # a lone surrogate, as JSON may hold it


def test_texts_of_the_wrong_shape_are_refused():
    spec = metrics.get("squad_f1")
    with pytest.raises(ValueError, match="the reference of row 1 is \\[\\], not a text or a list of at least one"):
        spec.compute(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="the prediction of row 1 is a NoneType, not a text"):
        spec.compute(["a", None], ["a", "b"])
    with pytest.raises(ValueError, match="the predictions are the text 'ab'"):
        spec.compute("ab", ["a", "b"])


def plain_answer(text: str) -> list[str]:
    """SQuAD's normalisation as its authors describe it, character by character and word by word."""
    kept = "".join(" " if char.isspace() else char for char in text.lower() if char not in string.punctuation)
    runs = re.findall(r"\w+|[^\w\s]+|\s+", kept)  # an article is one between word boundaries, so also beside a dash
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def plain_squad(prediction: str, references: list[str]) -> tuple[float, float]:
    """(F1, exact match) of an answer: the best of its references for each."""
    best_f1 = best_match = 0.0
    for reference in references:
        words, right = plain_answer(prediction), plain_answer(reference)
        best_match = max(best_match, float(words == right))
        n_shared = sum(min(words.count(word), right.count(word)) for word in set(words))
        if n_shared:
            best_f1 = max(best_f1, 2 * n_shared / (len(words) + len(right)))  # what 2PR / (P + R) comes to
    return best_f1, best_match


def check_squad(predictions: list[str], references: list[list[str]]) -> None:
    expected = np.array([plain_squad(*row) for row in zip(predictions, references, strict=True)])
    assert all(0.1 < mean < 0.9 for mean in expected.mean(axis=0))  # neither all right nor all wrong
    assert ((expected[:, 0] > 0) & (expected[:, 0] < 1)).mean() > 0.1
    for at, name in enumerate(("squad_f1", "squad_exact_match")):
        stored = metrics.get(name).row_statistics(predictions, references)
        np.testing.assert_allclose(stored[name], expected[:, at], rtol=1e-12)
        assert metrics.get(name).compute(predictions, references) == pytest.approx(expected[:, at].mean(), rel=1e-12)


def test_squad_metrics_of_made_up_answers():
    generator = np.random.default_rng(0)

    def answer() -> str:
        return " ".join(generator.choice(ANSWERS.split(), size=generator.integers(0, 5)))

    references = [[answer() for _ in range(generator.integers(1, 5))] for _ in range(1000)]
    predictions = [generator.choice([*several, answer(), answer()]) for several in references]
    check_squad([corrupt(text, generator) if at % 3 else text for at, text in enumerate(predictions)], references)


def test_squad_metrics_of_real_answers(mirror):
    generator = np.random.default_rng(0)
    rows = list(rows_of(mirror / "datasets/rajpurkar/squad/validation.jsonl"))[::10][:1000]
    references = [row["answers"]["text"] for row in rows]
    predictions = []
    for row, several in zip(rows, references, strict=True):
        words = row["context"].split()
        start = generator.integers(len(words))
        anywhere = " ".join(words[start : start + 4])
        predictions.append(
            str(generator.choice([several[-1], f"the {several[0]}.", corrupt(several[0], generator), anywhere]))
        )
    check_squad(predictions, references)


def test_squads_published_examples():
    # The card of Hugging Face's `squad` metric, which wraps the official script: 2 of 3 right, and é is not e.
    predictions = ["1976", "Beyonce", "climate change"]
    references = [["1976"], ["Beyoncé and Bruno Mars"], ["climate change"]]
    for name in ("squad_f1", "squad_exact_match"):
        assert metrics.get(name).compute(predictions, references) == pytest.approx(2 / 3)
    # The official script: no words in common is 0 even where both are empty, which match exactly.
    assert metrics.get("squad_f1").compute(["The"], ["a"]) == 0
    assert metrics.get("squad_exact_match").compute(["The"], ["a"]) == 1


def plain_rouge_l(prediction: str, reference: str) -> float:
    """Lin (2004), section 3.1, with beta 1, over runs of a-z and 0-9 in lower case."""
    words, right = (re.findall("[a-z0-9]+", text.lower()) for text in (prediction, reference))
    longest = [0] * (len(right) + 1)  # of the words so far and each prefix of the reference
    for word in words:
        before = longest.copy()
        for at, other in enumerate(right, start=1):
            longest[at] = before[at - 1] + 1 if word == other else max(longest[at - 1], before[at])
    if longest[-1] == 0:
        return 0.0
    precision, recall = longest[-1] / len(words), longest[-1] / len(right)
    return 2 * precision * recall / (precision + recall)


def test_rouge_l_is_a_plain_subsequence():
    generator = np.random.default_rng(0)
    vocabulary = "The the cat, cat's sat on mat. 12 1,200 läuft ... -"
    references = [
        [
            " ".join(generator.choice(vocabulary.split(), size=generator.integers(0, 15)))
            for _ in range(generator.integers(1, 4))
        ]
        for _ in range(200)
    ]
    predictions = [corrupt(several[0], generator) for several in references]
    spec = metrics.get("rouge_l")
    expected = [
        max(plain_rouge_l(text, right) for right in several)
        for text, several in zip(predictions, references, strict=True)
    ]
    np.testing.assert_allclose(spec.row_statistics(predictions, references)["rouge_l"], expected, rtol=1e-12)
    assert spec.compute(predictions, references) == pytest.approx(np.mean(expected), rel=1e-12)
    # Lin (2004): "police kill the gunman" has 2 of 4 words of "police killed the gunman" in "the gunman kill police"
    # and 3 of 4 in "police kill the gunman".
    reference = ["police killed the gunman"]
    assert spec.compute(["police kill the gunman"], reference) == pytest.approx(0.75)
    assert spec.compute(["the gunman kill police"], reference) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", "18"),
        ("She has 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n#### 18", "18"),
        ("####18", "18"),
        ("#### $1,450,000.", "1450000"),
        ("#### 1450000.00", "1450000"),
        ("#### -$12.50", "-12.5"),
        ("#### $-12.5", "-12.5"),
        ("#### \u221212.5", "-12.5"),
        ("#### 7\n\nQuestion: Tom has 5 apples and 3 pears.\n#### 8", "7"),  # it went on after its answer
        ("5 apples, so #### none", None),
        ("The answer is 18.", "18"),
        ("The answer is 18.00 dollars", "18"),
        ("The answer is $3,000!", "3000"),
        ("First 3, then 4, so 7 in all", "7"),
        ("It costs 20% of 50, or 10 dollars", "10"),
        ("10-5", "5"),
        ("10 - 5", "5"),
        ("10 - 15 = -5", "-5"),
        ("x=-5", "-5"),
        ("(-5)", "-5"),
        ("pages 12–15", "15"),
        ("exactly .50", "0.5"),
        ("well...5", "5"),
        ("**42**", "42"),
        (r"\boxed{1,024}", "1024"),
        ("0012", "12"),
        ("-0", "0"),
        ("9" * 40 + "8", "9" * 40 + "8"),  # more digits than decimal arithmetic keeps
        ("-" + "9" * 40, "-" + "9" * 40),
        ("no number", None),
        ("", None),
    ],
)
def test_the_number_that_a_solution_ends_in(text, number):
    assert find_answer(text) == (None if number is None else Decimal(number))
    expected = {number: 1.0, "123456789": 0.0}
    for reference, score in expected.items():
        if reference is not None:
            assert metrics.get("exact_number").compute([text], [f"So be it.\n#### {reference}"]) == score


def test_a_reference_without_a_number_is_refused():
    with pytest.raises(ValueError, match="the reference of row 1 has no number"):
        metrics.get("exact_number").compute(["1", "2"], ["1", "two"])
    assert metrics.get("exact_number").compute(["none", "2 or 3"], [["1", "2"], ["4", "3"]]) == 0.5


def test_gsm8ks_answers_are_their_own(mirror):
    answers = [
        row["answer"]
        for split in ("train", "test")
        for row in rows_of(mirror / f"datasets/openai/gsm8k/main/{split}.jsonl")
    ]
    assert len(answers) > 8000
    for answer in answers:  # as the authors' dataset.py finds it
        assert find_answer(answer) == Decimal(re.search(r"#### (\-?[0-9\.\,]+)", answer)[1].replace(",", ""))
    spec = metrics.get("exact_number")
    assert spec.compute(answers, answers) == 1
    assert spec.row_statistics(answers, answers)["exact_number"].dtype == np.int8
    bare = [answer.partition("####")[0] + "So it is $" + answer.split("#### ")[1] + ".00." for answer in answers]
    assert spec.compute(bare, answers) == 1
    shifted = answers[1:] + answers[:1]
    assert 0 < spec.compute(shifted, answers) < 0.1


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeLsum"])
def test_each_rouge_is_the_mean_of_rouge_scores_best_reference(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    predictions = [text.replace(" the ", "\nthe ") for text, _ in MADE_UP]
    references = [[right.replace(" ", "\n", 1) for right in rights] for _, rights in MADE_UP]
    scorer = RougeScorer([name])
    expected = [
        max(scorer.score(right, text)[name].fmeasure for right in rights)
        for text, rights in zip(predictions, references, strict=True)
    ]
    spec = metrics.get(name)
    assert spec.row_statistics(predictions, references)[name] == pytest.approx(expected, abs=1e-12)
    assert spec.compute(predictions, references) == pytest.approx(np.mean(expected), abs=1e-12)


def test_lines_are_the_sentences_of_rouge_lsum(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: each line of the reference finds its words in any line of the summary (Lin, 2004, section 3.2)."""
    import nltk

    monkeypatch.setattr(nltk, "sent_tokenize", lambda _: pytest.fail("nltk's data were asked for"))
    right = [["a b c d\ne f g h"]]
    assert metrics.get("rougeLsum").compute(["e f g h\na b c d"], right) == pytest.approx(1)
    assert metrics.get("rouge_l").compute(["e f g h\na b c d"], right) == pytest.approx(0.5)
    assert metrics.get("rougeLsum").compute(["e f x y"], right) == pytest.approx(2 * 0.5 * 0.25 / 0.75)
