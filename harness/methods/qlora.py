"""LoRA on a transformer quantised to four bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.backbones import BackboneFiles
from harness.methods._bitsandbytes import why_no_bitsandbytes
from harness.methods._lora_targets import Targets
from harness.methods.base import method
from harness.methods.bench import Bench
from harness.methods.lora import Lora
from harness.records import bytes_in_4_bits
from harness.support import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn


@method
class QLora(Lora):
    """LoRA on a backbone whose weight matrices are quantised to 4 bits (bitsandbytes): less memory, more seconds.

    The quantised matrix Q is read back to 16 or 32 bits for each product; only A and B train:

        h = dequantise(Q) x + (alpha / r) B A x

    Only the blocks' matrices are quantised, one after another as they are loaded. A CPU runs it too, more slowly than
    `lora`.

    `init` may be one that needs no full matrix, or `loftq`: the product of A and B starts as the best approximation of
    what quantising lost (Li et al., 2023, arXiv:2310.08659, with one iteration).

    Attributes:
        quantisation: `nf4` (the paper's normal float) or `fp4`.
        double_quantisation: whether to quantise the scales too.
    """

    name = "qlora"
    source = "Dettmers et al., 2023, arXiv:2305.14314; peft, bitsandbytes"
    can: ClassVar[frozenset[str]] = frozenset({"convert-to-lora", "quantise", "vllm"})
    needs = "bitsandbytes"
    experimental = "This project has not measured it on a GPU yet."

    inits: ClassVar[frozenset[str]] = frozenset({"default", "gaussian", "orthogonal", "eva", "loftq"})

    targets: Targets = "all-linear"
    quantisation: Literal["nf4", "fp4"] = "nf4"
    double_quantisation: bool = True

    @property
    def quantised_bytes(self) -> float:
        """Bytes of a number in a 4-bit matrix, with its scales."""
        return bytes_in_4_bits(double_quantisation=self.double_quantisation)

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also where bitsandbytes is missing or too old."""
        reason = super().why_unsupported(kind, files, device)
        return reason if reason is not None else why_no_bitsandbytes(f"'{self.name}'")

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
        """Return the transformer with its blocks' linear layers in four bits.

        Raises:
            UnsupportedError: the blocks hold no `torch.nn.Linear` (GPT-2's layers are of another class).
        """
        import torch
        from torch import nn

        from harness.backbones import make_room, structural_copy, types_in
        from harness.training import Stack, quantise_linear_layers

        backbone, precision = bench.some_backbone, bench.precision(self.precision)
        device = bench.device.torch_device()
        with bench.clock.phase("load"):
            make_room(device)
            # On the host: the accelerator never holds the full weights.
            transformer = bench.form.stored(bench)
            whole = list(transformer.parameters())  # held until the end: types are known by id
            types = types_in(transformer, backbone.form(precision, self.weights))
            kept = getattr(transformer, "_keep_in_fp32_modules", None) or []  # T5's `wo`, which reads its own type
            n_quantised = sum(
                quantise_linear_layers(
                    block,
                    device,
                    self.quantisation,
                    double_quantisation=self.double_quantisation,
                    computed_in=torch.bfloat16 if precision == "bf16" else torch.float32,
                    kept=kept,
                )
                for block in Stack(transformer).blocks
            )
            if n_quantised == 0:
                raise UnsupportedError(
                    f"'{self.name}' quantises linear layers; the blocks of this {type(transformer).__name__} have "
                    "none. Use lora."
                )

            def settled(value: nn.Parameter) -> nn.Parameter:
                """Return a parameter as it computes: what is quantised, and what has its form already, is kept."""
                wanted = types.get(id(value), value.dtype)
                if value.device == device and value.dtype is wanted:
                    return value
                return nn.Parameter(value.detach().to(device, wanted), requires_grad=False)

            made = structural_copy(transformer, settled, device).requires_grad_(False)
            del whole
            return made

    def original_matrices(self, bench: Bench) -> Any:
        """Return the function from a layer's name to its matrix as it is on the host, for `loftq`."""
        stored = bench.form.stored(bench)

        def original(name: str) -> torch.Tensor:
            layer: Any = stored.get_submodule(name)
            weight: torch.Tensor = layer.weight
            return weight.detach()

        return original
