"""One run's claims on the cells that it runs, renewed while it lives."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Sequence
from types import TracebackType

from harness.store import RENEW_SECONDS, Owner, Store
from harness.support import StoreError


class Claims:
    """Claims cells for this process; within the context they hold, after it they are given up.

    Args:
        store: where claims are kept, beside the records.
        device: where cells run.
        retry_failed: whether a cell whose latest record is `failed` needs a run.
        again: cells that need one whatever their records say.
    """

    def __init__(self, store: Store, device: str, *, retry_failed: bool = False, again: Collection[str] = ()) -> None:
        self.owner = Owner()
        self._store = store
        self._device = device
        self._retry_failed = retry_failed
        self._again = frozenset(again)
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="renews claims", daemon=True)

    def claim(self, ids: Sequence[str]) -> dict[str, int]:
        """Those of `ids` that are this run's now, with the number of the attempt; the others are done or another's."""
        return self._store.claim(ids, self._device, self.owner, retry_failed=self._retry_failed, again=self._again)

    def __enter__(self) -> Claims:
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._renewing.join()
        with contextlib.suppress(StoreError):  # they end by themselves; what went wrong before is what matters
            self._store.release(self.owner)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with contextlib.suppress(StoreError):  # a store that is busy or full now may not be in a while
                self._store.renew(self.owner)
