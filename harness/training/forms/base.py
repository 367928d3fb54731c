"""The contract of a form of answers, and the part of a cell that a form reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.measure import Device, Precision
from harness.tasks import Answers, Ints, Kind, Labels, Reply, Rows

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.backbones import Backbone, Weights
    from harness.features import TokenIds, Tokens
    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel

Loss = Callable[["torch.Tensor", "torch.Tensor", float], "torch.Tensor"]
"""Function from (outputs, targets, label smoothing) to the mean loss over rows."""

Scores = tuple[float, ...]
"""Quality of a model on validation rows; compared as tuples, greater is better."""


class Workbench(Protocol):
    """The part of a method's bench (`methods.bench.Bench`) that a form reads."""

    kind: Kind
    n_outputs: int
    device: Device
    max_length: int
    reply: Reply | None
    ledger: Any
    chat: bool

    @property
    def measure(self) -> Callable[[Answers, Labels], float]:
        """The task's main metric, with its sign such that higher is better."""
        ...

    @property
    def some_backbone(self) -> Backbone:
        """The backbone to adapt."""
        ...

    def tokens_of(self, rows: Rows, reserved: int = 0) -> Tokens:
        """Return the tokens of the whole split that these rows belong to."""
        ...

    def token_rows(self, rows: Rows, phase: Literal["encode", "predict"], reserved: int = 0) -> list[TokenIds]:
        """Return the token ids of each sequence of these rows, charged to `phase`."""
        ...

    def working(self, phase: Literal["encode", "fit", "predict"]) -> AbstractContextManager[None]:
        """Charge the time of a block to `phase`."""
        ...


def _same(positions: Ints) -> Ints:
    return positions


@dataclass(frozen=True, eq=False)
class Examples:
    """Training rows as a model reads them: sequences of tokens, and a target for each item of a batch.

    An item is a unit of a batch: a row, or one of the windows over a row.

    Attributes:
        sequences: token ids of each sequence.
        targets: target of each item, first axis items.
        lengths: tokens of each row, all its sequences together, shape (rows,).
        counts: sequences of each row, shape (rows,); None where each is one.
        items_of: function from positions of rows to positions of their items.
        state: values from the training rows that predictions need (`AnswerForm.state`).
    """

    sequences: Sequence[TokenIds]
    targets: npt.NDArray[Any]
    lengths: Ints
    counts: Ints | None = None
    items_of: Callable[[Ints], Ints] = _same
    state: Mapping[str, Any] = field(default_factory=dict)


class AnswerForm(ABC):
    """The way in which methods that train inside a transformer serve one form of answers.

    Class attributes:
        enters_blocks: whether an item is one sequence whose hidden states are all that the head reads, so that the
            outputs of frozen lower blocks can be kept (`inputs.BlockInputs`).
        n_scores: number of scores that the head gives; None is one for each output of the task.
        holds_out: whether a fit sets validation rows aside, on which `conclude` chooses what predictions need.
        state_names: names of the numbers in `state`.
        weighs_classes: whether it has classes, which `balanced_loss` weighs.
    """

    enters_blocks: bool = True
    n_scores: int | None = None
    holds_out: bool = False
    state_names: tuple[str, ...] = ()
    weighs_classes: bool = False

    def state(self, labels: Labels) -> dict[str, Any]:
        """Return what a fit takes from the labels of its training rows and predictions need, as JSON values."""
        return {}

    def conclude(self, state: Mapping[str, Any], answers: Answers, labels: Labels, bench: Workbench) -> dict[str, Any]:
        """Return the state after a fit, given the raw answers for its validation rows."""
        return dict(state)

    def finish(self, answers: Answers, state: Mapping[str, Any]) -> Answers:
        """Return answers in the form that the kind asks for, from raw ones of `predict`."""
        return answers

    def pretrained(self, bench: Workbench, device: torch.device) -> nn.Module:
        """Return a fresh copy of the transformer to train throughout, float32."""
        return bench.some_backbone.fresh(device)

    def shared(
        self, bench: Workbench, device: torch.device, precision: Precision, weights: Weights, *, exact: bool = False
    ) -> nn.Module:
        """Return a copy of the transformer to adapt, whose frozen weights are those that all cells share.

        A form that brings its own `pretrained` gets that.
        """
        if type(self).pretrained is not AnswerForm.pretrained:
            return self.pretrained(bench, device)
        return bench.some_backbone.shared(device, precision, weights, exact=exact)

    def stored(self, bench: Workbench) -> nn.Module:
        """Return a copy of the transformer on the host, whose frozen weights are the host's own, as stored."""
        import torch

        if type(self).pretrained is not AnswerForm.pretrained:
            return self.pretrained(bench, torch.device("cpu"))
        return bench.some_backbone.stored()

    def random(self, bench: Workbench, device: torch.device) -> nn.Module:
        """Return the same transformer with random weights, from torch's generator."""
        return bench.some_backbone.random(device)

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """Return dropout and one linear layer, started like BERT's (normal with deviation 0.02, bias 0)."""
        from torch import nn

        linear = nn.Linear(width, n_outputs if self.n_scores is None else self.n_scores)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(nn.Dropout(dropout), linear)

    def start(self, head: nn.Module, labels: Labels) -> nn.Module:
        """Return a new head, set to what the labels of the training rows say before the first step."""
        return head

    @abstractmethod
    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return the model of both."""

    @abstractmethod
    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return the rows as the model reads them; tokenising is charged to encoding."""

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Return the inputs of a fit; `compact` allows an embedding that holds only the tokens that occur."""
        from harness.training.inputs import TokenInputs

        there, pad_id = bench.device.torch_device(), bench.some_backbone.pad_id
        return TokenInputs(model, examples.sequences, pad_id=pad_id, compact=compact, device=there)

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean training loss of a batch."""

    def balanced_loss(self, labels: Labels, bench: Workbench) -> Loss:
        """Return the loss in which rare classes count as much as frequent ones; only with `weighs_classes`.

        Args:
            labels: labels of the rows to train on, which decide the weights.
            bench: the cell's bench.
        """
        raise NotImplementedError(f"{type(self).__name__} has no classes to weigh.")

    def validate(
        self, inputs: Inputs, examples: Examples, rows: Ints, labels: Labels, bench: Workbench, precision: Precision
    ) -> Scores:
        """Return the quality of the model on the training rows at these positions: minus the mean loss of their items.

        The model is left in training mode.
        """
        items = examples.items_of(rows)
        return (-inputs.mean_loss(items, examples.targets[items], self.loss, bench.device, precision),)

    @abstractmethod
    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """Return the fitted model's answers for rows; charged to predicting."""


def reads_segments(bench: Workbench) -> bool:
    """Return whether this kind's sequences have two segments that this backbone tells apart."""
    return bench.kind.reads_pairs and bench.some_backbone.reads_segments


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
