"""How frozen weights are stored: matrices in bfloat16 where products round them anyway, everything else in float32.

Under autocast, torch rounds a float32 matrix to bfloat16 in each product. A matrix that is stored in bfloat16 gives the
same products bit for bit, in half the memory. Norms, biases, positions and parameters of unknown use stay in float32.
The embedding of the vocabulary is in bfloat16 where its file is; rows are raised to float32 when they are read. So the
residual stream is float32 throughout, whatever the storage.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, Literal

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Form = Literal["float32", "bfloat16", "bfloat16 with embeddings"]
"""Storage of a frozen transformer: nothing in bfloat16, its matrices, or its matrices and its vocabulary.

The last is exact where the file is bfloat16.
"""

_FALCONS: Final = "FalconLinear"
"""Name of Falcon's class of linear layers."""

_ORIGIN: Final = "_harness_origin"
"""Attribute of a shared parameter: the parameter on the host with the values of the file."""

_PLACE: Final = "_harness_place"
"""Attribute of a shared parameter: address of the shared memory, which it leaves when it is moved."""


_BUFFERS: Final = "_harness_buffer_bytes"
"""Attribute of a model that shares weights: bytes of the resident model's buffers."""


class StoredLinear(nn.Linear):
    """A linear layer whose matrix may be bfloat16; outside autocast, a copy of the input's type takes part."""

    compute_dtype = torch.float32  # peft gives the parameters that it adds this type

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product, as a layer with a float32 matrix does."""
        return functional.linear(values, _for_product(self.weight, values), self.bias)


class StoredConv1D(Conv1D):
    """GPT-2's linear layer, whose matrix is transposed; as `StoredLinear`."""

    compute_dtype = torch.float32

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product, as a layer with a float32 matrix does."""
        weight = _for_product(self.weight, values)
        product = torch.addmm(self.bias, values.view(-1, values.size(-1)), weight)
        return product.view(*values.size()[:-1], self.nf)


class StoredEmbedding(nn.Embedding):
    """An embedding in bfloat16 whose rows are raised to float32 when they are read."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 rows, shape (..., width)."""
        return super().forward(ids).float()


