"""Choose a method's settings on a validation split of the training rows, inside the cell's own budget; then fit.

`tune=8` tries eight settings of the method's `search_space`: its own first, then what optuna's TPE sampler proposes.
Each is fitted on four fifths of the training rows and scored on the last fifth, which `carve_validation` sets aside by
the same rule for every method. The best is then fitted on all of them. Labels are counted once: a tuned method sees no
more of them than one that is not tuned, and it pays for every trial.

The caps `train_seconds` and `train_flops` are shared. The trials may spend half of them, evenly split, and the last
fit spends the rest, with what the trials have left over. `epochs` and `steps` are caps of each fit, so a
budget of one of them alone buys every trial a full fit. `peak_memory_bytes` is a limit of trials and last fit alike.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from harness.data import carve_validation
from harness.features import Account, SharedFeatures
from harness.measure import Phase, is_out_of_memory, known_flops, settle
from harness.methods import Bench, Fitted, Ledger, Method
from harness.records import Budget
from harness.running.proposals import Proposals, make_study
from harness.tasks import Rows

if TYPE_CHECKING:
    from harness.features import FeatureStore

_SHARE = 0.5
"""Share of a budget of seconds or operations that all trials together may spend."""

_SHARED = ("train_seconds", "train_flops")
_LEAST = 1e-9  # a budget is above 0: a fit that is left nothing takes one step and stops


def fit(method: Method, rows: Rows, bench: Bench) -> tuple[Fitted, Method]:
    """Fit a method; choose its settings first if it asks for that (`tune`).

    If the rows are too few to set aside validation rows of two classes, nothing is tuned and a note says so.

    Args:
        method: as configured.
        rows: all training rows.
        bench: bench of the cell; its clock and ledger are charged with the trials (`tune`) and the fit.

    Returns:
        The fitted method, and the method with the settings that it was fitted with.
    """
    if method.tune is None:
        return method.fit(rows, bench), method
    untuned = method.model_copy(update={"tune": None})
    inside, outside = carve_validation(bench.kind.validation_groups(rows.known_strata))
    of_classes = bench.kind.form == "classes"
    if len(outside) == 0 or (of_classes and len(np.unique(rows.known_labels[outside])) < 2):
        left = "no validation rows" + (" of two classes" if of_classes else "")
        bench.ledger.state(tuned_trials=f"none: {len(rows)} rows leave {left}")
        return untuned.fit(rows, bench), untuned
    tuning = _Tuning(untuned, rows.take(inside), rows.take(outside), bench)
    try:
        chosen = tuning.search(method.tune)
        return tuning.fit_finally(chosen, rows), chosen
    finally:
        tuning.pay_for_features()


def warm_up_sampler() -> None:
    """Import optuna and let its sampler propose once: importing a library is not part of a cell's cost."""
    from optuna.distributions import FloatDistribution

    study = make_study(seed=0, n_trials=2)
    for _ in range(4):
        trial = study.ask({"x": FloatDistribution(0.0, 1.0)})
        study.tell(trial, trial.params["x"])


