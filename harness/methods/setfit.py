"""Contrastive fine-tuning of a sentence encoder with few labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.backbones import Architecture
from harness.measure import PrecisionPolicy
from harness.methods._encoder import encoder_flops, encoder_of_texts
from harness.methods._frozen import unit_length
from harness.methods._gradient import TrainedMethod, expected_parameters, trained_tensors
from harness.methods._logistic import Logistic, expected_logistic, logistic_tensors
from harness.methods.base import ENCODER, Choice, Fitted, Range, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.linear_probe import LinearProbe
from harness.methods.restoring import check_tensors
from harness.records import FORWARD_AND_BACKWARD, Budget, FitLength, Workload
from harness.tasks import Floats, Ints, Rows

if TYPE_CHECKING:
    from harness.measure import FlopsModel
    from harness.training import Inputs, PooledModel


@method
class SetFit(TrainedMethod):
    """Move texts of a class together and texts of different classes apart, then fit a logistic regression on top.

    Pairs (u, v) of training texts are drawn, as many of one class (s = 1) as of two (s = 0). The loss is
    sentence-transformers' CosineSimilarityLoss:

        minimise  mean of (cos(u, v) - s)^2,    then  p = softmax(W z / |z| + b)

    It trains the whole transformer. The classifier is fitted on all training rows. Few labels give many pairs: the
    method is meant for a handful of labels per class.

    Attributes:
        n_pairs: pairs of each sign drawn for each training text, in one epoch.
        max_steps: longest default fit, used where the budget names neither epochs nor steps. Beyond a few hundred
            texts, an epoch of pairs takes hours and no longer helps.
        c: inverse penalty of the logistic regression (scikit-learn's C); None chooses it by folds of the training
            rows, like `linear-probe`. The features were already fitted to the same labels, so folds mislead; the
            default is therefore scikit-learn's own, as in the reference implementation.
    """

    name = "setfit"
    family = "contrastive"
    role = "fine-tuning"
    trains = "the transformer on pairs of texts, then a logistic regression"
    source = "Tunstall et al., 2022, arXiv:2209.11055; Reimers and Gurevych, 2019, arXiv:1908.10084 (the loss)"
    serves_pairs: ClassVar[bool] = False
    serves: ClassVar[frozenset[Architecture]] = ENCODER
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-5, 2e-4, log=True),
        "n_pairs": Choice((5, 10, 20)),
    }

    n_pairs: int = Field(default=20, ge=1)
    c: float | None = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    epochs: float = Field(default=1, gt=0)
    min_steps: int = Field(default=1, ge=1)
    max_steps: int = Field(default=240, ge=1)

    def fit_length(self) -> FitLength:
        """Return an epoch of pairs, or `max_steps`; then each text once."""
        length = super().fit_length()
        return replace(
            length, max_steps=self.max_steps, items_per_label=2 * self.n_pairs, texts_per_item=2, reads_after=1
        )

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: steps of pairs, two texts each; then each training text once, for the classifier."""
        return Workload(
            encoded=n_train,
            steps=self.n_steps(2 * self.n_pairs * n_train, budget),
            texts_per_step=self.fit_length().texts_per_step(n_train),
            pieces=self.accumulation,
            passes_per_text=FORWARD_AND_BACKWARD,
            share_trained=1.0,
            texts_per_answer=1.0,
        )

    def warm_up(self) -> None:
        """Start the logistic regression's solver too."""
        super().warm_up()
        LinearProbe().warm_up()

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train on pairs until the budget is spent, then fit the classifier on the new features."""
        import torch

        from harness.training import (
            PREDICT_ROWS,
            PairInputs,
            ParameterGroup,
        )

        token_rows = bench.token_rows(rows, "encode")
        labels = rows.known_labels
        model = encoder_of_texts(bench)
        inside, outside = self.carve(rows, bench)
        pad_id = int(bench.some_backbone.tokenizer.pad_token_id)
        with bench.working("fit"):
            flops = encoder_flops(self.name, model, bench, backward=True)
            forward = encoder_flops(self.name, model, bench, backward=False)
            there = bench.device.torch_device()
            inputs = PairInputs(model, token_rows, n_pairs=self.n_pairs, pad_id=pad_id, compact=True, device=there)
            batches = inputs.batches(inside, labels[inside], batch_size=self.batch_size, seed=bench.seed)
            decay = 1.0
            if len(batches) == 0:  # a single text has no pair
                bench.ledger.remarks["pairs"] = "none: fewer than two training texts"
            else:
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
                    evaluate=self._evaluation(inputs, token_rows, outside, labels[outside], forward, bench),
                )
                decay = outcome.decay[0]
            inputs.close(decay)
        model.eval()
        features = self._features(model, token_rows, bench)
        bench.ledger.train_flops += forward.rows([len(row) for row in token_rows], PREDICT_ROWS[bench.device.kind])
        bench.ledger.train_tokens += sum(len(row) for row in token_rows)
        probe = LinearProbe(c=self.c, precision=self.precision)
        return _Fitted(model, probe.fit_penalised(features, labels, bench), self.precision)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return the saved transformer and classifier."""
        import torch

        model = encoder_of_texts(bench)
        classifier = expected_logistic(bench.n_outputs, bench.some_backbone.hidden_size)
        check_tensors(tensors, {**expected_parameters(model), **classifier})
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(tensors[name]))
        return _Fitted(model.eval(), Logistic(tensors["weights"], tensors["bias"], 0), self.precision)

    def _features(self, model: PooledModel, token_rows: list[npt.NDArray[np.int32]], bench: Bench) -> Floats:
        """Return pooled vectors of length 1, as the loss compares them, shape (rows, width)."""
        with bench.working("fit"):
            return _unit_vectors(model, token_rows, bench, self.precision)

    def _evaluation(
        self,
        inputs: Inputs,
        token_rows: list[npt.NDArray[np.int32]],
        positions: Ints,
        targets: Ints,
        forward: FlopsModel,
        bench: Bench,
    ) -> Any:
        """Return a function that gives minus the loss over all pairs of the validation rows; None below two rows."""
        if len(positions) < 2:
            return None
        from harness.training import PREDICT_ROWS

        lengths = [len(token_rows[position]) for position in positions]
        spent = forward.rows(lengths, PREDICT_ROWS[bench.device.kind])

        def evaluate() -> tuple[tuple[float, ...], float]:
            width = bench.some_backbone.hidden_size
            vectors = inputs.logits(positions, width, bench.device, bench.precision(self.precision))
            unit = unit_length(vectors)
            same = (targets[:, None] == targets[None, :]).astype(np.float32)
            upper = np.triu_indices(len(positions), 1)
            return (-float(((unit @ unit.T - same)[upper] ** 2).mean()),), spent

        return evaluate


class _Fitted(Fitted):
    def __init__(self, model: PooledModel, classifier: Logistic, precision: PrecisionPolicy) -> None:
        self.model = model
        self._classifier = classifier
        self._precision = precision
        n_transformer = sum(parameter.numel() for parameter in model.parameters())
        self.n_parameters = self.n_trainable = n_transformer + classifier.weights.size + classifier.bias.size

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        token_rows = bench.token_rows(rows, "predict")
        with bench.working("predict"):
            return self._classifier.probabilities(_unit_vectors(self.model, token_rows, bench, self._precision))

    def adapted_model(self) -> PooledModel:
        return self.model

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {**trained_tensors(self.model), **logistic_tensors(self._classifier)}


def _unit_vectors(
    model: PooledModel, token_rows: list[npt.NDArray[np.int32]], bench: Bench, policy: PrecisionPolicy
) -> Floats:
    vectors = model.predict_logits(
        token_rows,
        bench.some_backbone.hidden_size,
        pad_id=int(bench.some_backbone.tokenizer.pad_token_id),
        device=bench.device,
        precision=bench.precision(policy),
    )
    return unit_length(vectors)