def _for_product(weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return a matrix in a type that takes part in a product with `values`; autocast sees to that itself."""
    if weight.dtype is values.dtype or torch.is_autocast_enabled(values.device.type):
        return weight
    return weight.to(values.dtype)


def _scaled_rows(self: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return float32 rows of a scaled embedding (Gemma, BART), scaled in float32 too."""
    rows = nn.Embedding.forward(self, ids).float()
    scale = self.embed_scale
    return rows * (scale.to(rows.dtype) if isinstance(scale, torch.Tensor) else scale)


def _falcons_product(self: Any, values: torch.Tensor) -> torch.Tensor:
    """Return what Falcon's own linear layer does, which rounds before it adds the bias."""
    product = values @ _for_product(self.weight, values).T
    return product if self.bias is None else product + self.bias


def _stated_float32(_: object) -> torch.dtype:
    """Return the type of hidden states, which transformers takes from the first parameter."""
    return torch.float32


def _stored_class(plain: type[nn.Module]) -> type[nn.Module] | None:
    """Return the class of modules with bfloat16 weights that behave like `plain`; None where there is none."""
    if plain not in _STORED:
        _STORED[plain] = _make_stored(plain)
    return _STORED[plain]


def _make_stored(plain: type[nn.Module]) -> type[nn.Module] | None:
    if issubclass(plain, PreTrainedModel):
        return _subclass(plain, {"dtype": property(_stated_float32)})
    if issubclass(plain, nn.Embedding) and plain.__name__.endswith("ScaledWordEmbedding"):
        return _subclass(plain, {"forward": _scaled_rows})
    if issubclass(plain, nn.Linear) and plain.__name__ == _FALCONS:
        return _subclass(plain, {"forward": _falcons_product, "compute_dtype": torch.float32})
    return None


_STORED: Final[dict[type[nn.Module], type[nn.Module] | None]] = {
    nn.Linear: StoredLinear,
    Conv1D: StoredConv1D,
    nn.Embedding: StoredEmbedding,
}
_PLAIN: Final[dict[type[nn.Module], type[nn.Module]]] = {
    StoredLinear: nn.Linear,
    StoredConv1D: Conv1D,
    StoredEmbedding: nn.Embedding,
}


def _subclass(plain: type[nn.Module], changed: dict[str, Any]) -> type[nn.Module]:
    """Return a subclass that also libraries which look classes up by name take for `plain`."""
    named = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    made = type(plain.__name__, (plain,), {**named, **changed})
    _PLAIN[made] = plain
    return made


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module has apart from its storage, such as `nn.Linear`."""
    return _PLAIN.get(type(module), type(module))


def fit_classes(model: nn.Module) -> None:
    """Give each module the class that its weights' types need: a stored form for bfloat16, else its plain one."""
    for module in model.modules():
        plain = plain_class(module)
        if issubclass(plain, PreTrainedModel):
            first = next((value for value in module.parameters() if value.is_floating_point()), None)
        else:
            first = module._parameters.get("weight")
        stored = _stored_class(plain) if first is not None and first.dtype is torch.bfloat16 else None
        wanted = stored or plain
        if type(module) is not wanted:
            module.__class__ = wanted


def narrow_parameters(model: nn.Module, *, embeddings: bool) -> set[int]:
    """Return the ids of the parameters that can be bfloat16: exact matrices, and the vocabulary if `embeddings`.

    A parameter that another kind of module shares (a tied embedding that stays float32) is left out.
    """
    narrow: set[int] = set()
    wide: set[int] = set()
    vocabulary = _vocabulary(model) if embeddings else None
    for module in model.modules():
        plain = plain_class(module)
        matrix = plain is nn.Linear or plain is Conv1D or plain.__name__ == _FALCONS
        if isinstance(module, nn.Embedding) and module.weight is vocabulary:  # T5's stacks have one module each
            matrix = plain is nn.Embedding or (hasattr(module, "embed_scale") and _stored_class(plain) is not None)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                (narrow if matrix and name == "weight" else wide).add(id(parameter))
    # Mamba multiplies this matrix itself.
    wide |= {id(module.weight) for name, module in model.named_modules() if name.endswith(".dt_proj")}
    return narrow - wide


def _vocabulary(model: Any) -> nn.Parameter | None:
    try:
        found: nn.Parameter | None = getattr(model.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):  # Canine hashes characters
        return None
    return found


def narrow_on_meta(model: nn.Module) -> None:
    """Give the parameters of a model on the meta device the types in which those of a bfloat16 file are stored."""
    narrow = narrow_parameters(model, embeddings=True)
    for parameter in model.parameters():
        if id(parameter) in narrow:
            parameter.data = parameter.data.to(torch.bfloat16)


def store_bfloat16(model: nn.Module) -> nn.Module:
    """Store a model of a bfloat16 file: matrices and its vocabulary in bfloat16, the rest in float32; in place."""
    narrow = narrow_parameters(model, embeddings=True)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16 if id(parameter) in narrow else torch.float32)
    fit_classes(model)
    return model


def types_in(model: nn.Module, form: Form) -> dict[int, torch.dtype]:
    """Return the type of each parameter in a form, by its id; `model` is as the file stores it."""
    narrow = narrow_parameters(model, embeddings=form == "bfloat16 with embeddings") if form != "float32" else set()
    types: dict[int, torch.dtype] = {}
    for parameter in model.parameters():
        floats = torch.bfloat16 if id(parameter) in narrow else torch.float32
        types[id(parameter)] = floats if parameter.is_floating_point() else parameter.dtype
    return types


