"""Bottleneck adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.backbones import BackboneFiles
from harness.methods._fine_tuning import FineTuning, Surroundings
from harness.methods._modules import attention_ends, feedforward_ends
from harness.methods._peft import RATE_AND_EPOCHS
from harness.methods._weights import FrozenWeights
from harness.methods.base import Choice, SearchSpace, method
from harness.support import UnsupportedError
from harness.tasks import Form

if TYPE_CHECKING:
    from torch import nn


@method
class BottleneckAdapter(FrozenWeights, FineTuning):
    """Put a small residual network after each attention and each feed-forward layer; the transformer stays fixed.

    The network projects the layer's output h down to `width`, applies a GELU, projects up and adds its input:

        h <- h + W_up gelu(W_down h + b_down) + b_up

    It starts near the identity, and stands before the block's own residual connection. Architectures whose blocks have
    no linear layer at these places (XLNet, Mamba) are not supported.

    Attributes:
        width: width of the bottleneck.
        train_norms: whether to train the transformer's norms too, as in the paper.
    """

    name = "bottleneck-adapter"
    family = "auxiliary parameters"
    trains = "two bottleneck networks per block, the norms, and the output layer"
    source = "Houlsby et al., 2019, arXiv:1902.00751"
    mended: ClassVar[Mapping[str, int]] = dict.fromkeys(
        (
            # Version 1 did not know the names of their layers, and refused.
            *("albert", "bloom", "codegen", "falcon", "flaubert", "gpt_neox", "gptj", "modernbert"),
            *("modernbert-decoder", "phi", "xlm", "bigbird_pegasus", "led", "prophetnet"),
            "xmod",  # version 1 put adapters after the wrong layers
        ),
        2,
    )
    share_trained: ClassVar[float] = 0.0
    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "width": Choice((8, 32, 64))}

    width: int = Field(default=32, ge=1)
    train_norms: bool = True
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version where version 1 left a decoder without adapters."""
        version = super().version_on(files, form)
        has_decoder = files is not None and files.architecture == "sequence-to-sequence"
        return max(version, 2) if has_decoder and form == "text" else version

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that lists the backbones with a later version."""
        return f"{super().later_versions()}; version 2 on sequence-to-sequence backbones that write texts"

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer with an adapter after every linear layer that ends a sub-layer.

        Raises:
            UnsupportedError: not every block has such layers.
        """
        from harness.training import Stack, WithAdapter

        ends: set[str] = set()
        for part in Stack(transformer).parts:
            place, stack = part.place, part.module
            attention, feedforward = attention_ends(stack), feedforward_ends(stack)
            n_blocks = _own_blocks(stack)
            # A decoder's block has two attentions: to itself and to the encoder's output.
            if len(feedforward) != n_blocks or len(attention) not in (n_blocks, 2 * n_blocks):
                raise UnsupportedError(
                    f"'{self.name}' expects one linear layer that ends attention and one that ends a feed-forward "
                    f"network in each block. It found {len(attention)} and {len(feedforward)} in the {n_blocks} blocks "
                    f"of a {type(stack).__name__}. Use bitfit, prompt-tuning or full."
                )
            ends |= {place + name for name in (*attention, *feedforward)}
        for name in [name for name, _ in transformer.named_modules() if name in ends]:
            parent = transformer.get_submodule(name.rpartition(".")[0])
            last = name.rpartition(".")[2]
            setattr(parent, last, WithAdapter(getattr(parent, last), self.width))
        return transformer

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters of the adapters, and of the norms if they are trained."""
        from harness.training import WithAdapter

        for module in transformer.modules():
            if isinstance(module, WithAdapter):
                yield from module.adapter.parameters()
            elif self.train_norms and type(module).__name__.endswith("Norm"):
                yield from module.parameters(recurse=False)


def _own_blocks(stack: nn.Module) -> int:
    """Return the number of blocks with their own weights; ALBERT's blocks share the weights of a few."""
    from harness.training import Stack

    config: Any = stack.config
    shared = getattr(config, "num_hidden_groups", None)
    return int(shared) * int(config.inner_group_num) if shared else Stack(stack).n_blocks
