"""Merge a fitted addition into the weights, or turn it into an addition of LoRA; both for prediction only.

The fitted model stays as it is. The new one shares every weight that stays the same; changed ones are its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from harness.methods._fitted_model import FittedModel
from harness.methods.base import Fitted
from harness.support import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training import AdaptedModel

KEPT_ENERGY: Final = 0.999999
"""Share of an addition's squared singular values that its LoRA keeps where no rank is given."""


_ONE: Final = "sum"
"""Name of the adapter that several are added up to."""

READ_OTHERWISE: Final = frozenset({"LILY"})
"""Types of peft that the harness reads otherwise than peft does, so that their files would mislead."""


class ChangedModel(FittedModel):
    """A fitted model in another form, which predicts and cannot be saved in place of the fitted one."""

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Refuse: the tensors of the method are those of the fitted model."""
        raise UnsupportedError("A merged or converted model is for prediction. Save the model that it was made from.")


def why_not_merged(fitted: Fitted) -> str | None:
    """Return the reason why nothing can be merged into the weights of a fitted model; None where it can."""
    reason = _why_no_addition(fitted)
    if reason is not None:
        return reason
    transformer = _transformer(fitted)
    config = transformer.active_peft_config
    if config.is_prompt_learning or not hasattr(transformer.base_model, "merge_and_unload"):
        return f"What {config.peft_type.value} adds is not a part of a weight matrix."
    if any(hasattr(value, "quant_state") for value in transformer.parameters()):
        return "The matrices are in 4 bits: merging would round them again, and change the predictions."
    return _why_no_layer_merges(transformer)


def merged(fitted: Fitted) -> FittedModel:
    """Return the fitted model with its addition merged into the weights, so that it computes what the backbone does.

    The sum is made in float32 and then stored as the matrix was, so that predictions stay the same up to rounding.

    Raises:
        UnsupportedError: the method adds nothing that can be merged.
    """
    reason = why_not_merged(fitted)
    if reason is not None:
        raise UnsupportedError(f"The model cannot be merged. {reason}")
    assert isinstance(fitted, FittedModel)
    model: Any = _with_own_adapted_weights(fitted.model)
    with warnings.catch_warnings():  # about tied weights
        warnings.simplefilter("ignore")
        model.transformer = model.transformer.merge_and_unload(safe_merge=True)
    _store_as(model, _stored_types(fitted.model))
    return _changed(fitted, model)


def why_not_lora(fitted: Fitted) -> str | None:
    """Return the reason why a fitted addition cannot be turned into one of LoRA; None where it can."""
    reason = _why_no_addition(fitted)
    if reason is not None:
        return reason
    transformer = _transformer(fitted)
    config = transformer.active_peft_config
    if not transformer.supports_lora_conversion():
        return f"peft converts no {config.peft_type.value}: it does not add one matrix to each adapted matrix."
    if getattr(config, "use_dora", False):  # peft converts the addition alone
        return "DoRA also trains the lengths of columns, which LoRA does not have."
    return None


def converted_to_lora(fitted: Fitted, rank: int | None = None) -> FittedModel:
    """Return the fitted model with its addition replaced by the nearest one of LoRA.

    Args:
        fitted: a fitted model whose method adds a matrix to each adapted matrix.
        rank: rank of the LoRA; None takes, for each matrix, the smallest that keeps `KEPT_ENERGY` of the addition.

    Raises:
        UnsupportedError: the method adds nothing of that kind, or a matrix has no such rank.
    """
    reason = why_not_lora(fitted)
    if reason is not None:
        raise UnsupportedError(f"The model cannot be converted to LoRA. {reason}")
    assert isinstance(fitted, FittedModel)
    from peft import convert_to_lora, get_peft_model, set_peft_model_state_dict

    source = _transformer(fitted)
    try:
        with warnings.catch_warnings():  # that a LoRA is one already
            warnings.simplefilter("ignore")
            whole = _as_one_adapter(source)
            name = whole.active_adapters[0]
            config, state = convert_to_lora(whole, rank=KEPT_ENERGY if rank is None else rank, adapter_name=name)
    except ValueError as error:
        raise UnsupportedError(f"The model cannot be converted to LoRA of rank {rank}: {error}") from None
    model: Any = _with_own_adapted_weights(fitted.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = get_peft_model(model.transformer.unload(), config)
        set_peft_model_state_dict(converted, state)
    model.transformer = converted.to(next(source.parameters()).device)
    _store_as(model, _stored_types(fitted.model))
    return _changed(fitted, model)


def save_adapter(transformer: Any, folder: Path) -> None:
    """Write what peft added to a transformer into a folder, in peft's format, as one adapter.

    Nothing is written where peft would read it otherwise than the harness does.
    """
    if transformer.active_peft_config.peft_type.value in READ_OTHERWISE:
        return
    if len(transformer.active_adapters) == 1:
        transformer.save_pretrained(folder)
        return
    one = _as_one_adapter(transformer)
    one.save_pretrained(folder, selected_adapters=[_ONE])
    for path in (folder / _ONE).iterdir():  # peft puts adapters with another name than its default in folders
        path.replace(folder / path.name)
    (folder / _ONE).rmdir()


def _as_one_adapter(transformer: Any) -> Any:
    """Return the transformer with one LoRA in the place of the sum of several; all weights are shared."""
    import torch
    from torch import nn

    from harness.backbones import structural_copy

    active = list(transformer.active_adapters)
    if len(active) == 1:
        return transformer

    def frozen(value: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(value.detach(), requires_grad=False)

    one: Any = structural_copy(transformer, frozen, next(transformer.parameters()).device)
    one.add_weighted_adapter(active, [1.0] * len(active), _ONE, combination_type="cat")
    with torch.no_grad():
        for layer in one.modules():
            if _ONE in getattr(layer, "lora_A", ()):  # peft takes the scale to be 1; with rsLoRA it is another
                layer.lora_A[_ONE].weight.div_(layer.scaling[_ONE])
    one.set_adapter(_ONE)
    return one


def _why_no_addition(fitted: Fitted) -> str | None:
    if not isinstance(fitted, FittedModel) or not hasattr(fitted.model.transformer, "peft_config"):
        return "Its method adds nothing to the weight matrices of a transformer with peft."
    return None


def _transformer(fitted: Fitted) -> Any:
    assert isinstance(fitted, FittedModel)
    return fitted.model.transformer


def _why_no_layer_merges(transformer: nn.Module) -> str | None:
    """Return why peft cannot merge an adapted layer; None where it can. A copy of the first one is tried."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from harness.backbones import own_float32, structural_copy

    for module in transformer.modules():
        if isinstance(module, BaseTunerLayer):
            device = next(module.parameters()).device
            layer: Any = structural_copy(module, own_float32, device).requires_grad_(False)
            try:
                layer.merge()
            except (NotImplementedError, ValueError) as error:
                return f"peft cannot merge what it adds to a layer: {str(error).rstrip('.')}."
            return None
    return "peft has adapted no layer."


