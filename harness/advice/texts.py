"""Lengths and words of the texts of tasks, known before anything is trained on them: costs go by these."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from harness.records import Record

if TYPE_CHECKING:
    from harness.advice.question import Question

_USUAL: Final = 2.5
"""How many times as long as the mean the longest text is, where nothing tells."""

_FEW: Final = 3

Known = TypeVar("Known")


@dataclass(frozen=True)
class TaskTexts:
    """Texts of a task at a number of labels. None is not known.

    Attributes:
        n_train: training texts.
        tokens: of a text, on average.
        longest: tokens of the longest text that is trained on.
        longest_read: of the longest that is trained on or predicted.
        terms: different words, and pairs of words that follow each other, in the training texts.
        classes: of the task.
    """

    n_train: int
    tokens: float | None = None
    longest: float | None = None
    longest_read: float | None = None
    terms: float | None = None
    classes: int | None = None

    @property
    def coefficients(self) -> int:
        """Rows of coefficients that a linear classifier of so many classes has: two classes share one."""
        return 1 if self.classes in (None, 2) else int(self.classes or 1)


@dataclass(frozen=True)
class KnownTexts:
    """Texts of the tasks that records are of, and by these of tasks that no record is of.

    Attributes:
        tokens: of a training text by task, where a frozen backbone has counted them.
        longest: tokens of the longest that is trained on, and of the longest at all, by task and labels; means over
            seeds.
        terms: that TF-IDF kept, likewise.
    """

    tokens: dict[str, float]
    longest: dict[str, dict[int, tuple[float, float]]]
    terms: dict[str, dict[int, float]]

    @classmethod
    def of_records(cls, records: Iterable[Record], tasks: Mapping[tuple[str, str], str]) -> KnownTexts:
        """Gather what scored records say; `tasks` names the task of each record's name and data."""
        tokens: defaultdict[str, list[float]] = defaultdict(list)
        longest: defaultdict[str, defaultdict[int, dict[tuple[int, str], float]]]
        longest = defaultdict(lambda: defaultdict(dict))
        terms: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            cell = record.cell
            task = tasks[cell.task, cell.data]
            facts = record.facts
            if facts.train_texts is not None and facts.train_texts.mean:
                tokens[task].append(facts.train_texts.mean)
            # All methods read the same rows of a seed: one that counts them tells.
            for part, texts in (("train", facts.train_texts), ("test", facts.test_texts)):
                if texts is not None and texts.longest is not None:
                    of_seed = longest[task][cell.n_train]
                    of_seed[cell.seed, part] = max(float(texts.longest), of_seed.get((cell.seed, part), 0.0))
            if facts.counts_words and facts.n_terms is not None:
                terms[task][cell.n_train].append(facts.n_terms)
        return cls(
            {task: median(values) for task, values in tokens.items()},
            {task: {n: _over_seeds(found) for n, found in sizes.items()} for task, sizes in longest.items()},
            {task: {n: sum(v) / len(v) for n, v in sizes.items()} for task, sizes in terms.items()},
        )

    def of(self, task: str, n_train: int, classes: int | None) -> TaskTexts:
        """Return the texts of a measured task; a count at another size stands in for one that is missing."""
        tokens = self.tokens.get(task)
        train, read = self._longest_of(task, n_train, tokens)
        return TaskTexts(n_train, tokens, train, read, self._terms_of(task, n_train, tokens), classes)

    def asked(self, question: Question, classes: int | None) -> TaskTexts:
        """Return the texts that a question describes; what it leaves out is taken from its task, or is usual."""
        tokens = question.tokens or self.tokens.get(question.task or "")
        if tokens is None and self.tokens:
            tokens = median(self.tokens.values())
        train, read = question.longest, question.longest_to_predict
        if train is None:
            train, read = self._longest_of(question.task, question.n_train, tokens)
        else:
            read = max(train, read or 0.0)
        terms = question.terms or self._terms_of(question.task, question.n_train, tokens)
        return TaskTexts(question.n_train, tokens, train, read, terms, classes)

    def _longest_of(
        self, task: str | None, n_train: int, tokens: float | None
    ) -> tuple[float, float] | tuple[None, None]:
        """Return the longest texts of the task's nearest size; else as many times the mean as is usual."""
        known = _nearest(self.longest, task, n_train)
        if known is not None:
            return known[1]
        return (None, None) if tokens is None else (tokens * self._usual[0], tokens * self._usual[1])

    @functools.cached_property
    def _usual(self) -> tuple[float, float]:
        """How many times the mean the two longest are."""
        found = [
            (train / self.tokens[task], read / self.tokens[task])
            for task, sizes in self.longest.items()
            if task in self.tokens
            for train, read in sizes.values()
        ] or [(_USUAL, _USUAL)]
        return median(train for train, _ in found), median(read for _, read in found)

    def _terms_of(self, task: str | None, n_train: int, tokens: float | None) -> float | None:
        """Return the terms of the task's nearest size, or as usual; they grow as a power of the tokens (Heaps)."""
        level, slope = self._heaps
        if (known := _nearest(self.terms, task, n_train)) is not None:
            size, terms = known
            return terms * (n_train / size) ** slope if size else terms
        return None if tokens is None else math.exp(level) * (max(n_train, 1) * tokens) ** slope

    @functools.cached_property
    def _heaps(self) -> tuple[float, float]:
        """Level and slope of terms by tokens, as logarithms; as many as tokens where nothing tells."""
        seen = [
            (n * self.tokens[task], terms)
            for task, sizes in self.terms.items()
            if task in self.tokens
            for n, terms in sizes.items()
            if n
        ]
        if len({tokens for tokens, _ in seen}) < _FEW:
            return 0.0, 1.0
        x, y = np.log(np.array(seen)).T
        slope, level = np.polyfit(x, y, 1)
        return float(level), float(slope)


def _over_seeds(of_seed: Mapping[tuple[int, str], float]) -> tuple[float, float]:
    """Means of the longest that is trained on, and of the longest at all; of texts that are predicted alone, twice."""
    seeds = {seed for seed, _ in of_seed}
    both = [(of_seed.get((seed, "train")), of_seed.get((seed, "test"))) for seed in seeds]
    train = [one or other or 0.0 for one, other in both]
    return sum(train) / len(train), sum(max(one or 0.0, other or 0.0) for one, other in both) / len(both)


def _nearest(known: Mapping[str, Mapping[int, Known]], task: str | None, n_train: int) -> tuple[int, Known] | None:
    """Return the size that is nearest, as ratios go, and what is known at it; None where the task has none."""
    sizes = known.get(task or "")
    if not sizes:
        return None
    size = n_train if n_train in sizes else min(sizes, key=lambda size: abs(math.log((size + 1) / (n_train + 1))))
    return size, sizes[size]
