"""Extractive question answering: the answer is a part of the context."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.backbones import Backbone
from harness.data import Origin, TaskSpec, check_texts
from harness.support import DataError
from harness.tasks._json_answers import object_of, read_json, under, without_fence
from harness.tasks._prepare import Split, assemble, columns_of, fill, read_parts, reply_of, resolve_common
from harness.tasks._texts import TextualKind
from harness.tasks._tokenize import cutting, mark_segments, segments_of
from harness.tasks._wordings import SPAN_WORDINGS, PromptWording
from harness.tasks.base import Answers, Form, Labels, Reply, Rows, Sequences, Source, Task, TextAnswers, kinds
from harness.tasks.toys import Toys

if TYPE_CHECKING:
    from datasets import Dataset

REPLY = Reply(max_new_tokens=32, stop=("\n",))
"""Settings of generation for a prompted language model."""

SCHEMA = object_of("answer", {"type": "string"})
"""JSON schema of a written answer."""

STRIDE = 1 / 3
"""Share of a window that the next one repeats: BERT's 128 of 384 tokens."""

LONGEST_QUESTION = 64
"""Maximum number of tokens of a question (as in BERT's own evaluation on SQuAD)."""


@dataclass(frozen=True)
class Answer:
    """The right answers to one question.

    Attributes:
        texts: any of these.
        starts: position of each in the context, in characters.
    """

    texts: tuple[str, ...]
    starts: tuple[int, ...]

    @property
    def first(self) -> tuple[int, int]:
        """Start of the first answer, and the character after its end: the target of training."""
        return self.starts[0], self.starts[0] + len(self.texts[0])


