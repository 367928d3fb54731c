"""Summarise a task's data before anything runs: figures, and one line of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.backbones import token_counts
from harness.tasks._tokenize import as_read
from harness.tasks.base import Source, Task

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles

MOST_READ: Final = 1000
"""Maximum number of texts to tokenize for the share of cut texts."""

_SINGLE_TEXTS = frozenset({"classification", "multi-label", "regression"})
"""Kinds whose rows are one text."""

_N_CLASSES = 4
_N_UNSCORED = 3


@dataclass(frozen=True)
class Truncation:
    """Counts of texts that are too long for a backbone.

    Attributes:
        n_cut: number of cut texts among those checked.
        n_read: number of checked texts, training and test rows.
        n_texts: number of all texts.
        max_length: maximum tokens of a text: the task's limit or, if it is smaller, the backbone's.
        asked: the task's limit.
    """

    n_cut: int
    n_read: int
    n_texts: int
    max_length: int
    asked: int


@dataclass(frozen=True)
class DataSummary:
    """Summary of a task's data.

    Attributes:
        task: name of the task.
        n_rows: number of rows, without those left out.
        n_train: number of training rows.
        n_test, n_test_available: number of test rows after and before the cap.
        classes: name and rows of each class, the largest first; empty if labels are not classes.
        answers: other answers in a phrase, such as the range of numbers; empty for classes and texts.
        n_repeated: number of rows with the text of an earlier row of their part.
        n_copies_of_test: number of training rows left out as copies of test rows.
        left_out: numbers of other rows left out, by reason.
        unscored: classes that are trained on but not scored.
        cut: counts of cut texts; None if no backbone reads them.
        warnings: warnings about the data, one or two sentences each.
    """

    task: str
    n_rows: int
    n_train: int
    n_test: int
    n_test_available: int
    classes: tuple[tuple[str, int], ...] = ()
    answers: str = ""
    n_repeated: int = 0
    n_copies_of_test: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    cut: Truncation | None = None
    warnings: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the summary in one line, without the warnings."""
        parts = [f"{_rows(self.n_rows)} ({self.n_train:,} to learn from, {self._test()})"]
        if self.classes:
            parts.append(f"{len(self.classes):,} classes: {_largest(self.classes)}")
        if self.answers:
            parts.append(self.answers)
        if self.n_repeated:
            parts.append(f"{_rows(self.n_repeated)} with a repeated text")
        left_out = [f"{_rows(count)} left out ({reason})" for reason, count in self.left_out.items()]
        if self.n_copies_of_test:
            left_out.append(f"{_rows(self.n_copies_of_test)} left out of training (copies of test rows)")
        parts += left_out
        if self.unscored:
            parts.append(f"trained on and not scored: {_first(self.unscored)}")
        if self.cut is not None:
            parts.append(_cut(self.cut))
        return f"{self.task}: {'; '.join(parts)}."

    def _test(self) -> str:
        of = "" if self.n_test == self.n_test_available else f" of {self.n_test_available:,}"
        return f"{self.n_test:,}{of} to test on"


def summarise_data(task: Task, files: BackboneFiles | None = None) -> DataSummary:
    """Return the summary of a task's data.

    Args:
        task: prepared task.
        files: backbone that reads the texts; None if no method uses one.

    Raises:
        UsageError: the backbone's tokenizer cannot be read.
    """
    notes = task.provenance
    order = np.argsort(-np.asarray(task.class_rows, dtype=np.int64), kind="stable")
    read: dict[str, int] = notes.get("n_rows") or {}
    return DataSummary(
        task=task.name,
        n_rows=sum(count for part, count in read.items() if part in ("train", "test")),
        n_train=len(task.train_labels),
        n_test=task.n_test,
        n_test_available=task.n_test_available,
        classes=tuple((task.label_names[at], task.class_rows[at]) for at in order),
        answers=_answers(task),
        n_repeated=int(notes.get("n_repeated_texts") or 0),
        n_copies_of_test=int(notes.get("n_dropped_from_training") or 0),
        left_out=dict(notes.get("left_out") or {}),
        unscored=tuple(task.label_names[at] for at in task.unscored),
        cut=None if files is None or files.architecture == "served" else count_cut(task, files),
        warnings=tuple(notes.get("warnings") or ()),
    )


