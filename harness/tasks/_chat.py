"""Tokenize prompts as turns of a chat, by the backbone's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.backbones import Backbone, ChatFrame, chat_frame, chat_prompt
from harness.support import UnsupportedError
from harness.tasks._tokenize import keep_ending
from harness.tasks.base import Sequences


def tokenize_chat(prompts: Sequence[str], ending: str | None, backbone: Backbone, max_length: int) -> Sequences:
    """Return the token ids of each prompt as the user's turn, up to where the model answers.

    A prompt that is too long loses the beginning of its text, or the end of its input where `ending` names the words
    behind that. The template's own tokens are kept.

    Args:
        prompts: the prompts.
        ending: words after the input of every prompt (`Source.ending`).
        backbone: a causal backbone with a chat template.
        max_length: maximum number of tokens.

    Raises:
        UnsupportedError: there is no chat template, or it takes more tokens than allowed without any text.
    """
    tokenizer = backbone.tokenizer
    frame = chat_frame(tokenizer)
    written = [chat_prompt(tokenizer, frame, prompt) for prompt in prompts]
    ids = list(tokenizer(written, add_special_tokens=False)["input_ids"]) if written else []
    long = [row for row, found in enumerate(ids) if len(found) > max_length]
    for row in long:
        ids[row] = _shortened(prompts[row], ending, tokenizer, frame, len(ids[row]), max_length)
    return Sequences(ids, len(long))


def _shortened(
    prompt: str, ending: str | None, tokenizer: Any, frame: ChatFrame, n_tokens: int, max_length: int
) -> list[int]:
    """Return the token ids of a prompt's longest text that fits."""
    offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    n_kept = len(offsets)
    while n_kept > 0:
        n_kept = max(0, n_kept - (n_tokens - max_length))
        if ending is not None:
            text = keep_ending(prompt, ending, n_kept, tokenizer)
        else:
            text = prompt[offsets[-n_kept][0] :] if n_kept else ""
        ids = list(tokenizer(chat_prompt(tokenizer, frame, text), add_special_tokens=False)["input_ids"])
        n_tokens = len(ids)
        if n_tokens <= max_length:
            return ids
    raise UnsupportedError(
        f"The backbone's chat template and the end of the prompt take {n_tokens} tokens without any text; there is "
        f"room for {max_length}. Raise the task's max_length, or take prompt_format=plain."
    )