class QuestionAnswering(TextualKind):
    """A question and a context that contains its answer; long contexts are read in overlapping windows.

    Answers are the hub's `{text: [...], answer_start: [...]}`, a text, or a list of texts; a text without a position
    means its first occurrence.
    """

    name = "question-answering"
    form: ClassVar[Form] = "spans"
    reads_pairs = True
    roles: ClassVar[Mapping[str, str | None]] = {"question": "question", "context": "context", "answers": "answers"}
    prompt = SPAN_WORDINGS[0].template
    main_metric = "squad_f1"
    also: ClassVar[tuple[str, ...]] = ("squad_f1", "squad_exact_match")

    def references(self, labels: Labels) -> list[list[str]]:
        """Return all right answers."""
        return [list(answer.texts) for answer in labels]

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the first of the answers."""
        return [answer.texts[0] for answer in rows.known_labels]

    def schema(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the schema of an object with a text."""
        return SCHEMA

    def read_replies(
        self, texts: Sequence[str], rows: Rows, names: Sequence[str], shown: Sequence[str] = ()
    ) -> tuple[Answers, int]:
        """Return the parts of the contexts that were written, and the number of answers that are no such part.

        An answer that its context does not contain stays as it was written, and is scored as such.
        """
        contexts = [rows.source.fields["context"][at] for at in rows.index]
        found = [read_span(text, context) for text, context in zip(texts, contexts, strict=True)]
        return TextAnswers([text for text, _ in found]), sum(not is_part for _, is_part in found)

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop questions of the test from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec).values()
        splits, train, test = read_parts(spec, mirror, columns, lambda data, origin: self._read(data, origin, spec))
        return assemble(self, spec, splits, train, test, prompt=spec.prompt or self.prompt, reply=reply_of(spec, REPLY))

    def _read(self, data: Dataset, origin: Origin, spec: TaskSpec) -> Split:
        columns = columns_of(self, spec)
        questions, contexts = (
            check_texts(data.data.column(columns[role]).to_pylist(), columns[role], origin)
            for role in ("question", "context")
        )
        values = data.data.column(columns["answers"]).to_pylist()
        answers = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            answers[row] = _answer(value, contexts[row], row, columns["answers"], origin)
        fields = {"question": questions, "context": contexts}
        by_column = {columns[role]: texts for role, texts in fields.items()}
        return Split(
            [f"{question}\n{context}" for question, context in zip(questions, contexts, strict=True)],
            answers,
            ["\n".join(f"{start} {text}" for start, text in zip(a.starts, a.texts, strict=True)) for a in answers],
            fields,
            fill(spec.prompt or self.prompt, {**fields, **by_column}, len(questions), list(by_column)),
        )

    def wordings(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[PromptWording, ...]:
        """Return wordings that name the context and the question."""
        return SPAN_WORDINGS

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a question about a topic and a context with one word of it."""
        topic = toys.topic()
        answer = toys.word(topic)
        context = toys.sentence(12, answer)
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        return {"question": f"help with {toys.word(topic)}", "context": context, "answers": answers}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize windows over the context, each behind the question; they cover the whole context."""
        tokenizer = backbone.tokenizer
        most = min(LONGEST_QUESTION, max_length // 2)
        asked = tokenizer(list(source.fields["question"]), add_special_tokens=False, return_offsets_mapping=True)
        questions, n_cut = [], 0
        for question, ids, offsets in zip(
            source.fields["question"], asked["input_ids"], asked["offset_mapping"], strict=True
        ):
            is_long = len(ids) > most
            questions.append(question[: offsets[most - 1][1]] if is_long else question)
            n_cut += is_long
        with cutting(tokenizer, "right"):
            encoded = tokenizer(
                questions,
                list(source.fields["context"]),
                truncation="only_second",
                max_length=max_length,
                stride=int(STRIDE * (max_length - most)),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                padding=False,
                **segments_of(backbone),
            )
        places = []
        for window, offsets in enumerate(encoded["offset_mapping"]):
            of_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
            place = np.array(offsets, dtype=np.int32).reshape(-1, 2)
            place[~of_context | (place[:, 0] == place[:, 1])] = -1
            places.append(place)
        n_windows = np.bincount(encoded["overflow_to_sample_mapping"], minlength=len(source))
        first = np.concatenate([[0], np.cumsum(n_windows)]).astype(np.int64)
        return Sequences(mark_segments(encoded), n_cut, first, places)


def read_span(text: str, context: str) -> tuple[str, bool]:
    """Return a written answer as its context spells it, and whether the context contains it.

    Quotes around the answer and marks behind it are dropped where the context contains the rest. Case and white space
    may differ.

    Args:
        text: the written answer, plain or as JSON.
        context: text that should contain it.
    """
    found = under(read_json(text), "answer", "text")
    written = (found if isinstance(found, str) else without_fence(text)).strip()
    bare = written.strip(_QUOTES)
    for tried in (written, bare, written.rstrip(_ENDINGS), bare.rstrip(_ENDINGS).strip(_QUOTES)):
        words = tried.split()
        if words:
            place = re.search(r"\s+".join(map(re.escape, words)), context, re.IGNORECASE)
            if place is not None:
                return place.group(), True
    return written, False


_QUOTES = "\"'`\u201c\u201d\u2018\u2019 "
_ENDINGS = ".,;:! "


def _answer(value: Any, context: str, row: int, column: str, origin: Origin) -> Answer:
    """Return one row's answers, each with its position in the context."""
    texts, starts = value, None
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
    if isinstance(texts, str):
        texts, starts = [texts], None if starts is None else [starts] if isinstance(starts, int) else starts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' has no answer; expected a text of the context, a list "
            "of such, or {text: [...], answer_start: [...]}. Drop questions without an answer."
        )
    if starts is None:
        starts = [context.find(text) for text in texts]
    if not isinstance(starts, list) or len(starts) != len(texts):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: column '{column}' has {len(texts)} answers and not as many places; "
            "expected an answer_start for each."
        )
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(start, int) or start < 0 or context[start : start + len(text)] != text:
            where = "in its context" if not isinstance(start, int) or start < 0 else f"at character {start} of it"
            raise DataError(
                f"{origin.name}: {origin.at(row)}: the answer '{_brief(text)}' in column '{column}' is not {where}; "
                "expected a part of the context, letter by letter."
            )
    return Answer(tuple(texts), tuple(starts))


def _brief(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


kinds.add(QuestionAnswering.name, QuestionAnswering())
