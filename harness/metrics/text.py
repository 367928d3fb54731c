"""Metrics of free text against one reference or several: BLEU and chrF by sacrebleu, ROUGE, GSM8K's last number."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from harness.metrics.base import MetricSpec, Statistics, metrics

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

_NUMBER: Final = re.compile(
    r"""
    (?:(?<![\w)\]])(?P<minus>[-\u2212]))?  # a minus sign, hyphen or typographic; in 10-5 it takes away
    (?:[$€£]\ ?)?
    (?P<digits>\d+(?:,\d+)*(?:\.\d+)?|(?<![\d.])\.\d+)
    """,
    re.VERBOSE,
)


def _bleu_scorer() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU()


def _chrf_scorer() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _counts(scorer: Metric, predictions: list[str], references: list[list[str]]) -> npt.NDArray[np.int32]:
    # sacrebleu's own first step, which its bootstrap uses too: chrF's counts are available in no other way.
    # It reads references by rank, not by row, and None where a row has fewer.
    by_rank = list(itertools.zip_longest(*references))
    return np.array(scorer._extract_corpus_statistics(predictions, by_rank), dtype=np.int32)


def _signature(scorer: Metric, references: list[list[str]]) -> str:
    n_references = {len(several) for several in references}
    scorer.num_refs = n_references.pop() if len(n_references) == 1 else -1  # sacrebleu sets it when it reads them
    return scorer.get_signature().format()


def _total(counts: npt.NDArray[np.int32]) -> list[int]:
    total: list[int] = counts.sum(axis=0, dtype=np.int64).tolist()
    return total


def _measure_bleu(predictions: list[str], references: list[list[str]]) -> Statistics:
    counts = _counts(_bleu_scorer(), predictions, references)
    return {"bleu_lengths": counts[:, :2], "bleu_matches": counts[:, 2:6], "bleu_totals": counts[:, 6:]}


def _combine_bleu(statistics: Statistics) -> float:
    summed = [
        *_total(statistics["bleu_lengths"]),
        *_total(statistics["bleu_matches"]),
        *_total(statistics["bleu_totals"]),
    ]
    return float(_bleu_scorer()._compute_score_from_stats(summed).score)


def _measure_chrf(predictions: list[str], references: list[list[str]]) -> Statistics:
    counts = _counts(_chrf_scorer(), predictions, references)
    return {"chrf_totals": counts[:, 0::3], "chrf_reference_totals": counts[:, 1::3], "chrf_matches": counts[:, 2::3]}


def _combine_chrf(statistics: Statistics) -> float:
    names = ("chrf_totals", "chrf_reference_totals", "chrf_matches")
    summed = [count for order in zip(*(_total(statistics[name]) for name in names), strict=True) for count in order]
    return float(_chrf_scorer()._compute_score_from_stats(summed).score)


def _rouge(theirs: str, name: str) -> Callable[[list[str], list[list[str]]], Statistics]:
    """Return the step that gives each row its best F-measure over references, by rouge-score's name of a measure."""

    def measure(predictions: list[str], references: list[list[str]]) -> Statistics:
        from rouge_score.rouge_scorer import RougeScorer

        # Lines are the sentences of rougeLsum: to split texts into sentences, rouge-score would need data of nltk.
        scorer = RougeScorer([theirs], split_summaries=False)
        scores = [
            scorer.score_multi(rights, text)[theirs].fmeasure
            for text, rights in zip(predictions, references, strict=True)
        ]
        return {name: np.array(scores, dtype=np.float64)}

    return measure


def find_answer(text: str) -> Decimal | None:
    """Return the number that a solution in the style of GSM8K ends in; None if it has none.

    It is the first number after the first `####` if there is one (text after the answer does not count), else the last
    number of the text. Thousands commas, currency signs, a trailing period and zeros after the decimal point do not
    matter.
    """
    _, marked, after = text.partition("####")
    numbers = list(_NUMBER.finditer(after if marked else text))
    if not numbers:
        return None
    found = numbers[0] if marked else numbers[-1]
    value = Decimal(found["digits"].replace(",", ""))
    return value.copy_negate() if found["minus"] else value


def _exact_number(predictions: list[str], references: list[list[str]]) -> Statistics:
    matches = []
    for row, (text, rights) in enumerate(zip(predictions, references, strict=True)):
        answers = [find_answer(right) for right in rights]
        if None in answers:
            raise ValueError(f"exact_number: the reference of row {row} has no number: {rights!r}.")
        matches.append(find_answer(text) in answers)
    return {"exact_number": np.array(matches, dtype=np.int8)}


metrics.add(
    "bleu",
    MetricSpec(
        name="bleu",
        scores=frozenset({"translation"}),
        higher_is_better=True,
        low=0.0,
        high=100.0,
        mean_over_rows=False,
        description="BLEU of the corpus, by sacrebleu with its default settings.",
        source="Papineni et al., 2002, aclanthology.org/P02-1040; sacrebleu, Post, 2018, arXiv:1804.08771",
        inputs=("text", "texts"),
        measure=_measure_bleu,
        statistics=("bleu_lengths", "bleu_matches", "bleu_totals"),
        combine=_combine_bleu,
        sign=lambda references: _signature(_bleu_scorer(), references),
    ),
)
metrics.add(
    "chrf",
    MetricSpec(
        name="chrf",
        scores=frozenset({"translation"}),
        higher_is_better=True,
        low=0.0,
        high=100.0,
        mean_over_rows=False,
        description="chrF2 of the corpus (character n-grams up to 6), by sacrebleu with its default settings.",
        source="Popović, 2015, aclanthology.org/W15-3049; sacrebleu, Post, 2018, arXiv:1804.08771",
        inputs=("text", "texts"),
        measure=_measure_chrf,
        statistics=("chrf_totals", "chrf_reference_totals", "chrf_matches"),
        combine=_combine_chrf,
        sign=lambda references: _signature(_chrf_scorer(), references),
    ),
)
for _name, _theirs, _what in (
    ("rouge1", "rouge1", "words"),
    ("rouge2", "rouge2", "pairs of neighbouring words"),
    ("rougeLsum", "rougeLsum", "the longest common subsequences of words between lines, which stand for sentences"),
    ("rouge_l", "rougeL", "the longest common subsequence of words"),
):
    metrics.add(
        _name,
        MetricSpec(
            name=_name,
            scores=frozenset({"generation"}),
            higher_is_better=True,
            low=0.0,
            high=1.0,
            mean_over_rows=True,
            description=f"F-measure of {_what}, the best of a row's references, averaged over rows, by rouge-score "
            "without stemming. Its words are runs of a-z and 0-9: for English.",
            source="ROUGE, Lin, 2004, aclanthology.org/W04-1013; rouge-score of Google Research",
            inputs=("text", "texts"),
            measure=_rouge(_theirs, _name),
            statistics=(_name,),
        ),
    )
metrics.add(
    "exact_number",
    MetricSpec(
        name="exact_number",
        scores=frozenset({"generation"}),
        higher_is_better=True,
        low=0.0,
        high=1.0,
        mean_over_rows=True,
        description="Share of rows whose number is the reference's: the number after ####, else the last one.",
        source="GSM8K, Cobbe et al., 2021, arXiv:2110.14168",
        inputs=("text", "texts"),
        measure=_exact_number,
        statistics=("exact_number",),
    ),
)
