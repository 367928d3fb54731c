"""Kinds whose answers a language model writes, from an input column to a target column."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from harness.backbones import Backbone
from harness.data import Origin, TaskSpec, check_texts
from harness.metrics import metrics
from harness.tasks._chat import tokenize_chat
from harness.tasks._prepare import Split, assemble, columns_of, fill, read_parts, reply_of, resolve_common
from harness.tasks._texts import TextualKind
from harness.tasks._tokenize import cutting, keep_ending
from harness.tasks.base import Form, Reply, Rows, Sequences, Source, Task

if TYPE_CHECKING:
    from datasets import Dataset


class WrittenKind(TextualKind):
    """Kinds with written answers; without an input column, the likelihood of each text is scored.

    Class attributes:
        prompt: default template of prompts.
        reply: default settings of generation.
    """

    form: ClassVar[Form] = "text"
    prompt: ClassVar[str]
    reply: ClassVar[Reply]
    input_role: ClassVar[str]

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return self.refuse(resolve_common(self, spec))

    @abstractmethod
    def refuse(self, spec: TaskSpec) -> TaskSpec:
        """Return the spec, or refuse one with contradictory settings.

        Raises:
            UsageError: settings contradict each other; the message names the key.
        """

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test inputs from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec).values()
        splits, train, test = read_parts(spec, mirror, columns, lambda data, origin: self._read(data, origin, spec))
        reply = reply_of(spec, self.reply)
        if spec.metric in self.likelihood_metrics:
            reply = Reply(wants_likelihood=True)
        return assemble(
            self,
            spec,
            splits,
            train,
            test,
            prompt=spec.prompt or self.prompt,
            reply=reply,
            provenance=self._signatures(test),
        )

    def _signatures(self, test: Split) -> dict[str, dict[str, str]]:
        """Return the libraries' signatures of the metrics that have one (sacrebleu)."""
        names = dict.fromkeys([self.main_metric, *self.also])
        said = {name: metrics.get(name).signature(self.references(test.labels)) for name in names}
        known = {name: signature for name, signature in said.items() if signature is not None}
        return {"signatures": known} if known else {}

    def _read(self, data: Dataset, origin: Origin, spec: TaskSpec) -> Split:
        columns = columns_of(self, spec)
        read = {
            role: check_texts(data.data.column(column).to_pylist(), column, origin) for role, column in columns.items()
        }
        targets = read["target"]
        labels = np.empty(len(targets), dtype=object)
        labels[:] = targets
        inputs = read.get(self.input_role)
        if inputs is None:  # the text itself is the input
            return Split(targets, labels, targets, {"text": targets})
        column = columns[self.input_role]
        fields = {self.input_role: inputs, column: inputs}
        prompts = fill(spec.prompt or self.prompt, fields, len(inputs), [column])
        return Split(inputs, labels, targets, {self.input_role: inputs}, prompts)

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the targets."""
        return [str(label) for label in rows.known_labels]

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the prompts.

        For a causal model, long prompts are cut on the left: the question is at the end. Where the task cuts the input
        inside its prompt, prompts lose the end of that.
        """
        texts = list(source.texts if source.prompts is None else source.prompts)
        if not texts:
            return Sequences([], 0)
        if source.prompts is not None and source.chat:
            return tokenize_chat(texts, source.ending, backbone, max_length)
        if source.prompts is not None and source.ending is not None:
            return _cut_inside(texts, source.ending, backbone, max_length)
        is_asked = source.prompts is not None and backbone.files.architecture == "causal"
        with cutting(backbone.tokenizer, "left" if is_asked else source.cut):
            encoded = backbone.tokenizer(texts, truncation=True, max_length=max_length, padding=False)
        n_truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return Sequences(encoded["input_ids"], n_truncated)


def _cut_inside(prompts: Sequence[str], ending: str, backbone: Backbone, max_length: int) -> Sequences:
    """Tokenize prompts; those that are too long lose the end of what stands before their ending."""
    tokenizer = backbone.tokenizer
    with cutting(tokenizer, "left"):  # no more than rounding at the joint is left to cut
        whole = tokenizer(list(prompts), truncation=True, max_length=max_length, padding=False)
        long = [row for row, encoding in enumerate(whole.encodings) if encoding.overflowing]
        ids = list(whole["input_ids"])
        room = max_length - tokenizer.num_special_tokens_to_add()
        shortened = [keep_ending(prompts[row], ending, room, tokenizer) for row in long]
        if shortened:
            again = tokenizer(shortened, truncation=True, max_length=max_length, padding=False)["input_ids"]
            for row, found in zip(long, again, strict=True):
                ids[row] = found
    return Sequences(ids, len(long))
