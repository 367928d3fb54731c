"""Fine-tuning in the Fourier domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.methods._peft import PeftMethod
from harness.methods.base import Choice, Range, SearchSpace, method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings
    from harness.methods.bench import Bench
    from harness.tasks import Rows
    from harness.training import AdaptedModel


@method
class FourierFt(PeftMethod):
    """Learn a few coefficients of the two-dimensional Fourier transform of an addition to each weight matrix.

    F is a matrix of zeros except at `n_frequencies` random places, whose real coefficients train:

        h = W x + scaling * real(IDFT2(F)) x

    The coefficients start at 0, so training starts from the pretrained function. The places follow from the cell's
    seed; they are neither saved nor counted as trained.

    Attributes:
        n_frequencies: number of coefficients per matrix, at positions drawn with the cell's seed.
        scaling: factor of the addition.
    """

    name = "fourierft"
    family = "auxiliary parameters"
    trains = "spectral coefficients of additions to weight matrices, and the output layer"
    source = "Gao et al., 2024, arXiv:2405.03003; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "convert-to-lora", "quantise"})
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-3, 1e-1, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
        "n_frequencies": Choice((200, 1000)),
    }

    n_frequencies: int = Field(default=1000, ge=1)
    scaling: float = Field(default=150.0, gt=0)
    learning_rate: float = Field(default=1e-1, gt=0)

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of FourierFT."""
        from peft import FourierFTConfig

        return FourierFTConfig(
            n_frequency=self.n_frequencies,
            scaling=self.scaling,
            random_loc_seed=bench.seeded("frequencies") % 2**31,
            init_weights=True,  # zeros; peft's default is random, which overwhelms the weights of a narrow model
        )

    def initialise(self, model: AdaptedModel, rows: Rows, bench: Bench) -> None:
        """Move the positions of the coefficients to the device, where peft would copy them in each step."""
        there = bench.device.torch_device()
        for module in model.transformer.modules():
            indices = getattr(module, "indices", None)
            if hasattr(module, "fourierft_spectrum") and isinstance(indices, dict):
                indices.update({name: places.to(there) for name, places in indices.items()})
