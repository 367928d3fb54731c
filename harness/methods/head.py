"""Train only the new output layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from pydantic import Field

from harness.measure.device import PrecisionPolicy
from harness.measure.flops import FlopsModel
from harness.methods._fine_tuning import GradientMethod, trained_tensors
from harness.methods.base import Bench, Fitted, method
from harness.tasks.base import Floats, Rows

if TYPE_CHECKING:
    from torch import nn


@method
class Head(GradientMethod):
    """Train the output layer by gradient on the pooled vectors of the frozen backbone, which is in evaluation mode.

    The backbone's vectors never change, so each text is encoded once and only the linear layer runs in a step.
    """

    name = "head"
    family = "partial fine-tuning"
    trains = "the output layer"
    source = "Howard and Ruder, 2018, arXiv:1801.06146 (first stage); Peters et al., 2019, arXiv:1903.05987"

    head_learning_rate: float = Field(default=3e-3, gt=0)
    epochs: float = Field(default=20, gt=0)
    min_steps: int = Field(default=200, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode once, then train the linear layer until the budget is spent."""
        from harness.training.batches import FeatureBatches

        features = bench.pooled(rows, "encode", self.precision)
        with bench.clock.phase("load"):
            head = self._build_head(bench)
        with bench.working("fit"):
            batches = FeatureBatches(
                features,
                rows.known_labels,
                batch_size=self.batch_size,
                seed=bench.seed,
                device=bench.device.torch_device(),
            )
            self.optimise(
                head,
                batches,
                bench,
                body=[],
                head=list(head.parameters()),
                # Forward, and the gradient of the weights; the features need none.
                flops=FlopsModel(0.0, 0.0, 4.0 * features.shape[1] * bench.n_classes, 0.0),
                precision="fp32",
            )
        return _FittedHead(head, self.precision, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """The saved output layer; features come from the same backbone."""
        import torch

        head = self._build_head(bench)
        head.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        return _FittedHead(head.eval(), self.precision, bench)

    def _build_head(self, bench: Bench) -> nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("head"))
            head = bench.kind.build_head(bench.some_backbone.hidden_size, bench.n_classes, self.dropout)
        return head.to(bench.device.torch_device())


class _FittedHead(Fitted):
    def __init__(self, head: nn.Module, precision: PrecisionPolicy, bench: Bench) -> None:
        self.head = head
        self._precision = precision
        self.n_trainable = sum(parameter.numel() for parameter in head.parameters())
        frozen = sum(parameter.numel() for parameter in bench.some_backbone.pristine.parameters())
        self.n_parameters = frozen + self.n_trainable

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        import torch

        from harness.training.model import softmax

        features = bench.pooled(rows, "predict", self._precision)
        with bench.working("predict"), torch.inference_mode():
            values = torch.from_numpy(features).to(bench.device.torch_device())
            return softmax(self.head(values).float().cpu().numpy())

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return trained_tensors(self.head)
