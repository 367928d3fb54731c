"""Options of an endpoint as users state them: on the command line, in Python and in suites."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from harness.support import UsageError

DEFAULT_VARIABLE = "OPENAI_API_KEY"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_KEY = re.compile(r"^(sk|pk|rk|hf|gsk|key|xai|nvapi|AIza)[-_A-Za-z0-9]{12,}$|^(?=.*[a-z])(?=.*\d)[A-Za-z0-9_-]{32,}$")
"""Texts that are likely to be keys, and not names of variables."""


def _names(value: Any) -> Any:
    """Return names of models: a list of them, or one text with commas between them."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


class EndpointOptions(BaseModel):
    """An endpoint of served models. A key is no part of it: `key` names an environment variable.

    Attributes:
        url: base URL of an OpenAI-compatible API, such as `http://127.0.0.1:8000/v1`.
        model: names of the models, as the server calls them; several are an axis of the grid.
        revision: revision of the models, as you know it; part of a cell's identity.
        api: `chat`, `completions`, or `auto`, which takes completions where they score words, else chat.
        scoring: way to find the class that a model chooses; `auto` takes the first one that the server offers.
        key: name of the environment variable that holds the key.
        concurrency: maximum number of requests at a time.
        timeout: seconds after which a request without an answer is sent again.
        max_cost: maximum price of all stored answers, in the currency of the prices.
        max_tokens: maximum number of tokens of all stored answers, prompts included.
        prices: file of prices; None takes HARNESS_PRICES.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    model: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], BeforeValidator(_names)]
    revision: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    api: Literal["auto", "chat", "completions"] = "auto"
    scoring: Literal["auto", "log-probabilities", "constrained", "parsing"] = "auto"
    key: str = DEFAULT_VARIABLE
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    max_cost: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    prices: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_plain_url(cls, url: str) -> str:
        expected = "expected a URL such as http://127.0.0.1:8000/v1"
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise ValueError(f"the URL cannot be read; {expected}") from None
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise ValueError(f"the URL holds a user or a password; {expected}, and a key in an environment variable")
        if parts.query or parts.fragment:
            raise ValueError(f"the URL holds parameters; {expected}, and a key in an environment variable")
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError(f"{url!r:.80} is no URL of an endpoint; {expected}")
        return url.strip().rstrip("/")

    @field_validator("model")
    @classmethod
    def _names_some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("no model is named; expected names as the server calls them")
        return tuple(dict.fromkeys(names))

    @field_validator("key")
    @classmethod
    def _is_variable(cls, name: str) -> str:
        if not _VARIABLE.fullmatch(name) or _KEY.match(name):
            raise ValueError(
                "expected the name of an environment variable that holds the key, such as OPENAI_API_KEY; the text "
                "that was given looks like a key and is not shown"
            )
        return name

    @field_validator("max_cost", "timeout")
    @classmethod
    def _is_finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("expected a finite number")
        return value


OPTION_NAMES: Mapping[str, str] = {
    "url": "--endpoint",
    "model": "--endpoint-model",
    "revision": "--endpoint-revision",
    "api": "--endpoint-api",
    "scoring": "--endpoint-scoring",
    "key": "--endpoint-key",
    "concurrency": "--concurrency",
    "timeout": "--endpoint-timeout",
    "max_cost": "--max-cost",
    "max_tokens": "--max-tokens",
    "prices": "--prices",
}
"""Options of the command line by the fields that they set."""


def read_endpoint(given: EndpointOptions | Mapping[str, Any] | None) -> EndpointOptions | None:
    """Return the options of an endpoint from a mapping, such as `{"url": ..., "model": ...}`; None stays None.

    Raises:
        UsageError: a value cannot be used; the message names the option, and repeats no value that may be a key.
    """
    if given is None or isinstance(given, EndpointOptions):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(
            "endpoint was given as something else than a mapping; expected "
            "{'url': 'http://127.0.0.1:8000/v1', 'model': 'NAME'}."
        )
    values = {name: value for name, value in given.items() if value is not None}
    if "url" not in values:
        options = ", ".join(OPTION_NAMES.get(name, str(name)) for name in values)
        raise UsageError(f"{options} was given without --endpoint URL.")
    if "model" not in values:
        raise UsageError("--endpoint was given without --endpoint-model NAME; expected the name of a served model.")
    try:
        return EndpointOptions.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            place = str(problem["loc"][0]) if problem["loc"] else "endpoint"
            why = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{OPTION_NAMES.get(place, f'endpoint.{place}')}: {why[:1].lower()}{why[1:]}.")
        raise UsageError("\n".join(lines)) from None
