"""Pairs of texts for contrastive training (SetFit: Tunstall et al., 2022, arXiv:2209.11055)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from harness.features import pad
from harness.tasks import Floats, Ints
from harness.training.batches import Batch, shuffled, to_device

if TYPE_CHECKING:
    from harness.training.model import PooledModel


def draw_pairs(labels: Ints, n_pairs: int, seed: int, epoch: int) -> tuple[Ints, Floats]:
    """For every text, `n_pairs` partners of its class and as many of others, drawn with replacement.

    A text that is alone in its class has no partner there, and none elsewhere if there is one class only.

    Args:
        labels: class index of each text, shape (texts,).
        n_pairs: of each sign and text.
        seed: of the cell.
        epoch: each has pairs of its own.

    Returns:
        Positions, shape (pairs, 2), and the similarity each pair should have: 1 for one class, 0 for two.
    """
    digest = hashlib.blake2b(f"pairs/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    everything = np.arange(len(labels))
    pairs: list[npt.NDArray[np.int64]] = []
    similarities: list[npt.NDArray[np.float32]] = []
    for text, label in enumerate(labels):
        for same in (True, False):
            partners = everything[((labels == label) == same) & (everything != text)]
            if len(partners) == 0:
                continue
            chosen = generator.choice(partners, n_pairs)
            pairs.append(np.stack([np.full(n_pairs, text), chosen], axis=1))
            similarities.append(np.full(n_pairs, float(same), dtype=np.float32))
    if not pairs:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    return np.concatenate(pairs).astype(np.int64), np.concatenate(similarities)


class PairBatches:
    """Batches of pairs of token ids.

    A batch's inputs are ids and mask of the pairs' first texts, then of their second ones, all padded alike.

    Args:
        rows: token ids of all texts.
        positions: the texts to draw pairs of.
        labels: their class indices.
        n_pairs: of each sign and text, an epoch.
        pad_id: what pads.
        batch_size: pairs of a batch.
        seed: of the cell.
        device: where batches go.
    """

    def __init__(
        self,
        rows: list[npt.NDArray[np.int32]],
        positions: Ints,
        labels: Ints,
        *,
        n_pairs: int,
        pad_id: int,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._rows = rows
        self._positions = positions
        self._labels = labels
        self._n_pairs = n_pairs
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._n = len(draw_pairs(labels, n_pairs, seed, 0)[0])

    def __len__(self) -> int:
        return -(-self._n // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over newly drawn pairs."""
        pairs, similarities = draw_pairs(self._labels, self._n_pairs, self._seed, number)
        lengths = np.fromiter((len(self._rows[position]) for position in self._positions), dtype=np.int64)
        longer = lengths[pairs].max(axis=1)
        for members in shuffled(len(pairs), self._batch_size, longer, self._seed, number):
            texts = self._positions[pairs[members].T.reshape(-1)]  # all first texts, then all second ones
            ids, mask = pad([self._rows[text] for text in texts], self._pad_id)
            n = len(members)
            there = to_device((ids[:n], mask[:n], ids[n:], mask[n:], similarities[members]), self._device)
            yield Batch(
                inputs=tuple(there[:4]),
                targets=there[4],
                n_rows=n,
                length=ids.shape[1],
                n_tokens=int(lengths[pairs[members]].sum()),
                texts_per_row=2,
            )


def cosine_of_pairs(model: PooledModel, batch: Batch) -> torch.Tensor:
    """Cosine similarity of each pair of a batch, shape (pairs,)."""
    first_ids, first_mask, second_ids, second_mask = batch.inputs
    vectors = model(torch.cat([first_ids, second_ids]), torch.cat([first_mask, second_mask]))
    first, second = vectors.float().chunk(2)
    return functional.cosine_similarity(first, second, dim=1)


def squared_difference(similarities: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared difference, sentence-transformers' CosineSimilarityLoss."""
    return functional.mse_loss(similarities, wanted)
