"""`harness advise` and `harness validate-advice`: print which method fits a budget, and how good such advice is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.table import Table

from harness.advice import answer_from, asked_spending, own_records, question_about, read_backbones
from harness.analysis import asked_prices
from harness.cli.advised import make_console, show
from harness.cli.as_json import print_json
from harness.store import reference_records
from harness.support import text, uncollected

_WIDTH = 120
"""Width of the tables of a validation where the output is no terminal."""


@uncollected()
def advise_command(
    store: str,
    *,
    reference: bool,
    as_json: bool,
    every: bool = False,
    predictions: float | None = None,
    price_per_hour: float | None = None,
    label_price: float | None = None,
    prices: Path | None = None,
    score_tolerance: float | None = None,
    **asked: Any,
) -> int:
    """Print the answer to `question_about(**asked)`; return 1 where nothing fits."""
    spending = asked_spending(predictions, asked_prices(price_per_hour, label_price, prices), score_tolerance)
    question = question_about(**{**asked, "backbones": read_backbones(asked.get("backbones"))})
    answer, n_own = answer_from(question, own_records(store), reference=reference, spending=spending)
    if as_json:
        print_json(answer)
    else:
        show(answer, n_own, store, reference=reference, every=every)
    return 0 if answer.best is not None else 1


@uncollected()
def validate_command(kind: str, store: str, *, reference: bool, as_json: bool = False) -> None:
    """Leave each task out, advise for it from the others, and print the quality of the advice."""
    from harness.advice import RULES, validate_advice
    from harness.store import published_encoders

    records = [*own_records(store), *(reference_records() if reference else ())]
    found = validate_advice(records, kind, published_encoders() if reference else ())
    if as_json:
        print_json(found.to_dict())
        return
    console = make_console(_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rule", "mean regret, points", "95 % over data sets", "questions", "advice is ahead by"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    for rule in RULES:
        mean, low, high = found.regret(rule)
        n = sum(trial.regret[rule] is not None for trial in found.trials)
        ahead = "" if rule == "advice" else _with_interval(*found.ahead(rule))
        questions = f"{n} of {len(found.trials)}"
        table.add_row(rule, f"{mean:.2f}" if n else "–", f"{low:.2f} to {high:.2f}" if n else "–", questions, ahead)
    console.print(table)
    best = found.best_plain_rule
    if best is not None:
        console.print(
            f"Regret of advice over that of the best plain rule ({best}): {_share_with_interval(*found.share(best))}."
        )
    mean, low, high = found.coverage()
    by_task = {task: share for task, (share, _) in found.coverage_by("task").items()}
    lowest = min(by_task, key=lambda task: by_task[task])
    console.print(
        f"Coverage of the 80 % intervals: {100 * mean:.0f} % (95 % over data sets: {100 * max(low, 0):.0f} to "
        f"{100 * min(high, 1):.0f} %); lowest on {text.plain(lowest)}: {100 * by_task[lowest]:.0f} %."
    )
    for name, error in (("seconds", found.error("seconds")), ("memory", found.error("memory"))):
        said = "not timed" if error is None else f"{100 * error:.0f} % off in the median"
        console.print(f"Expected {name}: {said}.")
    console.print(
        f"{text.counted(len(found.trials), 'question')} on {text.counted(len(found.tasks), 'task')} of "
        f"{text.counted(len(found.clusters), 'data set')}: {text.plain(', '.join(found.tasks))}. A rule is "
        "not counted where its method was not measured or does not fit; the last column compares on the questions "
        "that both answered.",
        markup=False,
        highlight=False,
    )
    asked = {
        "labels a class": found.questions_by("size"),
        "backbone": found.questions_by("backbone"),
        "limit of the seconds": found.questions_by("limit"),
    }
    for said, by in asked.items():
        counts = ", ".join(f"{key}: {n}" for key, n in by.items())
        console.print(f"Questions by {said}: {text.plain(counts or '–')}.", markup=False, highlight=False)
    for reason, n in found.declined.items():
        console.print(f"Not asked, {text.counted(n, 'size')}: {reason}.", markup=False, highlight=False)
    if found.n_over:
        console.print(
            f"In {text.counted(found.n_over, 'question')} the advised method exceeded its limit; "
            f"{'it is' if found.n_over == 1 else 'they are'} not counted."
        )


@uncollected()
def validate_encoders_command(published: Path | None, *, as_json: bool = False) -> None:
    """Hold out published results of encoders, and print how far expected accuracies are from them."""
    from harness.advice import validate_encoders
    from harness.store import published_encoders, read_mteb_table

    encoders = published_encoders() if published is None else read_mteb_table(published)
    found = validate_encoders(encoders)
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    console = make_console(_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("held out", "known tasks", "results", "error, points", "80 % hold", "additive", "low rank"):
        table.add_column(name, justify="left" if name == "held out" else "right")
    for one in found:
        others = ("–" if error is None else f"{error:.2f}" for error in (one.additive_error, one.low_rank_error))
        held = f"{100 * one.coverage:.0f} %"
        table.add_row(one.held_out, str(one.n_known), f"{one.n_results:,}", f"{one.error:.2f}", held, *others)
    console.print(table)
    console.print(
        "Errors are mean absolute errors of accuracy. encoder: spreads are fitted to the other half of the encoders. "
        "task: its results are known for a few encoders only. The last two columns are baselines: encoder mean and "
        "task mean, and two factors.",
        markup=False,
        highlight=False,
    )


_MOST_TIMES: Final = 10.0
"""Largest ratio of two regrets that is printed: beyond, the divisor is near 0, and the ratio says nothing."""


def _share_with_interval(mean: float, low: float, high: float) -> str:
    """Format a ratio of regrets; its interval has no upper end where the divisor may be 0."""
    if math.isnan(mean) or high <= _MOST_TIMES:
        return _with_interval(mean, low, high)
    return f"{mean:.2f} ({low:.2f} or more)"


def _with_interval(mean: float, low: float, high: float) -> str:
    return "–" if math.isnan(mean) else f"{mean:.2f} ({low:.2f} to {high:.2f})"
