"""What all methods that train by gradient share: configuration, the model, the fit, the fitted model.

A method of this family says which parameters are trained (`select_trainable`), or what is added to the transformer
(`adapt`); everything else is here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.measure.device import Precision, PrecisionPolicy
from harness.methods.base import Bench, Fitted, Method
from harness.tasks.base import Floats, Rows
from harness.training.budget import Schedule

if TYPE_CHECKING:
    from torch import nn

    from harness.measure.flops import FlopsModel
    from harness.training.loop import Batches, Optimisation, Outcome
    from harness.training.model import PooledModel


class GradientMethod(Method):
    """Configuration that every method trained by gradient has.

    Attributes:
        learning_rate: peak, of the transformer's parameters or of those added to it.
        head_learning_rate: peak, of the new output layer, which starts from random weights.
        epochs, min_steps: default length of a fit, whichever is longer; apply where the budget names neither epochs
            nor steps.
        batch_size: rows of an optimiser step.
        weight_decay: of matrices.
        warmup: share of the budget over which the learning rate rises.
        schedule: how it falls to 0 afterwards.
        dropout: before the output layer.
        max_grad_norm: longer gradients are shortened to it; None leaves them.
        label_smoothing: of the loss.
        precision: `auto` is bfloat16 where the hardware has it natively.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=4, gt=0)
    min_steps: int = Field(default=120, ge=1)
    batch_size: int = Field(default=16, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    schedule: Schedule = "linear"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: PrecisionPolicy = "auto"

    def warm_up(self) -> None:
        """Import what the first step of an optimiser imports, and take one."""
        import torch

        from harness.training import batches, loop, model, vocabulary  # noqa: F401

        parameter = torch.nn.Parameter(torch.zeros(8, 8))
        (parameter * parameter).sum().backward()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        torch.optim.AdamW([parameter], fused=True).step()

    def default_steps(self, steps_per_epoch: int) -> int:
        """Steps of a fit where the budget names none: small data needs enough steps, not only epochs."""
        return max(math.ceil(self.epochs * steps_per_epoch), self.min_steps)

    def optimisation(self) -> Optimisation:
        """The part of the configuration that the training loop reads."""
        from harness.training.loop import Optimisation

        return Optimisation(
            learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            schedule=self.schedule,
            max_grad_norm=self.max_grad_norm,
            label_smoothing=self.label_smoothing,
        )

    def optimise(
        self,
        model: nn.Module,
        batches: Batches,
        bench: Bench,
        *,
        body: Sequence[nn.Parameter],
        head: Sequence[nn.Parameter],
        flops: FlopsModel,
        precision: Precision,
    ) -> Outcome:
        """Train `model` until the budget is spent, leave it in evaluation mode, and enter the spending in the ledger.

        Args:
            model: called with a batch's inputs, gives logits.
            batches: of the training rows.
            bench: of the cell.
            body: trained parameters of the transformer, or of what is added to it.
            head: parameters of the new output layer.
            flops: operations of a batch, forward and backward.
            precision: of the forward pass.
        """
        import torch

        from harness.training.loop import train

        progress = bench.progress(self.default_steps(len(batches)), len(batches))
        torch.manual_seed(bench.seeded("dropout"))
        model.train()
        outcome = train(
            forward=lambda batch: model(*batch.inputs),
            loss=bench.kind.loss,
            batches=batches,
            body=body,
            head=head,
            optimisation=self.optimisation(),
            progress=progress,
            flops=flops,
            device=bench.device.torch_device(),
            precision=precision,
            on_step=lambda _, loss: bench.report("training", progress.fraction(), loss),
        )
        model.eval()
        bench.ledger.train_flops += outcome.flops
        bench.ledger.train_tokens += outcome.tokens
        bench.ledger.stopped_by = outcome.stopped_by
        bench.ledger.curve.extend(outcome.curve)
        return outcome


class FineTuning(GradientMethod):
    """Train parameters inside the transformer, and the head, on token ids."""

    def adapt(self, transformer: nn.Module) -> nn.Module:
        """What is put in the transformer's place: itself, unless a method adds parameters to it."""
        return transformer

    @abstractmethod
    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """The parameters of the adapted transformer that are trained; the head always is."""

    def build(self, bench: Bench) -> PooledModel:
        """The model with exactly what this method trains requiring gradients."""
        import torch

        from harness.training.dropout import quicken_dropout
        from harness.training.model import PooledModel

        transformer = bench.fresh_transformer()
        with bench.clock.phase("load"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("head"))
            head = bench.kind.build_head(bench.some_backbone.hidden_size, bench.n_classes, self.dropout)
            torch.manual_seed(bench.seeded("added parameters"))
            adapted = self.adapt(transformer)
            device = bench.device.torch_device()
            model = PooledModel(adapted, head, bench.some_backbone.files.pooling).to(device)
            if bench.device.kind == "cpu":
                quicken_dropout(model)
            trained = {id(parameter) for parameter in self.select_trainable(model.transformer)}
            for parameter in model.transformer.parameters():
                parameter.requires_grad_(id(parameter) in trained)
        return model

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train on the rows until the budget is spent."""
        from harness.training.batches import TokenBatches
        from harness.training.vocabulary import CompactEmbedding

        token_rows = bench.token_rows(rows, "encode")
        model = self.build(bench)
        with bench.clock.paused():
            flops = self._flops_model(model, bench)
        pad_id = int(bench.some_backbone.tokenizer.pad_token_id)
        with bench.working("fit"):
            compact = None
            inner = _transformers_model(model.transformer)
            if CompactEmbedding.fits(inner, token_rows, pad_id):
                compact = CompactEmbedding(inner, token_rows, pad_id)
                token_rows = [compact.translate(row) for row in token_rows]
            batches = TokenBatches(
                token_rows,
                rows.known_labels,
                pad_id=pad_id,
                batch_size=self.batch_size,
                seed=bench.seed,
                device=bench.device.torch_device(),
            )
            outcome = self.optimise(
                model,
                batches,
                bench,
                body=[parameter for parameter in model.transformer.parameters() if parameter.requires_grad],
                head=list(model.head.parameters()),
                flops=flops,
                precision=bench.precision(self.precision),
            )
            if compact is not None:
                compact.restore(outcome.decay)
            model.eval()  # the full embedding too, which was not there when training ended
        return FittedModel(model, self.precision)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """The pretrained weights with the saved tensors in their places."""
        import torch

        model = self.build(bench)
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.from_numpy(tensors[name]))
        return FittedModel(model.eval(), self.precision)

    def _flops_model(self, model: PooledModel, bench: Bench) -> FlopsModel:
        from harness.training.model import count_training_flops

        key = f"{self.name}/{self.config()}/{bench.some_backbone.files.fingerprint}/{bench.n_classes}"
        if key not in bench.flops_models:
            bench.flops_models[key] = count_training_flops(model, bench.device.torch_device())
        return bench.flops_models[key]


def _transformers_model(transformer: nn.Module) -> nn.Module:
    """The transformers model under what peft may have wrapped around it."""
    inner: nn.Module = transformer.get_base_model() if hasattr(transformer, "get_base_model") else transformer  # type: ignore[operator]
    return inner


class FittedModel(Fitted):
    """A fitted transformer with its head."""

    def __init__(self, model: PooledModel, precision: PrecisionPolicy) -> None:
        self.model = model
        self._precision = precision
        self.n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.n_trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        """Probabilities of shape (rows, classes)."""
        from harness.training.model import predict_logits, softmax

        token_rows = bench.token_rows(rows, "predict")
        with bench.working("predict"):
            logits = predict_logits(
                self.model,
                token_rows,
                bench.n_classes,
                pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
                device=bench.device,
                precision=bench.precision(self._precision),
            )
            return softmax(logits)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The trained parameters, by their names in the model."""
        return trained_tensors(self.model)


def trained_tensors(model: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Every parameter that requires a gradient, on the host."""
    return {
        name: np.asarray(parameter.detach().cpu().numpy())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