def _answers(task: Task) -> str:
    """Return the answers of a task without classes in a phrase; empty for texts."""
    labels = task.train_labels
    if task.kind.form == "number":
        return f"numbers from {labels.min():g} to {labels.max():g}, mean {labels.mean():.4g}"
    if task.kind.form == "labels":
        counts = _sorted(zip(task.label_names, labels.sum(axis=0, dtype=np.int64).tolist(), strict=True))
        a_row = float(labels.sum(axis=1, dtype=np.int64).mean())
        return f"{len(counts):,} labels, {a_row:.2g} a row: {_largest(counts)}"
    if task.kind.form == "tags":
        from harness.metrics import span_counts, types_of

        tags = [[task.label_names[at] for at in sentence] for sentence in labels]
        types = types_of(task.label_names)
        counts = _sorted(zip(types, span_counts(tags, tags, types)[..., 2].sum(axis=0).tolist(), strict=True))
        return f"{len(counts):,} entity types: {_largest(counts)}"
    return ""


def _sorted(counts: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts, key=lambda one: -one[1]))


def _largest(counts: tuple[tuple[str, int], ...]) -> str:
    shown = ", ".join(f"{_name(name)} ({count:,})" for name, count in counts[:_N_CLASSES])
    return shown + (f" and {len(counts) - _N_CLASSES:,} more" if len(counts) > _N_CLASSES else "")


def count_cut(task: Task, files: BackboneFiles) -> Truncation | None:
    """Return the number of texts that are too long for a backbone; None for kinds that read more than one text.

    The count uses the first `MOST_READ` training and test texts, which are in order of their hash. The backbone's
    weights are not read.

    Raises:
        UsageError: the backbone's tokenizer cannot be read.
    """
    if task.kind.name not in _SINGLE_TEXTS:
        return None
    asked = task.spec.max_length
    sources = (task.train, task.test)
    n_texts = sum(map(len, sources))
    parts = [_first_rows(source, round(MOST_READ * len(source) / max(n_texts, MOST_READ))) for source in sources]
    texts = [as_read(text, source) for source in parts for text in source.texts]
    lengths = token_counts(files, texts, asked)
    if lengths is not None:
        return Truncation(sum(length > asked for length in lengths), len(texts), n_texts, asked, asked)
    from harness.backbones import read_without_weights

    reader = read_without_weights(files)
    limit = min(asked, reader.max_length)
    n_cut = sum(task.kind.tokenize(source, reader, limit).n_truncated for source in parts)
    return Truncation(n_cut, len(texts), n_texts, limit, asked)


def _first_rows(source: Source, n_rows: int) -> Source:
    return source if n_rows >= len(source) else source.first(n_rows)


def _cut(cut: Truncation) -> str:
    about = "" if cut.n_read == cut.n_texts else "about "
    limit = f"{cut.max_length:,} tokens"
    if cut.max_length < cut.asked:
        limit += f", the most that the backbone reads (not {cut.asked:,})"
    if cut.n_cut == 0:
        return f"{'no text is' if not about else 'almost no text is'} cut at {limit}"
    share = 100 * cut.n_cut / cut.n_read
    return f"{about}{'less than 1' if share < 1 else f'{share:.0f}'} % of the texts are cut at {limit}"


def _name(label: str) -> str:
    """Return a label, in quotes where it has spaces at an end."""
    return label if label == label.strip() else f"'{label}'"


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _first(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _N_UNSCORED:,} more" if len(names) > _N_UNSCORED else ""
    return ", ".join(map(_name, names[:_N_UNSCORED])) + more
