"""Training of only those rows of the embedding that the training texts use: the same result at a lower cost.

The gradient of an embedding is dense: on short texts, most of a step of a small encoder goes into zeros for the 30,000
words that do not occur. A row that no training text uses has a gradient of exactly 0 in every step, so that AdamW only
decays it: by the product of ``1 - learning rate * weight decay`` over the steps. While training, the embedding holds
just the rows that occur. Afterwards they are written back, and the others are multiplied by that product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from harness.backbones import plain_class
from harness.features import TokenIds, plain_ids

_READS_IDS = {"esm"}
"""Architectures that look at ids other than the padding's (ESM rescales by the share of mask tokens)."""


class CompactEmbedding:
    """A model whose input embedding holds only the rows that occur, until `restore` is called.

    Args:
        model: a transformers model; its input embedding is replaced.
        rows: token ids of all rows that training reads.
        pad_id: id of the padding, which stays the same.
    """

    def __init__(self, model: nn.Module, rows: Sequence[TokenIds], pad_id: int) -> None:
        self._model = model
        self._full: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
        words = np.setdiff1d(plain_ids(np.concatenate(rows)), [pad_id]).astype(np.int64)
        used = np.insert(words, pad_id, pad_id)  # RoBERTa and others tell positions by the padding's id: it must stay
        self._used = torch.from_numpy(used)
        self._position = np.full(self._full.num_embeddings, -1, dtype=np.int32)
        self._position[used] = np.arange(len(used), dtype=np.int32)
        padding = self._full.padding_idx
        self._small = nn.Embedding(
            len(used),
            self._full.embedding_dim,
            padding_idx=int(self._position[padding]) if padding is not None and self._position[padding] >= 0 else None,
            _weight=self._full.weight.detach()[self._used.to(self._full.weight.device)].clone(),
        )
        self._small.__class__ = type(self._full)  # bfloat16 rows may be raised when they are read
        self._small.weight.requires_grad_(self._full.weight.requires_grad)
        model.set_input_embeddings(self._small)  # type: ignore[operator]

    @staticmethod
    def fits(model: nn.Module, rows: Sequence[TokenIds], pad_id: int) -> bool:
        """Return whether the model's input embedding is a plain, trained one that no other module shares or needs."""
        if (
            getattr(model.config, "model_type", "") in _READS_IDS
            or len(np.unique(plain_ids(np.concatenate(rows)))) <= pad_id
        ):
            return False
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        if plain_class(embedding) is not nn.Embedding or not embedding.weight.requires_grad:
            return False
        shared = [name for name, value in model.named_parameters(remove_duplicate=False) if value is embedding.weight]
        return len(shared) == 1

    def translate(self, row: TokenIds) -> TokenIds:
        """Return a row's ids in the compact vocabulary, with its segments."""
        compact = self._position[plain_ids(row)]
        return np.where(row < 0, -1 - compact, compact)

    @contextmanager
    def whole(self, decay: float) -> Iterator[None]:
        """Let the model read all ids of the full vocabulary for the time of a block, as after `restore(decay)`."""
        place = torch.from_numpy(self._position.astype(np.int64)).to(self._full.weight.device)
        self._model.set_input_embeddings(_Both(self._full, self._small, place, decay))  # type: ignore[operator]
        try:
            yield
        finally:
            self._model.set_input_embeddings(self._small)  # type: ignore[operator]

    def restore(self, decay: float) -> None:
        """Restore the full embedding, with the trained rows in it and the others multiplied by `decay`."""
        with torch.no_grad():
            if decay != 1.0:
                self._full.weight.mul_(decay)
            self._full.weight[self._used.to(self._full.weight.device)] = self._small.weight.detach()
        self._model.set_input_embeddings(self._full)  # type: ignore[operator]


class _Both(nn.Module):
    """A full embedding whose rows in training are read from the compact one.

    Args:
        full: the full embedding.
        small: the compact one.
        place: row of each id in the compact one, -1 where there is none, shape (vocabulary,).
        decay: factor of the rows of the full one.
    """

    def __init__(self, full: nn.Embedding, small: nn.Embedding, place: torch.Tensor, decay: float) -> None:
        super().__init__()
        self._full = full
        self._small = small
        self._place = place
        self._decay = decay

    @property
    def weight(self) -> torch.Tensor:
        """The full matrix, for code that asks for its type or device."""
        return self._full.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        place = self._place[ids]
        others = self._full(ids) * self._decay
        return torch.where((place >= 0).unsqueeze(-1), self._small(place.clamp(min=0)), others)
