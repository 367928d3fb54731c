"""Limits of money and tokens: a request is sent only if the answers so far and those on their way leave room."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.backbones import Endpoint
from harness.serving.answers import AnswerFile, Total
from harness.serving.errors import LimitReachedError

_BYTES_PER_TOKEN = 3.0
"""Assumed bytes of a token before any answer has come; text has more, so that the first estimates are high."""


class Limits:
    """The room that `--max-cost` and `--max-tokens` leave. Threads of one process share it.

    Args:
        endpoint: the endpoint with its limits and its price.
        answers: stored answers, which all count: those of earlier runs too.
    """

    def __init__(self, endpoint: Endpoint, answers: AnswerFile) -> None:
        self._endpoint = endpoint
        self._answers = answers
        self._lock = threading.Lock()
        self._tokens_on_way = 0.0
        self._price_on_way = 0.0
        self._bytes_sent = 0.0
        self._tokens_counted = 0.0

    @contextmanager
    def reserved(self, n_bytes: int, most_written: int) -> Iterator[Callable[[Callable[[], None]], None]]:
        """Keep room for a request while it is on its way.

        Args:
            n_bytes: bytes of its prompt.
            most_written: maximum number of tokens of its answer.

        Yields:
            Function that calls another, which stores the answer, and gives the room back at the same time, so that
            no answer counts both as stored and as on its way.

        Raises:
            LimitReachedError: there is no room for it.
        """
        endpoint = self._endpoint
        if endpoint.max_cost is None and endpoint.max_tokens is None:
            yield lambda store: store()
            return
        with self._lock:
            prompt = n_bytes / self._bytes_per_token()
            tokens = prompt + most_written
            price = 0.0 if endpoint.price is None else endpoint.price.of(int(prompt + 1), 0, most_written)
            spent_tokens, spent = self.spent()
            if endpoint.max_tokens is not None and spent_tokens + self._tokens_on_way + tokens > endpoint.max_tokens:
                raise LimitReachedError(
                    f"The limit of {endpoint.max_tokens:,} tokens is reached: the stored answers took "
                    f"{spent_tokens:,}, and the next request needs about {tokens:,.0f}. {_GO_ON.format('max-tokens')}"
                )
            if endpoint.max_cost is not None and spent + self._price_on_way + price > endpoint.max_cost:
                currency = "" if endpoint.price is None else f" {endpoint.price.currency}"
                raise LimitReachedError(
                    f"The limit of {endpoint.max_cost:g}{currency} is reached: the stored answers cost {spent:.4g}, "
                    f"and the next request about {price:.2g}. {_GO_ON.format('max-cost')}"
                )
            self._tokens_on_way += tokens
            self._price_on_way += price
        is_kept = True

        def give_back() -> None:
            nonlocal is_kept
            if is_kept:
                self._tokens_on_way -= tokens
                self._price_on_way -= price
                is_kept = False

        def stored_by(store: Callable[[], None]) -> None:
            with self._lock:
                store()
                give_back()

        try:
            yield stored_by
        finally:
            with self._lock:
                give_back()

    def learn(self, n_bytes: int, prompt_tokens: int | None) -> None:
        """Take in how many tokens the server counted in a prompt; later estimates go by it."""
        if prompt_tokens:
            with self._lock:
                self._bytes_sent += n_bytes
                self._tokens_counted += prompt_tokens

    def spent(self) -> tuple[int, float]:
        """Return the tokens and the price of all stored answers; unpriced ones of this model cost its price."""
        tokens, price = 0, 0.0
        for total in self._answers.totals():
            tokens += total.prompt_tokens + total.completion_tokens
            price += self._price_of(total)
        return tokens, price

    def _price_of(self, total: Total) -> float:
        if total.currency or total.model != self._endpoint.model or self._endpoint.price is None:
            return total.price
        return self._endpoint.price.of(total.prompt_tokens, total.cached_prompt_tokens, total.completion_tokens)

    def _bytes_per_token(self) -> float:
        if not self._tokens_counted:
            return _BYTES_PER_TOKEN
        return 0.9 * self._bytes_sent / self._tokens_counted  # a little less: a limit is not to be exceeded


def spent_on(endpoint: Endpoint) -> tuple[int, float]:
    """Return the tokens and the price of all stored answers that count for the limits of an endpoint."""
    answers = AnswerFile(endpoint.answers)
    try:
        return Limits(endpoint, answers).spent()
    finally:
        answers.close()


_GO_ON = "Every answer so far is stored. To go on, raise --{} and add --retry-failed."
