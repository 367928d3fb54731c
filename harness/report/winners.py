"""The answers of the best configuration of a panel at its largest size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from harness.analysis import ClassAnswers, LabelAnswers, NumberAnswers, SpanAnswers
from harness.report.contrasts import GROUP, rivals_by_size
from harness.report.kept_answers import Kept, KeptClasses, KeptLabels, KeptNumbers, KeptSpans, shape_of
from harness.report.known_rows import KnownRows, KnownTexts
from harness.report.observations import Observations
from harness.report.pairing import Group
from harness.report.panels import Panel
from harness.support import text

Answers = ClassAnswers | NumberAnswers | LabelAnswers | SpanAnswers
"""Answers of several fits, by their form."""

A = TypeVar("A", bound=Answers, covariant=True)
"""One form of answers."""


@dataclass(frozen=True, eq=False)
class Winner(Generic[A]):
    """The best configuration of a panel at its largest size, with the answers of all its seeds.

    Attributes:
        variant: its name.
        n_train: labels that it was given.
        draw: kind of their draw.
        backbone: its backbone; None where it uses none.
        size: the same in words.
        answers: its answers, one fit a seed.
        known: texts of the test rows; None where nobody lends them.
    """

    variant: str
    n_train: int
    draw: str
    backbone: str | None
    size: str
    answers: A
    known: KnownRows | None

    @property
    def basis(self) -> str:
        """Return what the figures rest on, in words: method, labels, test rows, seeds."""
        labels = "without labels" if self.n_train == 0 else f"with {self.size} labels"
        n_rows = text.counted(self.answers.n_rows, "test row")
        return f"{text.plain(self.variant)} {labels}, on {n_rows}, {text.counted(self.answers.n_fits, 'seed')}"


def winner_of(
    panel: Panel, observations: Observations, groups: Mapping[tuple[object, ...], Group], texts: KnownTexts
) -> Winner[Answers] | None:
    """Return the winner of a panel; None where its answers are texts, choices or parts of a text, or not known.

    Args:
        panel: the panel.
        observations: the records.
        groups: their scored cells (see `contrasts.groups`).
        texts: texts of test rows.
    """
    sizes = list(rivals_by_size(panel))
    if not sizes:
        return None
    best = sizes[-1][2][0]
    group = groups.get(tuple(None if pd.isna(value) else value for value in (getattr(best, name) for name in GROUP)))
    if group is None:
        return None
    found = [observations.answers.get(group.keys[seed]) for seed in sorted(group.keys)]
    fits = [one for one in found if one is not None]
    if not fits or len(fits) < len(found) or len({shape_of(one) for one in fits}) > 1:
        return None
    known = texts.get(fits[0].rows)
    answers = _joined(fits, known)
    if known is not None and any(len(values) != answers.n_rows for values in known.fields):
        known = None
    size = text.size(best.n_train, best.draw, best.n_per_class)
    backbone = None if pd.isna(best.backbone) else str(best.backbone)
    return Winner(str(best.variant), int(best.n_train), str(best.draw), backbone, size, answers, known)


def _joined(fits: Sequence[Kept], known: KnownRows | None) -> Answers:
    """Return the answers of several fits as one; all are of one form and shape."""
    first = fits[0]
    if isinstance(first, KeptNumbers):
        on_scale = all(one.is_on_scale for one in _all(fits, KeptNumbers))
        return NumberAnswers(np.stack([one.estimate for one in _all(fits, KeptNumbers)]), first.truth, on_scale)
    if isinstance(first, KeptLabels):
        return LabelAnswers(np.stack([one.given for one in _all(fits, KeptLabels)]), first.wanted, first.names)
    if isinstance(first, KeptSpans):
        return SpanAnswers(np.stack([one.spans for one in _all(fits, KeptSpans)]), first.names)
    confidence = [one.confidence for one in _all(fits, KeptClasses) if one.confidence is not None]
    lent = known.class_names if known is not None and len(known.class_names) == first.n_classes else ()
    return ClassAnswers(
        predicted=np.stack([one.predicted for one in _all(fits, KeptClasses)]),
        target=first.target,
        n_classes=first.n_classes,
        confidence=np.stack(confidence) if len(confidence) == len(fits) else None,
        names=lent or first.class_names,
    )


_K = TypeVar("_K", bound=Kept)


def _all(fits: Sequence[Kept], form: type[_K]) -> list[_K]:
    return [one for one in fits if isinstance(one, form)]


def of_form(winner: Winner[Answers] | None, form: type[A]) -> Winner[A] | None:
    """Return a winner if its answers are of a form, else None."""
    return winner if winner is not None and isinstance(winner.answers, form) else None  # type: ignore[return-value]


def tabulated(
    panels: Iterable[Panel],
    winners: Mapping[str, Winner[Answers]],
    form: type[A],
    table: Callable[[Winner[A]], pd.DataFrame],
) -> pd.DataFrame:
    """Return one table for the winners of all panels whose answers are of a form, with columns that say whose."""
    parts = []
    for panel in panels:
        winner = of_form(winners.get(panel.title), form)
        if winner is None:
            continue
        part = table(winner)
        names = ("title", "task", "backbone", "device", "budget")
        told: dict[str, Any] = {name: getattr(panel, name) for name in names}
        told |= {"variant": winner.variant, "draw": winner.draw}
        if panel.backbone is None:
            told["backbone"] = winner.backbone
        columns = {
            name.replace("title", "panel"): pd.Series(value, part.index, dtype="string") for name, value in told.items()
        }
        columns |= {
            name: pd.Series(value, part.index, dtype="Int64")
            for name, value in (("n_train", winner.n_train), ("n_seeds", winner.answers.n_fits))
        }
        part = pd.concat([pd.DataFrame(columns), part], axis=1)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
