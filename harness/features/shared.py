"""Features as the several fits of one cell see them: what one of them has encoded costs the next nothing.

A feature store charges whoever asks, since a cell must not look cheaper because another came first. Within a cell the
first trial does come first, and charging every trial would make tuning a probe look many times as dear as it is. So
fits that share a cell get features for nothing here, and accounts keep what the cell owes for them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from harness.features.encode import Encoded, FeatureStore
from harness.tasks import Ints, Source


class Account:
    """What is owed for features: each row of each kind once.

    Attributes:
        seconds, flops, tokens: of encoding the rows, as measured when they were computed.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.flops = 0.0
        self.tokens = 0
        self._paid: dict[Any, set[int]] = {}

    def unpaid(self, key: Any, index: Ints) -> Ints:
        """The rows among `index` that are not on this account yet."""
        return np.setdiff1d(index, np.fromiter(self._paid.get(key, ()), dtype=np.int64))

    def add(self, key: Any, rows: Ints, encoded: Encoded) -> None:
        """Owe what these rows cost."""
        self._paid.setdefault(key, set()).update(rows.tolist())
        self.seconds += encoded.seconds
        self.flops += encoded.flops
        self.tokens += encoded.tokens


class SharedFeatures:
    """Stands in for a `FeatureStore` in the fits of one cell.

    Args:
        store: where features come from.

    Attributes:
        accounts: each is charged with what is asked for while it is listed here.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._first: dict[Any, Encoded] = {}
        self.accounts: list[Account] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def pooled(self, source: Source, index: Ints, *rest: Any, **which: Any) -> Encoded:
        """As `FeatureStore.pooled`, for nothing; the arguments after `index` are its own."""
        _tokens, _backbone, *form = rest
        key = (source.key, *form, *sorted(which.items()))
        warmup = spare = 0.0  # no account is charged with them: whoever asks first, as of a store
        for account in self.accounts:
            rows = account.unpaid(key, index)
            if len(rows):
                encoded = self._store.pooled(source, rows, *rest, **which)
                # What this cell has encoded is known when it is asked for again, and that is no reuse.
                self._first.setdefault(key, encoded)
                account.add(key, rows, encoded)
                warmup, spare = warmup + encoded.warmup_seconds, spare + encoded.spare_seconds
        found = self._store.pooled(source, index, *rest, **which)
        first = self._first.get(key, found)
        return dataclasses.replace(
            found,
            seconds=0.0,
            flops=0.0,
            tokens=0,
            reused=first.reused,
            fresh=first.fresh,
            warmup_seconds=warmup + found.warmup_seconds,
            spare_seconds=spare + found.spare_seconds,
        )
