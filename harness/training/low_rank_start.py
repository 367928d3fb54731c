"""Initial values of LoRA's matrices, which peft computes on a stand-in for each adapted layer.

Some of peft's initialisations change the matrix that they start from, so that the sum stays as it was. Cells share that
matrix. So peft gets a copy of it, and its change is kept as a second, fixed pair of matrices (`START`), whose product
is subtracted:

    h = W x + s (B A x - B_0 A_0 x)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import nn

from harness.support import UnsupportedError
from harness.training.low_rank_steps import LowRankPair

TRAINED: Final = "default"
"""Name that peft gives the trained pair."""

READING: Final = frozenset({"eva", "corda", "lora-ga"})
"""Initialisations that read training texts."""

START: Final = "start"
"""Name of the fixed pair that is subtracted."""


def lora_layers(transformer: nn.Module) -> dict[str, Any]:
    """Return peft's layers with a trained pair, by the names of the layers that they adapt in the transformer."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in transformer.named_modules()
        if TRAINED in getattr(module, "lora_A", ())
    }


def low_rank_pairs(transformer: nn.Module) -> list[LowRankPair]:
    """Return the trained pairs of a transformer that peft has given LoRA."""
    return [
        LowRankPair(layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight, float(layer.scaling[TRAINED]))
        for layer in lora_layers(transformer).values()
    ]


