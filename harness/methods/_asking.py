"""Ways in which an in-context method may ask: wordings of the kind or the task, each as plain text or as a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.methods._chat import ShownAs
from harness.methods._prompts import PLACE, Wording
from harness.methods.bench import Bench
from harness.tasks import PromptWording

AUTO = "auto"
"""Template that leaves the wording to the task or its kind."""

PromptFormat = Literal["auto", "chat", "plain"]


@dataclass(frozen=True)
class Asking:
    """One way to ask about a row.

    Attributes:
        wording: form of a row, with the instruction.
        is_chat: whether prompts are chats.
        shown_as: place of demonstrations in a chat.
    """

    wording: Wording
    is_chat: bool = False
    shown_as: ShownAs = "turns"

    @property
    def format(self) -> str:
        """The format in words."""
        return f"chat, demonstrations as {self.shown_as}" if self.is_chat else "plain"

    def in_words(self) -> str:
        """Return the way to ask for a record: instruction and template on one line, and the format."""
        parts = [self.wording.instruction, self.wording.template]
        written = " | ".join(part.replace("\n", "\\n") for part in parts if part)
        return f"{written} ({self.format})"


def wordings(template: str, instruction: str, bench: Bench, *, is_shown: bool) -> list[Wording]:
    """Return the wordings to choose from, the default first.

    A template of the method is the only one, then the task's own prompt. A kind's wordings apply where there is
    neither.

    Args:
        template: the method's template, or `AUTO`.
        instruction: the method's instruction; "" for the wording's.
        bench: bench of the cell.
        is_shown: whether prompts show demonstrations with their answers.
    """
    if template != AUTO:
        return [Wording(template, instruction=instruction)]
    of_kind = bench.kind.wordings_beside(bench.prompt, bench.label_words, is_shown=is_shown)
    if bench.prompt is not None and not of_kind:
        return [Wording(bench.prompt, is_whole=True, ending=bench.ending, instruction=instruction)]
    return [_of_kind(one, instruction, bench) for one in of_kind]


def _of_kind(one: PromptWording, instruction: str, bench: Bench) -> Wording:
    instruction = instruction or one.instruction
    if PLACE in one.template:
        return Wording(one.template, instruction=instruction)
    # Prompts of a task lose the beginning of the row where it is too long; two texts to compare lose their end.
    ending = one.ending if bench.kind.form == "classes" else bench.ending
    return Wording(one.template, is_whole=True, ending=ending, instruction=instruction, by_role=True)
