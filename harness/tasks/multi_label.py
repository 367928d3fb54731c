"""Multi-label classification: any number of labels for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from harness.backbones import Backbone
from harness.data import Origin, TaskSpec, check_texts, read_flags, read_label_sets
from harness.metrics import metrics
from harness.records import Predictions, Score
from harness.support import DataError
from harness.tasks._intervals import score_of
from harness.tasks._label_answers import REPLY, as_words, labels_of, question, read_answers, schema
from harness.tasks._prepare import Split, assemble, can_be_kept, columns_of, fill, read_parts, reply_of, resolve_common
from harness.tasks._tokenize import tokenize_texts
from harness.tasks.base import Answers, Form, Ints, Kind, Labels, Reply, Rows, Sequences, Source, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

if TYPE_CHECKING:
    from datasets import Dataset

BETWEEN_LABELS: Final = "|"
"""Separator of labels where a set of them is one text."""


class MultiLabel(Kind):
    """A task to give a text any number of labels, none included.

    Labels are a list, a text with a separator (`label_separator`), or several columns of 0 and 1 (`label_columns`).
    """

    name = "multi-label"
    form: ClassVar[Form] = "labels"
    roles: ClassVar[Mapping[str, str | None]] = {"text": "text", "label": "labels"}
    main_metric = "micro_f1"
    also: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1_labels", "subset_accuracy", "mean_average_precision")

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test texts from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec)
        label = () if spec.label_columns else (columns["label"],)
        wanted = (columns["text"], *label, *spec.label_columns)

        def read(data: Dataset, origin: Origin) -> Split:
            texts = check_texts(data.data.column(columns["text"]).to_pylist(), columns["text"], origin)
            sets = _label_sets(data, origin, spec, columns)
            listed = np.fromiter(sets, dtype=object, count=len(sets))
            prompts = None
            if spec.prompt is not None:
                column = columns["text"]
                prompts = fill(spec.prompt, {"text": texts, column: texts}, len(texts), [column])
            return Split(texts, listed, [BETWEEN_LABELS.join(s) for s in sets], prompts=prompts)

        splits, train, test = read_parts(spec, mirror, wanted, read)
        sets = {part: list(found.labels) for part, found in (("train", train), ("test", test))}
        origins = {part: splits.origins.get(part, Origin(part)) for part in sets}
        names = _names(sets["train"], spec, origins["train"])
        parts = {
            part: Split(
                found.texts,
                _matrix(sets[part], names, origins[part]),
                found.label_texts,
                {"text": found.texts},
                found.prompts,
            )
            for part, found in (("train", train), ("test", test))
        }
        facts = {
            "n_labels": len(names),
            **({"labels": list(names)} if can_be_kept(names) else {}),
            "labels_per_row": float(parts["train"].labels.sum(axis=1).mean()),
        }
        task = assemble(
            self,
            spec,
            splits,
            parts["train"],
            parts["test"],
            label_names=names,
            n_outputs=len(names),
            prompt=spec.prompt,
            reply=reply_of(spec, REPLY),
            provenance=facts,
        )
        n_without = int((task.test_labels.sum(axis=0) == 0).sum())
        if not n_without:
            return task
        return replace(task, provenance={**task.provenance, "n_labels_not_in_test": n_without})

    def strata(self, labels: Labels, names: Sequence[str] = ()) -> Ints:
        """Return the index of each row's rarest label, plus 1; 0 without labels."""
        counts = labels.sum(axis=0, dtype=np.int64)
        rarity = np.where(labels > 0, counts, np.iinfo(np.int64).max)
        return np.where(labels.any(axis=1), rarity.argmin(axis=1) + 1, 0).astype(np.int64)

    def validation_groups(self, strata: Ints) -> Ints:
        """Return zeros: rows are dealt in the order drawn, in which labels take turns."""
        return np.zeros_like(strata)

    def remarks(self, rows: Rows, n_outputs: int) -> dict[str, str]:
        """Return how many labels no drawn row has: a method cannot learn them."""
        if len(rows) == 0:
            return {}
        n_unseen = int((rows.known_labels.sum(axis=0) == 0).sum())
        return {"unseen_labels": f"{n_unseen} of {n_outputs}"} if n_unseen else {}

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a text and the topics of its words."""
        topics = [topic for topic in TOPIC_WORDS if toys.draw.random() < 0.4]
        words = [toys.word(topic) for topic in topics for _ in range(2)]
        return {"text": toys.sentence(toys.draw.randint(3, 8), *words), "label": topics}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the texts, cut on the task's side."""
        return tokenize_texts(source, backbone, max_length)

    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse anything but scores between 0 and 1 of shape (rows, labels)."""
        scores, expected = _scores(answers), (n_rows, task.n_outputs)
        if scores.shape != expected:
            raise ValueError(f"The method returned scores of shape {scores.shape}; expected {expected}.")
        if not np.isfinite(scores).all():
            raise FloatingPointError("The method returned scores that are not finite.")
        if scores.size and (scores.min() < 0 or scores.max() > 1):
            raise ValueError(f"The method returned scores from {scores.min():g} to {scores.max():g}; expected 0 to 1.")

    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the given and the right labels, and the rank of each row's score for each label."""
        scores = _scores(answers)
        found = {
            "given": (scores >= 0.5).astype(np.uint8),
            "wanted": np.asarray(task.test_labels, dtype=np.uint8),
            "scores": _ranks(scores),
        }
        return Predictions(rows=task.test_rows, statistics=found)

    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric, its interval over test rows, and further metrics."""
        return score_of(task, predictions, self.also)

    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows."""
        spec, scores = metrics.get(task.metric), _scores(answers)
        given = scores if spec.name == "mean_average_precision" else (scores >= 0.5).astype(np.uint8)
        return spec.compute(given, labels)

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the labels of each row as a list in words."""
        return [as_words(labels_of(flags, label_words), label_words) for flags in rows.known_labels]

    def question(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[str, Reply] | None:
        """Return a prompt that states the labels."""
        return question(names), REPLY

    def schema(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the schema of a list of labels."""
        return schema(names)

    def read_replies(
        self, texts: Sequence[str], rows: Rows, names: Sequence[str], shown: Sequence[str] = ()
    ) -> tuple[Answers, int]:
        """Return 1 for each label that an answer names and 0 for others; unreadable answers name none."""
        return read_answers(texts, names)

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return None: scores are moved so that the chosen threshold is 0.5."""
        return None


def _ranks(scores: Any) -> Any:
    """Return the place of each score among the distinct ones of its label: in order as the scores, and smaller."""
    columns = [np.unique(scores[:, at], return_inverse=True)[1].reshape(-1) for at in range(scores.shape[1])]
    return np.stack(columns, axis=1).astype(np.int64)


def _label_sets(data: Dataset, origin: Origin, spec: TaskSpec, columns: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return the labels of each row, sorted."""
    if spec.label_columns:
        found = read_flags({name: data.data.column(name).to_pylist() for name in spec.label_columns}, origin)
    else:
        values = data.data.column(columns["label"]).to_pylist()
        if spec.label_names and all(isinstance(v, list) and all(type(k) is int for k in v) for v in values):
            values = [[_named(k, spec, row, columns["label"], origin) for k in v] for row, v in enumerate(values)]
        found = read_label_sets(values, columns["label"], origin, spec.label_separator)
    return found