def _with_own_adapted_weights(model: AdaptedModel) -> AdaptedModel:
    """Return a copy that shares all parameters but those in adapted layers, which are its own, in float32."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    from harness.backbones import own_float32, structural_copy

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    adapted = {id(value) for layer in layers for value in layer.parameters()}

    def replace(value: nn.Parameter) -> nn.Parameter:
        if hasattr(value, "quant_state"):  # in 4 bits: nothing changes it
            return value
        own = own_float32(value) if id(value) in adapted else value
        return nn.Parameter(own.detach(), requires_grad=False)

    made: AdaptedModel = structural_copy(model, replace, next(model.parameters()).device)  # type: ignore[assignment]
    return made


def _stored_types(model: AdaptedModel) -> dict[str, torch.dtype]:
    """Return the type of each original parameter, by its name in the model without peft's wrappers."""
    return {_plain_name(name): value.dtype for name, value in model.named_parameters()}


def _plain_name(name: str) -> str:
    return name.replace("base_model.model.", "").replace(".base_layer.", ".")


def _store_as(model: AdaptedModel, stored: dict[str, torch.dtype]) -> None:
    """Give the original parameters the types in which they were stored."""
    from harness.backbones import fit_classes

    for name, value in model.named_parameters():
        wanted = stored.get(_plain_name(name))
        if wanted is not None and value.dtype is not wanted:
            value.data = value.data.to(wanted)
    fit_classes(model)


def _changed(fitted: FittedModel, model: AdaptedModel) -> ChangedModel:
    made = ChangedModel(
        model.eval(), fitted._precision, fitted._seed, fitted._reserved_tokens, fitted._answers, fitted._in_format
    )
    made.n_trainable = fitted.n_trainable
    return made
