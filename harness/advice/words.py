"""An answer in words: a heading, what each tier buys, and what stands beside the tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from harness.advice.choices import Gain
from harness.advice.limits import CALLED, SHOWN, all_limits
from harness.advice.on_backbones import CARRIED
from harness.advice.relevant import NOT_FOR_WORDS
from harness.advice.tiers import TIE
from harness.support import text

if TYPE_CHECKING:
    from harness.advice.answer import Advice
    from harness.advice.choices import AdvisedMethod

_MOST_NAMED: Final = 3
"""Most methods that a sentence names."""

FROZEN: Final = "frozen features"


def heading(answer: Advice) -> str:
    """Return what the tiers are about: metric, labels and limits."""
    question = answer.question
    limits = [SHOWN[name](limit) for name, limit in all_limits(question).items() if name != "min_score"]
    within = f", at most {' and '.join(filter(None, (', '.join(limits[:-1]), limits[-1])))}" if limits else ""
    labels = text.counted(int(question.n_train), "label") if question.n_train else "no labels"
    if question.min_score is not None and answer.best is None and answer.tiers:
        within += f" (none is expected to reach {text.score(question.min_score)})"
    elif question.min_score is not None:
        within += f", methods expected to reach {text.score(question.min_score)}"
    if not answer.tiers:
        return f"No measured method fits: {answer.metric} with {labels}{within}"
    return f"Expected {answer.metric} with {labels}{within}"


def tier_rows(answer: Advice) -> list[list[str]]:
    """Return the names of the columns and one row for each tier, as texts."""
    names = ["", "method", f"{answer.metric} (80 %)", "train", "memory", "trained", "a text"]
    rows = [[*names, *[_cost_name(answer)] * _shows_cost(answer), "tasks"]]
    for tier in answer.tiers:
        own = answer.choice(tier.method)
        milliseconds = None if own.predict_milliseconds is None else own.predict_milliseconds / 1000
        row = [
            tier.name,
            own.method + ("" if own.default_better is None else " §"),
            f"{text.score(own.score)} ({_short(own.low)}–{_short(own.high)})",
            text.seconds(own.train_seconds),
            text.memory(own.peak_memory_bytes),
            text.number(own.trainable_parameters),
            "<0.1 ms" if milliseconds is not None and milliseconds < 1e-4 else text.milliseconds(milliseconds),
        ]
        if _shows_cost(answer):
            row.append(text.price(tier.cost) if answer.cost_unit == "money" else text.seconds(tier.cost))
        rows.append([*row, str(own.n_tasks)])
    return rows


def _short(score: float) -> str:
    """Format an end of an interval in a table: two decimals within -1 to 1."""
    return f"{score:.2f}" if 0.005 <= abs(score) <= 1 else text.score(score)


def _shows_cost(answer: Advice) -> bool:
    return answer.cost_unit != "training seconds" and any(tier.cost is not None for tier in answer.tiers)


def _cost_name(answer: Advice) -> str:
    return "price" if answer.cost_unit == "money" else "total"


def bought(answer: Advice) -> list[str]:
    """Return a line for each tier after the first: what it buys over the tier before it."""
    found = []
    for tier in answer.tiers:
        if tier.gain is None:
            continue
        extra = ""
        if tier.extra_seconds is not None:
            more = "more" if tier.extra_seconds >= 0 else "less"
            extra = f", for {text.seconds(abs(tier.extra_seconds))} {more}"
        found.append(f"{tier.method}: {_gain(tier.gain, in_points=answer.highest == 1)}{extra}")
    if found:
        found.insert(0, "What it buys over the row above (80 % interval; probability to be better at all):")
    return found


def _gain(gain: Gain, *, in_points: bool) -> str:
    factor, digits = (100, 1) if in_points else (1, 3)
    unit = " points" if in_points else ""
    middle, low, high = (f"{factor * value:+.{digits}f}" for value in (gain.expected, gain.low, gain.high))
    return f"{middle}{unit} ({low} to {high}; {_share(gain.probability)})"


def _share(share: float) -> str:
    """Return a probability in percent."""
    return "below 1 %" if share < 0.01 else "above 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def beside(answer: Advice) -> list[str]:
    """Return sentences on methods that fit and are no tiers: the probe, methods on few tasks, and unknown costs."""
    in_tiers = {tier.method for tier in answer.tiers}
    best, wanted = answer.best, answer.question.min_score
    reached = []
    if best is not None and wanted is not None and best.chance_to_reach is not None:
        chance = f"a probability of {_share(best.chance_to_reach)}"
        reached.append(f"{best.method} reaches {text.score(wanted)} with {chance}.")
    others = [one for one in answer.choices if one.fits and one.method not in in_tiers and not one.unknown]
    found = reached
    without = [tier.method for tier in answer.tiers if answer.choice(tier.method).labels == 0]
    if without and answer.question.n_train:
        found.append(f"{' and '.join(without)} {'needs' if len(without) == 1 else 'need'} no labels.")
    probes = [one for one in answer.choices if one.fits and one.role == FROZEN]
    if probes and not any(one.method in in_tiers for one in probes):
        probe = min(probes, key=lambda one: (one.has_few_tasks, answer.choices.index(one)))
        seconds = "" if probe.train_seconds is None else f" for {text.seconds(probe.train_seconds)} of training"
        found.append(f"On frozen features, {probe.method} is expected to reach {text.score(probe.score)}{seconds}.")
    if others:
        n_few = sum(one.has_few_tasks for one in others)
        few = f" ({n_few} measured on 1 or 2 tasks only)" if n_few and len(others) > 1 else ""
        verb = "fits, and is not" if len(others) == 1 else "fit; none is"
        found.append(f"{text.counted(len(others), 'other method')}{few} {verb} expected to buy more (`--all`).")
    return found + unknown_costs(answer)


def unknown_costs(answer: Advice) -> list[str]:
    """Return sentences on methods with unknown costs, and the commands that tell these."""
    groups: dict[str | None, list[AdvisedMethod]] = {}
    for one in answer.not_known:
        if not _matters(one, answer):
            continue
        groups.setdefault(one.backbone, []).append(one)
    places = {one.method: i for i, one in enumerate(answer.choices)}
    ordered = sorted(groups.values(), key=lambda own: min(places[one.method] for one in own))
    found = []
    for own in ordered[:_MOST_GROUPS]:
        best = min(own, key=lambda one: (one.has_few_tasks, places[one.method]))
        probe = next((one for one in own if one.role == FROZEN and not one.has_few_tasks), None)
        named = [best] if probe is None or probe is best else [probe, best]
        costs = sorted({CALLED[name] for one in named for name in one.unknown})
        listed = " and ".join(f"{one.method} ({text.score(one.score)})" for one in named)
        rest = [one for one in own if one not in named]
        few = ", measured on 1 or 2 tasks only" if rest and all(one.has_few_tasks for one in rest) else ""
        cost, command = " and ".join(costs), _command(answer, named, costs)
        if all(_is_ahead(one, answer) for one in own):
            verb, that = ("is", "that") if len(costs) == 1 else ("are", "those")
            more = f", nor {verb} {that} of {len(rest)} more{few}" if rest else ""
            its = "its" if len(named) == 1 else "their"
            found.append(f"Possibly better: {listed}, but {its} {cost} {verb} not known{more}. {command}")
        else:
            more = f", and of {len(rest)} more{few}" if rest else ""
            found.append(f"Not known: {cost} of {listed}{more}. {command}")
    if len(ordered) > _MOST_GROUPS:
        found.append(f"Nor are the costs of {len(ordered) - _MOST_GROUPS} more backbones known.")
    return found


def _matters(choice: AdvisedMethod, answer: Advice) -> bool:
    """Return whether a method of unknown cost is asked for, or is expected to be the best, or nothing else fits."""
    return answer.question.backbones is not None or not answer.tiers or _is_ahead(choice, answer)


def _is_ahead(choice: AdvisedMethod, answer: Advice) -> bool:
    """Return whether a method is expected to be ahead of the best tier by more than a tie."""
    if not answer.tiers:
        return False
    best = answer.choice(answer.tiers[-1].method)
    is_ahead = choice.score > best.score if answer.higher_is_better else choice.score < best.score
    return is_ahead and abs(choice.score - best.score) > TIE * (answer.highest or best.score)


_MOST_GROUPS: Final = 2
"""Most backbones whose unknown costs are named, and most methods that are said not to fit."""


def _command(answer: Advice, choices: Sequence[AdvisedMethod], costs: Sequence[str]) -> str:
    """Return the command that tells the costs of methods on one backbone."""
    first = choices[0]
    methods = ",".join(dict.fromkeys(one.method.partition(" on ")[0] for one in choices))
    backbone = first.backbone or answer.question.backbone
    on = f" --backbone {backbone}" if backbone else ""
    if first.basis == "carried over":
        return f"`harness plan --data FILE --methods {methods}{on}` predicts it."
    if costs == [CALLED["train_seconds"]] and first.role != "baseline":
        return f"`harness probe --methods {methods}{on}` measures it."
    return f"`harness run --data FILE --methods {methods}{on}` measures it."


def excluded(answer: Advice) -> list[str]:
    """Return a sentence on methods that do not fit."""
    in_tiers = {tier.method for tier in answer.tiers}
    outside = [
        one for one in answer.choices if not one.fits and one not in answer.not_known and one.method not in in_tiers
    ]
    if not outside or answer.best is None:
        return []
    listed = "; ".join(f"{one.method} {', '.join(one.why_not)}" for one in outside[:_MOST_GROUPS])
    more = f"; and {len(outside) - _MOST_GROUPS} more" if len(outside) > _MOST_GROUPS else ""
    return [f"Does not fit: {listed}{more}."]


def flags(choices: Sequence[AdvisedMethod]) -> list[str]:
    """Return a sentence on the default settings that are behind other ones, where there are any."""
    behind = [
        f"{one.method} by {one.default_points_behind:.1f} points ({one.default_better} does better)"
        for one in choices
        if one.default_better is not None
    ]
    said = f"§ Default settings that are behind others of the method in an audit: {', '.join(behind)}."
    return [said] if behind else []


def cost_note(answer: Advice) -> list[str]:
    """Return a sentence on the cost that orders the tiers, where it is not the training time."""
    if not _shows_cost(answer):
        return []
    kind = "labels, training" if answer.cost_unit == "money" else "training"
    return [f"The total is that of {kind} and {answer.predictions:,.0f} predictions."]


def notes(answer: Advice, *, every: bool = False) -> list[str]:
    """Return what the answer rests on; with `every`, also notes on costs that no tier has."""
    tiers = [answer.choice(tier.method) for tier in answer.tiers]
    carried = every or any(one.is_timed_elsewhere for one in tiers)
    found = [note for note in answer.notes if carried or not note.startswith(_CARRIED)]
    is_about_backbones = every or answer.question.backbones is not None
    found = [note for note in found if every or not note.endswith(NOT_FOR_WORDS)]
    found = [note for note in found if is_about_backbones or not note.startswith(CARRIED)]
    if answer.device is not None:
        but = ", except as noted" if any(note.startswith(_CARRIED) for note in found) else ""
        found.append(f"Seconds and memory are those of {answer.device}{but}.")
    return [*cost_note(answer), *found]


_CARRIED: Final = ("Seconds ", "Memory ")


@dataclass(frozen=True)
class AnswerWords:
    """An answer in words.

    Attributes:
        heading: metric, labels and limits.
        rows: names of the columns, and one row for each tier; the first cell is its name.
        lines: what each tier buys, and what stands beside the tiers.
        flags: sentences on default settings that are behind others.
        after: what does not fit, and what more would buy.
        notes: what the answer rests on.
    """

    heading: str
    rows: list[list[str]]
    lines: list[str]
    flags: list[str]
    after: list[str]
    notes: list[str]


def answer_in_words(answer: Advice, *, every: bool = False) -> AnswerWords:
    """Return an answer in words; with `every`, the words for all methods that fit."""
    shown = {tier.method for tier in answer.tiers}
    return AnswerWords(
        heading=heading(answer),
        rows=tier_rows(answer),
        lines=[*bought(answer), *beside(answer)],
        flags=flags([choice for choice in answer.choices if choice.method in shown or (every and choice.fits)]),
        after=[*excluded(answer), *answer.more],
        notes=notes(answer, every=every),
    )


def html_of(answer: Advice) -> str:
    """Return the answer as HTML for a notebook."""
    words = answer_in_words(answer)
    said = [*words.lines, *words.flags, *words.after, *words.notes]
    lines = "".join(f"<li>{escape(text.plain(line))}</li>" for line in said)
    if not answer.tiers:
        return f"<p>{escape(words.heading)}.</p><ul>{lines}</ul>"
    names, *rows = words.rows
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text.plain(cell))}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{escape(words.heading)}</p>{table}<ul>{lines}</ul>"
