"""Linear probe first, then full fine-tuning from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from harness.methods.base import method
from harness.methods.bench import Bench
from harness.methods.full import Full
from harness.methods.linear_probe import LinearProbe
from harness.records import Budget, Workload
from harness.tasks import Form, Rows

if TYPE_CHECKING:
    from harness.training import AdaptedModel


@method
class ProbeThenFull(Full):
    """Fit a linear probe, copy it into the output layer, then train everything (LP-FT).

    The head's weights W and b start from the probe's solution instead of random values:

        (W, b) <- probe(z_1 ... z_n),    then train W, b and the transformer as in full

    A random output layer sends large, useless gradients into good features at first; a fitted one does not. With early
    stopping, the probe sees no validation row.
    """

    name = "probe-then-full"
    trains = "everything, from the probe's output layer"
    source = "Kumar et al., 2022, arXiv:2202.10054"
    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices", "tags"})
    needs_plain_head: ClassVar[bool] = True

    def warm_up(self) -> None:
        """Start the probe's solver too."""
        super().warm_up()
        LinearProbe().warm_up()

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload of full fine-tuning, plus encoding each training text once."""
        return replace(super().workload(n_train, budget, n_blocks), encoded=float(n_train))

    def initialise(self, model: AdaptedModel, rows: Rows, bench: Bench) -> None:
        """Fit the probe on the given rows, and copy it into the head's linear layer."""
        import torch
        from torch import nn

        probe = LinearProbe(precision=self.precision, class_weights=self.class_weights)
        if bench.kind.form == "tags":
            fitted = probe.fit_tags(
                bench.words(rows, "encode", self.precision, word="first", tokenised=True), rows, bench
            )
        else:
            features = bench.pooled(rows, "encode", self.precision, tokenised=True)
            fitted = probe.fit_penalised(features, rows.known_labels, bench)
        [linear] = [module for module in model.head.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(fitted.weights))
            linear.bias.copy_(torch.from_numpy(fitted.bias))