def structural_copy(
    model: nn.Module, replace: Callable[[nn.Parameter], nn.Parameter], device: torch.device
) -> nn.Module:
    """Return a copy with modules, configuration and buffers of its own, whose parameters `replace` supplies.

    Args:
        model: any model; it stays as it is.
        replace: function from a parameter to the copy's.
        device: where buffers go.
    """
    memo: dict[int, Any] = {id(value): replace(value) for value in model.parameters()}
    memo |= {id(value): value.detach().clone().to(device) for value in model.buffers()}
    made = copy.deepcopy(model, memo)
    fit_classes(made)
    return made


def sharing(parameter: nn.Parameter, *, moved: torch.Tensor | None = None) -> nn.Parameter:
    """Return a frozen parameter over the same memory, or over `moved`; it remembers the parameter on the host.

    In-place writes through it count in the `_version` of `parameter`, which `Backbone.check_untouched` reads.
    """
    made = nn.Parameter(parameter.detach() if moved is None else moved, requires_grad=False)
    setattr(made, _ORIGIN, getattr(parameter, _ORIGIN, parameter))
    setattr(made, _PLACE, made.untyped_storage().data_ptr())
    return made


def is_shared(parameter: nn.Parameter) -> bool:
    """Return whether a parameter's memory belongs to the resident weights, so that nothing may write to it."""
    return getattr(parameter, _PLACE, None) == parameter.untyped_storage().data_ptr()


def shared_origin(parameter: nn.Parameter) -> nn.Parameter | None:
    """Return the parameter on the host whose values a shared parameter has; None where it is not shared."""
    return getattr(parameter, _ORIGIN, None) if is_shared(parameter) else None


def own_float32(parameter: nn.Parameter) -> nn.Parameter:
    """Return float32 values of its own for a parameter; those of the file where it stems from a shared one."""
    origin: nn.Parameter | None = getattr(parameter, _ORIGIN, None)
    is_exact = origin is None or parameter.dtype in (torch.float32, origin.dtype)
    values = (parameter if origin is None or is_exact else origin).detach()
    wanted = torch.float32 if values.is_floating_point() else values.dtype
    return nn.Parameter(values.to(parameter.device, wanted, copy=True), requires_grad=parameter.requires_grad)


def give_master(parameter: nn.Parameter) -> None:
    """Give a parameter that stems from a shared one float32 values of its own, those of the file.

    It stays the same object.
    """
    if getattr(parameter, _ORIGIN, None) is not None:
        # Not `parameter.data = ...`: writes to it would count as writes to the shared weights (`_version`).
        torch.utils.swap_tensors(parameter, own_float32(parameter))


def tag_buffers(model: nn.Module) -> nn.Module:
    """Note in a copy that shares weights how many bytes of buffers, such as positions, the resident model has."""
    setattr(model, _BUFFERS, sum(value.nbytes for value in model.buffers()))
    return model


def weights_bytes(model: nn.Module, *, resident: bool = False) -> tuple[int, int]:
    """Return the bytes of a model's weights and buffers as stored, and how many of them lie in the resident model.

    A copy has buffers of its own, which its peak contains, beside those of the resident model.

    Args:
        model: a model; 4-bit parameters count as packed, with the scales that torch keeps for them.
        resident: whether the model itself is the resident one, so that all of it is shared.
    """
    total = shared = 0
    for parameter in model.parameters():
        n_bytes = parameter.numel() * parameter.element_size() + _scales_bytes(getattr(parameter, "quant_state", None))
        total += n_bytes
        if resident or is_shared(parameter):
            shared += n_bytes
    buffers = sum(value.nbytes for value in model.buffers())
    if resident:
        shared += buffers
    elif shared:
        shared += sum(vars(module).get(_BUFFERS, 0) for module in model.modules())
    return total + buffers, shared


def _scales_bytes(state: Any) -> int:
    """Return the bytes of the scales of a 4-bit parameter, and of the scales of these scales."""
    scales = getattr(state, "absmax", None)
    if not isinstance(scales, torch.Tensor):
        return 0
    return scales.numel() * scales.element_size() + _scales_bytes(getattr(state, "state2", None))
