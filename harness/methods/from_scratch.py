"""The backbone's architecture with random weights: what does pretraining buy?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods.base import Bench, method
from harness.methods.full import Full

if TYPE_CHECKING:
    from torch import nn


@method
class FromScratch(Full):
    """Train a transformer of the backbone's architecture from random weights; only the tokenizer is taken over.

    What `full` has above it is what pretraining gave.
    """

    name = "from-scratch"
    family = "baseline"
    role = "from scratch"
    trains = "everything, from random weights"
    source = "Devlin et al., 2019, arXiv:1810.04805 (the architecture); transformers' own initialisation"

    learning_rate: float = Field(default=3e-4, gt=0)
    epochs: float = Field(default=8, gt=0)

    def start(self, bench: Bench) -> nn.Module:
        """Random weights, as transformers starts them, from the cell's seed."""
        import torch

        with bench.clock.phase("load"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seeded("random weights"))
            return bench.form.random(bench, bench.device.torch_device())
