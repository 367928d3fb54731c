"""Read answers of servers: texts, tokens, log-probabilities of an answer's words or of the first token."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.serving.errors import ServedError

BELOW_ALL = 1.0
"""Nats below the smallest returned log-probability at which a word that was not returned is put."""


def text_of(content: Mapping[str, Any]) -> str:
    """Return the text that a model wrote."""
    choice = content["choices"][0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""


def is_cut(content: Mapping[str, Any]) -> bool:
    """Return whether a written answer ended at its maximum length."""
    return bool(content["choices"][0].get("finish_reason") == "length")


def usage_of(content: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Return the counted tokens: of the prompt, of its part from the server's cache, and of the answer."""
    usage = content.get("usage")
    if not isinstance(usage, dict):
        return None, None, None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return _count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens"))


def answer_likelihood(content: Mapping[str, Any], answer: str) -> tuple[float, int] | None:
    """Return the log-likelihood of the answer at the end of an echoed prompt, and its number of tokens.

    The answer's tokens are found from the end, where at most one written token follows. Positions in characters are
    not used: servers count them differently for texts that are not ASCII.

    Returns:
        None where the server has not returned the log-probabilities of the prompt's tokens.
    """
    found = content["choices"][0].get("logprobs")
    tokens, values = (found.get("tokens"), found.get("token_logprobs")) if isinstance(found, dict) else (None, None)
    if not (isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values)):
        return None
    for n_written in (1, 0):
        end = start = len(tokens) - n_written
        text = ""
        while start > 0 and len(text.lstrip()) < len(answer):
            start -= 1
            text = str(tokens[start]) + text
        if text.endswith(answer) and start < end and all(_is_number(value) for value in values[start:end]):
            return math.fsum(values[start:end]), end - start
    return None


def top_of(content: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the log-probabilities of the most likely first tokens; None where the server has returned none."""
    found = content["choices"][0].get("logprobs")
    if not isinstance(found, dict):
        return None
    listed = found.get("content")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        top = listed[0].get("top_logprobs")
        pairs = [(one.get("token"), one.get("logprob")) for one in top or [] if isinstance(one, dict)]
    else:
        top = found.get("top_logprobs")
        first = top[0] if isinstance(top, list) and top else None
        pairs = [*first.items()] if isinstance(first, dict) else []
    found = {token: value for token, value in pairs if isinstance(token, str) and isinstance(value, (int, float))}
    return {token: float(value) for token, value in found.items() if _is_number(value)} or None


def written_token(content: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the one token that a model wrote, and its log-probability; None where the server has not returned it."""
    found = content["choices"][0].get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    word = text_of(content).strip()
    if not word or not isinstance(values, list) or len(values) != 1 or not _is_number(values[0]):
        return None
    return word, float(values[0])


def is_consistent(content: Mapping[str, Any]) -> bool:
    """Return whether the token that a model wrote is the likeliest of those that the server returned."""
    top, word = top_of(content), text_of(content).strip()
    if top is None:
        return False
    best = max(top, key=lambda token: top[token]).strip()
    return not word or word.startswith(best) or best.startswith(word)


def first_token_scores(top: Mapping[str, float], answers: Sequence[str]) -> tuple[list[float], int, bool]:
    """Return the log-probability of each answer's first token, the number of answers without one, and readability.

    It is the sum over the forms of an answer: as given, in small letters, in capitals, and with a capital first letter.
    Of each form, the longest returned words count that begin this answer and no other, with or without a space before
    them. Single capital letters have no other form, so that the article "a" is none. An answer that was not returned is
    put below the smallest returned probability. A row is readable if its likeliest token begins an answer.

    Args:
        top: log-probabilities of the likeliest tokens.
        answers: the answers in words.

    Raises:
        ServedError: the likeliest of the answers' tokens begins several of them.
    """
    found: list[dict[str, list[float]]] = [{} for _ in answers]
    shared: dict[str, float] = {}
    best = max(top, key=lambda token: top[token])
    is_readable = False
    for token, value in top.items():
        word = token.lstrip(" \u2581\u0120\n")
        members = _begun_by(word, answers)
        is_readable |= token == best and bool(members)
        if len(members) == 1:
            found[members[0]].setdefault(word, []).append(value)
        elif members:
            shared[word] = max(value, shared.get(word, -math.inf))
    scores = [_summed(words, answer) for words, answer in zip(found, answers, strict=True)]
    likeliest = max((score for score in scores if score is not None), default=-math.inf)
    if shared and max(shared.values()) > likeliest:
        word = max(shared, key=lambda one: shared[one])
        several = [answers[i] for i in _begun_by(word, answers)]
        raise ServedError(
            f"The answers {', '.join(repr(one) for one in several[:4])} begin with the same token '{word}', so that "
            "the log-probabilities of first tokens cannot tell them apart. Name other words in the task's label_words, "
            "or take --endpoint-scoring constrained or parsing."
        )
    least = min(top.values()) - BELOW_ALL
    missing = sum(score is None for score in scores)
    return [least if score is None else score for score in scores], missing, is_readable


def _forms(answer: str) -> set[str]:
    """Return the forms of an answer that mean the same."""
    if len(answer) == 1:
        return {answer}
    return {answer, answer.lower(), answer.upper(), answer[:1].upper() + answer[1:], answer.capitalize()}


def _begun_by(word: str, answers: Sequence[str]) -> list[int]:
    """Return the positions of the answers that a word begins; case decides between answers that differ by it alone."""
    if not word:
        return []
    members = [i for i, answer in enumerate(answers) if any(form.startswith(word) for form in _forms(answer))]
    exact = [i for i in members if answers[i].startswith(word)]
    differ_by_case = len({answers[i].casefold() for i in members}) == 1
    return exact if len(exact) == 1 and differ_by_case else members


def _summed(words: Mapping[str, Sequence[float]], answer: str) -> float | None:
    """Return the log of the sum over the longest words of each form of an answer; None where none was returned."""
    kept = {
        max((word for word in words if form.startswith(word)), key=len, default=None) for form in _forms(answer)
    } - {None}
    values = [value for word in kept if word is not None for value in words[word]]
    if not values:
        return None
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def chosen_of(text: str, answers: Sequence[str]) -> int | None:
    """Return the position of the one answer that a text names; None where it names none, or several.

    A JSON object's `answer` counts as the text. Case does not matter. Without an exact match, the words of exactly one
    answer must occur; words inside those of a longer answer do not count. Where the answers are single capital letters,
    a letter counts at the end of the text or before a mark, so that the article "a" is none.
    """
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if isinstance(read, dict) and isinstance(read.get("answer"), str):
        text = read["answer"]
    plain = _plain(text)
    exact = [i for i, answer in enumerate(answers) if _plain(answer) == plain]
    if len(exact) == 1:
        return exact[0]
    if all(len(answer) == 1 and answer.isupper() for answer in answers):
        lettered = {i for i, answer in enumerate(answers) if re.search(rf"(?<!\w){answer}(?=[).:,*]|\s*$)", text)}
        return lettered.pop() if len(lettered) == 1 else None
    rest, found = text.casefold(), set()
    for i in sorted(range(len(answers)), key=lambda i: -len(answers[i])):
        pattern = rf"(?<!\w){re.escape(answers[i].casefold())}(?!\w)"
        rest, n_found = re.subn(pattern, "\0", rest)
        if n_found:
            found.add(i)
    return found.pop() if len(found) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*()[]")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
