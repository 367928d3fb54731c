"""Which training rows a prompt shows: drawn once for all, or those nearest to each text."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.measure import Phase, PrecisionPolicy
from harness.methods._frozen import unit_length
from harness.methods._prompts import Demonstration, Wording
from harness.methods.base import Bench
from harness.tasks import Floats, Ints, Rows


class Nearest:
    """Chooses the training rows whose frozen features have the highest cosine with a text's (Liu et al., 2022).

    Args:
        embeddings: unit vectors of the rows to choose from, shape (rows, width).
        k: how many.
        precision: that they were encoded in.
    """

    def __init__(self, embeddings: Floats, k: int, precision: PrecisionPolicy) -> None:
        self.embeddings = embeddings
        self._k = k
        self._precision = precision

    def positions(self, rows: Rows, bench: Bench) -> Ints:
        """Positions of the chosen for each row, the most similar last; shape (rows, at most k)."""
        texts = embed(rows, bench, "predict", self._precision)
        with bench.working("predict"):
            order = np.argsort(-(texts @ self.embeddings.T), axis=1, kind="stable").astype(np.int64)
            return order[:, : self._k][:, ::-1]


def draw(labels: Ints, n_classes: int, k: int, how: Literal["random", "balanced"], seed: int) -> Ints:
    """Positions of the rows that a prompt shows, in a random order; shape (at most k,).

    Args:
        labels: class index per row.
        n_classes: of the task.
        k: how many to choose.
        how: `random` draws from all rows; `balanced` takes one class after another, in a random order of the classes,
            as long as it has rows left, so that their counts differ by one at most.
        seed: another gives another draw and order.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    if how == "balanced":
        turns = np.empty(len(labels), dtype=np.int64)  # a row's turn: how many of its class come before it
        for label in range(n_classes):
            members = order[labels[order] == label]
            turns[members] = np.arange(len(members))
        place = generator.permutation(n_classes)  # of each class within a turn
        order = order[np.lexsort((place[labels[order]], turns[order]))]
    return generator.permutation(order[:k]).astype(np.int64)


def embed(rows: Rows, bench: Bench, phase: Phase, precision: PrecisionPolicy) -> Floats:
    """A unit vector a row: its frozen features, or their mean where a row is read in several sequences."""
    pooled = bench.pooled(rows, phase, precision)
    return unit_length(pooled if pooled.ndim == 2 else np.nanmean(pooled, axis=1))


def show(rows: Rows, positions: Ints, bench: Bench, wording: Wording) -> list[Demonstration]:
    """The rows at `positions` as demonstrations, noted in the ledger by their positions in the training pool.

    Args:
        rows: to choose from, with their labels.
        positions: of the chosen.
        bench: of the cell.
        wording: how they are put.
    """
    chosen = rows.take(positions)
    bench.ledger.remarks["demonstrations"] = " ".join(str(row) for row in chosen.index)
    answers = bench.kind.in_words(chosen, bench.label_words)
    return [Demonstration(*shown) for shown in zip(asked(chosen, wording), answers, strict=True)]


def asked(rows: Rows, wording: Wording) -> list[str]:
    """What a wording is made of for each row: its text, or the task's own prompt."""
    if not wording.is_whole:
        return rows.texts
    assert rows.source.prompts is not None
    return [rows.source.prompts[position] for position in rows.index]
