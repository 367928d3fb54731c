"""Send requests to an OpenAI-compatible endpoint: time-outs, retries with pauses, errors without keys."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from harness.backbones import Api, Endpoint
from harness.serving.deadline import deadline_hooks
from harness.serving.errors import RejectedError, ServedError, StoppedError, TooLongError, UnavailableError
from harness.support import UsageError, first_line, shortened

INSTALL: Final = "pip install 'adaptation-harness[served]'"

_RETRIED: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 that a later try may overcome."""

_NO_QUOTA: Final = re.compile(r"insufficient_quota|billing", re.IGNORECASE)
_TOO_LONG: Final = re.compile(
    r"context[ _-]?(length|size|window)|maximum context|exceeds? the (available )?context|too many tokens|"
    r"prompt is too long|input is too long|longer than the maximum|reduce the length",
    re.IGNORECASE,
)
_MOST_WORDS: Final = 300
_SHORTEST_KEY: Final = 8
"""Number of characters from which a key is removed from answers: local servers take any word as a key."""


@dataclass(frozen=True)
class Patience:
    """Limits of the retries of one request.

    Attributes:
        n_tries: maximum number of times that a request is sent.
        seconds: maximum seconds from the first try to the last.
        first_pause: upper end of the pause before the second try; it doubles from try to try.
        longest_pause: upper end of any pause that the server does not ask for.
    """

    n_tries: int = 12
    seconds: float = 300.0
    first_pause: float = 0.1
    longest_pause: float = 30.0

    def pause(self, n_failed: int) -> float:
        """Return the seconds to wait after so many failures: exponential, with jitter over half of the pause."""
        most = min(self.longest_pause, self.first_pause * 2.0 ** (n_failed - 1))
        return most * (0.5 + 0.5 * random.random())


@dataclass(frozen=True)
class Sent:
    """The answer to a request.

    Attributes:
        content: the server's JSON.
        seconds: seconds of the try that was answered.
        n_tries: number of times that the request was sent.
    """

    content: Mapping[str, Any]
    seconds: float
    n_tries: int


