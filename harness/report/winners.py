"""The predicted classes of the best configuration of a panel at its largest size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis import ClassAnswers
from harness.report.contrasts import GROUP, Group, rivals_by_size
from harness.report.known_rows import KnownRows, KnownTexts
from harness.report.observations import Observations
from harness.report.panels import Panel
from harness.support import text


@dataclass(frozen=True, eq=False)
class Winner:
    """The best configuration of a panel at its largest size, with the predictions of all its seeds.

    Attributes:
        variant: its name.
        n_train: labels that it was given.
        draw: kind of their draw.
        backbone: its backbone; None where it uses none.
        size: the same in words.
        answers: its predictions, one fit a seed.
        known: texts of the test rows; None where nobody lends them.
    """

    variant: str
    n_train: int
    draw: str
    backbone: str | None
    size: str
    answers: ClassAnswers
    known: KnownRows | None

    @property
    def basis(self) -> str:
        """Return what the figures rest on, in words: method, labels, test rows, seeds."""
        labels = "without labels" if self.n_train == 0 else f"with {self.size} labels"
        n_rows = text.counted(len(self.answers.target), "test row")
        return f"{text.plain(self.variant)} {labels}, on {n_rows}, {text.counted(self.answers.n_fits, 'seed')}"


def winner_of(
    panel: Panel, observations: Observations, groups: Mapping[tuple[object, ...], Group], texts: KnownTexts
) -> Winner | None:
    """Return the winner of a panel; None unless its predictions are classes.

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
    found = [observations.classes.get(group.keys[seed]) for seed in sorted(group.keys)]
    fits = [one for one in found if one is not None]
    if not fits or len(fits) < len(found) or len({(one.rows, one.n_classes) for one in fits}) > 1:
        return None
    first = fits[0]
    confidence = [one.confidence for one in fits if one.confidence is not None]
    known = texts.get(first.rows)
    if known is not None and any(len(values) != len(first.target) for values in known.fields):
        known = None
    lent = known.class_names if known is not None and len(known.class_names) == first.n_classes else ()
    answers = ClassAnswers(
        predicted=np.stack([one.predicted for one in fits]),
        target=first.target,
        n_classes=first.n_classes,
        confidence=np.stack(confidence) if len(confidence) == len(fits) else None,
        names=lent or first.class_names,
    )
    size = text.size(best.n_train, best.draw, best.n_per_class)
    backbone = None if pd.isna(best.backbone) else str(best.backbone)
    return Winner(str(best.variant), int(best.n_train), str(best.draw), backbone, size, answers, known)


def tabulated(
    panels: Iterable[Panel], winners: Mapping[str, Winner], table: Callable[[Winner], pd.DataFrame]
) -> pd.DataFrame:
    """Return one table for the winners of all panels, with columns that say whose each row is."""
    parts = []
    for panel in panels:
        winner = winners.get(panel.title)
        if winner is None:
            continue
        part = table(winner)
        told = {name: getattr(panel, name) for name in ("title", "task", "backbone", "device", "budget")}
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
