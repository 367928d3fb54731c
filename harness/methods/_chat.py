"""Write conversations as chats, by the tokenizer's own chat template."""

from __future__ import annotations

from typing import Any, Final, Literal

from harness.serving import Conversation
from harness.support import UnsupportedError

ShownAs = Literal["turns", "message"]
"""Whether a chat shows demonstrations as turns, or in the user's one message."""

_FIXED: Final[dict[str, Any]] = {"date_string": "26 Jul 2024", "enable_thinking": False}
"""Variables of chat templates. Some templates write today's date, which would make prompts differ from day to day.
Others leave room for thoughts before the answer. A template that has no such variable ignores them."""

_PROBE: Final = "harnessprobe"
"""A word that no chat template contains."""


class Chat:
    """The chat form of one tokenizer.

    An instruction is the system's message. Where the template refuses or ignores system messages, it begins the user's
    first message.

    Args:
        tokenizer: a tokenizer with a chat template.
        shown_as: place of the demonstrations.

    Attributes:
        end_ids: token that ends the assistant's turn; empty where the template shows none.

    Raises:
        UnsupportedError: the tokenizer has no chat template, or one that cannot write a user's message.
    """

    def __init__(self, tokenizer: Any, shown_as: ShownAs = "turns") -> None:
        self._tokenizer = tokenizer
        self._shown_as = shown_as
        if not getattr(tokenizer, "chat_template", None):
            raise UnsupportedError(NO_TEMPLATE)
        self._takes_system = self._writes_system()
        self.end_ids = self._find_end()

    def write(self, conversation: Conversation) -> str:
        """Return a conversation as one text, up to the beginning of the assistant's answer."""
        messages = [message.to_json() for message in conversation.messages(shown_as=self._shown_as)]
        if messages[0]["role"] == "system" and not self._takes_system:
            instruction, first, *rest = messages
            whole = f"{instruction['content']}{conversation.separator}{first['content']}"
            messages = [{"role": "user", "content": whole}, *rest]
        return self._render(messages)

    def ids(self, written: str) -> list[int]:
        """Return the token ids of a written chat. The template has written special tokens already."""
        return list(self._tokenizer(written, add_special_tokens=False)["input_ids"])

    def _render(self, messages: list[dict[str, str]], *, asks: bool = True) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks, **_FIXED)
            )
        except Exception as error:  # templates raise what they like: jinja2's errors, or Python's own
            reason = str(error).strip() or type(error).__name__
            raise UnsupportedError(
                f"The tokenizer's chat template refuses this chat ({reason}). Use prompt_format=plain."
            ) from error

    def _writes_system(self) -> bool:
        asked = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}]
        try:
            return _PROBE in self._render(asked)
        except UnsupportedError:
            return False

    def _find_end(self) -> tuple[int, ...]:
        """Return the special token that the template writes after an answer."""
        answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        _, _, behind = self._render(answered, asks=False).rpartition(_PROBE)
        special = set(self._tokenizer.all_special_ids) | {
            token for token, added in self._tokenizer.added_tokens_decoder.items() if added.special
        }
        return tuple(token for token in self.ids(behind) if token in special)[:1]


NO_TEMPLATE: Final = (
    "prompt_format=chat was given, and the backbone's tokenizer has no chat template (chat_template.jinja, or an entry "
    "of tokenizer_config.json). Name an instruction-tuned backbone, or use prompt_format=plain."
)
"""Refusal of a chat without a chat template."""
