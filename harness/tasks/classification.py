"""Classification of one text into one of several classes.

The protocol's one head: every method uses the backbone's own pooling over real tokens, dropout and one linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness.backbones import Backbone
from harness.data import TaskSpec, load_splits, read_classes
from harness.tasks._classes import ProbabilityKind
from harness.tasks._prepare import Split, assemble, fill, resolve_common
from harness.tasks._tokenize import tokenize_texts
from harness.tasks._wordings import PromptWording, class_wordings
from harness.tasks.base import Sequences, Source, Task, kinds
from harness.tasks.toys import Toys


class Classification(ProbabilityKind):
    """A task to assign one of several classes to a text."""

    name = "classification"
    roles: ClassVar[Mapping[str, str | None]] = {"text": "text", "label": "label"}
    main_metric = "accuracy"

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test rows from training, cap the test rows."""
        spec = self.resolve(spec)
        splits = load_splits(spec, mirror)
        rows = read_classes(spec, splits)
        parts = {}
        for part, texts, labels in (
            ("train", rows.train_texts, rows.train_labels),
            ("test", rows.test_texts, rows.test_labels),
        ):
            prompts = None
            if spec.prompt is not None:
                column = spec.columns.text
                prompts = fill(spec.prompt, {"text": texts, column: texts}, len(texts), [column])
            parts[part] = Split(texts, labels, [rows.label_names[label] for label in labels], {"text": texts}, prompts)
        return assemble(
            self,
            spec,
            splits,
            parts["train"],
            parts["test"],
            label_names=rows.label_names,
            n_outputs=len(rows.label_names),
            prompt=spec.prompt,
        )

    def wordings(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[PromptWording, ...]:
        """Return wordings that name the classes."""
        return class_wordings(names)

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a text and its topic, which two of its words reveal."""
        topic = toys.topic()
        words = (toys.word(topic), toys.word(topic))
        return {"text": toys.sentence(toys.draw.randint(2, 10), *words), "label": topic}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the texts, cut on the task's side."""
        return tokenize_texts(source, backbone, max_length)


kinds.add(Classification.name, Classification())
