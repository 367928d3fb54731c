"""Token classification: a tag for each word of a sentence, such as the names of people and places in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.backbones import Backbone
from harness.data import (
    OUTSIDE,
    Origin,
    RawSplits,
    Reading,
    Sentences,
    TaskSpec,
    load_splits,
    read_sentences,
    tags_of,
    types_of,
    unify,
)
from harness.metrics import metrics, span_counts, token_counts
from harness.records import Predictions, Score
from harness.support import DataError
from harness.tasks._intervals import score_of
from harness.tasks._prepare import Split, assemble, can_be_kept, columns_of, fill, reply_of, resolve_common
from harness.tasks._tag_answers import REPLY, as_lines, question, read_answers, schema, tag_wordings
from harness.tasks._wordings import PromptWording
from harness.tasks._words import tokenize_words, words_of
from harness.tasks.base import Answers, Form, Ints, Kind, Labels, Reply, Rows, Sequences, Source, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

if TYPE_CHECKING:
    from datasets import Dataset


class TokenClassification(Kind):
    """A task to give each word of a sentence a tag.

    Rows are lists of tokens and of tags (IOB2, IOBES, or plain names), or texts with character spans
    (`harness.data.tagging`). Tags that belong to no span in seqeval's strict mode become `O`, and are counted.
    """

    name = "token-classification"
    form: ClassVar[Form] = "tags"
    roles: ClassVar[Mapping[str, str | None]] = {"tokens": "tokens", "label": "tags"}
    main_metric = "span_f1"
    also: ClassVar[tuple[str, ...]] = ("span_f1", "span_f1_macro", "token_accuracy")

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, repair tags, drop copies of test sentences from training, cap the test rows."""
        spec = self.resolve(spec)
        roles = columns_of(self, spec)
        columns = roles["tokens"], roles["label"]

        def converted(values: Mapping[str, Sequence[Any]], origin: Origin) -> dict[str, list[Any]]:
            found = read_sentences(values[columns[0]], values[columns[1]], columns, origin, spec.label_names)
            return {columns[0]: [list(words) for words in found.tokens], columns[1]: [list(t) for t in found.tags]}

        def keys(data: Dataset, origin: Origin) -> tuple[list[str], list[str]]:
            found = _read(data, columns, origin, spec.label_names)
            if len(set(found.tokens) - {()}) < 2:
                raise DataError(f"{origin.name}: a held-out test needs two different rows at least; name a test file.")
            return [" ".join(words) for words in found.tokens], [str(s) for s in _rarest_types(found.tags)]

        reading = Reading(columns, keys, keep_classes=True, labels=columns[1:], form=self.form, converted=converted)
        splits = load_splits(spec, mirror, reading=reading)
        origins = {part: splits.origins.get(part, Origin(part)) for part in ("train", "test")}
        parts, n_empty = {}, 0
        for part, data in (("train", splits.train), ("test", splits.test)):
            found = _read(data, columns, origins[part], spec.label_names)
            empty = [row for row, words in enumerate(found.tokens) if not words]
            if empty and spec.strict:
                raise DataError(
                    f"{origins[part].name}: {origins[part].at(*empty)}: the sentence has no words. Drop the row, or "
                    "leave out strict."
                )
            kept = [row for row, words in enumerate(found.tokens) if words]
            if not kept:
                raise DataError(f"{origins[part].name}: there are no {part} rows with words.")
            n_empty += len(empty)
            origins[part] = origins[part].of(kept)
            parts[part] = Sentences([found.tokens[row] for row in kept], [found.tags[row] for row in kept])
        return self._assemble(spec, splits, parts, origins, columns[1], n_empty)

    def _assemble(
        self,
        spec: TaskSpec,
        splits: RawSplits,
        parts: Mapping[str, Sentences],
        origins: Mapping[str, Origin],
        column: str,
        n_empty: int,
    ) -> Task:
        tagged = unify([parts["train"].tags, parts["test"].tags], column, [origins["train"], origins["test"]])
        train_tags, test_tags = tagged.parts
        known = types_of(train_tags)
        if not known:
            raise DataError(f"{origins['train'].name}: no training row has an entity; every tag is '{OUTSIDE}'.")
        strange = sorted(set(types_of(test_tags)) - set(known))
        if strange and "held_out" not in splits.provenance:
            rows = [row for row, tags in enumerate(test_tags) if any(tag[2:] == strange[0] for tag in tags)]
            raise DataError(
                f"{origins['test'].name}: {origins['test'].at(*rows)}: tags of the type '{strange[0]}' occur in the "
                f"test rows only. Add training rows of it, or drop these. Types of the training rows: "
                f"{', '.join(known)}."
            )
        types = sorted({*known, *strange})
        names = tags_of(types, tagged.scheme)
        place = {name: at for at, name in enumerate(names)}
        made = {}
        for part, tags in (("train", train_tags), ("test", test_tags)):
            texts = [" ".join(words) for words in parts[part].tokens]
            labels = np.empty(len(texts), dtype=object)
            for row, sentence in enumerate(tags):
                labels[row] = np.array([place[tag] for tag in sentence], dtype=np.int64)
            prompts = None if spec.prompt is None else fill(spec.prompt, {"text": texts}, len(texts), ["text"])
            made[part] = Split(texts, labels, [" ".join(one) for one in tags], {"tokens": parts[part].tokens}, prompts)
        facts = {
            **({"entity_types": types} if can_be_kept(types) else {}),
            **({"tags": list(names)} if can_be_kept(names) else {}),
            "tag_scheme": tagged.written,
            "n_repaired_tags": tagged.n_repaired,
            **({"n_empty_sentences": n_empty} if n_empty else {}),
            **({"types_not_in_training": strange} if strange else {}),
            "words_per_row": float(np.mean([len(words) for words in parts["train"].tokens])),
        }
        return assemble(
            self,
            spec,
            splits,
            made["train"],
            made["test"],
            label_names=names,
            n_outputs=len(names),
            prompt=spec.prompt,
            reply=reply_of(spec, REPLY),
            provenance=facts,
        )

    def strata(self, labels: Labels, names: Sequence[str] = ()) -> Ints:
        """Return the index of each sentence's rarest type of entity, plus 1; 0 without entities."""
        return _rarest_types([[names[tag] for tag in tags] for tags in labels])

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a sentence whose topic words are entities of that topic."""
        tokens = toys.sentence(toys.draw.randint(3, 8), *(toys.word(toys.topic()) for _ in range(2))).split(" ")
        topics = {word: topic for topic, words in TOPIC_WORDS.items() for word in words}
        return {"tokens": tokens, "label": [f"B-{topics[word]}" if word in topics else OUTSIDE for word in tokens]}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the words, long sentences in overlapping windows."""
        return tokenize_words(source, backbone, max_length)

    def n_answers(self, rows: Rows) -> int:
        """Return the number of words."""
        return int(words_of(rows).sum())

    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse anything but finite probabilities of shape (words of all rows, tags)."""
        probabilities, expected = _probabilities(answers), (n_rows, task.n_outputs)
        if probabilities.shape != expected:
            raise ValueError(f"The method returned {probabilities.shape} probabilities; expected {expected}.")
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("The method returned probabilities that are not finite.")

    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the counts of right, predicted and true spans of each row, and of right words."""
        predicted, right = _as_tags(task, answers, task.test_labels)
        types = types_of([task.label_names])
        found = {
            "spans": span_counts(predicted, right, types).astype(np.int32),
            "tokens": token_counts(predicted, right).astype(np.int32),
        }
        return Predictions(rows=task.test_rows, statistics=found)

    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric, its interval over test rows, and further metrics."""
        return score_of(task, predictions, self.also)

    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows."""
        return metrics.get(task.metric).compute(*_as_tags(task, answers, labels))

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return the mean negative log-probability of a word's right tag; probabilities are at least 1e-7."""
        flat = np.concatenate(list(labels)) if len(labels) else np.empty(0, dtype=np.int64)
        right = _probabilities(answers)[np.arange(len(flat)), flat].astype(np.float64)
        return -float(np.log(np.clip(right, 1e-7, 1.0)).mean())

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the entities of each row as lines."""
        tokens = rows.source.fields["tokens"]
        tagged = zip(rows.index, rows.known_labels, strict=True)
        return [as_lines(tokens[at], [label_words[tag] for tag in tags]) for at, tags in tagged]

    def question(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[str, Reply] | None:
        """Return the question for the entities of a sentence, and the settings of generation."""
        return question(names), REPLY

    def wordings(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[PromptWording, ...]:
        """Return wordings that name the types of entities."""
        return tag_wordings(names)

    def schema(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the schema of a list of entities, each with its type and its words."""
        return schema(names)

    def read_replies(
        self, texts: Sequence[str], rows: Rows, names: Sequence[str], shown: Sequence[str] = ()
    ) -> tuple[Answers, int]:
        """Return the tags of the entities that were written, and the number of answers with a line that is none."""
        tokens = rows.source.fields["tokens"]
        return read_answers(texts, [tokens[at] for at in rows.index], names)


