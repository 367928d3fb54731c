"""Audit the default settings of gradient methods: an ordinary grid of defaults and tuned settings, and its verdict."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.display import Display
from harness.api.requests import Several
from harness.api.runs import run
from harness.records import AuditedDefault, write_audits
from harness.support import UsageError, real_number, several, spelt_for_caller, text, whole_number

if TYPE_CHECKING:
    import pandas as pd

    from harness.report import AuditedPlace, BestRate

SUITE = "everything"
TASKS = ("rotten_tomatoes", "sms_spam", "ag_news")
"""Tasks of an audit: defaults were chosen on none of them."""

BACKBONES = ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/paraphrase-MiniLM-L3-v2")
SIZES = (128,)
SEEDS = (0, 1, 2)
N_TRIALS = 8


@dataclass(frozen=True)
class Audit:
    """Default settings against tuned ones.

    Attributes:
        defaults: each method and backbone over all tasks and sizes.
        places: each method, backbone, task and size.
        rates: the best learning rate of each method and backbone, where several were run.
        n_left: cells of the grid without a record: the same call runs them.
        notes: cautions about what was compared.
    """

    defaults: tuple[AuditedDefault, ...]
    places: tuple[AuditedPlace, ...]
    n_left: int = 0
    notes: tuple[str, ...] = ()
    rates: tuple[BestRate, ...] = ()

    @property
    def behind(self) -> tuple[AuditedDefault, ...]:
        """Defaults that are more than two points behind, beyond noise."""
        return tuple(one for one in self.defaults if one.is_behind)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per method and backbone: the fields of `AuditedDefault`, and `is_behind`."""
        import pandas as pd

        return pd.DataFrame([one.to_dict() for one in self.defaults])

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values."""
        return {
            "defaults": [one.to_dict() for one in self.defaults],
            "places": [asdict(place) for place in self.places],
            "rates": [one.to_dict() for one in self.rates],
            "n_left": self.n_left,
            "notes": list(self.notes),
        }

    def write(self, path: str | Path) -> None:
        """Write the facts of `defaults` to a JSON file; other methods and backbones in it stay.

        Raises:
            UsageError: the file holds something else.
            StoreError: the file cannot be written.
        """
        write_audits(self.defaults, Path(path))

    def _repr_html_(self) -> str:
        lines = [html.escape(f"{one.method}, {one.backbone}: {one.said}") for one in self.defaults]
        return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def audit_grid(
    methods: Several[str] | None = None,
    tasks: Several[str] | None = None,
    backbones: Several[str | Path] | Path | None = None,
    sizes: Several[str | int] | int | None = None,
    seeds: Several[int] | int | None = None,
    trials: int = N_TRIALS,
    rates: Several[str | float] | float | None = None,
) -> dict[str, Any]:
    """Return the arguments of `run` and `plan` for the grid of an audit: each method as it is, and tuned.

    With `rates`, each method is run at each of them in place of tuning, and `full` with them.

    Raises:
        UsageError: an unknown method, one without a search space, or settings in brackets.
    """
    trials = whole_number("trials", trials)
    if trials < 2:
        raise UsageError(f"--trials {trials} was given; expected at least 2: one setting is no choice.")
    names = several("methods", methods, (str,), "names of methods", split=lambda said: said.split(","))
    audited = _methods(names)
    if rates is not None and FULL not in audited:
        audited = [FULL, *audited]
    return {
        "suite": SUITE,
        "tasks": list(TASKS) if tasks is None else tasks,
        "methods": [form for name in audited for form in (name, *_others(name, trials, rates))],
        "sizes": list(SIZES) if sizes is None else sizes,
        "seeds": list(SEEDS) if seeds is None else seeds,
        "backbones": list(BACKBONES) if backbones is None else backbones,
    }


FULL = "full"
"""Method whose best learning rate the others are compared with."""


def _others(name: str, trials: int, rates: Several[str | float] | float | None) -> list[str]:
    """Return the forms of a method that are compared with its default: tuned, or with other learning rates."""
    if rates is None:
        return [f"{name}[tune={trials}]"]
    from harness.methods import methods

    own = float(methods.get(name).model_fields["learning_rate"].default)
    return [f"{name}[learning_rate={rate:g}]" for rate in checked_rates(rates) if rate != own]


def checked_rates(rates: Several[str | float] | float) -> list[float]:
    """Return learning rates in ascending order.

    Raises:
        UsageError: there are fewer than two, or one is not above 0.
    """
    given = [rates] if isinstance(rates, int | float) else rates
    texts = several("rates", given, (str, int, float), "learning rates", split=lambda said: said.split(","))
    found = sorted({real_number("rates", _as_number(one), "learning rates, such as 1e-4,1e-3") for one in texts or ()})
    if len(found) < 2 or found[0] <= 0 or found[-1] >= math.inf:
        said = ",".join(map(str, texts or ()))
        raise UsageError(f"--rates {said} was given; expected at least two learning rates above 0, such as 1e-4,1e-3.")
    return [float(one) for one in found]


def _as_number(said: str | float) -> Any:
    try:
        return float(said)
    except ValueError:
        return said


def _methods(names: Sequence[str] | None) -> list[str]:
    from harness.methods import methods

    known = [cls.name for cls in methods if cls.search_space and "learning_rate" in cls.model_fields]
    if names is None:
        own = [cls for cls in methods if cls.name in known and methods.origin(cls.name) is None]
        return [cls.name for cls in own if cls.family != "baseline"]
    for name in names:
        if methods.get(name.strip()).name not in known:
            raise UsageError(
                f"Method '{name}' has no learning rate to tune; expected gradient methods: {', '.join(known)}."
            )
    return [name.strip() for name in names]


@spelt_for_caller
def audit_defaults(
    *,
    methods: Several[str] | None = None,
    tasks: Several[str] | None = None,
    backbones: Several[str | Path] | Path | None = None,
    sizes: Several[str | int] | int | None = None,
    seeds: Several[int] | int | None = None,
    trials: int = N_TRIALS,
    rates: Several[str | float] | float | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    mirror: str | Path | None = None,
    within: str | float | None = None,
    progress: bool | Display = True,
) -> Audit:
    """Compare the default settings of gradient methods with the best of some trials on validation rows.

    The cells are those of an ordinary grid: each is stored as soon as it ends, and the same call continues. Tuning sees
    training rows only. A default is behind if tuned settings score more than two points more, and the interval of the
    difference lies above 0.

    Args:
        methods: names of methods with a learning rate; None takes all but the baselines.
        tasks: classification tasks of the shipped suites; None takes three that no default was chosen on.
        backbones: hub ids or folders; None takes two small sentence encoders.
        sizes: training sizes; None is 128.
        seeds: whole numbers from 0; None is 0, 1, 2.
        trials: number of settings that tuning tries.
        rates: learning rates to run each method at, in place of tuning: `1e-5,1e-4,1e-3`. `full` is run too, and
            `Audit.rates` has each method's best rate and its ratio to that of `full`. Defaults are then compared with
            the rate that does best on the other tasks.
        device: see `run`.
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`.
        mirror: folder with datasets/ and models/, searched first; None takes HARNESS_MIRROR.
        within: time for everything, such as `30m`, or in seconds; the audit covers what was run.
        progress: whether to show progress; or a display of your own.

    Returns:
        The verdict for each method and backbone of which both sides were run.

    Raises:
        UsageError: an invalid argument, or nothing was run.
        MissingResourceError: a data set or backbone is not available.
        StoreError: the store cannot be written.
    """
    grid = audit_grid(methods, tasks, backbones, sizes, seeds, trials, rates)
    result = run(**grid, device=device, store=store, mirror=mirror, within=within, reports=None, progress=progress)
    from harness.report import audit, best_rates

    if result.observations is None:
        raise UsageError("No cell of the audit was run. Allow more time with --within, or name fewer methods.")
    found = audit(result.observations, default_configs())
    rated = () if rates is None else best_rates(result.observations)
    return Audit(found.defaults, found.places, result.n_left, tuple(_notes(result.records)), rated)


def default_configs() -> dict[str, dict[str, Any]]:
    """Return the default configuration of each method that has one."""
    from harness.methods import methods

    return {cls.name: cls().config() for cls in methods if not any(f.is_required() for f in cls.model_fields.values())}


def _notes(records: Sequence[Any]) -> list[str]:
    chosen = sorted({r.cell.task for r in records if r.provenance.dataset.get("defaults_chosen_here")})
    notes = []
    if chosen:
        notes.append(f"defaults were chosen on {', '.join(chosen)}: a default looks better there than elsewhere")
    failed = sum(record.status not in ("ok", "unsupported") for record in records)
    return notes + [f"{text.counted(failed, 'cell')} ended without a score"] * bool(failed)