class _Again(Exception):  # noqa: N818 - never leaves this module
    """A try failed in a way that the next one may overcome."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class Client:
    """A connection to one endpoint, which threads may share.

    A server that asks for a pause (`Retry-After`) pauses all threads.

    Args:
        endpoint: the endpoint.
        patience: limits of retries.

    Attributes:
        stopped: set it to end waiting threads, and to send nothing more.

    Raises:
        UsageError: the client library is missing, or the key is no key.
    """

    def __init__(self, endpoint: Endpoint, patience: Patience | None = None) -> None:
        openai = _library()
        self.endpoint = endpoint
        self.stopped = threading.Event()
        self._patience = patience or Patience()
        self._secret = os.environ.get(endpoint.key_variable, "").strip()
        if not (self._secret.isascii() and self._secret.isprintable()):
            raise UsageError(
                f"The key in {endpoint.key_variable} has characters that no request can hold; expected letters, "
                "digits and marks of ASCII in one line. Copy the key again."
            )
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=endpoint.url,
            max_retries=0,
            timeout=endpoint.timeout,
            http_client=openai.DefaultHttpxClient(event_hooks=deadline_hooks(endpoint.timeout)),
        )
        self._openai = openai
        self._lock = threading.Lock()
        self._paused_until = 0.0

    @property
    def has_key(self) -> bool:
        """Whether the environment holds a key."""
        return bool(self._secret)

    def scrub(self, text: str) -> str:
        """Return a text without the key, which servers may repeat."""
        if self._secret:
            for form in {self._secret, json.dumps(self._secret)[1:-1]}:
                text = text.replace(form, "***")
        return re.sub(r"(?i)(bearer\s+)[^\s\"',}]+", r"\1***", text)

    def _without_key(self, value: Any) -> Any:
        """Return an answer's JSON without the key. A key of few letters, such as `none`, is no secret but a word."""
        if isinstance(value, str) and len(self._secret) >= _SHORTEST_KEY:
            return value.replace(self._secret, "***")
        if isinstance(value, list):
            return [self._without_key(one) for one in value]
        if isinstance(value, dict):
            return {self._without_key(name): self._without_key(one) for name, one in value.items()}
        return value

    def models(self) -> list[Mapping[str, Any]] | None:
        """Return what the server says about each model that it serves; None where it offers no list."""
        try:
            sent = self._retried(lambda: self._client.models.with_raw_response.list(), is_answer=_is_object)
        except RejectedError as error:
            if error.status in (401, 403):
                raise
            return None
        except UnavailableError as error:
            if "status 5" not in str(error):
                raise
            return None
        listed = sent.content.get("data")
        if not isinstance(listed, list):
            return None
        return [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]

    def send(self, api: Api, body: Mapping[str, Any]) -> Sent:
        """Send a request until it is answered; only the key of the environment is added.

        Raises:
            RejectedError: the server refuses it.
            TooLongError: it does not fit into the model's context.
            UnavailableError: no try was answered.
            StoppedError: `stopped` was set.
        """
        rest = dict(body)
        model = rest.pop("model")
        if api == "chat":
            messages = rest.pop("messages")
            call = self._client.chat.completions.with_raw_response
            return self._retried(lambda: call.create(model=model, messages=messages, extra_body=rest))
        prompt = rest.pop("prompt")
        plain = self._client.completions.with_raw_response
        return self._retried(lambda: plain.create(model=model, prompt=prompt, extra_body=rest))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _retried(
        self, call: Callable[[], Any], is_answer: Callable[[Mapping[str, Any]], str | None] | None = None
    ) -> Sent:
        began, why = time.monotonic(), ""
        for n_tries in range(1, self._patience.n_tries + 1):
            self._wait_for_all()
            if self.stopped.is_set():
                raise StoppedError("Another request failed first.")
            started = time.perf_counter()
            try:
                content = self._try(call, is_answer or _is_choice)
            except _Again as failed:
                why = failed.why
                pause = self._patience.pause(n_tries) if failed.wait is None else failed.wait
                left = self._patience.seconds - (time.monotonic() - began)
                if pause > left:
                    why += f"; the next try would be in {pause:.0f} s"
                    break
                if n_tries < self._patience.n_tries:
                    if failed.wait is not None:
                        self._pause_all(pause)
                    elif self.stopped.wait(pause):
                        raise StoppedError("Another request failed first.") from None
            else:
                return Sent(content, time.perf_counter() - started, n_tries)
        seconds = time.monotonic() - began
        raise UnavailableError(
            f"The endpoint {self.endpoint.url} did not answer a request in {seconds:.0f} s and {n_tries} tries; the "
            f"last one: {why}. Answers so far are stored. When the server works again, give the same command: "
            "it goes on from there (`harness run` with --retry-failed)."
        )

    def _try(self, call: Callable[[], Any], is_answer: Callable[[Mapping[str, Any]], str | None]) -> Mapping[str, Any]:
        openai = self._openai
        try:
            text = call().http_response.text
        except openai.APITimeoutError:
            raise _Again(f"no answer within {self.endpoint.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _Again(self.scrub(f"{type(cause).__name__}: {first_line(str(cause))}")[:_MOST_WORDS]) from None
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.OpenAIError as error:
            raise ServedError(f"{type(error).__name__}: {self.scrub(first_line(str(error)))}") from None
        except (UnicodeDecodeError, ValueError) as error:
            raise _Again(f"an answer that cannot be read ({type(error).__name__})") from None
        try:
            content = self._without_key(json.loads(text))
        except ValueError:
            raise _Again("an answer that is no whole JSON") from None
        if not isinstance(content, dict):
            raise _Again("an answer that is no JSON object")
        wrong = is_answer(content)
        if wrong is not None:
            raise _Again(self.scrub(wrong))
        return content

    def _refused(self, error: Any) -> Exception:
        """Return the exception for an answer with a status of 400 or more."""
        status, said = int(error.status_code), self._said(error)
        if (status in (400, 413, 422) or status >= 500) and _TOO_LONG.search(said):
            return TooLongError(said, status)
        if status == 429 and _NO_QUOTA.search(said):
            return RejectedError(f"The endpoint {self.endpoint.url} has no quota left: {said}", status)
        if status in _RETRIED or status >= 500:
            return _Again(f"status {status}: {said}", _retry_after(error.response.headers))
        return RejectedError(f"The endpoint {self.endpoint.url} refuses a request with status {status}: {said}", status)

    def _said(self, error: Any) -> str:
        """Return what an error of the server says, in one line without the key."""
        try:
            body = json.loads(error.response.text)
        except (ValueError, UnicodeDecodeError):
            body = error.response.text
        found: Any = body
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        said = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        code = (
            body.get("error", {}).get("code") if isinstance(body, dict) and isinstance(body.get("error"), dict) else ""
        )
        said = f"{said} ({code})" if isinstance(code, str) and code and code not in said else said
        return shortened(" ".join(self.scrub(said).split()), _MOST_WORDS) or "no explanation"

    def _pause_all(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _wait_for_all(self) -> None:
        while (left := self._paused_until - time.monotonic()) > 0:
            if self.stopped.wait(left + 0.05 * random.random()):
                return


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise UsageError(f"Served models need the package openai, which is not installed. Try: {INSTALL}") from None
    return openai


def _is_object(_: Mapping[str, Any]) -> None:
    """Accept every JSON object."""


def _is_choice(content: Mapping[str, Any]) -> str | None:
    """Return why a JSON object is no answer of a language model; None if it is one."""
    choices = content.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return None
    error = content.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    return f"an answer without choices ({said})"[:_MOST_WORDS] if said else "an answer without choices"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait; None where it does not say, or says 0: pauses then grow."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (TypeError, ValueError):
                continue
        if seconds > 0:  # nor NaN
            return seconds
    return None