def _named(index: int, spec: TaskSpec, row: int, column: str, origin: Origin) -> str:
    """Return the name of a label that is given by its number."""
    if not 0 <= index < len(spec.label_names):
        raise DataError(
            f"{origin.name}: {origin.at(row)}: label number {index} in column '{column}'; expected 0 to "
            f"{len(spec.label_names) - 1}, since label_names has {len(spec.label_names)} names."
        )
    return spec.label_names[index]


def _names(sets: Sequence[Sequence[str]], spec: TaskSpec, origin: Origin) -> tuple[str, ...]:
    known = sorted({label for labels in sets for label in labels})
    if not known:
        named = ", ".join(f"'{name}'" for name in spec.label_columns or (spec.columns.given.get("label", "labels"),))
        where = f"column {named}" if not spec.label_columns else f"the columns {named}"
        raise DataError(f"{origin.name}: no row has a label in {where}. Name the column that holds the labels.")
    names = spec.label_names or spec.label_columns or tuple(known)
    unknown = sorted(set(known) - set(names))
    if unknown:
        raise DataError(f"{origin.name}: label '{unknown[0]}' is not one of label_names ({', '.join(names)}).")
    if len(names) < 2:
        raise DataError(f"{origin.name}: the only label is '{names[0]}'; expected at least two.")
    return tuple(names)


def _matrix(sets: Sequence[Sequence[str]], names: Sequence[str], origin: Origin) -> Any:
    """Return 0 or 1 for each label, uint8, shape (rows, labels)."""
    place = {name: at for at, name in enumerate(names)}
    matrix = np.zeros((len(sets), len(names)), dtype=np.uint8)
    for row, labels in enumerate(sets):
        for label in labels:
            if label not in place:
                raise DataError(
                    f"{origin.name}: {origin.at(row)}: label '{label}' occurs in no training row; drop it, or add "
                    "training rows that have it."
                )
            matrix[row, place[label]] = 1
    return matrix


def _scores(answers: Answers) -> Any:
    if not isinstance(answers, np.ndarray):
        raise ValueError(f"The method returned {type(answers).__name__}; expected scores.")
    return answers


kinds.add(MultiLabel.name, MultiLabel())