def seed_everything(seed: int) -> None:
    """Seed the global generators; a method's own draws use `Bench.seeded`.

    It is called before every fit, so that a chosen setting is fitted as if it had been given.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# ---- the settings that are tried


@dataclass(frozen=True)
class _Quality:
    """Result of a trial on the validation rows.

    Attributes:
        score: the task's main metric, with its sign such that higher is better.
        log_loss: mean of -log of the probability of the right answer, in nats; 0 where there are no probabilities.
    """

    score: float
    log_loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """The score, and the log loss where scores are equal, as they often are on few rows; greater is better."""
        return self.score, -self.log_loss

    @property
    def value(self) -> float:
        """The rank as one number, for the sampler: a log loss is at most 17 here, so it only breaks ties."""
        return self.score - 1e-6 * self.log_loss


# ---- the trials and their cost


class _Tuning:
    """The trials of one cell and the fit after them.

    Args:
        method: the method without its `tune`.
        inside: rows that trials are fitted on.
        outside: rows that they are scored on.
        bench: bench of the cell.
    """

    def __init__(self, method: Method, inside: Rows, outside: Rows, bench: Bench) -> None:
        self._method = method
        self._inside = inside
        self._outside = outside
        self._bench = bench
        self._owed = Account()  # by all fits together
        self._owed_finally = Account()  # by the last one
        self._features = SharedFeatures(bench.features)
        self._features.accounts.append(self._owed)

    def search(self, n_trials: int) -> Method:
        """Try up to so many settings and return the method with the best of them, the earliest of equals."""
        clock = self._bench.clock
        with clock.phase("tune"):
            proposals = Proposals(self._method, self._bench.seeded("tuning"), n_trials)
        best, best_number, best_rank = self._method, 1, (-math.inf, -math.inf)
        n_tried = n_failed = 0
        while n_tried < n_trials and self._may_go_on():
            with clock.phase("tune"):
                settings = proposals.next()
            if settings is None:
                break
            n_tried += 1
            candidate = self._configured(settings)
            quality = self._try(candidate, n_tried, n_trials)
            with clock.phase("tune"):
                proposals.learn(settings, None if quality is None else quality.value)
            if quality is None:
                n_failed += 1
            elif quality.rank > best_rank:
                best, best_number, best_rank = candidate, n_tried, quality.rank
        said = [f"{n_tried} tried", f"best {best_number}" if n_failed < n_tried else "none could be fitted"]
        config = best.config()
        self._bench.ledger.state(
            tuned_trials=", ".join([*said, f"{n_failed} failed"] if 0 < n_failed < n_tried else said),
            tuned_settings={name: config[name] for name in best.search_space},
        )
        return best

    def fit_finally(self, chosen: Method, rows: Rows) -> Fitted:
        """Fit the chosen settings on all rows with what is left of the budget.

        The fit has a clock of its own, which starts at 0: the learning rate follows the share of the budget that is
        spent, and must not start in the middle.
        """
        bench = self._bench
        settle()
        seed_everything(bench.seed)
        seconds, flops = self._spent("train_seconds"), self._spent("train_flops")
        self._features.accounts.append(self._owed_finally)
        aside = self._aside(self._budget(lambda name, cap: cap - self._spent(name)), bench.report)
        try:
            return chosen.fit(rows, aside)
        finally:
            for phase in get_args(Phase):
                bench.clock.charge_all(aside.clock, phase, phase)
            self._add(aside.ledger)
            bench.ledger.stopped_by = aside.ledger.stopped_by
            bench.ledger.adopt(aside.ledger.facts)
            bench.ledger.curve += [
                dataclasses.replace(
                    point,
                    seconds=point.seconds + seconds,
                    flops=None if point.flops is None else known_flops(point.flops + flops),
                )
                for point in aside.ledger.curve
            ]

    def pay_for_features(self) -> None:
        """Charge the cell for features: those of the last fit as encoding, those of other settings only as tuning."""
        bench = self._bench
        if self._owed.seconds:
            bench.clock.charge("encode", self._owed_finally.seconds)
            bench.clock.charge("tune", max(0.0, self._owed.seconds - self._owed_finally.seconds))
        bench.ledger.train_flops += self._owed.flops
        bench.ledger.train_tokens += self._owed.tokens

    def _try(self, candidate: Method, number: int, n_trials: int) -> _Quality | None:
        """Fit on some rows, score on the others; the cell is charged in any case."""
        bench = self._bench
        files = bench.backbone.files if bench.backbone is not None else None
        if bench.served is not None:
            files = bench.served.model
        if candidate.why_unsupported(bench.kind.name, files, bench.device.kind) is not None:
            return None  # for example more blocks than the backbone has
        settle()  # memory of the trial before is not this one's
        seed_everything(bench.seed)
        budget = self._budget(lambda name, cap: _SHARE * (cap - self._owed_of(name)) / n_trials)

        def report(what: str, fraction: float | None, loss: float | None) -> None:
            bench.report(f"trial {number} of {n_trials}, {what}", fraction, loss)

        aside = self._aside(budget, report)
        labels = self._outside.known_labels
        try:
            fitted = candidate.fit(self._inside, aside)
            answers = fitted.predict(self._outside.without_labels(), aside)
        except Exception as error:
            if isinstance(error, FloatingPointError) or is_out_of_memory(error):
                return None  # settings that cannot be fitted are the worst there are, and no reason to stop
            raise
        finally:
            for phase in get_args(Phase):  # phases that are not training elsewhere are not here either
                to: Phase = phase if phase in ("load", "warmup", "measure") else "tune"
                bench.clock.charge_all(aside.clock, phase, to)
            self._add(aside.ledger)
        if isinstance(answers, np.ndarray) and not np.isfinite(answers).all():
            return None
        return _Quality(bench.measure(answers, labels), bench.kind.log_loss(answers, labels) or 0.0)

    def _aside(self, budget: Budget, report: Callable[[str, float | None, float | None], None]) -> Bench:
        """Return a bench for one fit, which cannot tell that it is one of several."""
        return dataclasses.replace(
            self._bench,
            clock=self._bench.clock.aside(),
            ledger=Ledger(),
            features=cast("FeatureStore", self._features),
            budget=budget,
            report=report,
            rungs=None,
        )

    def _budget(self, share: Callable[[str, float], float]) -> Budget:
        """Return the cell's budget, with `share(name, cap)` in place of each shared cap."""
        whole = self._bench.budget
        caps = {name: getattr(whole, name) for name in _SHARED}
        shares: dict[str, Any] = {name: max(_LEAST, share(name, cap)) for name, cap in caps.items() if cap is not None}
        return dataclasses.replace(whole, **shares)

    def _owed_of(self, name: str) -> float:
        return self._owed.seconds if name == "train_seconds" else self._owed.flops

    def _spent(self, name: str) -> float:
        """Return how much of a shared cap the cell has spent, with its features."""
        bench = self._bench
        counted = bench.clock.train_seconds if name == "train_seconds" else bench.ledger.train_flops
        return counted + self._owed_of(name)

    def _may_go_on(self) -> bool:
        """Return whether the trials have any of their share left, after encoding."""
        for name in _SHARED:
            cap, owed = getattr(self._bench.budget, name), self._owed_of(name)
            if cap is not None and self._spent(name) - owed >= _SHARE * (cap - owed):
                return False
        return True

    def _add(self, ledger: Ledger) -> None:
        self._bench.ledger.train_flops += ledger.train_flops
        self._bench.ledger.train_tokens += ledger.train_tokens
        self._bench.ledger.reused |= ledger.reused
        self._bench.ledger.computed_all &= ledger.computed_all
        self._bench.ledger.has_disturbed_features |= ledger.has_disturbed_features

    def _configured(self, settings: Mapping[str, Any]) -> Method:
        """Return the method with some settings replaced, validated like those that a user types."""
        return type(self._method)(**{**self._method.config(), **settings})
