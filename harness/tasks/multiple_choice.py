"""Multiple choice: select the right one of a question's own choices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.backbones import Backbone
from harness.data import Origin, TaskSpec, check_texts
from harness.support import DataError
from harness.tasks._classes import ProbabilityKind
from harness.tasks._prepare import Split, assemble, columns_of, fill, read_parts, resolve_common
from harness.tasks._tokenize import tokenize_pairs
from harness.tasks._wordings import CHOICE_WORDINGS, PromptWording
from harness.tasks.base import Form, Rows, Sequences, Source, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

if TYPE_CHECKING:
    from datasets import Dataset


class MultipleChoice(ProbabilityKind):
    """A question and its choices, one of which is right; a backbone reads the question with each choice in turn.

    Choices are a list of texts, or the hub's `{text: [...], label: [...]}`; the answer is a label, the position of a
    choice (from 0), or the choice itself.
    """

    name = "multiple-choice"
    form: ClassVar[Form] = "choices"
    reads_pairs = True
    roles: ClassVar[Mapping[str, str | None]] = {"question": "question", "choices": "choices", "answer": "answerKey"}
    prompt = CHOICE_WORDINGS[0].template
    main_metric = "accuracy"
    also: ClassVar[tuple[str, ...]] = ()

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop questions of the test from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec).values()
        splits, train, test = read_parts(spec, mirror, columns, lambda data, origin: self._read(data, origin, spec))
        most = max(len(choices) for part in (train, test) for choices in part.fields["choices"])
        n_choices = {"n_choices": most}
        return assemble(
            self, spec, splits, train, test, n_outputs=most, prompt=spec.prompt or self.prompt, provenance=n_choices
        )

    def _read(self, data: Dataset, origin: Origin, spec: TaskSpec) -> Split:
        columns = columns_of(self, spec)
        questions, given, keys = (data.data.column(columns[role]).to_pylist() for role in self.roles)
        questions = check_texts(questions, columns["question"], origin)
        choices, right = [], []
        for row, (value, key) in enumerate(zip(given, keys, strict=True)):
            texts, labels = _choices(value, row, columns["choices"], origin)
            choices.append(texts)
            right.append(_position(key, texts, labels, row, columns["answer"], origin))
        listed = ["\n".join(f"- {text}" for text in texts) for texts in choices]
        template = spec.prompt or self.prompt
        fields = {"question": questions, columns["question"]: questions, "choices": listed, columns["choices"]: listed}
        accepted = (columns["question"], columns["choices"])
        return Split(
            [f"{question}\n{text}" for question, text in zip(questions, listed, strict=True)],
            np.array(right, dtype=np.int64),
            [choices[row][position] for row, position in enumerate(right)],
            {"question": questions, "choices": choices},
            fill(template, fields, len(questions), accepted),
        )

    def wordings(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[PromptWording, ...]:
        """Return wordings that name the question, with and without its choices."""
        return CHOICE_WORDINGS

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a word of a topic, and choices, one of which has that topic."""
        topic = toys.topic()
        asked, right = toys.draw.sample(TOPIC_WORDS[topic], 2)
        others = [toys.word(other) for other in TOPIC_WORDS if other != topic]
        texts = [right, *others][: toys.draw.choice([2, 3])]
        toys.draw.shuffle(texts)
        labels = list("ABC")[: len(texts)]
        choices = {"text": texts, "label": labels}
        return {"question": toys.sentence(5, asked), "choices": choices, "answer": labels[texts.index(right)]}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the question with each choice; the longer of the two is cut first."""
        questions, choices = source.fields["question"], source.fields["choices"]
        counts = [len(texts) for texts in choices]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        repeated = [question for question, count in zip(questions, counts, strict=True) for _ in range(count)]
        ids, cut = tokenize_pairs(repeated, [text for texts in choices for text in texts], source, backbone, max_length)
        n_truncated = sum(any(cut[start:end]) for start, end in itertools.pairwise(first))
        return Sequences(ids, n_truncated, first)

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the right choice of each row."""
        choices = rows.source.fields["choices"]
        return [choices[row][right] for row, right in zip(rows.index, rows.known_labels, strict=True)]


def _choices(value: Any, row: int, column: str, origin: Origin) -> tuple[list[str], list[str]]:
    """Return the texts and labels of one row's choices."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts = value["text"]
        labels = value.get("label") or list(range(len(texts)))
    else:
        texts, labels = value, list(range(len(value))) if isinstance(value, list) else []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' holds {_brief(value)}; expected a list of texts that "
            "are not empty, or {text: [...], label: [...]}."
        )
    if len(texts) < 2 or len(labels) != len(texts):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' holds {len(texts)} choices and {len(labels)} labels; "
            "expected at least two choices, with a label each."
        )
    return texts, [str(label) for label in labels]


def _position(key: Any, texts: Sequence[str], labels: Sequence[str], row: int, column: str, origin: Origin) -> int:
    """Return the position of the choice that an answer key names."""
    if key is None or (isinstance(key, str) and not key.strip()):
        raise DataError(f"{origin.name}: {origin.at(row)}: the answer in column '{column}' is missing.")
    if not isinstance(key, bool) and str(key) in labels:
        return list(labels).index(str(key))
    if isinstance(key, str) and key in texts:
        return list(texts).index(key)
    raise DataError(
        f"{origin.name}: {origin.at(row)}: the answer {key!r} in column '{column}' is not one of the row's choices; "
        f"expected one of {', '.join(labels)}, or the text of a choice."
    )


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


kinds.add(MultipleChoice.name, MultipleChoice())