def _read(data: Dataset, columns: tuple[str, str], origin: Origin, label_names: Sequence[str]) -> Sentences:
    tokens, tags = (data.data.column(column).to_pylist() for column in columns)
    return read_sentences(tokens, tags, columns, origin, label_names or class_names(data, columns[1]))


def class_names(data: Dataset, column: str) -> Sequence[str]:
    """Return the names of tags that a data set of the hub states for its numbers; empty without any."""
    feature = getattr(data.features.get(column), "feature", None)
    return tuple(getattr(feature, "names", None) or ())


def _rarest_types(tags: Sequence[Sequence[str]]) -> Ints:
    """Return the index of each sentence's type of entity that fewest sentences have, plus 1; 0 without entities."""
    each = [sorted({tag[2:] if tag[1:2] == "-" else tag for tag in sentence if tag != OUTSIDE}) for sentence in tags]
    counts = Counter(one for types in each for one in types)
    place = {one: at for at, one in enumerate(sorted(counts))}
    rarest = [min(types, key=lambda one: (counts[one], one)) if types else None for types in each]
    return np.array([0 if one is None else place[one] + 1 for one in rarest], dtype=np.int64)


def _as_tags(task: Task, answers: Answers, labels: Labels) -> tuple[list[list[str]], list[list[str]]]:
    """Return the names of the predicted and of the right tags of each row."""
    names = np.array(task.label_names, dtype=object)
    predicted = names[_probabilities(answers).argmax(axis=1)]
    ends = np.cumsum([len(tags) for tags in labels])
    return [list(part) for part in np.split(predicted, ends[:-1])], [list(names[tags]) for tags in labels]


def _probabilities(answers: Answers) -> Any:
    if not isinstance(answers, np.ndarray):
        raise ValueError(f"The method returned {type(answers).__name__}; expected probabilities.")
    return answers


kinds.add(TokenClassification.name, TokenClassification())
