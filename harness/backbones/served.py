"""Language models behind an endpoint, as backbones: nothing of them is on this machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.backbones.locate import BackboneFiles

Api = Literal["chat", "completions"]
"""Part of the OpenAI-compatible API that answers: chat, whose template is the server's, or completions of a text."""

Scoring = Literal["log-probabilities", "constrained", "parsing"]
"""Ways to find the class that a served model chooses."""

Constraint = Literal["json_schema", "json_object", "structured_outputs", "guided_choice", "grammar"]
"""Forms of a request in which a server lets a model write one of several texts only."""


@dataclass(frozen=True)
class Price:
    """Price of a model's tokens.

    Attributes:
        currency: currency of the amounts, such as `EUR`.
        prompt_per_million: price of a million prompt tokens.
        cached_prompt_per_million: price of those that the server reads from its cache; None is the full price.
        completion_per_million: price of a million written tokens.
    """

    currency: str
    prompt_per_million: float
    completion_per_million: float
    cached_prompt_per_million: float | None = None

    def of(self, prompt_tokens: int, cached_prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of some tokens; `cached_prompt_tokens` are part of `prompt_tokens`."""
        cached = self.prompt_per_million if self.cached_prompt_per_million is None else self.cached_prompt_per_million
        fresh = prompt_tokens - cached_prompt_tokens
        whole = fresh * self.prompt_per_million + cached_prompt_tokens * cached
        return (whole + completion_tokens * self.completion_per_million) / 1e6


@dataclass(frozen=True)
class Endpoint:
    """Where a served model is, and how it may be asked. No part of it is a part of a cell's identity.

    Attributes:
        url: base URL of the API, such as `http://127.0.0.1:8000/v1`.
        model: name of the model, as the server calls it.
        revision: revision of the model as the user declares it.
        key_variable: name of the environment variable that holds the key. The key itself is nowhere.
        concurrency: maximum number of requests at a time.
        timeout: seconds after which a request without an answer is given up.
        max_cost: maximum price of all answers in the file of answers, in the currency of `price`.
        max_tokens: maximum number of tokens of all answers in that file, prompts included.
        price: price of the model's tokens; None where it is not known.
        answers: file that keeps every answer; None keeps them in memory.
    """

    url: str
    model: str
    revision: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    max_cost: float | None = None
    max_tokens: int | None = None
    price: Price | None = None
    answers: Path | None = None


@dataclass(frozen=True)
class Offer:
    """Abilities of a server, found by small requests.

    Attributes:
        api: part of the API that is used.
        scoring: way to find the class that the model chooses.
        echoes: whether the server returns the log-probabilities of a prompt's own tokens, which scores any words.
        top: number of most likely tokens that it returns; 0 for none.
        constraint: form of requests that constrain an answer; None where there is none.
        limit_name: name of the limit on written tokens in requests.
        sampling: settings of sampling that requests state.
        stated_model: name that answers state, where it is not the name that was asked for.
        weights_hash: hash of the weights that the server states.
        version: version that the server states; no part of the identity.
        chat: offer of its chat API for written answers, where classes are scored by completions.
    """

    api: Api
    scoring: Scoring
    echoes: bool = False
    top: int = 0
    constraint: Constraint | None = None
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: tuple[tuple[str, float | int], ...] = ()
    stated_model: str | None = None
    weights_hash: str | None = None
    version: str | None = None
    chat: Offer | None = None

    @property
    def for_writing(self) -> Offer:
        """The offer by which answers are written: the chat API where there is one."""
        return self if self.chat is None else self.chat

    def identity(self) -> dict[str, Any]:
        """Return the parts that affect answers, as JSON values."""
        parts: dict[str, Any] = {
            "api": self.api,
            "scoring": self.scoring,
            "echoes": self.echoes,
            "top": self.top,
            "constraint": self.constraint,
            "sampling": dict(self.sampling),
        }
        chat = None if self.chat is None else self.chat.identity()
        stated = {"stated_model": self.stated_model, "weights_hash": self.weights_hash, "chat": chat}
        return parts | {name: value for name, value in stated.items() if value is not None}


_NO_FOLDER = Path("/nonexistent/served-model")
_NO_ENDPOINT = Endpoint("", "")
_NO_OFFER = Offer("completions", "parsing")


@dataclass(frozen=True)
class ServedModel(BackboneFiles):
    """A language model behind an endpoint. It has no files, no tokenizer and no weights here.

    Attributes:
        endpoint: where it is, and how it may be asked.
        offer: abilities of its server.
    """

    endpoint: Endpoint = field(default=_NO_ENDPOINT, compare=False)
    offer: Offer = field(default=_NO_OFFER, compare=False)

    @property
    def model_type(self) -> str:
        """No architecture of transformers is known."""
        return ""

    @property
    def n_blocks(self) -> int | None:
        """The number of blocks is unknown."""
        return None

    @property
    def width(self) -> int | None:
        """The width is unknown."""
        return None

    @property
    def has_weights(self) -> bool:
        """Whether cells can run: the server has the weights."""
        return True

    @property
    def n_weight_bytes(self) -> int:
        """No file of weights is here."""
        return 0

    def parts(self) -> dict[str, Path]:
        """Return no files."""
        return {}

    def tensor_names(self) -> list[str]:
        """Return no names: no tensor is here."""
        return []

    def require_tokenizer(self) -> None:
        """Accept the model: its server has the tokenizer."""


def served_model(endpoint: Endpoint, offer: Offer) -> ServedModel:
    """Return the backbone of a served model; its fingerprint depends on neither URL nor key."""
    identity = {"model": endpoint.model, "revision": endpoint.revision, **offer.identity()}
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return ServedModel(
        name=f"served:{endpoint.model}",
        folder=_NO_FOLDER,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        architecture="served",
        pooling="last",
        revision=endpoint.revision,
        origin="served",
        endpoint=endpoint,
        offer=offer,
    )
