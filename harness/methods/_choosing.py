"""Choose how to ask, and which rows to show, by scores on training rows that the prompts do not show.

Every label that is looked at counts in `n_train`. All work is charged to the "tune" phase.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from harness.measure import Phase
from harness.methods._asking import Asking
from harness.methods._demonstrations import draw, pick
from harness.methods._in_context import LEAST_SCORED, DemonstratingMethod
from harness.methods._language_model import load_language_model
from harness.methods._prompted import calibrate, prompted
from harness.methods._served_prompt import ServedPrompt
from harness.methods.bench import Bench, Ledger
from harness.support import UnsupportedError
from harness.tasks import Answers, Ints, Rows, TextAnswers

if TYPE_CHECKING:
    from harness.backbones import LanguageModel

MOST_SCORED: Final = 64
"""Maximum number of rows to score draws on where no wordings are compared."""

_SHARE: Final = 0.5
"""Share of a budget of seconds or operations that choosing may spend."""

Fold = tuple[Ints, Ints]
"""Positions of the rows that prompts show, and of those that are scored."""


class Chooser:
    """Compares candidates of one cell; loads the language model once.

    Args:
        method: settings.
        rows: all training rows.
        bench: bench of the cell, which is charged.
    """

    def __init__(self, method: DemonstratingMethod, rows: Rows, bench: Bench) -> None:
        self._method = method
        self._rows = rows
        self._bench = bench
        self._loaded: LanguageModel | None = None
        self._counted: tuple[float, int] | None = None

    @property
    def loaded(self) -> LanguageModel | None:
        """The language model, if a comparison has loaded it."""
        return self._loaded

    def asking(self, shown: Ints) -> Asking:
        """Return how to ask: the way with the best score, the first of equals; the default where none is compared.

        Args:
            shown: positions of the rows that prompts show.
        """
        candidates = self._method.askings(self._bench)
        folds = self._folds(shown, self._method.n_template_rows)
        if len(candidates) == 1 or not folds:
            return candidates[0]
        scores = self._scores([(one, folds) for one in candidates], "wording")
        best = int(np.argmax(scores))
        remarks = self._bench.ledger.remarks
        finite = [score for score in scores if math.isfinite(score)]
        n_scored = sum(len(scored) for _, scored in folds)
        remarks["prompt_scores"] = "; ".join(
            f"{score:.3f} {one.in_words()}" for one, score in zip(candidates, scores, strict=False)
        )
        remarks["prompt_spread"] = (
            f"{max(finite) - min(finite):.3f} between the best and the worst of {len(finite)} wordings, on {n_scored} "
            f"training rows ({min(finite):.3f} to {max(finite):.3f})"
        )
        return candidates[best]

    def draws(self, draws: Sequence[Ints], scored: Ints, asking: Asking) -> Ints:
        """Return the draw of demonstrations with the best score on other rows, the first of equals.

        Args:
            draws: positions of each draw.
            scored: positions of the rows to score; no draw has one of them.
            asking: way to ask.
        """
        scores = self._scores([(asking, [(one, scored)]) for one in draws], "draw")
        best = int(np.argmax(scores))
        self._bench.ledger.remarks["validated_draws"] = (
            f"draw {best + 1} of {len(scores)}, by {len(scored)} training rows: {scores[best]:.3f}, worst "
            f"{min(scores):.3f}"
        )
        return draws[best]

    def _folds(self, shown: Ints, n_most: int) -> list[Fold]:
        """Return which rows are shown and scored; empty where there are too few."""
        every = np.arange(len(self._rows), dtype=np.int64)
        others = np.setdiff1d(every, shown)
        if n_most == 0:
            return []
        if len(others) >= LEAST_SCORED:
            folds = [(shown, others[:n_most])]
        else:
            order = np.concatenate([shown, others])
            halves = order[::2], order[1::2]
            folds = [(halves[0], halves[1][:n_most]), (halves[1], halves[0][:n_most])]
        scored = np.concatenate([scored for _, scored in folds])
        is_one_class = self._bench.kind.form == "classes" and len(np.unique(self._rows.known_labels[scored])) < 2
        return [] if is_one_class or min(len(fold[0]) for fold in folds) == 0 else folds

    def _scores(self, candidates: Sequence[tuple[Asking, Sequence[Fold]]], what: str) -> list[float]:
        """Return the main metric of each candidate, higher is better; minus infinity for one that cannot be written.

        The list is shorter where a budget leaves no time.
        """
        bench = self._bench
        if self._loaded is None and bench.served is None:
            self._loaded = load_language_model(self._method, self._method.precision, bench)
        scores: list[float] = []
        for number, (asking, folds) in enumerate(candidates, 1):
            if scores and not self._may_go_on():
                break
            said = f"{what} {number} of {len(candidates)}"
            try:
                scores.append(self._score(asking, folds, said))
            except UnsupportedError:  # a chat that the template refuses, a wording longer than the positions
                if not scores:
                    raise
                scores.append(-math.inf)
        return scores

    def _score(self, asking: Asking, folds: Sequence[Fold], said: str) -> float:
        bench = self._bench

        def report(doing: str, fraction: float | None, loss: float | None) -> None:
            bench.report(f"{said}, {doing}", fraction, loss)

        aside = dataclasses.replace(bench, clock=bench.clock.aside(), ledger=Ledger(), report=report)
        n_read = 0

        def run() -> list[Answers]:
            nonlocal n_read
            answers = []
            for shown, scored in folds:
                with aside.working("tune"):
                    demonstrations = pick(self._rows, shown, aside, asking.wording)
                    fitted = prompted(self._method, aside, demonstrations, asking=asking, loaded=self._loaded)
                    fitted = calibrate(fitted, aside)
                answers.append(fitted.predict(self._rows.take(scored).without_labels(), aside))
                n_read += 0 if isinstance(fitted, ServedPrompt) else fitted.likelihood.n_tokens
            return answers

        try:
            answers = run()
        finally:
            for phase in get_args(Phase):
                bench.clock.charge_all(aside.clock, phase, "tune")
        n_tokens = n_read
        bench.ledger.train_tokens += n_tokens
        if bench.served is None:
            self._count(run, n_tokens)
        labels = np.concatenate([self._rows.known_labels[scored] for _, scored in folds])
        return bench.measure(_joined(answers), labels)

    def _count(self, run: Callable[[], object], n_tokens: int) -> None:
        """Enter the operations of a candidate: counted for the first one, in proportion to the tokens for others."""
        if self._counted is None:
            before = self._bench.ledger.train_flops
            self._bench.count_train_flops(run)
            self._counted = (self._bench.ledger.train_flops - before, max(1, n_tokens))
        else:
            flops, n_counted = self._counted
            self._bench.ledger.train_flops += flops * (n_tokens / n_counted if n_tokens else 1.0)

    def _may_go_on(self) -> bool:
        budget, bench = self._bench.budget, self._bench
        spent = ((budget.train_seconds, bench.clock.train_seconds), (budget.train_flops, bench.ledger.train_flops))
        return all(cap is None or used < _SHARE * cap for cap, used in spent)


def n_to_score(n_train: int, n_most: int) -> int:
    """Return the number of rows on which draws are compared; 0 where there are too few."""
    n_scored = min(n_most, n_train // 2)
    return n_scored if n_scored >= LEAST_SCORED else 0


def draws_and_scored(rows: Rows, bench: Bench, k: int, n_draws: int, n_most: int) -> tuple[list[Ints], Ints]:
    """Return balanced draws of demonstrations, and the positions of rows in none of them; none where they are too few.

    Args:
        rows: training rows, in the order of the cell's seed.
        bench: bench of the cell.
        k: maximum number of rows of a draw.
        n_draws: number of draws.
        n_most: maximum number of rows to score.
    """
    every = np.arange(len(rows), dtype=np.int64)
    n_scored = min(n_most, len(rows) // 2)
    scored, rest = every[:n_scored], every[n_scored:]
    labels = rows.known_strata[rest]
    seeds = [bench.seeded("demonstrations"), *(bench.seeded(f"demonstrations {turn}") for turn in range(1, n_draws))]
    draws = [rest[draw(labels, bench.n_strata, k, "balanced", seed)] for seed in seeds]
    return draws, scored[: n_to_score(len(rows), n_most)]


def _joined(answers: Sequence[Answers]) -> Answers:
    """Return the answers of several calls as those of one."""
    arrays = [one for one in answers if isinstance(one, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    texts = [text for one in answers if isinstance(one, TextAnswers) for text in one.texts]
    return TextAnswers(texts)
