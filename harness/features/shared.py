"""Share features between the fits of one cell, so that each row is encoded and charged once.

A feature store charges every request, since a cell must not look cheaper because another came first. Within a cell,
charging every trial would make tuning a probe look many times as expensive as it is. Fits that share a cell therefore
get features free of charge here, and accounts sum the cost for the cell.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from harness.features.encode import FeatureStore
from harness.features.table import Encoded
from harness.tasks import Ints, Source


class Account:
    """Cost to charge for features: each row of each kind counts once.

    Attributes:
        seconds: seconds to encode the rows, as measured when they were computed.
        flops: operations to encode them.
        tokens: their real tokens.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.flops = 0.0
        self.tokens = 0
        self._paid: dict[Any, set[int]] = {}

    def unpaid(self, key: Any, index: Ints) -> Ints:
        """Return the rows among `index` that are not on this account yet."""
        return np.setdiff1d(index, np.fromiter(self._paid.get(key, ()), dtype=np.int64))

    def add(self, key: Any, rows: Ints, encoded: Encoded) -> None:
        """Add the cost of these rows."""
        self._paid.setdefault(key, set()).update(rows.tolist())
        self.seconds += encoded.seconds
        self.flops += encoded.flops
        self.tokens += encoded.tokens


class SharedFeatures:
    """A substitute for a `FeatureStore` in the fits of one cell.

    Args:
        store: the store that features come from.

    Attributes:
        accounts: accounts that are charged with each request.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._first: dict[Any, Encoded] = {}
        self.accounts: list[Account] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def pooled(self, source: Source, index: Ints, *rest: Any, **which: Any) -> Encoded:
        """Return features as `FeatureStore.pooled` does, free of charge; it documents the arguments."""
        _tokens, _backbone, *form = rest
        key = (source.key, *form, *sorted(which.items()))
        warmup = spare = 0.0  # charged to the first request, as in a store, and not to an account
        for account in self.accounts:
            rows = account.unpaid(key, index)
            if len(rows):
                encoded = self._store.pooled(source, rows, *rest, **which)
                # A second request finds the rows that this cell has encoded; that is no reuse of another's work.
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
