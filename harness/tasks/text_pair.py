"""Classification of a pair of texts, such as entailment or paraphrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.backbones import Backbone
from harness.data import (
    BETWEEN,
    Origin,
    Reading,
    TaskSpec,
    check_can_hold_out,
    check_labels,
    check_texts,
    load_splits,
    read_classes,
)
from harness.tasks._classes import ProbabilityKind
from harness.tasks._prepare import Split, assemble, columns_of, fill, resolve_common
from harness.tasks._tokenize import tokenize_pairs
from harness.tasks._wordings import PromptWording, pair_wordings
from harness.tasks.base import Sequences, Source, Task, kinds
from harness.tasks.toys import Toys

if TYPE_CHECKING:
    from datasets import Dataset


class TextPair(ProbabilityKind):
    """A task to assign one of several classes to a pair of texts; a backbone reads both in one sequence."""

    name = "text-pair"
    reads_pairs = True
    roles: ClassVar[Mapping[str, str | None]] = {"first": "", "second": "", "label": "label"}
    main_metric = "accuracy"
    also: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    def also_of(self, task: Task) -> tuple[str, ...]:
        """Return the metrics, with the F1 of the second of two classes, as in GLUE (arXiv:1804.07461, section 3)."""
        return (*self.also, "f1") if task.n_outputs == 2 else self.also

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test pairs from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec)

        def pairs(data: Dataset, origin: Origin) -> list[str]:
            first, second = (
                check_texts(data.data.column(columns[role]).to_pylist(), columns[role], origin)
                for role in ("first", "second")
            )
            return [BETWEEN.join(pair) for pair in zip(first, second, strict=True)]

        keep_classes = spec.data.files is not None and not spec.strict

        def keys(data: Dataset, origin: Origin) -> tuple[list[str], list[str]]:
            labels = check_labels(data.data.column(columns["label"]).to_pylist(), columns["label"], origin)
            texts = pairs(data, origin)
            if not keep_classes:
                check_can_hold_out(texts, labels, origin)
            return texts, labels

        both = (columns["first"], columns["second"])
        reading = Reading(list(columns.values()), keys, texts=both, keep_classes=keep_classes)
        splits = load_splits(spec, mirror, reading=reading)
        rows = read_classes(spec, splits, pairs)
        parts = {}
        for part, data, texts, labels in (
            ("train", splits.train, rows.train_texts, rows.train_labels),
            ("test", splits.test, rows.test_texts, rows.test_labels),
        ):
            fields = {role: data.data.column(columns[role]).to_pylist() for role in ("first", "second")}
            by_column = {columns[role]: values for role, values in fields.items()}
            prompts = None
            if spec.prompt is not None:
                prompts = fill(spec.prompt, {**fields, **by_column}, len(texts), list(by_column))
            names = [rows.label_names[label] for label in labels]
            parts[part] = Split(texts, labels, names, fields, prompts)
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
        return pair_wordings(names)

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return two texts and whether they have one topic."""
        first, second = toys.topic(), toys.topic()
        if toys.draw.random() < 0.3:
            second = first
        texts = [toys.sentence(4, toys.word(topic)) for topic in (first, second)]
        return {"first": texts[0], "second": texts[1], "label": "is" if first == second else "not"}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize both texts as one sequence; the longer is cut first."""
        ids, cut = tokenize_pairs(source.fields["first"], source.fields["second"], source, backbone, max_length)
        return Sequences(ids, sum(cut))


kinds.add(TextPair.name, TextPair())
