"""Base class of methods that train weights of the transformer itself, and may keep these in bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from harness.methods._fine_tuning import FineTuning
from harness.methods.bench import Bench
from harness.records import TRAINED_BYTES, Masters
from harness.support import UnsupportedError
from harness.tasks import Rows

if TYPE_CHECKING:
    from harness.methods.base import Fitted
    from harness.records import TrainedBytes
    from harness.training import AdaptedModel


class OwnWeights(FineTuning):
    """Train weights of the transformer itself.

    Attributes:
        masters: how trained matrices of the transformer, gradients and moments are kept. `float32` takes 16 bytes for
            each weight, `bfloat16-stochastic` 8 (stochastic rounding) and `bfloat16-kahan` 10 (Kahan summation). The
            last two need products in bfloat16. Vectors and the output layer stay float32.
    """

    newer_settings: ClassVar[frozenset[str]] = FineTuning.newer_settings | {"masters"}

    masters: Masters = "float32"

    @model_validator(mode="after")
    def _masters_fit(self) -> Self:
        if self.masters == "float32":
            return self
        if (self.optimiser, self.masters) not in TRAINED_BYTES:
            raise ValueError(
                f"optimiser={self.optimiser} needs masters=float32; masters={self.masters} keeps its moments in "
                "bfloat16. Leave one of the two out"
            )
        if self.precision == "fp32":
            raise ValueError(f"masters={self.masters} needs products in bfloat16. Use precision=auto or bf16")
        return self

    def trained_bytes(self) -> TrainedBytes:
        """Return the bytes for each number of a trained matrix."""
        return TRAINED_BYTES[self.optimiser, self.masters]

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Train on the rows until the budget is spent.

        Raises:
            UnsupportedError: matrices are to be kept in bfloat16, and this device computes in float32.
        """
        if self.masters != "float32" and bench.precision(self.precision) == "fp32":
            raise UnsupportedError(
                f"'{self.name}' with masters={self.masters} needs products in bfloat16; this device computes in "
                "float32. Use masters=float32, or precision=bf16 where slow products will do."
            )
        return super().fit(rows, bench)

    def prepare(self, model: AdaptedModel) -> None:
        """Round the trained matrices to bfloat16 if they are kept so."""
        if self.masters != "float32":
            from harness.training import narrow_trained

            narrow_trained(model.transformer)
