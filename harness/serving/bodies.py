"""Bodies of requests: a conversation as a chat or as a text, with limits, and the answers that are allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.backbones import Constraint, Offer
from harness.serving.questions import Conversation

_MOST_STOPS = 4
"""Maximum number of stop texts that OpenAI's API accepts."""


def prompt_of(offer: Offer, model: str, conversation: Conversation) -> dict[str, Any]:
    """Return the part of a request that states the model, the prompt and the sampling."""
    body: dict[str, Any] = {"model": model, **dict(offer.sampling)}
    if offer.api == "chat":
        return body | {"messages": [message.to_json() for message in conversation.messages()]}
    return body | {"prompt": conversation.plain()}


def echoed(offer: Offer, model: str, conversation: Conversation, answer: str) -> dict[str, Any]:
    """Return a request for the log-probabilities of an answer's tokens after a prompt.

    One token is written, because some servers take 0 as no limit.
    """
    body = prompt_of(offer, model, conversation)
    body["prompt"] += conversation.joint + answer
    return body | {"max_tokens": 1, "echo": True, "logprobs": 1}


def first_token(offer: Offer, model: str, conversation: Conversation) -> dict[str, Any]:
    """Return a request for the most likely first tokens of the answer."""
    body = prompt_of(offer, model, conversation) | {offer.limit_name: 1}
    if offer.api == "chat":
        return body | {"logprobs": True, "top_logprobs": offer.top}
    return body | {"logprobs": offer.top}


def written(
    offer: Offer, model: str, conversation: Conversation, most_tokens: int, stop: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a request for a written answer."""
    body = prompt_of(offer, model, conversation) | {offer.limit_name: most_tokens}
    return body | ({"stop": list(stop)[:_MOST_STOPS]} if stop else {})


def constrained(
    offer: Offer, model: str, conversation: Conversation, answers: Sequence[str], most_tokens: int
) -> dict[str, Any]:
    """Return a request whose answer must be one of some texts."""
    body = written(offer, model, conversation, most_tokens)
    return body | choice_of(answers, offer.constraint)


def choice_of(answers: Sequence[str], constraint: Constraint | None) -> dict[str, Any]:
    """Return the part of a request that allows only some answers."""
    if constraint in ("json_schema", "json_object"):
        wanted = {"type": "string", "enum": list(answers)}
        schema = {
            "type": "object",
            "properties": {"answer": wanted},
            "required": ["answer"],
            "additionalProperties": False,
        }
        return schema_of(schema, constraint)
    if constraint == "structured_outputs":
        return {"structured_outputs": {"choice": list(answers)}}
    if constraint == "guided_choice":
        return {"guided_choice": list(answers)}
    if constraint == "grammar":
        return {"grammar": "root ::= " + " | ".join(json.dumps(answer) for answer in answers)}
    return {}


def schema_of(schema: Mapping[str, Any], constraint: Constraint | None) -> dict[str, Any]:
    """Return the part of a request that asks for JSON of a schema; empty where the server offers none."""
    if constraint == "json_schema":
        named = {"name": "answer", "strict": True, "schema": dict(schema)}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if constraint == "json_object":
        return {"response_format": {"type": "json_object", "schema": dict(schema)}}
    return {}


def n_bytes(body: Mapping[str, Any]) -> int:
    """Return the bytes of a request's prompt."""
    if "prompt" in body:
        return len(str(body["prompt"]).encode())
    return sum(len(message["content"].encode()) for message in body["messages"])


def most_written(body: Mapping[str, Any]) -> int:
    """Return the maximum number of tokens of a request's answer."""
    return int(body.get("max_tokens", body.get("max_completion_tokens", 0)))
