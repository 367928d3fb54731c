"""LoRA on a transformer quantised to four bits."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from harness.backbones import BackboneFiles
from harness.methods.base import method
from harness.methods.bench import Bench
from harness.methods.lora import Lora
from harness.support import UnsupportedError

if TYPE_CHECKING:
    from torch import nn


@method
class QLora(Lora):
    """LoRA on a backbone whose weight matrices are quantised to 4 bits (bitsandbytes): less memory, more seconds.

    The quantised matrix Q is read back to 16 or 32 bits for each product; only A and B train:

        h = dequantise(Q) x + (alpha / r) B A x

    Norms and embeddings stay in float32.

    Attributes:
        quantisation: `nf4` (the paper's normal float) or `fp4`.
        double_quantisation: whether to quantise the scales too.
    """

    name = "qlora"
    source = "Dettmers et al., 2023, arXiv:2305.14314; peft, bitsandbytes"
    needs = "CUDA, bitsandbytes"
    experimental = "This project has not measured it on a GPU yet."

    targets: Literal["attention", "all-linear"] = "all-linear"
    quantisation: Literal["nf4", "fp4"] = "nf4"
    double_quantisation: bool = True

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also devices other than CUDA, and a missing bitsandbytes."""
        reason = super().why_unsupported(kind, files, device)
        if reason is not None:
            return reason
        if device != "cuda":
            return f"'{self.name}' needs a CUDA device for bitsandbytes' 4-bit kernels; this device is {device}."
        if importlib.util.find_spec("bitsandbytes") is None:
            return f"'{self.name}' needs the package bitsandbytes, which is not installed; pip install bitsandbytes."
        return None

    def check(self, transformer: nn.Module) -> None:
        """Refuse blocks without linear layers, such as GPT-2's."""
        from harness.training import Stack

        super().check(transformer)
        if not any("Linear" in type(module).__name__ for module in Stack(transformer).blocks.modules()):
            raise UnsupportedError(
                f"'{self.name}' quantises linear layers; the blocks of a {type(transformer).__name__} have none. "
                "Use lora."
            )

    def start(self, bench: Bench) -> nn.Module:
        """Return the transformer with its blocks' linear layers in four bits; norms and embeddings stay float32.

        Raises:
            UnsupportedError: the blocks hold no `torch.nn.Linear` (GPT-2's layers are of another class).
        """
        import bitsandbytes as bnb
        import torch

        from harness.training import Stack

        computed_in = torch.bfloat16 if bench.precision(self.precision) == "bf16" else torch.float32
        with bench.clock.phase("load"):
            # On the host, so that the accelerator never holds the full weights.
            transformer = bench.form.pretrained(bench, torch.device("cpu"))
            kept = getattr(transformer, "_keep_in_fp32_modules", None) or []  # T5's `wo`, which reads its own type
            n_quantised = 0
            for block in Stack(transformer).blocks:
                for parent in list(block.modules()):
                    for name, child in list(parent.named_children()):
                        if type(child) is not torch.nn.Linear or name in kept:
                            continue
                        quantised = bnb.nn.Linear4bit(
                            child.in_features,
                            child.out_features,
                            bias=child.bias is not None,
                            compute_dtype=computed_in,
                            compress_statistics=self.double_quantisation,
                            quant_type=self.quantisation,
                        )
                        quantised.load_state_dict(child.state_dict())
                        setattr(parent, name, quantised)
                        n_quantised += 1
            if n_quantised == 0:
                raise UnsupportedError(
                    f"'{self.name}' quantises linear layers; the blocks of this {type(transformer).__name__} have none."
                )
            # Moving to the device quantises the weights.
            return transformer.requires_grad_(False).to(bench.device.torch_device())
