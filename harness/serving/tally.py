"""Sums over the requests of one cell, for its record."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from harness.backbones import ServedModel
from harness.records import ServedFacts
from harness.serving.answers import StoredAnswer


@dataclass
class Tally:
    """Sums over requests that were answered; threads may add to it.

    Attributes:
        reused_seconds: seconds that stored answers took, each over the number of requests sent at a time then.
        n_unreadable: number of answers to predicted rows from which nothing could be read.
        n_missing: number of answers to them whose probability the server has not returned.
    """

    reused_seconds: float = 0.0
    n_unreadable: int = 0
    n_missing: int = 0
    _n_in_fit: int | None = None
    _n_reused: int = 0
    _n_retries: int = 0
    _seconds: list[float] = field(default_factory=list)
    _prompt_tokens: list[int | None] = field(default_factory=list)
    _cached_tokens: list[int | None] = field(default_factory=list)
    _completion_tokens: list[int | None] = field(default_factory=list)
    _prices: list[float | None] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, answer: StoredAnswer, price: float | None, *, reused: bool, n_beside: int = 1) -> None:
        """Add an answer with its price, whether this cell has sent it or reads a stored one."""
        with self._lock:
            self._seconds.append(answer.seconds)
            self._n_retries += answer.n_tries - 1
            self._prompt_tokens.append(answer.prompt_tokens)
            self._cached_tokens.append(answer.cached_prompt_tokens)
            self._completion_tokens.append(answer.completion_tokens)
            self._prices.append(price)
            if reused:
                self._n_reused += 1
                self.reused_seconds += answer.seconds / n_beside

    def note(self, *, unreadable: int = 0, missing: int = 0) -> None:
        """Count answers that could not be read, or whose probabilities were not returned."""
        with self._lock:
            self.n_unreadable += unreadable
            self.n_missing += missing

    def end_fit(self) -> None:
        """Note that all requests so far belong to the fit; readings are counted anew, for the predicted rows."""
        with self._lock:
            self._n_in_fit = len(self._seconds)
            self.n_unreadable = self.n_missing = 0

    @property
    def n_requests(self) -> int:
        """Number of answered requests."""
        return len(self._seconds)

    def facts(self, model: ServedModel, *, scores: bool) -> ServedFacts:
        """Return the facts for a record; `scores` says whether classes or choices were scored."""
        endpoint, offer = model.endpoint, model.offer
        price = _sum(self._prices)
        n_in_fit = self._n_in_fit
        seconds = self._seconds[n_in_fit or 0 :]
        quantiles = np.quantile(seconds, (0.5, 0.95, 0.99)) if seconds else (None, None, None)
        p50, p95, p99 = (None if value is None else float(value) for value in quantiles)
        return ServedFacts(
            server=shown_url(endpoint.url),
            server_version=offer.version,
            api=offer.api,
            scoring=offer.scoring if scores else None,
            sampling=dict(offer.sampling) or None,
            is_reproducible=offer.weights_hash is not None,
            concurrency=endpoint.concurrency,
            n_requests=self.n_requests,
            n_reused=self._n_reused,
            n_retries=self._n_retries,
            prompt_tokens=_total(self._prompt_tokens),
            cached_prompt_tokens=_total(self._cached_tokens),
            completion_tokens=_total(self._completion_tokens),
            price=price,
            currency=None if price is None or endpoint.price is None else endpoint.price.currency,
            latency_p50_seconds=p50,
            latency_p95_seconds=p95,
            latency_p99_seconds=p99,
            n_unreadable=self.n_unreadable,
            **({} if n_in_fit is None else self._of_fit(n_in_fit)),
        )

    def _of_fit(self, n: int) -> dict[str, Any]:
        """Return the facts about the first n requests, which are those of the fit."""
        return {
            "fit_requests": n,
            "fit_prompt_tokens": _total(self._prompt_tokens[:n]) if n else 0,
            "fit_cached_prompt_tokens": _total(self._cached_tokens[:n]) if n else 0,
            "fit_completion_tokens": _total(self._completion_tokens[:n]) if n else 0,
            "fit_price": _sum(self._prices[:n]) if n else 0.0,
        }


def shown_url(url: str) -> str:
    """Return a URL without user names, passwords and parameters."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port is not None else ""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _total(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(sum(known)) if values and len(known) == len(values) else None
