"""Contrastive fine-tuning for similarity: move the vectors of alike texts together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.backbones import Architecture
from harness.measure import PrecisionPolicy
from harness.methods._encoder import encoder_flops, encoder_of_texts
from harness.methods._gradient import TrainedMethod, expected_parameters, trained_tensors
from harness.methods.base import ENCODER, Fitted, Range, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.cosine_similarity import cosines
from harness.methods.restoring import Expected, check_tensors
from harness.records import FORWARD_AND_BACKWARD, Budget, FitLength, Workload
from harness.tasks import Floats, Form, Ints, Rows

if TYPE_CHECKING:
    from harness.features import TokenIds
    from harness.measure import FlopsModel
    from harness.training import GivenPairs, PooledModel


@method
class ContrastiveCosine(TrainedMethod):
    """Train the transformer so that the cosine of two texts' vectors is their similarity; each text is read alone.

    Targets y are moved to the range from 0 to 1. The loss is sentence-transformers' CosineSimilarityLoss:

        minimise  mean of (cos(u, v) - y)^2,    then  estimate = a + b cos(u, v)

    It trains the whole transformer. The line (a, b) is fitted to the training rows by least squares. Vectors of texts
    can be kept, so that a text is compared with a million others at the price of one.
    """

    name = "contrastive-cosine"
    family = "contrastive"
    role = "fine-tuning"
    trains = "the transformer on pairs of texts, then a line from cosines to targets"
    source = "Reimers and Gurevych, 2019, arXiv:1908.10084"
    forms: ClassVar[frozenset[Form]] = frozenset({"number"})
    needs_pairs: ClassVar[bool] = True
    serves: ClassVar[frozenset[Architecture]] = ENCODER
    search_space: ClassVar[SearchSpace] = {"learning_rate": Range(1e-5, 2e-4, log=True)}

    learning_rate: float = Field(default=5e-5, gt=0)

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: steps of pairs, two texts each."""
        return Workload(
            steps=self.n_steps(n_train, budget),
            texts_per_step=2 * min(self.batch_size, max(1, n_train)),
            pieces=self.accumulation,
            passes_per_text=FORWARD_AND_BACKWARD,
            share_trained=1.0,
            encoded=2.0 * n_train,
            texts_per_answer=2.0,
        )

    def fit_length(self) -> FitLength:
        """Return the steps of a fit; each pair is two texts, and both are read once more at the end."""
        return replace(super().fit_length(), texts_per_item=2, reads_after=2)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train until the budget is spent, then fit the line."""
        import torch

        from harness.training import PREDICT_ROWS, GivenPairs, ParameterGroup

        sides = [bench.token_rows(side, "encode") for side in bench.kind.sides(rows)]
        model = encoder_of_texts(bench)
        inside, outside = self.carve(rows, bench)
        truth = rows.known_labels
        low, width = float(truth.min()), float(np.ptp(truth)) or 1.0
        targets = np.asarray((truth - low) / width, dtype=np.float32)
        pad_id = bench.some_backbone.pad_id
        with bench.working("fit"):
            flops = encoder_flops(self.name, model, bench, backward=True)
            forward = encoder_flops(self.name, model, bench, backward=False)
            there = bench.device.torch_device()
            inputs = GivenPairs(model, *sides, pad_id=pad_id, compact=True, device=there)
            batches = inputs.batches(inside, targets[inside], batch_size=self.batch_size, seed=bench.seed)
            torch.manual_seed(bench.seeded("dropout"))
            outcome = self.optimise(
                model,
                batches,
                bench,
                forward=inputs.forward,
                loss=inputs.loss,
                groups=[ParameterGroup(list(model.parameters()), self.learning_rate, self.weight_decay)],
                flops=flops,
                precision=bench.precision(self.precision),
                evaluate=self._evaluation(inputs, sides, outside, targets[outside], forward, bench),
            )
            inputs.close(outcome.decay[0])
        model.eval()
        with bench.working("fit"):
            found = _cosines(model, sides, bench, self.precision).astype(np.float64)
            spread = float(((found - found.mean()) ** 2).sum())
            slope = float(((found - found.mean()) * (truth - truth.mean())).sum()) / spread if spread > 0 else 0.0
        lengths = [len(ids) for side in sides for ids in side]
        bench.ledger.train_flops += forward.rows(lengths, PREDICT_ROWS[bench.device.kind])
        bench.ledger.train_tokens += sum(lengths)
        line = np.array([float(truth.mean()) - slope * float(found.mean()), slope], dtype=np.float64)
        return _Fitted(model, line, self.precision)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the saved transformer and line."""
        import torch

        model = encoder_of_texts(bench)
        check_tensors(tensors, {**expected_parameters(model), _LINE: Expected((2,), "float64")})
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(tensors[name]))
        return _Fitted(model.eval(), tensors[_LINE], self.precision)

    def _evaluation(
        self,
        inputs: GivenPairs,
        sides: list[list[TokenIds]],
        positions: Ints,
        targets: Floats,
        forward: FlopsModel,
        bench: Bench,
    ) -> Any:
        """Return a function that gives minus the loss over the validation pairs; None without any."""
        if len(positions) == 0:
            return None
        from harness.training import PREDICT_ROWS

        lengths = [len(side[position]) for side in sides for position in positions]
        spent = forward.rows(lengths, PREDICT_ROWS[bench.device.kind])

        def evaluate() -> tuple[tuple[float, ...], float]:
            width, precision = bench.some_backbone.hidden_size, bench.precision(self.precision)
            first, second = (
                inputs.logits(texts, width, bench.device, precision) for texts in inputs.texts_of(positions).T
            )
            return (-float(((cosines(first, second) - targets) ** 2).mean()),), spent

        return evaluate


_LINE = "line"
"""Name of the saved tensor of (a, b)."""


class _Fitted(Fitted):
    def __init__(self, model: PooledModel, line: npt.NDArray[np.float64], precision: PrecisionPolicy) -> None:
        self.model = model
        self._line = line
        self._precision = precision
        self.n_parameters = self.n_trainable = sum(p.numel() for p in model.parameters()) + line.size

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        sides = [bench.token_rows(side, "predict") for side in bench.kind.sides(rows)]
        with bench.working("predict"):
            found = _cosines(self.model, sides, bench, self._precision).astype(np.float64)
            return np.asarray(self._line[0] + self._line[1] * found, dtype=np.float32)[:, None]

    def adapted_model(self) -> PooledModel:
        return self.model

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {**trained_tensors(self.model), _LINE: self._line}


def _cosines(model: PooledModel, sides: list[list[TokenIds]], bench: Bench, policy: PrecisionPolicy) -> Floats:
    """Return the cosine of each pair, shape (pairs,)."""
    first, second = (
        model.predict_logits(
            side,
            bench.some_backbone.hidden_size,
            pad_id=bench.some_backbone.pad_id,
            device=bench.device,
            precision=bench.precision(policy),
        )
        for side in sides
    )
    return cosines(first, second)
