"""Base class of methods that train a small network by gradient on frozen features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.features import sequences_of, starts_of
from harness.measure import FlopsModel
from harness.methods._answers import read_state
from harness.methods._frozen import FittedOnFeatures, FrozenFeatures
from harness.methods._gradient import Evaluate, SupervisedMethod, expected_parameters, trained_tensors
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.methods.restoring import check_tensors
from harness.records import Budget, Workload
from harness.tasks import Floats, Form, Ints, Labels, Rows, words_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training import Batches, Classes


class TrainedOnFeatures(FrozenFeatures, SupervisedMethod):
    """Train a network on the pooled vectors of the frozen backbone.

    The vectors never change, so each text is encoded once and only the network runs in a step. `precision` applies
    to encoding; training is in float32.

    Attributes:
        learning_rate: peak learning rate of the network.
    """

    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices", "number", "labels", "tags"})
    needs_plain_head: ClassVar[bool] = True

    learning_rate: float = Field(default=3e-3, gt=0)

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each text is encoded once, and steps run a small network alone."""
        return Workload(encoded=n_train, steps=self.n_steps(n_train, budget), texts_per_answer=1.0)

    def halved(self) -> None:
        """Return None: encoding takes the memory, and it has its own batches."""
        return

    @abstractmethod
    def network(self, width: int, bench: Bench) -> nn.Module:
        """Return a sequence of layers from vectors of shape (rows, width) to logits of shape (rows, outputs).

        Where answers are choices, it gives each vector one score. Where they are tags, a vector is a word's.
        """

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode once, then train the network until the budget is spent."""
        from harness.training import ParameterGroup

        features = self.features(rows, bench, "encode")
        labels = rows.known_labels
        form = plain_form(bench)
        state = form.state(labels)
        targets = form.targets(labels, state)
        with bench.clock.phase("load"):
            model = self._build(bench)
        with bench.working("fit"):
            inside, outside = self.carve(rows, bench)
            if self.class_weights == "none":
                form.start(model, labels[inside])
            batches = self._batches(features, targets, rows, inside, bench)
            held_out = features[_vectors_of(rows, outside, bench)]
            forward, training = row_flops(model)
            texts_per_row = 1 if features.ndim == 2 else features.shape[1]
            self.optimise(
                model,
                batches,
                bench,
                groups=[ParameterGroup(list(model.parameters()), self.learning_rate, self.weight_decay)],
                flops=FlopsModel(per_row=training * texts_per_row),
                precision="fp32",
                loss=self.training_loss(labels[inside], bench),
                evaluate=self._evaluation(model, held_out, labels[outside], state, forward, bench),
            )

            def predict() -> Floats:
                bench.ledger.train_flops += forward * len(held_out)
                return form.answers(_logits_of(model, held_out, bench.device.torch_device()))

            state = self.conclude(state, predict, rows, outside, bench)
        return _FittedNetwork(self, bench, model, state)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the saved network, which reads features of the same backbone."""
        import torch

        model = self._build(bench)
        check_tensors(tensors, expected_parameters(model))
        model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        return _FittedNetwork(self, bench, model.eval(), read_state(state.get("answers"), bench))

    def _batches(self, features: Floats, targets: Labels, rows: Rows, inside: Ints, bench: Bench) -> Batches:
        """Return batches of the rows at `inside`; where words are tagged, all words of a row are in one batch."""
        from harness.training import FeatureBatches

        counts = words_of(rows.take(inside)) if bench.kind.form == "tags" else None
        at = _vectors_of(rows, inside, bench)
        return FeatureBatches(
            features[at],
            targets[at],
            batch_size=self.batch_size,
            seed=bench.seed,
            device=bench.device.torch_device(),
            counts=counts,
        )

    def _build(self, bench: Bench) -> nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("head"))
            model = self.network(self.width(bench), bench)
            if bench.kind.form == "choices":
                model = _each_choice(model)
        return model.to(bench.device.torch_device())

    def _evaluation(
        self,
        model: nn.Module,
        features: Floats,
        labels: Labels,
        state: Mapping[str, Any],
        forward_flops: float,
        bench: Bench,
    ) -> Evaluate | None:
        """Return a function that scores the validation rows; None without any."""
        if len(labels) == 0:
            return None
        form = plain_form(bench)
        n_scores = 1 if bench.kind.form == "choices" else bench.n_outputs

        def evaluate() -> tuple[tuple[float, ...], float]:
            model.eval()
            logits = _logits_of(model, features, bench.device.torch_device())
            model.train()
            # The same comparison as in fine-tuning: the metric, then the loss, since small splits often tie.
            return form.quality(logits, labels, state, bench), forward_flops * logits.size / n_scores

        return evaluate


def _vectors_of(rows: Rows, chosen: Ints, bench: Bench) -> Ints:
    """Return the positions of the vectors of the rows at `chosen`: their own, or those of their words."""
    return sequences_of(starts_of(words_of(rows)), chosen) if bench.kind.form == "tags" else chosen


def plain_form(bench: Bench) -> Classes:
    """Return the form of answers whose head reads one vector."""
    from harness.training import Classes

    form = bench.form
    assert isinstance(form, Classes)
    return form


def _each_choice(network: nn.Module) -> nn.Module:
    """Return a module that scores every choice of a row: from (rows, choices, width) to (rows, choices)."""
    from torch import nn

    from harness.training import NO_SCORE

    class EachChoice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            exists = ~features[..., 0].isnan()
            scores: torch.Tensor = self.network(features.nan_to_num()).squeeze(-1)
            return scores.masked_fill(~exists, NO_SCORE)

    return EachChoice()


def _logits_of(model: nn.Module, features: Floats, device: torch.device) -> Floats:
    """Return logits of shape (rows, classes), on the host."""
    import torch

    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(features).to(device)).float().cpu().numpy())


def row_flops(model: nn.Module) -> tuple[float, float]:
    """Return the operations of one row through a sequence of linear layers: (forward, forward and backward).

    Each layer has three products: forward, gradient of the weights, gradient of the inputs. The first layer's inputs
    are features, which need no gradient.
    """
    from torch import nn

    sizes = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)]
    return 2.0 * sum(sizes), 4.0 * sum(sizes) + 2.0 * sum(sizes[1:])


class _FittedNetwork(FittedOnFeatures):
    def __init__(self, method: TrainedOnFeatures, bench: Bench, model: nn.Module, answers: Mapping[str, Any]) -> None:
        super().__init__(method, bench, sum(parameter.numel() for parameter in model.parameters()))
        self.model = model
        self._answers = answers

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        form = plain_form(bench)
        raw = form.answers(_logits_of(self.model, features, bench.device.torch_device()))
        return np.asarray(form.finish(raw, self._answers))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return trained_tensors(self.model)

    def state(self) -> dict[str, Any]:
        return {"answers": dict(self._answers)} if self._answers else {}
