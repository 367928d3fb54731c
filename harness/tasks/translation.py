"""Translation from one language into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.data import TaskSpec
from harness.tasks._written import WrittenKind
from harness.tasks.base import Reply, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys


class Translation(WrittenKind):
    """A text and its translation, scored by sacrebleu on the whole corpus."""

    name = "translation"
    roles: ClassVar[Mapping[str, str | None]] = {"source": "source", "target": "target"}
    main_metric = "bleu"
    also: ClassVar[tuple[str, ...]] = ("bleu", "chrf")
    prompt = "{source}\n"
    reply = Reply(max_new_tokens=96, stop=("\n",))
    input_role = "source"
    backbone = "google-t5/t5-small"

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return five words, and the same backwards."""
        words = toys.draw.choices([word for words in TOPIC_WORDS.values() for word in words], k=5)
        return {"source": " ".join(words), "target": " ".join(reversed(words))}

    def refuse(self, spec: TaskSpec) -> TaskSpec:
        """Return the spec unchanged: there is nothing more to check."""
        return spec


kinds.add(Translation.name, Translation())
