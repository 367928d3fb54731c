"""Base class of methods that treat the blocks of a transformer according to depth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from harness.backbones import BackboneFiles
from harness.methods._fine_tuning import FineTuning
from harness.tasks import Form

if TYPE_CHECKING:
    from torch import nn

MISORDERED: Final = (
    *("bart", "mbart", "mvp", "plbart", "blenderbot-small", "led", "prophetnet"),  # a norm of the embeddings
    *("opt", "cpmant"),  # a final norm
    *("xlm", "flaubert"),  # feed-forward layers and norms in lists of their own
    "layoutlmv3",  # relative positions
)
"""Model types whose registration order differs from the order of computation; version 1 used the former."""


class ByDepth(FineTuning):
    """A method that trains some depths earlier, faster or alone."""

    mended: ClassVar[Mapping[str, int]] = dict.fromkeys(MISORDERED, 2)

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version also for a DeBERTa with a convolution after its first block."""
        version = super().version_on(files, form)
        if files is not None and files.model_type == "deberta-v2" and _has_convolution(files):
            return max(version, 2)
        return version

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that lists the model types with a later version."""
        return f"{super().later_versions()}; version 2 on a deberta-v2 with a convolution"

    def check(self, transformer: nn.Module) -> None:
        """Refuse a transformer whose blocks cannot be told apart."""
        from harness.training import Stack

        super().check(transformer)
        _ = Stack(transformer).all_blocks


def _has_convolution(files: BackboneFiles) -> bool:
    config = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("conv_kernel_size"))
