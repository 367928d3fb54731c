"""Pairs of texts for contrastive training (SetFit: Tunstall et al., 2022, arXiv:2209.11055)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from harness.features import TokenIds, pad
from harness.tasks import Floats, Ints
from harness.training.batches import Batch, Batches, to_device
from harness.training.inputs import TokenInputs
from harness.training.masks import known_padding
from harness.training.model import AdaptedModel


def draw_pairs(labels: Ints, n_pairs: int, seed: int, epoch: int) -> tuple[Ints, Floats]:
    """Return `n_pairs` partners of its class for every text, and as many of others, drawn with replacement.

    A text that is alone in its class has no partner there, and none elsewhere if there is one class only.

    Args:
        labels: class index of each text, shape (texts,).
        n_pairs: pairs of each sign and text.
        seed: seed of the cell.
        epoch: number of the epoch; each has pairs of its own.

    Returns:
        Positions, shape (pairs, 2), and the target similarity of each pair: 1 for one class, 0 for two.
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


class PairInputs(TokenInputs):
    """Token ids of pairs of texts; a text of the fit is an item, and a model's output is the similarity of a pair.

    A batch's inputs are ids and mask of the pairs' first texts, then of their second ones, all padded alike.

    Args:
        model: in training mode, on its device; gives a vector a text.
        rows: token ids of each text.
        n_pairs: pairs of each sign and text, an epoch.
        pad_id: id of the padding.
        compact: as in `TokenInputs`.
        device: where the model is.
    """

    def __init__(
        self,
        model: AdaptedModel,
        rows: Sequence[TokenIds],
        *,
        n_pairs: int,
        pad_id: int,
        compact: bool,
        device: torch.device,
    ) -> None:
        super().__init__(model, rows, pad_id=pad_id, compact=compact, device=device)
        self._n_pairs = n_pairs

    def batches(self, items: Ints, targets: Ints, *, batch_size: int, seed: int) -> Batches:
        """Return batches of pairs of the texts at these positions, whose classes are `targets`."""

        def of_epoch(number: int) -> Batches:
            pairs, similarities = draw_pairs(targets, self._n_pairs, seed, number)
            lengths = self._lengths[items][pairs].max(axis=1)

            def make(members: Ints) -> Batch:
                return self.batch(items[pairs[members]], similarities[members])

            return Batches(make, len(pairs), lengths=lengths, batch_size=batch_size, seed=seed)

        return _Redrawn(of_epoch)

    def batch(self, items: Ints, targets: Floats) -> Batch:
        """Return a batch of pairs of texts; `items` has the shape (pairs, 2)."""
        n = len(items)
        ids, mask = pad([self._rows[item] for item in items.T.reshape(-1).tolist()], self._pad_id)
        *inputs, there = to_device((ids[:n], mask[:n], ids[n:], mask[n:], targets), self._device)
        n_tokens = int(self._lengths[items].sum())
        return Batch(tuple(inputs), there, n, ids.shape[1], n_tokens, texts_per_row=2)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the cosine similarity of each pair of a batch, shape (pairs,)."""
        first_ids, first_mask, second_ids, second_mask = batch.inputs
        with known_padding(full=batch.n_tokens == batch.size):
            vectors = self._model(torch.cat([first_ids, second_ids]), torch.cat([first_mask, second_mask]))
        first, second = vectors.float().chunk(2)
        return functional.cosine_similarity(first, second, dim=1)

    @staticmethod
    def loss(similarities: torch.Tensor, wanted: torch.Tensor, _: float = 0.0) -> torch.Tensor:
        """Return the mean squared difference, as sentence-transformers' CosineSimilarityLoss does."""
        return functional.mse_loss(similarities, wanted)


class GivenPairs(PairInputs):
    """Token ids of pairs of texts that are given, with a similarity each; an item is a pair.

    Args:
        model: as in `PairInputs`.
        first: token ids of the first text of each pair.
        second: token ids of the second text of each pair.
        pad_id: as in `PairInputs`.
        compact: as in `PairInputs`.
        device: as in `PairInputs`.
    """

    def __init__(
        self,
        model: AdaptedModel,
        first: Sequence[TokenIds],
        second: Sequence[TokenIds],
        *,
        pad_id: int,
        compact: bool,
        device: torch.device,
    ) -> None:
        super().__init__(model, [*first, *second], n_pairs=1, pad_id=pad_id, compact=compact, device=device)
        self._n = len(first)

    def batches(self, items: Ints, targets: Any, *, batch_size: int, seed: int) -> Batches:
        """Return batches of the pairs at these positions, whose similarities are `targets`."""
        pairs = self.texts_of(items)

        def make(members: Ints) -> Batch:
            return self.batch(pairs[members], targets[members])

        lengths = self._lengths[pairs].max(axis=1)
        return Batches(make, len(items), lengths=lengths, batch_size=batch_size, seed=seed)

    def texts_of(self, items: Ints) -> Ints:
        """Return the positions of both texts of each pair, shape (pairs, 2)."""
        return np.stack([items, items + self._n], axis=1)


class _Redrawn(Batches):
    """Batches of items that are drawn anew each epoch."""

    def __init__(self, of_epoch: Callable[[int], Batches]) -> None:
        self._of_epoch = of_epoch
        self._n_batches = len(of_epoch(0))

    def __len__(self) -> int:
        return self._n_batches

    def epoch(self, number: int) -> Iterator[Batch]:
        yield from self._of_epoch(number).epoch(number)
