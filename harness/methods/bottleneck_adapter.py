"""Bottleneck adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._fine_tuning import FineTuning
from harness.methods._peft import RATE_AND_EPOCHS
from harness.methods.base import Bench, Choice, SearchSpace, method
from harness.methods.workload import THROUGH

if TYPE_CHECKING:
    from torch import nn

_ENDS = ("output.dense", "o_proj", "down_proj", ".o", ".wo", "out_lin", "lin2", "out_proj", "fc2", "c_proj")
"""Names of the linear layers that end a sub-layer: BERT's, Llama's, T5's, DistilBERT's, OPT's and BART's, GPT-2's."""


@method
class BottleneckAdapter(FineTuning):
    """Put a small residual network behind each attention and each feed-forward layer; the transformer stays fixed.

    Down to `width`, a GELU, and up again, added to what came in. It starts near the identity.

    Attributes:
        width: of the bottleneck.
        train_norms: whether the transformer's norms are trained too, as in the paper.
    """

    name = "bottleneck-adapter"
    family = "auxiliary parameters"
    trains = "two bottleneck networks a block, the norms, and the output layer"
    source = "Houlsby et al., 2019, arXiv:1902.00751"
    passes_per_text: ClassVar[float] = THROUGH
    share_trained: ClassVar[float] = 0.0
    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "width": Choice((8, 32, 64))}

    width: int = Field(default=32, ge=1)
    train_norms: bool = True
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def adapt(self, transformer: nn.Module, bench: Bench) -> nn.Module:
        """The transformer with an adapter behind every linear layer that ends a sub-layer."""
        from harness.errors import UnsupportedError
        from harness.training.adapter import WithAdapter
        from harness.training.blocks import transformer_blocks

        n_added = 0
        blocks = transformer_blocks(transformer)
        for block in blocks:
            ends = [name for name, _ in block.named_modules() if f".{name}".endswith(_ENDS)]
            for name in ends:
                parent = block.get_submodule(name.rpartition(".")[0])
                child = getattr(parent, name.rpartition(".")[2])
                setattr(parent, name.rpartition(".")[2], WithAdapter(child, self.width))
                n_added += 1
        if n_added != 2 * len(blocks):
            raise UnsupportedError(
                f"'{self.name}' found {n_added} places for adapters in the {len(blocks)} blocks of a "
                f"{type(transformer).__name__}; expected two a block, behind layers called one of "
                f"{', '.join(end.lstrip('.') for end in _ENDS)}."
            )
        return transformer

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """The adapters, and the norms."""
        from harness.training.adapter import WithAdapter

        for module in transformer.modules():
            if isinstance(module, WithAdapter):
                yield from module.adapter.parameters()
            elif self.train_norms and type(module).__name__.endswith("Norm"):
                yield from module.parameters(recurse=False)
