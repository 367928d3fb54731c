"""Generation: texts that answer a prompt, or the likelihood of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.data import TaskSpec
from harness.support import UsageError
from harness.tasks._written import WrittenKind
from harness.tasks.base import Reply, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

_ROUGE = ("rouge1", "rouge2", "rouge_l", "rougeLsum")


class Generation(WrittenKind):
    """A prompt and the text that answers it; or a text alone, scored by perplexity."""

    name = "generation"
    roles: ClassVar[Mapping[str, str | None]] = {"prompt": None, "target": "target"}
    main_metric = "rouge_l"
    likelihood_metrics: ClassVar[frozenset[str]] = frozenset({"perplexity"})
    prompt = "{prompt}\n"
    reply = Reply(max_new_tokens=128)
    input_role = "prompt"
    backbone = "HuggingFaceTB/SmolLM2-135M"

    def measured(self, task: Task) -> list[str]:
        """Return the metrics to compute: all of ROUGE, where one of them is the main metric."""
        rouge = _ROUGE if task.metric in _ROUGE else ()
        return list(dict.fromkeys([*super().measured(task), *rouge]))

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a text and the first word of its topic."""
        topic = toys.topic()
        return {"prompt": toys.sentence(4, toys.word(topic)), "target": TOPIC_WORDS[topic][0]}

    def refuse(self, spec: TaskSpec) -> TaskSpec:
        """Refuse a prompt for metrics of likelihood, and a missing prompt for other metrics."""
        has_prompt = "prompt" in spec.columns.given
        if spec.metric in self.likelihood_metrics and (has_prompt or spec.prompt):
            key = "columns.prompt" if has_prompt else "prompt"
            raise UsageError(f"{key}: '{spec.metric}' scores the texts themselves; omit it, or name another metric")
        if spec.metric not in self.likelihood_metrics and not has_prompt:
            raise UsageError(
                f"columns.prompt: missing; '{spec.metric}' scores answers to a prompt (only "
                "perplexity scores the texts themselves)"
            )
        return spec


kinds.add(Generation.name, Generation())
