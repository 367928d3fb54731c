"""How far a fit has moved the transformer from the pretrained one, on outside text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOSS_UNIT: Final = "nats per token"
CHANGE_UNIT: Final = "1 - CKA"


@dataclass(frozen=True)
class Forgetting:
    """Distance of the adapted transformer from the pretrained one, on fixed outside text; None is unknown.

    Methods that train nothing inside the transformer have exact zeros, and no text was read for them.

    Attributes:
        rise_of_loss_nats: mean next-token loss of the adapted model less that of the pretrained model, in nats per
            token; causal backbones only. It may be negative.
        feature_change: 1 - CKA (linear, debiased) of the pooled features before and after; 0 for the same geometry,
            about 1 for unrelated features.
        probe_before, probe_after: accuracy of a linear probe that tells the works of the outside texts apart, on
            features of the pretrained and of the adapted transformer, over the same folds.
        n_texts: number of outside texts that were read.
        outside_text: name and hash of the outside texts; of another project's, a description.
    """

    rise_of_loss_nats: float | None = None
    feature_change: float | None = None
    probe_before: float | None = None
    probe_after: float | None = None
    n_texts: int | None = None
    outside_text: str | None = None

    @property
    def amount(self) -> float | None:
        """The figure of tables: the rise of the loss of a causal backbone, the change of features of others."""
        return self.feature_change if self.rise_of_loss_nats is None else self.rise_of_loss_nats

    @property
    def unit(self) -> str | None:
        """The unit of `amount`."""
        if self.amount is None:
            return None
        return CHANGE_UNIT if self.rise_of_loss_nats is None else LOSS_UNIT
