"""Write conversations as chats, by the tokenizer's own chat template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from harness.backbones import render_chat
from harness.serving import Conversation
from harness.support import UnsupportedError

ShownAs = Literal["turns", "message"]
"""Whether a chat shows demonstrations as turns, or in the user's one message."""

_PROBE: Final = "harnessprobe"
"""A word that no chat template contains."""


class Chat:
    """The chat form of one tokenizer.

    An instruction is the system's message. Where the template refuses or ignores system messages, it begins the user's
    first message.

    Args:
        tokenizer: a tokenizer with a chat template.
        shown_as: place of the demonstrations.

    Raises:
        UnsupportedError: the tokenizer has no chat template, or one that cannot write a user's message.
    """

    def __init__(self, tokenizer: Any, shown_as: ShownAs = "turns") -> None:
        self._tokenizer = tokenizer
        self._shown_as = shown_as
        if not getattr(tokenizer, "chat_template", None):
            raise UnsupportedError(NO_TEMPLATE)
        render_chat(tokenizer, [{"role": "user", "content": "a"}], asks=True)
        self._takes_system = self._writes_system()

    def write(self, conversation: Conversation) -> str:
        """Return a conversation as one text, up to the beginning of the assistant's answer."""
        messages = [message.to_json() for message in replace(conversation, shown_as=self._shown_as).messages()]
        if messages[0]["role"] == "system" and not self._takes_system:
            instruction, first, *rest = messages
            whole = f"{instruction['content']}{conversation.separator}{first['content']}"
            messages = [{"role": "user", "content": whole}, *rest]
        return render_chat(self._tokenizer, messages, asks=True)

    def ids(self, written: str) -> list[int]:
        """Return the token ids of a written chat. The template has written special tokens already."""
        return list(self._tokenizer(written, add_special_tokens=False)["input_ids"])

    def _writes_system(self) -> bool:
        asked = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}]
        try:
            return _PROBE in render_chat(self._tokenizer, asked, asks=True)
        except UnsupportedError:
            return False


NO_TEMPLATE: Final = (
    "prompt_format=chat was given, and the backbone's tokenizer has no chat template (chat_template.jinja, or an entry "
    "of tokenizer_config.json). Name an instruction-tuned backbone, or use prompt_format=plain."
)
"""Refusal of a chat without a chat template."""
