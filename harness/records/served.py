"""Facts about a cell that asked a served model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedFacts:
    """Facts about the requests of one cell to a served model; None is unknown.

    Tokens, latencies and prices are those of the requests when they were sent, also where an earlier run sent them and
    this cell read the stored answers.

    Attributes:
        server: address of the endpoint, without user names, passwords and parameters.
        server_version: version that the server states.
        api: `chat` or `completions`.
        scoring: how classes were scored: `log-probabilities`, `constrained` or `parsing`; None for written answers.
        sampling: settings of sampling that were sent.
        is_reproducible: whether the server states a hash of the model's weights.
        concurrency: maximum number of requests at a time.
        n_requests: number of requests that were answered.
        n_reused: number of these that an earlier run had stored.
        n_retries: number of requests that failed and were sent again.
        prompt_tokens: tokens of all prompts.
        cached_prompt_tokens: part of these that the server read from its own cache.
        completion_tokens: tokens that the model wrote.
        price: price of the requests, in `currency`.
        currency: currency of `price`.
        latency_p50_seconds, latency_p95_seconds, latency_p99_seconds: percentiles of the seconds from a request to
            its answer, without failed tries.
        n_unreadable: number of answers from which nothing could be read.
    """

    server: str | None = None
    server_version: str | None = None
    api: str | None = None
    scoring: str | None = None
    sampling: dict[str, float | int | str] | None = None
    is_reproducible: bool = False
    concurrency: int | None = None
    n_requests: int | None = None
    n_reused: int | None = None
    n_retries: int | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    completion_tokens: int | None = None
    price: float | None = None
    currency: str | None = None
    latency_p50_seconds: float | None = None
    latency_p95_seconds: float | None = None
    latency_p99_seconds: float | None = None
    n_unreadable: int | None = None
