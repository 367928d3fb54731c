"""The cheap methods of a choice, before a transformer is trained: words, and everything on frozen features."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.choose.candidates import Candidate
from harness.choose.race import STARTING_SECONDS, Race
from harness.choose.tried import summarised, value_at
from harness.methods import LogisticMethod
from harness.tasks import Task

SHARE_FOR_CHEAP: Final = 0.6
"""Of the time left, that the cheap methods may take together."""

SHARE_FOR_FEATURES: Final = 0.2
"""Of the time left, that encoding texts for the cheap methods may take: beyond, they see fewer rows."""

FIRST_READING_SECONDS: Final = 6.0
"""Before a worker encodes its first text: it imports the architecture and reads the backbone. 2 to 6 s were seen."""

WORDS_A_SECOND: Final = 20_000.0
"""Rows times classes that a logistic regression on TF-IDF gets through, with a penalty that is set: half of what two
cores of a server do (10,000 rows of 77 classes took them 20 s)."""

SHARE_FOR_WORDS: Final = 0.03
"""Of the time left, that TF-IDF may take where a transformer is tried after it: beyond, it sees fewer rows. That says
whether words are enough; if they are, it is fitted to all rows in the end."""

SHARE_FOR_FOLD: Final = 0.06
"""Of the time left, that running the cheap methods on another fold may take."""


@dataclass(frozen=True)
class CheapMethods:
    """Those of a race's entrants that take no steps inside the transformer.

    Args:
        race: whose knowledge they add to.
    """

    race: Race

    def run(self, after_words: Callable[[], None] | None = None) -> None:
        """Cheap methods, features encoded once; on fewer rows where encoding all would take too long.

        Those that will hardly come out ahead, by what the first of them have reached, are left out, and those that take
        more from the last fit than knowing them is worth.

        Args:
            after_words: is called when what needs no transformer is known, before anything is encoded.
        """
        race = self.race
        cheap = [candidate for candidate in race.entrants if candidate.is_cheap]
        cheap.sort(key=lambda candidate: (bool(candidate.method.serves), candidate.method.name != "linear-probe"))
        stop = time.monotonic() + SHARE_FOR_CHEAP * race.left
        n_train: int | None = None
        left_out: dict[str, list[str]] = {}
        for fold in range(len(race.folds)):
            if fold and self._again(fold - 1) > SHARE_FOR_FOLD * race.left:
                return  # what is left serves the others better
            for candidate in cheap:
                if candidate.label in race.out or time.monotonic() > stop:
                    continue
                if fold == 0 and (why := self._why_leave_out(candidate)):
                    race.out[candidate.label] = f"was left out, {why}"
                    left_out.setdefault(why, []).append(candidate.label)
                    continue
                if candidate.method.serves and n_train is None:
                    if after_words is not None and race.tried:
                        after_words()
                    n_train = self._affordable(candidate)
                    if n_train == 0:
                        race.say("encoding texts with the transformer would take too long: words alone")
                        race.overhead = STARTING_SECONDS + FIRST_READING_SECONDS
                        return
                if not candidate.method.serves:
                    n = self._words_affordable(candidate, race.folds[fold], is_safe=after_words is not None)
                else:
                    n = None if fold or n_train == len(race.folds[0].train_labels) else n_train
                until = min(stop + 1.0, race.end) if race.tried else race.end  # something is better than nothing
                race.run(candidate, fold, until, n=n, quietly=fold > 0)
            for why, labels in left_out.items() if fold == 0 else ():
                race.say(f"left out, {why}: {', '.join(labels)}")
        if len(race.folds) > 1:
            found = sorted((m for m in summarised(race.tried) if m.n_folds > 1), key=lambda m: -m.score)
            if found:
                metric = race.folds[0].metric
                said = ", ".join(f"{m.candidate.label} {value_at(metric, m.score):.3f}" for m in found)
                race.say(f"over {found[0].n_folds} folds, {found[0].n_rows:,} rows: {said}")

    def _why_leave_out(self, candidate: Candidate) -> str | None:
        """Why a cheap method is not worth trying, once some are known; None where it is."""
        race = self.race
        known = [c for c in race.entrants if c.is_cheap and race.measured(c)]
        if len(known) < 2 or not any(c.method.serves for c in known):
            return None
        trained = [c for c in race.entrants if not c.is_cheap and c.label not in race.out and race.too_large(c) is None]
        rivals = [candidate, *known, *trained]
        seconds = race.left - race.overhead
        direct = race.rivals(rivals, seconds)
        if direct.is_beaten(0):
            return "being hardly able to come out ahead"
        later = race.rivals(rivals, seconds - self._on_features(candidate))
        if later.best_of([0], [race.noise(direct, race.folds[0].n_test)]) < direct.best_of([], []):
            return "taking more from the last fit than they would tell"
        return None

    def _on_features(self, candidate: Candidate) -> float:
        """Seconds that a method on frozen features takes on the first fold, now that its texts are encoded.

        What is no network is taken for a logistic regression: the linear probe's seconds, or the longest so far.
        """
        race = self.race
        light = race.runner.light_seconds(race.runner.plan(race.folds[0], candidate.method))
        if light:
            return light
        costs = [t.record.cost for t in race.tried if t.candidate.method.serves and not t.record.curve]
        return max(((cost.tune_seconds or 0.0) + (cost.fit_seconds or 0.0) for cost in costs), default=0.0)

    def _again(self, fold: int) -> float:
        """Seconds that the same on another fold would take, with all libraries imported.

        Folds are of the same texts: their features are there, unless too many to be encoded.
        """
        race = self.race
        known = [tried.record for tried in race.tried if tried.fold == fold]
        n_train = len(race.folds[fold].train_labels)
        fewer = [r.cost for r in known if r.cell.backbone is not None and r.cell.n_train < n_train]
        features = max(((cost.encode_seconds or 0.0) + (cost.predict_seconds or 0.0) for cost in fewer), default=0.0)
        return features + sum((r.cost.tune_seconds or 0.0) + (r.cost.fit_seconds or 0.0) + 0.1 for r in known)

    def _words_affordable(self, candidate: Candidate, task: Task, *, is_safe: bool) -> int | None:
        """Rows of a fold whose words can be learnt from within their share; None is all of them.

        A row of coefficients a class takes its time, and so does choosing a penalty.

        Args:
            candidate: a method without a transformer.
            task: the fold.
            is_safe: whether it is what is put aside first: then it may take longer, as where it is all there is.
        """
        race, method = self.race, candidate.method
        is_all = is_safe or not any(one.method.serves for one in race.entrants)
        share = SHARE_FOR_FEATURES if is_all else SHARE_FOR_WORDS
        fits = 1 + method.folds * len(method.c_grid) if isinstance(method, LogisticMethod) and method.c is None else 1
        n = int(share * race.left * WORDS_A_SECOND / (fits * max(1, task.n_outputs)))
        n = max(n, 2 * task.n_strata, 50)
        return None if n >= len(task.train_labels) else n

    def _affordable(self, candidate: Candidate) -> int:
        """Rows that can be encoded, validation rows included; 0 where that is too few to learn from."""
        race = self.race
        task = race.folds[0]
        needed = race.runner.estimate(race.runner.plan(task, candidate.method)).seconds
        share = SHARE_FOR_FEATURES if race.tried else SHARE_FOR_CHEAP  # something is better than nothing
        allowed = share * (race.left - FIRST_READING_SECONDS)
        if needed <= allowed:
            return len(task.train_labels)
        everything = len(task.train_labels) + task.n_test
        n = int(everything * allowed / needed) - task.n_test
        least = max(task.n_strata, 50)
        return 0 if n < least else n
