"""The contract of a form of answers, and what it needs to know of a cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.measure import Device, Precision
from harness.tasks import Answers, Ints, Kind, Labels, Reply, Rows

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.backbones import Backbone
    from harness.features import Tokens
    from harness.measure import FlopsModel
    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel

Scores = tuple[float, ...]
"""How good a model is on validation rows: compared as tuples, greater is better."""


class Workbench(Protocol):
    """What a form needs of a method's bench (`methods.base.Bench`)."""

    kind: Kind
    n_outputs: int
    device: Device
    max_length: int
    reply: Reply | None
    ledger: Any

    @property
    def measure(self) -> Callable[[Answers, Labels], float]:
        """The task's main metric, turned so that higher is better."""
        ...

    @property
    def some_backbone(self) -> Backbone:
        """The backbone that is adapted."""
        ...

    def tokens_of(self, rows: Rows, reserved: int = 0) -> Tokens:
        """The tokens of the whole split that these rows are of."""
        ...

    def token_rows(
        self, rows: Rows, phase: Literal["encode", "predict"], reserved: int = 0
    ) -> list[npt.NDArray[np.int32]]:
        """Token ids of each sequence of these rows, charged to `phase`."""
        ...

    def working(self, phase: Literal["encode", "fit", "predict"]) -> AbstractContextManager[None]:
        """Count a block for `phase`."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Training rows as a model reads them: sequences of tokens, and what is right for each item of a batch.

    An item is what batches are made of: a row, or one of the windows over a row.

    Attributes:
        sequences: token ids of each sequence.
        targets: of each item, first axis items.
        items_of: from positions of rows to positions of their items.
        lengths: tokens of each row, all its sequences together, shape (rows,).
        counts: sequences of each row, shape (rows,); None where each is one.
    """

    sequences: list[npt.NDArray[np.int32]]
    targets: npt.NDArray[Any]
    items_of: Callable[[Ints], Ints]
    lengths: Ints
    counts: Ints | None = None


class AnswerForm(ABC):
    """How methods that train inside a transformer serve one form of answers.

    Class attributes:
        enters_blocks: whether an item is one sequence whose hidden states are all that the head reads, so that what
            frozen lower blocks compute can be kept (`inputs.BlockInputs`).
    """

    enters_blocks: bool = True

    def pretrained(self, bench: Workbench, device: torch.device) -> nn.Module:
        """A fresh copy of what is adapted."""
        return bench.some_backbone.fresh(device)

    def random(self, bench: Workbench, device: torch.device) -> nn.Module:
        """The same with random weights, from torch's generator."""
        return bench.some_backbone.random(device)

    @abstractmethod
    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """What is trained on top of the transformer; started from torch's generator."""

    @abstractmethod
    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Both together, with the attributes `transformer` and `head`."""

    @abstractmethod
    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """The rows as the model reads them, charged to encoding."""

    @abstractmethod
    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """What a fit reads; `compact` allows an embedding that holds only the tokens that occur."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The mean training loss of a batch."""

    @abstractmethod
    def validate(
        self,
        inputs: Inputs,
        examples: Examples,
        rows: Ints,
        labels: Labels,
        bench: Workbench,
        precision: Precision,
    ) -> Scores:
        """How good the model is on the training rows at these positions; leaves it training."""

    def count_flops(self, model: AdaptedModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
        """Operations of a batch, forward and (unless told otherwise) backward to what is trained."""
        from harness.training.model import count_batch_flops

        return count_batch_flops(model, device, backward=backward)

    @abstractmethod
    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """What the fitted model says of rows; charged to predicting."""


def sizes_of(sequences: list[npt.NDArray[np.int32]]) -> Ints:
    """Tokens of each sequence, shape (sequences,)."""
    return np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))


def starts_of(counts: Ints) -> Ints:
    """Where each row's sequences start among those of all rows, and where the last ends; shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def sequences_of(starts: Ints, rows: Ints) -> Ints:
    """Positions of all sequences of these rows."""
    spans = [np.arange(starts[row], starts[row + 1]) for row in rows]
    return np.concatenate(spans).astype(np.int64) if spans else np.empty(0, dtype=np.int64)


def linear_head(width: int, n_outputs: int, dropout: float) -> nn.Module:
    """Dropout and one linear layer, started like BERT's (normal with deviation 0.02, bias 0)."""
    from torch import nn

    linear = nn.Linear(width, n_outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout(dropout), linear)


def reads_segments(bench: Workbench) -> bool:
    """Whether this kind's sequences have two segments that this backbone tells apart."""
    return bench.kind.reads_pairs and bench.some_backbone.reads_segments


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