class LowRankStart:
    """The initial values of a fit.

    Args:
        transformer: a transformer that peft has given LoRA, with peft's default values.
        init: an initialisation by the name that the method has for it.
    """

    def __init__(self, transformer: nn.Module, init: str) -> None:
        self._layers = lora_layers(transformer)
        self._init = init
        self._components: dict[str, Any] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    @property
    def n_weights(self) -> int:
        """Number of weights of the adapted matrices."""
        return sum(layer.in_features * layer.out_features for layer in self._layers.values())

    def read(self, run: Callable[[], torch.Tensor], mask: torch.Tensor) -> None:
        """Note what the initialisation needs of one batch.

        Args:
            run: returns the loss of the batch, of a model in evaluation mode.
            mask: 0 for padding, shape (..., length).
        """
        if self._init == "lora-ga":
            self._add_gradients(run)
            return
        inputs = self._inputs_of(run)
        rows = mask.reshape(-1, mask.shape[-1]) > 0
        if self._init == "eva":
            self._add_components(inputs, rows)
        else:
            self._add_products(inputs, rows)

    def apply(self, original: Callable[[str], torch.Tensor] | None = None) -> None:
        """Set the values of every pair.

        Args:
            original: function from the name of an adapted layer to its matrix before it was quantised, for LoftQ.

        Raises:
            UnsupportedError: the batches had too few tokens.
        """
        for name, layer in self._layers.items():
            if self._init in READING and name not in self._counts:  # a layer that never runs keeps peft's values
                continue
            if self._init == "eva":
                self._set_components(name, layer)
            elif self._init == "loftq":
                assert original is not None
                _set_residual(layer, original(name))
            else:
                self._set_by_peft(name, layer)
            if START in layer.lora_A:
                with torch.no_grad():
                    layer.lora_A[START].weight.copy_(layer.lora_A[TRAINED].weight)
                    layer.lora_B[START].weight.copy_(-layer.lora_B[TRAINED].weight)

    def _set_by_peft(self, name: str, layer: Any) -> None:
        """Have peft compute the values on a copy of the layer's matrix; both parameters stay the same objects."""
        pair = [layer.lora_A[TRAINED], layer.lora_B[TRAINED]]
        parameters = [module.weight for module in pair]
        before = [parameter.data for parameter in parameters]
        with _standing_in(layer, needs_values=self._init != "orthogonal") as stand_in:
            self._run_peft(name, layer, stand_in)
            found = [module.weight.detach() for module in pair]
        with torch.no_grad():
            for module, parameter, own, values in zip(pair, parameters, before, found, strict=True):
                parameter.data = own
                parameter.copy_(values)
                module.weight = parameter

    def _run_peft(self, name: str, layer: Any, stand_in: nn.Linear) -> None:
        if self._init == "corda":
            _give_covariance(stand_in, self._sums[name] / self._counts[name], layer.r[TRAINED])
            layer.corda_init(TRAINED, "corda")
        elif self._init == "lora-ga":
            from peft import LoraGAConfig

            stand_in._peft_loraga_grad = self._sums[name] / self._counts[name]
            layer.lora_ga_init(TRAINED, LoraGAConfig())
        elif self._init.startswith("pissa"):
            layer.pissa_init(TRAINED, self._init.replace("-", "_"))
        else:
            getattr(layer, f"{self._init}_init")(TRAINED)

    def _inputs_of(self, run: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the inputs of the adapted layers; the first ones where a layer runs several times."""
        found: dict[str, torch.Tensor] = {}

        def note(name: str) -> Any:
            def hook(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                found.setdefault(name, given[0].detach())

            return hook

        hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in self._layers.items()]
        try:
            with torch.no_grad():
                run()
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _add_components(self, inputs: dict[str, torch.Tensor], rows: torch.Tensor) -> None:
        """Update the principal components of the inputs; layers that read the same tensor share them."""
        from peft.utils.incremental_pca import IncrementalPCA

        by_tensor = defaultdict(list)
        for name, values in inputs.items():
            by_tensor[values.data_ptr(), values.shape].append(name)
        for names in by_tensor.values():
            for name in names:
                self._counts[name] += 1
            tokens = _tokens(inputs[names[0]], rows)
            rank = max(self._layers[name].r[TRAINED] for name in names)
            if len(tokens) < 2 * rank:  # peft's decomposition takes twice as many directions as are asked for
                continue
            known = self._components.get(names[0])
            # As peft's own hook has it.
            known = known or IncrementalPCA(n_components=rank, copy=True, lowrank=True, lowrank_seed=42)
            known.partial_fit(tokens)
            self._components.update(dict.fromkeys(names, known))

    def _set_components(self, name: str, layer: Any) -> None:
        known, rank = self._components.get(name), layer.r[TRAINED]
        if known is None:
            raise UnsupportedError(
                f"init=eva takes {rank} directions from the training texts, and no batch of them has {2 * rank} "
                "tokens. Use a smaller rank, more rows, or init=default."
            )
        with torch.no_grad():
            layer.lora_A[TRAINED].weight.copy_(known.components_[:rank])
            layer.lora_B[TRAINED].weight.zero_()

    def _add_products(self, inputs: dict[str, torch.Tensor], rows: torch.Tensor) -> None:
        """Add X^T X of each text, where X are its inputs divided by the largest of them, as peft has it."""
        for name, values in inputs.items():
            texts = _texts(values, rows)
            total = sum((_product(text) for text in texts), start=torch.zeros((), device=values.device))
            if not bool(torch.isfinite(total).all()):
                raise FloatingPointError(f"The inputs of layer '{name}' are not finite.")
            self._add(name, total, len(texts))

    def _add_gradients(self, run: Callable[[], torch.Tensor]) -> None:
        """Add the gradients of the loss by the adapted matrices, shape (outputs, inputs)."""
        weights = {name: layer.get_base_layer().weight for name, layer in self._layers.items()}
        for weight in weights.values():
            weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                loss = run()
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        finally:
            for weight in weights.values():
                weight.requires_grad_(False)
        for (name, layer), gradient in zip(self._layers.items(), found, strict=True):
            if gradient is not None:
                self._add(name, (gradient.T if layer.fan_in_fan_out else gradient).float(), 1)

    def _add(self, name: str, values: torch.Tensor, count: int) -> None:
        self._sums[name] = self._sums[name] + values if name in self._sums else values
        self._counts[name] += count


@contextmanager
def _standing_in(layer: Any, *, needs_values: bool) -> Iterator[nn.Linear]:
    """Put a float32 copy of an adapted layer in its place, which peft may write to."""
    real, transposed = layer.base_layer, layer.fan_in_fan_out
    stand_in = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    if needs_values:
        values = real.weight.detach()
        copied = (values.T if transposed else values).to(torch.float32, copy=True).contiguous()
        stand_in.weight = nn.Parameter(copied, requires_grad=False)
    layer.base_layer, layer.fan_in_fan_out = stand_in, False
    try:
        yield stand_in
    finally:
        layer.base_layer, layer.fan_in_fan_out = real, transposed


def _give_covariance(stand_in: Any, covariance: torch.Tensor, rank: int) -> None:
    """Have peft decompose W C, and keep the first directions (the paper's instruction-previewed mode)."""
    from peft.tuners.lora.corda import collect_eigens_for_layer

    stand_in.covariance_matrix = covariance
    unread: Any = None  # peft asks for a configuration, and does not read it
    there = covariance.device
    with torch.cuda.device(there) if there.type == "cuda" else nullcontext():  # peft names no number of a device
        found = collect_eigens_for_layer(stand_in, unread)
    found.S_WC = found.S_WC[:rank].clone()
    found.U_WC = found.U_WC[:, :rank].to(there)
    found.V_WC = found.V_WC[:, :rank].to(there)
    stand_in.eigens = found


@torch.no_grad()
def _set_residual(layer: Any, original: torch.Tensor) -> None:
    """Set the product to the best approximation of what quantising lost (LoftQ with one iteration)."""
    from harness.training.quantised import dequantise

    weight = layer.get_base_layer().weight
    lost = original.to(weight.device, torch.float32) - dequantise(weight, torch.float32)
    rank = layer.r[TRAINED]
    left, sizes, right = torch.linalg.svd(lost, full_matrices=False)
    roots = (sizes[:rank] / layer.scaling[TRAINED]).sqrt()
    layer.lora_A[TRAINED].weight.copy_(roots[:, None] * right[:rank])
    layer.lora_B[TRAINED].weight.copy_(left[:, :rank] * roots)


def _tokens(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the inputs of real tokens, shape (tokens, width)."""
    if values.shape[:-1] == rows.shape:
        return values[rows].float()
    return values.reshape(-1, values.shape[-1]).float()


def _texts(values: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
    """Return the inputs of each text, shape (tokens, width)."""
    if values.shape[:-1] == rows.shape:
        return [text[real].float() for text, real in zip(values, rows, strict=True)]
    return [text.reshape(-1, text.shape[-1]).float() for text in (values if values.dim() > 2 else values[None])]


def _product(text: torch.Tensor) -> torch.Tensor:
    scaled = text / text.max().abs()
    return scaled.T @ scaled
