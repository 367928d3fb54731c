"""Train the backbone's architecture from random weights, to measure the benefit of pretraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods.base import method
from harness.methods.bench import Bench
from harness.methods.full import Full

if TYPE_CHECKING:
    from torch import nn


@method
class FromScratch(Full):
    """Train a transformer of the backbone's architecture from random weights, with the backbone's tokenizer.

    The loss is that of `full`; only the start w_0 differs:

        w_0 ~ transformers' own initialisation, drawn with the cell's seed

    The difference between `full` and this method is the benefit of pretraining. Pooling and longest input are the
    backbone's.
    """

    name = "from-scratch"
    family = "baseline"
    role = "from scratch"
    trains = "everything, from random weights"
    source = "Devlin et al., 2019, arXiv:1810.04805 (the architecture); transformers' own initialisation"

    rate_falls_with_width: ClassVar[bool] = False

    learning_rate: float = Field(default=3e-4, gt=0)
    epochs: float = Field(default=8, gt=0)

    def start(self, bench: Bench) -> nn.Module:
        """Return the transformer with random weights, initialised by transformers with the cell's seed."""
        import torch

        from harness.backbones import make_room

        device = bench.device.torch_device()
        with bench.clock.phase("load"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("random weights"))
            make_room(device)
            return bench.form.random(bench, device)
