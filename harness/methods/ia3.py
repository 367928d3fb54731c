"""(IA)3: rescale inner activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.backbones import BackboneFiles
from harness.methods._fine_tuning import FineTuning
from harness.methods._modules import feedforward_ends, projections
from harness.methods._peft import PeftMethod, no_projections
from harness.methods.base import Choice, Range, SearchSpace, method
from harness.tasks import Form

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings

_RIGHT_IN_2 = frozenset(
    (
        *("bert", "roberta", "xlm-roberta", "camembert", "electra"),
        *("t5", "gpt2", "bloom", "gpt_neox", "gpt_bigcode", "llama", "mistral", "falcon"),
    )
)
"""Model types on which version 2 was right. On others it refused, or rescaled the wrong activations, e.g. queries."""


@method
class Ia3(PeftMethod):
    """Learn vectors that rescale keys, values and the inner activations of the feed-forward layers.

    Three vectors per block start at 1; `*` is elementwise, and W_out ends the feed-forward network:

        keys = l_k * (W_k x + b_k),    values = l_v * (W_v x + b_v),    h = W_out (l_ff * activation) + b_out

    The layers are found in the modules, since peft's own list is wrong for many architectures. Where one matrix makes
    queries, keys and values (GPT-2, BLOOM, ModernBERT), the queries are rescaled too.
    """

    name = "ia3"
    version: ClassVar[int] = 2
    family = "auxiliary parameters"
    trains = "three scaling vectors per block, and the output layer"
    source = "Liu et al., 2022, arXiv:2205.05638; peft"
    can: ClassVar[frozenset[str]] = frozenset({"merge", "quantise"})
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
    }

    learning_rate: float = Field(default=3e-2, gt=0)

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version on the model types that version 2 did not handle as the paper does."""
        version = FineTuning.version_on(self, files, form)
        return version if files is None or files.model_type in _RIGHT_IN_2 else max(version, 3)

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that lists the model types with a later version."""
        return f"version 3 on all model types but {', '.join(sorted(_RIGHT_IN_2))}"

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration: keys, values, and the inputs of the last layers of feed-forward networks.

        Raises:
            UnsupportedError: the architecture has no such layers.
        """
        from peft import IA3Config

        rescaled = projections(transformer, "kv")
        ends = feedforward_ends(transformer)
        if not rescaled or not ends:
            raise no_projections(self, transformer, "keys and values")
        return IA3Config(target_modules=rescaled + ends, feedforward_modules=ends)
