"""Facts about a cell that asked a served model."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
        latency_p50_seconds, latency_p95_seconds, latency_p99_seconds: percentiles of the seconds from a request of
            the predictions to its answer, without failed tries.
        n_unreadable: number of answers to the predicted rows from which nothing could be read.
        fit_requests: number of the requests that were answered before the first prediction: for the choice of settings,
            wordings and demonstrations, and for calibration. Earlier versions did not state it.
        fit_prompt_tokens, fit_cached_prompt_tokens, fit_completion_tokens, fit_price: tokens and price of these
            requests, which the totals above contain.
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
    fit_requests: int | None = None
    fit_prompt_tokens: int | None = None
    fit_cached_prompt_tokens: int | None = None
    fit_completion_tokens: int | None = None
    fit_price: float | None = None

    @property
    def in_fit(self) -> ServedFacts | None:
        """The same facts, with the tokens and the price of the fit's requests alone; None if they are unknown."""
        if self.fit_requests is None:
            return None
        return replace(
            self,
            n_requests=self.fit_requests,
            prompt_tokens=self.fit_prompt_tokens,
            cached_prompt_tokens=self.fit_cached_prompt_tokens,
            completion_tokens=self.fit_completion_tokens,
            price=self.fit_price,
        )

    @property
    def in_predictions(self) -> ServedFacts | None:
        """The same facts, with the tokens and the price of the predictions' requests; None if they are unknown."""
        fit = self.in_fit
        if fit is None:
            return None
        return replace(
            self,
            n_requests=_rest(self.n_requests, fit.n_requests),
            prompt_tokens=_rest(self.prompt_tokens, fit.prompt_tokens),
            cached_prompt_tokens=_rest(self.cached_prompt_tokens, fit.cached_prompt_tokens),
            completion_tokens=_rest(self.completion_tokens, fit.completion_tokens),
            price=None if self.price is None or fit.price is None else self.price - fit.price,
        )


def _rest(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part
