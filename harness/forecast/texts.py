"""Lengths and words of the texts of tasks, known before anything is trained on them: costs go by these."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, TypeVar

import numpy as np

from harness.records import Record

_USUAL: Final = 2.5
"""Length of the longest text over the mean length, where no record tells."""

_FEWEST: Final = 3
"""Fewest counts of terms that a slope is fitted to."""

Known = TypeVar("Known")


@dataclass(frozen=True)
class TaskTexts:
    """Texts of a task at a number of labels. None is not known.

    Attributes:
        task: name of the task; None is a task without records.
        n_train: number of training texts.
        tokens: mean number of tokens of a text.
        longest: tokens of the longest training text.
        longest_read: tokens of the longest text, training or test.
        terms: number of different words, and pairs of neighbouring words, in the training texts.
        classes: number of classes.
        majority: share of the most frequent class.
    """

    task: str | None
    n_train: int
    tokens: float | None = None
    longest: float | None = None
    longest_read: float | None = None
    terms: float | None = None
    classes: int | None = None
    majority: float | None = None

    @property
    def coefficients(self) -> int:
        """Number of rows of coefficients of a linear classifier: two classes share one."""
        return 1 if self.classes in (None, 2) else int(self.classes or 1)


@dataclass(frozen=True)
class KnownTexts:
    """Lengths of the texts of tasks with records, from which those of other tasks are guessed.

    Attributes:
        tokens: mean tokens of a training text by task, where a frozen backbone has counted them.
        longest: tokens of the longest training text, and of the longest of all, by task and labels; means over seeds.
        terms: number of terms that TF-IDF kept, by task and labels; means over seeds.
    """

    tokens: dict[str, float]
    longest: dict[str, dict[int, tuple[float, float]]]
    terms: dict[str, dict[int, float]]

    @classmethod
    def of_records(cls, records: Iterable[Record], tasks: Mapping[tuple[str, str], str]) -> KnownTexts:
        """Gather the lengths that scored records state; `tasks` gives the task of each name and data."""
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
        return TaskTexts(task, n_train, tokens, train, read, self._terms_of(task, n_train, tokens), classes)

    def filled(self, asked: TaskTexts) -> TaskTexts:
        """Return the texts with unknown fields filled in: from their task's records, or with usual values."""
        tokens = asked.tokens or self.tokens.get(asked.task or "")
        if tokens is None and self.tokens:
            tokens = median(self.tokens.values())
        train, read = asked.longest, asked.longest_read
        if train is None:
            train, read = self._longest_of(asked.task, asked.n_train, tokens)
        else:
            read = max(train, read or 0.0)
        terms = asked.terms or self._terms_of(asked.task, asked.n_train, tokens)
        return replace(asked, tokens=tokens, longest=train, longest_read=read, terms=terms)

    def _longest_of(
        self, task: str | None, n_train: int, tokens: float | None
    ) -> tuple[float, float] | tuple[None, None]:
        """Return tokens of the two longest texts at the task's nearest size; else the usual multiple of the mean."""
        known = _nearest(self.longest, task, n_train)
        if known is not None:
            return known[1]
        return (None, None) if tokens is None else (tokens * self._usual[0], tokens * self._usual[1])

    @functools.cached_property
    def _usual(self) -> tuple[float, float]:
        """Lengths of the two longest texts over the mean length; medians over tasks and sizes."""
        found = [
            (train / self.tokens[task], read / self.tokens[task])
            for task, sizes in self.longest.items()
            if task in self.tokens
            for train, read in sizes.values()
        ] or [(_USUAL, _USUAL)]
        return median(train for train, _ in found), median(read for _, read in found)

    def _terms_of(self, task: str | None, n_train: int, tokens: float | None) -> float | None:
        """Return the number of terms from the task's nearest size, or as is usual.

        It grows as a power of the number of tokens (Heaps' law).
        """
        level, slope = self._heaps
        if (known := _nearest(self.terms, task, n_train)) is not None:
            size, terms = known
            return terms * (n_train / size) ** slope if size else terms
        return None if tokens is None else math.exp(level) * (max(n_train, 1) * tokens) ** slope

    @functools.cached_property
    def _heaps(self) -> tuple[float, float]:
        """Level and slope of terms by tokens, as logarithms; one term a token where no record tells."""
        seen = [
            (n * self.tokens[task], terms)
            for task, sizes in self.terms.items()
            if task in self.tokens
            for n, terms in sizes.items()
            if n
        ]
        if len({tokens for tokens, _ in seen}) < _FEWEST:
            return 0.0, 1.0
        x, y = np.log(np.array(seen)).T
        slope, level = np.polyfit(x, y, 1)
        return float(level), float(slope)


def _over_seeds(of_seed: Mapping[tuple[int, str], float]) -> tuple[float, float]:
    """Return the mean tokens of the longest training text, and of the longest of all.

    Where only test texts are known, they count as both.
    """
    seeds = {seed for seed, _ in of_seed}
    both = [(of_seed.get((seed, "train")), of_seed.get((seed, "test"))) for seed in seeds]
    train = [one or other or 0.0 for one, other in both]
    return sum(train) / len(train), sum(max(one or 0.0, other or 0.0) for one, other in both) / len(both)


def _nearest(known: Mapping[str, Mapping[int, Known]], task: str | None, n_train: int) -> tuple[int, Known] | None:
    """Return the nearest size, as ratios go, and its value; None where the task has no size."""
    sizes = known.get(task or "")
    if not sizes:
        return None
    size = n_train if n_train in sizes else min(sizes, key=lambda size: abs(math.log((size + 1) / (n_train + 1))))
    return size, sizes[size]
