"""A tokenizer's chat template: conversations as texts, and the tokens that end a turn of the model."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.backbones.decoding import GENERATION, settings_in
from harness.backbones.layout import CHAT_TEMPLATE
from harness.backbones.locate import BackboneFiles
from harness.support import UnsupportedError, first_line, text_of

_TODAY: Final = datetime.date(2024, 7, 26)
"""Date that templates with today's date state, so that a prompt is the same on every day (Llama 3's own default)."""

_NOW: Final = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")

_QUESTION, _ANSWER = "question 7391", "answer 7391"
"""Texts that show where a template puts a question and its answer."""


@dataclass(frozen=True)
class ChatFrame:
    """Text and token that a chat template writes around an answer.

    Attributes:
        lead: text between the generation prompt and an answer, such as an empty block of thoughts; mostly empty.
        end: token that ends a turn; None where the template and the tokenizer name none.
        is_written: whether the template itself writes `end` behind an answer.
    """

    lead: str
    end: int | None
    is_written: bool


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, asks: bool) -> str:
    """Return a conversation as the tokenizer's own chat template writes it, special tokens included.

    Args:
        tokenizer: a tokenizer with a chat template.
        messages: author (`role`) and `content` of each message.
        asks: whether to add the generation prompt, after which the model answers.

    Raises:
        UnsupportedError: there is no template, or it refuses these messages.
    """
    if not tokenizer.chat_template:
        raise UnsupportedError("The backbone's tokenizer has no chat template. Take prompt_format=plain.")
    try:
        template = _NOW.sub(lambda found: repr(_TODAY.strftime(found[2])), tokenizer.get_chat_template())
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=asks,
                date_string=_TODAY.strftime("%d %b %Y"),
                enable_thinking=False,  # some templates leave room for thoughts before the answer
            )
        )
    except Exception as error:  # jinja2, or whatever the template raises
        raise UnsupportedError(
            f"The backbone's chat template refuses these messages ({first_line(text_of(error))}). Take "
            "prompt_format=plain."
        ) from error


def chat_frame(tokenizer: Any) -> ChatFrame:
    """Return what the chat template writes around an answer.

    Raises:
        UnsupportedError: there is no template, or it writes an answer elsewhere than after its generation prompt.
    """
    question = {"role": "user", "content": _QUESTION}
    asked = render_chat(tokenizer, [question], asks=True)
    whole = render_chat(tokenizer, [question, {"role": "assistant", "content": _ANSWER}], asks=False)
    lead, found, tail = whole.removeprefix(asked).partition(_ANSWER)
    if not whole.startswith(asked) or not found:
        raise UnsupportedError(
            "The backbone's chat template writes an answer elsewhere than after its generation prompt. Take "
            "prompt_format=plain."
        )
    end = _first_special(tokenizer, tail)
    stated = tokenizer.eos_token_id if end is None else end
    return ChatFrame(lead if lead.strip() else "", None if stated is None else int(stated), end is not None)


def end_of_turn_ids(tokenizer: Any, files: BackboneFiles) -> tuple[int, ...]:
    """Return the tokens that end an answer in a chat, that of the template first.

    They are the token behind an answer in the chat template, the tokenizer's end of text, and those in
    generation_config.json. The last are read only beside a file of the template, since then both are part of the
    backbone's fingerprint.

    Raises:
        UnsupportedError: as for `chat_frame`.
    """
    settings = files.folder / GENERATION
    is_hashed = (files.folder / CHAT_TEMPLATE).is_file() and settings.is_file()
    stated = settings_in(settings, files.name).get("eos_token_id") if is_hashed else None
    known = [chat_frame(tokenizer).end, tokenizer.eos_token_id, *np.atleast_1d([] if stated is None else stated)]
    return tuple(dict.fromkeys(int(token) for token in known if token is not None))


def chat_prompt(tokenizer: Any, frame: ChatFrame, question: str) -> str:
    """Return a question as the user's turn, with everything that comes before the answer."""
    content = question.rstrip()
    return render_chat(tokenizer, [{"role": "user", "content": content}], asks=True) + frame.lead


def chat_answer_ids(tokenizer: Any, frame: ChatFrame, question: str, answer: str) -> list[int]:
    """Return the token ids of an answer behind `chat_prompt`, up to the token that ends the turn.

    They are those of the whole conversation, unless a token lies across the border of prompt and answer: then the
    answer is tokenised by itself, as the model has to write it.

    Args:
        tokenizer: the backbone's.
        frame: its `chat_frame`.
        question: the user's message.
        answer: the assistant's message.
    """
    before = chat_prompt(tokenizer, frame, question)
    messages = [{"role": "user", "content": question.rstrip()}, {"role": "assistant", "content": answer}]
    whole = render_chat(tokenizer, messages, asks=False)
    behind = whole.removeprefix(before) if whole.startswith(before) else answer
    behind = behind if frame.is_written else behind.rstrip()  # without a mark, only white space ends the turn
    given, ids = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before, before + behind))
    found = ids[len(given) :]
    if ids[: len(given)] != given:
        found = list(tokenizer(behind, add_special_tokens=False)["input_ids"])
    if frame.end is None:
        return found
    if not frame.is_written or frame.end not in found:
        return [*found, frame.end]
    last = len(found) - 1 - found[::-1].index(frame.end)
    return found[: last + 1]


def _first_special(tokenizer: Any, tail: str) -> int | None:
    """Return the special token with which a text begins, white space aside; None without one."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"]:
        if token in special:
            return int(token)
        if str(tokenizer.decode([token])).strip():
            return None
    return None
