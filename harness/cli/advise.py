"""`harness advise` and `harness validate-advice`: print which method fits a budget, and how good such advice is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.advice import (
    Advice,
    AdvisedMethod,
    answer_from,
    asked_spending,
    own_records,
    question_about,
    read_backbones,
)
from harness.analysis import asked_prices, said_break_even
from harness.cli.as_json import print_json
from harness.store import reference_records
from harness.support import mask_store, text, uncollected

_N_SHOWN = 12
"""Largest number of methods in the table."""


@uncollected()
def advise_command(
    store: str,
    *,
    reference: bool,
    as_json: bool,
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
        _show(answer, n_own, store, reference=reference)
    return 0 if answer.best is not None else 1


def _show(answer: Advice, n_own: int, store: str, *, reference: bool) -> None:
    console = _console()
    question = answer.question
    fitting = [choice for choice in answer.choices if choice.fits]
    if answer.best is None:
        console.print("No measured method fits.", style="red")
    else:
        best = answer.best
        reach = f"{text.plain(answer.metric)} {text.score(best.score)} (80 %: {text.interval(best.low, best.high)})"
        takes = f"{text.seconds(best.train_seconds)} of training, {text.memory(best.peak_memory_bytes)} of memory"
        console.print(
            Text.assemble((text.plain(best.method), "bold green"), f" is expected to reach {reach}, with {takes}.")
        )
        if answer.tied:
            names = ", ".join(text.plain(choice.method) for choice in answer.tied[:8])
            more = f" and {len(answer.tied) - 8} more" if len(answer.tied) > 8 else ""
            console.print(text.plain(f"No clear difference from it: {names}{more}."), markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("method", overflow="fold", min_width=18, max_width=30)
    for name in (f"{answer.metric} (80 %)", "train", "memory", "trainable", "stored"):
        table.add_column(Text(text.plain(name)), justify="right", no_wrap=True)
    table.add_column("rests on", overflow="fold")
    for choice in fitting[:_N_SHOWN]:
        _add(table, choice)
    if fitting:
        console.print(table)
        for line in _flags(fitting[:_N_SHOWN]):
            console.print(line, **_SAID)
    if answer.spending:
        console.print(_spending_table(answer))
    if len(fitting) > _N_SHOWN:
        more = text.counted(len(fitting) - _N_SHOWN, "more method fits", "more methods fit")
        console.print(f"{more}; --json lists all of them.", markup=False)
    outside = [choice for choice in answer.choices if not choice.fits]
    if outside:
        listed = "; ".join(f"{text.plain(choice.method)} {', '.join(choice.why_not)}" for choice in outside[:6])
        more = f"; and {len(outside) - 6} more" if len(outside) > 6 else ""
        console.print(text.plain(f"Does not fit: {listed}{more}."), markup=False, highlight=False)
    for line in answer.more:
        console.print(text.plain(line), markup=False, highlight=False)
    said = text.plain(f"{' '.join(answer.notes)} {_source(n_own, store, reference=reference)}")
    console.print(f"\n{said}", **_SAID)
    if answer.bases:
        console.print("What the answer for each backbone rests on:", **_SAID)
        for basis in answer.bases[:_N_SHOWN]:
            console.print(f"- {text.plain(basis.sentence('MTEB'))}", **_SAID)
        if len(answer.bases) > _N_SHOWN:
            console.print(f"- and {len(answer.bases) - _N_SHOWN} more; --json lists all of them.", **_SAID)
    if answer.device is not None:
        but = ", except as noted above" if any(note.startswith(_CARRIED) for note in answer.notes) else ""
        console.print(text.plain(f"Seconds and memory are those of {answer.device}{but}."), **_SAID)
    if question.min_score is not None and fitting:
        console.print(
            f"The table lists the methods that are expected to reach {question.min_score:g}, cheapest first.", **_SAID
        )


def _spending_table(answer: Advice) -> Table:
    """Return what the first choices that fit, and all prompted ones, cost in use."""
    title = "Cost in use: seconds of 1,000 predictions; price of training, of labels and of 1,000 predictions"
    has_prices = any(one.price_per_1000 is not None for one in answer.spending)
    title = title if has_prices else title.partition(";")[0]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold", min_width=18, max_width=30)
    has_total = any(one.total is not None for one in answer.spending)
    names = ["1,000", *["training", "labels", "1,000"] * has_prices]
    for name in (*names, *["total"] * has_total, "training pays", "beside"):
        table.add_column(name, justify="left" if name == "beside" else "right", no_wrap=name != "beside")
    fitting = [i for i, choice in enumerate(answer.choices) if choice.fits][:_N_SHOWN]
    prompted = [i for i, one in enumerate(answer.spending) if one.is_prompted and i not in fitting]
    for one in (answer.spending[i] for i in (*fitting, *prompted)):
        prices = [text.price(value) for value in (one.train_price, one.label_price, one.price_per_1000)]
        total = text.price(one.total) if one.total_unit == "money" else text.seconds(one.total)
        table.add_row(
            Text(text.plain(one.method)),
            text.seconds(one.seconds_per_1000),
            *(prices if has_prices else []),
            *([total] if has_total else []),
            said_break_even(one.break_even, one.break_even_predictions),
            Text("prompted" if one.is_prompted else text.plain(one.against or text.ABSENT), style="dim"),
        )
    return table


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 120
    return console


_SAID: Final[dict[str, Any]] = {"markup": False, "highlight": False, "emoji": False, "style": "dim"}
_CARRIED: Final = ("Seconds ", "Memory ")


def _source(n_own: int, store: str, *, reference: bool) -> str:
    """Return a sentence on the origin of the records."""
    there = f"{n_own:,} in {mask_store(store)}"
    if not reference:
        return f"Only your own records count ({there})."
    if n_own:
        return f"Your own records ({there}) and the reference results count."
    return (
        "Only the reference results that come with the package count; your own records will as soon as there are some."
    )


def _marked(choice: AdvisedMethod) -> str:
    """Return the name of a method, with a mark where its default settings are behind other ones."""
    return text.plain(choice.method) + ("" if choice.default_better is None else " §")


def _flags(choices: Sequence[AdvisedMethod]) -> list[str]:
    """Return a sentence on the default settings that are behind other ones, where there are any."""
    behind = [
        f"{text.plain(one.method)} by {one.default_points_behind:.1f} points ({one.default_better} does better)"
        for one in choices
        if one.default_better is not None
    ]
    said = f"§ Default settings that are behind others of the method in an audit: {', '.join(behind)}."
    return [said] if behind else []


def _add(table: Table, choice: AdvisedMethod) -> None:
    rests_on = f"{text.counted(choice.n_records, 'record')}, {text.counted(choice.n_tasks, 'task')}, {choice.basis}"
    table.add_row(
        Text(_marked(choice), style="" if choice.is_tied else "dim"),
        f"{text.score(choice.score)} ({text.interval(choice.low, choice.high)})",
        text.seconds(choice.train_seconds),
        text.memory(choice.peak_memory_bytes),
        text.number(choice.trainable_parameters),
        text.memory(choice.stored_bytes),
        Text(rests_on, style="dim"),
    )


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
    console = _console()
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
            f"Regret of advice over that of the best plain rule ({best}): {_with_interval(*found.share(best))}."
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
    console = _console()
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


def _with_interval(mean: float, low: float, high: float) -> str:
    return "–" if math.isnan(mean) else f"{mean:.2f} ({low:.2f} to {high:.2f})"
