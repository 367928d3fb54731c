"""Tensors on a simulated device, and the operations on them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.simulated.state import STATE

WAITS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "item", "nonzero", "masked_select", "bincount", "_unique2"),
    *("unique_dim", "unique_consecutive", "_linalg_check_errors", "_linalg_svd", "_linalg_eigh", "linalg_lstsq"),
}
"""Operations whose result, or the shape of it, the host must know."""

STARTS_NOTHING = {
    *(
        "view",
        "_unsafe_view",
        "expand",
        "t",
        "transpose",
        "permute",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "detach",
    ),
    *("detach_", "alias", "as_strided", "split", "split_with_sizes", "chunk", "unbind", "unfold", "diagonal", "set_"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_reshape_alias"),
    *("is_pinned", "is_same_size", "_local_scalar_dense"),
}
"""Operations without a kernel."""

INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
"""Operations that take indices on the host, and wait to copy them."""

ASSERTS = {
    *("embedding", "gather", "index_select", "scatter", "scatter_", "nll_loss_forward", "nll_loss2d_forward"),
    *INDEXES,
}
"""Operations whose kernels check indices: one that is out of range kills the device."""


class MixedDevicesError(RuntimeError):
    """An operation got tensors of two devices."""


class SimulatedTensor(torch.Tensor):
    """A tensor on a simulated device.

    Attributes:
        inner: its data, on the host.
        block: its memory on the device.
    """

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, index: int) -> SimulatedTensor:
        block = STATE.hold(inner, index)
        made: SimulatedTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device("cuda", index),
        )
        made.inner, made.block = inner, block
        return made

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], int]:
        """With the next, this tells torch that modules replace such tensors instead of changing their data."""
        return ["inner"], self.device.index

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], index: int, *_: object) -> SimulatedTensor:
        return SimulatedTensor(inner["inner"], index)

    def tolist(self) -> Any:
        STATE.wait("tolist")
        return self.inner.tolist()

    def numpy(self, **_: object) -> Any:  # type: ignore[override]
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def _get_data(self) -> Any:
        return torch._C.TensorBase.data.__get__(self)

    def _set_data(self, value: torch.Tensor) -> None:
        torch._C.TensorBase.data.__set__(self, value)
        assert isinstance(value, SimulatedTensor)
        self.inner, self.block = value.inner, value.block

    data = property(_get_data, _set_data)  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch.no_grad():
                copied: Any = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, requires_grad=self.requires_grad)
            elif self.requires_grad:
                copied.requires_grad_(True)
            memo[id(self)] = copied
        return memo[id(self)]


class SimulatedMode(TorchDispatchMode):
    """Routes operations that make tensors on a device, or copy to one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def current() -> int:
    """Return the index of this thread's device."""
    return torch._C._simulated.simulated_device()  # type: ignore[attr-defined,no-any-return]


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the host, as the device would.

    Raises:
        MixedDevicesError: it got tensors of two devices.
        torch.OutOfMemoryError: its result does not fit.
        torch.AcceleratorError: the device fails now, or has failed.
    """
    name = func._schema.name.removeprefix("aten::")
    tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = [value for value in tensors if isinstance(value, SimulatedTensor)]
    asked = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if not there and (asked is None or asked.type != "cuda"):
        return func(*args, **kwargs)
    STATE.check()
    index = there[0].device.index if there else current()
    if asked is not None and asked.type == "cuda":
        index = current() if asked.index is None else asked.index
    if name == "_to_copy":
        return _copy_of(func, args[0], kwargs, asked, index)
    if name == "copy_" and isinstance(args[0], SimulatedTensor) != isinstance(args[1], SimulatedTensor):
        return _copy_between(func, *args, **kwargs)
    if name == "is_pinned":
        return False
    _check_devices(func, name, args, tensors, there)
    if waits_for(name, args, kwargs):
        STATE.wait(name)
    if name not in STARTS_NOTHING:
        STATE.launch()
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    try:
        inner_args, inner_kwargs = pytree.tree_map_only(SimulatedTensor, lambda value: value.inner, (args, kwargs))
        out = func(*inner_args, **inner_kwargs)
    except IndexError as error:
        if name in ASSERTS:
            raise STATE.fault() from error
        raise
    if asked is not None and asked.type != "cuda":
        return out
    wrapped = pytree.tree_map_only(torch.Tensor, lambda value: SimulatedTensor(value, index), out)
    is_alias = any(argument.alias_info is not None for argument in func._schema.arguments)
    if func._schema.is_mutable or (is_alias and all(type(value) is SimulatedTensor for value in there)):
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


def waits_for(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether the host waits in an operation that copies nothing between devices."""
    if name in INDEXES:
        masks = [value for value in args[1] if value is not None and value.dtype in (torch.bool, torch.uint8)]
        return bool(masks) or any(not isinstance(value, SimulatedTensor) for value in args[1] if value is not None)
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return name in WAITS


def _copy_of(func: Any, source: Any, kwargs: dict[str, Any], asked: torch.device | None, index: int) -> Any:
    """Copy to another device or type."""
    if isinstance(source, SimulatedTensor):
        kwargs = {**kwargs, "device": torch.device("cpu")}
        if asked is not None and asked.type != "cuda":
            if not kwargs.get("non_blocking", False):
                STATE.wait("copy to the host")
            return func(source.inner, **kwargs)
        STATE.launch()
        return SimulatedTensor(func(source.inner, **kwargs), index)
    if source.is_meta:
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    _count_upload(source, kwargs.get("non_blocking", False))
    return SimulatedTensor(func(source, **{**kwargs, "device": torch.device("cpu")}), index)


def _copy_between(func: Any, target: Any, source: Any, non_blocking: bool = False) -> Any:
    """Copy into a tensor of another device."""
    if isinstance(target, SimulatedTensor):
        _count_upload(source, non_blocking)
        func(target.inner, source)
    else:
        if not non_blocking:
            STATE.wait("copy to the host")
        func(target, source.inner)
    return target


def _count_upload(source: torch.Tensor, non_blocking: bool) -> None:
    if not non_blocking and source.numel() > 0:
        STATE.wait("copy to the device")
    elif not getattr(source, "_is_pinned", False):
        STATE.staged += 1
    STATE.launch()


def _check_devices(func: Any, name: str, args: Any, tensors: list[torch.Tensor], there: list[SimulatedTensor]) -> None:
    """Refuse tensors of two devices; single numbers and indices may lie on the host."""
    for value in tensors if there else ():
        if isinstance(value, SimulatedTensor):
            if value.device == there[0].device:
                continue
        elif value.dim() == 0 or name == "is_same_size":
            continue
        if name in INDEXES and any(value is index for index in args[1]):
            continue
        raise MixedDevicesError(
            f"Expected all tensors to be on the same device, but found at least two devices, {there[0].device} and "
            f"{value.device}! ({func} got a tensor of shape {tuple(value.shape)}, {value.dtype})"
        )
