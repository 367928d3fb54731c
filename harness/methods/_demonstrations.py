"""Choose the training rows that a prompt shows: one draw for all texts, or the nearest rows to each text."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from harness.backbones import Weights
from harness.measure import Phase, PrecisionPolicy
from harness.methods._frozen import unit_length
from harness.methods._prompts import Demonstration, Wording
from harness.methods.bench import Bench
from harness.tasks import Floats, Ints, Rows


class Nearest:
    """Chooses the training rows whose frozen features have the highest cosine with a text's (Liu et al., 2022).

    Args:
        embeddings: unit vectors of the rows to choose from, shape (rows, width).
        k: number of rows to choose.
        precision: precision in which the rows were encoded.
        weights: storage of the weights that encoded them.
    """

    def __init__(self, embeddings: Floats, k: int, precision: PrecisionPolicy, weights: Weights = "auto") -> None:
        self.embeddings = embeddings
        self._k = k
        self._precision = precision
        self._weights: Weights = weights

    def positions(self, rows: Rows, bench: Bench) -> Ints:
        """Return the positions chosen for each row, the most similar last; shape (rows, at most k)."""
        texts = embed(rows, bench, "predict", self._precision, self._weights)
        with bench.working("predict"):
            order = np.argsort(-(texts @ self.embeddings.T), axis=1, kind="stable").astype(np.int64)
            return order[:, : self._k][:, ::-1]


def draw(labels: Ints, n_classes: int, k: int, how: Literal["random", "balanced"], seed: int) -> Ints:
    """Return the positions of the rows that a prompt shows, in a random order; shape (at most k,).

    Args:
        labels: class index per row.
        n_classes: number of classes of the task.
        k: number of rows to choose.
        how: `random` draws from all rows. `balanced` takes a row of each class in turn, in a random order of the
            classes. Counts therefore differ by at most one, unless a class runs out of rows.
        seed: seed of the draw and of the order.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    if how == "balanced":
        turns = np.empty(len(labels), dtype=np.int64)  # a row's turn: number of earlier rows of its class
        for label in range(n_classes):
            members = order[labels[order] == label]
            turns[members] = np.arange(len(members))
        place = generator.permutation(n_classes)  # of each class within a turn
        order = order[np.lexsort((place[labels[order]], turns[order]))]
    return generator.permutation(order[:k]).astype(np.int64)


def embed(rows: Rows, bench: Bench, phase: Phase, precision: PrecisionPolicy, weights: Weights = "auto") -> Floats:
    """Return one unit vector per row: its frozen features, averaged where a row is read in several sequences."""
    pooled = bench.pooled(rows, phase, precision, weights=weights)
    return unit_length(pooled if pooled.ndim == 2 else np.nanmean(pooled, axis=1))


def show(rows: Rows, positions: Ints, bench: Bench, wording: Wording) -> list[Demonstration]:
    """Return the rows at `positions` as demonstrations, and note their positions in the training pool.

    Args:
        rows: rows to choose from, with their labels.
        positions: positions of the chosen rows.
        bench: the cell's bench, whose ledger takes the note.
        wording: wording of a row in a prompt.
    """
    bench.ledger.remarks["demonstrations"] = " ".join(str(row) for row in rows.take(positions).index)
    return pick(rows, positions, bench, wording)


def pick(rows: Rows, positions: Ints, bench: Bench, wording: Wording) -> list[Demonstration]:
    """Return the rows at `positions` as demonstrations; arguments as for `show`."""
    chosen = rows.take(positions)
    answers = bench.kind.in_words(chosen, bench.label_words)
    choices = [
        tuple(chosen.source.fields["choices"][row]) if bench.kind.form == "choices" else () for row in chosen.index
    ]
    return [Demonstration(*shown) for shown in zip(asked(chosen, wording), answers, choices, strict=True)]


def asked(rows: Rows, wording: Wording) -> list[str]:
    """Return the text to insert into the wording for each row: its own text, or a whole question."""
    if not wording.is_whole:
        return rows.texts
    source = rows.source
    if wording.by_role:
        return [
            wording.template.format_map({role: _as_text(values[row]) for role, values in source.fields.items()})
            for row in rows.index
        ]
    assert source.prompts is not None
    return [source.prompts[position] for position in rows.index]


def _as_text(value: Any) -> str:
    """Return a field as a prompt shows it: a text, or the lines of a list."""
    return value if isinstance(value, str) else "\n".join(f"- {one}" for one in value)
