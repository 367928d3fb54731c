"""The contract between kinds of task and everything that serves them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.data.spec import TaskSpec
from harness.records import Predictions, Score
from harness.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.backbones.model import Backbone

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Source:
    """The inputs of one split, without its labels: all that encoding and predicting may see.

    Attributes:
        key: identity of the split's content, for caches (`<data fingerprint>/train`).
        texts: one text per row.
    """

    key: str
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a split, in an order. `labels` is None where a method must not see them: test rows.

    Attributes:
        source: the split that they belong to.
        index: positions in the split, shape (rows,).
        labels: class index per row, shape (rows,), or None.
    """

    source: Source
    index: Ints
    labels: Ints | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def texts(self) -> list[str]:
        """One text per row."""
        return [self.source.texts[position] for position in self.index]

    @property
    def known_labels(self) -> Ints:
        """The labels, where they may be seen; a method that asks for those of test rows has a bug."""
        if self.labels is None:
            raise RuntimeError("These rows come without labels: nothing about test rows is seen before predicting.")
        return self.labels

    def take(self, positions: Ints) -> Rows:
        """The rows at `positions` of these, in that order."""
        return Rows(self.source, self.index[positions], None if self.labels is None else self.labels[positions])


@dataclass(frozen=True, eq=False)
class Task:
    """A task that is ready to run: rows loaded, checked, deduplicated and capped.

    Attributes:
        spec: what the suite says of it.
        kind: its kind.
        data: fingerprint of rows, labels and metric; part of a cell's identity.
        label_names: names of the classes, in the order of their indices.
        train: the pool that training rows are drawn from; train_labels and train_digests go with it.
        test: the test rows, capped, in a fixed order; test_labels goes with it.
        test_rows: fingerprint of the test rows and their order.
        n_test_available: test rows there were before the cap.
        provenance: where the rows come from, and what was dropped.
    """

    spec: TaskSpec
    kind: Kind
    data: str
    label_names: tuple[str, ...]
    train: Source
    train_labels: Ints
    train_digests: Sequence[bytes]
    test: Source
    test_labels: Ints
    test_rows: str
    n_test_available: int
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.label_names)

    @property
    def label_words(self) -> tuple[str, ...]:
        """Each class in words: the suite's, where the names of the classes are no words; else their names."""
        return self.spec.label_words or self.label_names


class Kind(ABC):
    """One kind of task. A new kind is a new file in this package that registers an instance.

    Methods do not know tasks and tasks do not know methods: a method asks the kind for a model, a loss and a score.
    """

    name: str

    @abstractmethod
    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load and check the task's rows.

        Raises:
            DataError: a row breaks the kind's rules; the message names it.
            MissingResourceError: the data set is not to be had.
        """

    @abstractmethod
    def tokenize(self, texts: Sequence[str], backbone: Backbone, max_length: int) -> tuple[list[list[int]], int]:
        """Token ids of each row, special tokens included, at most `max_length`; and how many rows were cut."""

    @abstractmethod
    def build_head(self, width: int, n_classes: int, dropout: float) -> nn.Module:
        """What is trained on top of the backbone: from (rows, width) to (rows, n_classes)."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The mean training loss of a batch: outputs of shape (rows, n_classes), targets of shape (rows,)."""

    @abstractmethod
    def decode(self, task: Task, probabilities: Floats) -> Predictions:
        """Predictions for the test rows from probabilities of shape (n_test, n_classes)."""

    @abstractmethod
    def score(self, task: Task, predictions: Predictions) -> Score:
        """The main metric of the test rows, its interval, and further metrics."""

    @abstractmethod
    def main_metric(self, task: Task, predicted: Ints, target: Ints) -> float:
        """The task's main metric of any rows; used for the training score."""


kinds: Registry[Kind] = Registry("kind of task", "harness.tasks")
