"""The resident weights: one model on each device, made where something runs it and shared by whatever freezes it."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.backbones.room import check_room
from harness.backbones.weights import (
    Form,
    fit_classes,
    give_master,
    shared_origin,
    sharing,
    structural_copy,
    tag_buffers,
    types_in,
)
from harness.support import put_aside

if TYPE_CHECKING:
    from harness.backbones.model import Backbone


class Resident:
    """A backbone's frozen weights on a device, in one form.

    Args:
        backbone: the backbone, whose models on the host hold the values.
        device: where the weights lie.
        form: how they are stored.
    """

    def __init__(self, backbone: Backbone, device: torch.device, form: Form) -> None:
        self.backbone = backbone
        self.device = device
        self.form: Form = form
        self.parameters: dict[int, nn.Parameter] = {}
        self._model: tuple[int, nn.Module] | None = None

    def model(self, host: nn.Module) -> nn.Module:
        """Return a model of the host in this form; what only another model needs is freed first."""
        if self._model is not None and self._model[0] == id(host):
            return self._model[1]
        with put_aside():
            self.forget_model()
            needed = {id(value) for value in host.parameters()}
            for key in self.parameters.keys() - needed:
                del self.parameters[key]
            types = types_in(host, self.form)
            check_room(self.backbone.files.name, list(host.parameters()), types, self.device)
            made = structural_copy(host, lambda value: self._parameter(value, types[id(value)]), self.device)
            made.eval()
        self._model = (id(host), made)
        return made

    def forget_model(self) -> None:
        """Let go of the modules; parameters stay for the next model."""
        self._model = None
        gc.collect()

    def give_up(self, host: nn.Parameter) -> None:
        """Free a parameter that a cell has replaced by its own; the next model gets it from the host again."""
        with put_aside():
            self.parameters.pop(id(host), None)

    def _parameter(self, host: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
        known = self.parameters.get(id(host))
        if known is None or known.dtype is not dtype:
            known = self.parameters[id(host)] = sharing(host, moved=host.detach().to(self.device, dtype))
        return known


_RESIDENT: dict[torch.device, Resident] = {}

_SAMPLED = 8
"""Numbers of a parameter that `was_written_to` compares, or somewhat more."""


def resident(backbone: Backbone, host: nn.Module, device: torch.device, form: Form) -> nn.Module:
    """Return a backbone's model on the host as a frozen model on a device; weights of another backbone are dropped.

    On a CPU it is the model on the host itself where its parameters have the types of the form already.

    Args:
        backbone: the backbone.
        host: its transformer or its language model, as stored.
        device: where the model runs.
        form: how its weights are stored.
    """
    present = _RESIDENT.get(device)
    fits = device.type == "cpu" and _has_form(host, form)
    if present is not None and (present.backbone is not backbone or (present.form != form and not fits)):
        del present
        drop_resident(device)
    if fits:
        return host
    return _RESIDENT.setdefault(device, Resident(backbone, device, form)).model(host)


def drop_resident(device: torch.device) -> None:
    """Free the resident weights of a device, unless something still uses them."""
    if device in _RESIDENT:
        with put_aside():
            del _RESIDENT[device]
            gc.collect()


def drop_backbone(backbone: Backbone) -> None:
    """Free the resident weights of a backbone on every device."""
    for device in [device for device, present in _RESIDENT.items() if present.backbone is backbone]:
        drop_resident(device)


def make_room(device: torch.device, backbone: Backbone | None = None) -> None:
    """Free an accelerator's resident weights unless they are those of `backbone`; a CPU's stay.

    Args:
        device: where a cell is about to run.
        backbone: the backbone that it may share; None if it shares none.
    """
    present = _RESIDENT.get(device)
    if device.type != "cpu" and present is not None and present.backbone is not backbone:
        del present
        drop_resident(device)


def _has_form(host: nn.Module, form: Form) -> bool:
    types = types_in(host, form)
    return all(value.dtype is types[id(value)] for value in host.parameters())


def shared_copy(frozen: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a resident model with modules of its own, all of whose parameters share its memory."""
    return tag_buffers(structural_copy(frozen, sharing, device))


def _holder(host: nn.Parameter) -> Resident | None:
    """Return what keeps a parameter of the host resident on an accelerator."""
    known = (one for device, one in _RESIDENT.items() if device.type != "cpu" and id(host) in one.parameters)
    return next(known, None)


def make_masters(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Give each shared parameter that will train its own float32 values, those of the file.

    The parameters stay the same objects, so that modules and lists that hold them need no change. An accelerator does
    not keep the shared values beside them.

    Args:
        model: the model that holds them; its modules get the classes that the new types need.
        parameters: parameters of it that will train.
    """
    for parameter in parameters:
        origin = shared_origin(parameter)
        present = _holder(origin) if origin is not None and parameter.device.type != "cpu" else None
        if present is not None:
            with put_aside():
                present.forget_model()
        give_master(parameter)
        if present is not None and origin is not None:
            present.give_up(origin)
    fit_classes(model)


def trainable_copy(backbone: Backbone, host: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a model on the host, all float32, on `device`; the device's resident weights are dropped.

    Values come from the resident weights where these are exact, and each of those is freed once it is copied, so that
    the device never holds two whole models. On a CPU the resident weights stay: they are no copy where forms agree.
    """
    if device.type == "cpu":
        return structural_copy(host, lambda value: _float32(value, device), device)
    present = _RESIDENT.get(device)
    if present is not None and present.backbone is not backbone:
        drop_resident(device)
        present = None
    there = present.parameters if present is not None else {}
    if present is not None:
        with put_aside():
            present.forget_model()
            del _RESIDENT[device]

    def take(value: nn.Parameter) -> nn.Parameter:
        known = there.get(id(value))
        exact = known is not None and known.dtype in (torch.float32, value.dtype)
        made = _float32(known if known is not None and exact else value, device)
        if known is not None:
            with put_aside():
                del known
                there.pop(id(value))
        return made

    made = structural_copy(host, take, device)
    with put_aside():
        there.clear()
    return made


def _float32(value: nn.Parameter, device: torch.device) -> nn.Parameter:
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return nn.Parameter(value.detach().to(device, dtype, copy=True), requires_grad=False)


def was_written_to(backbone: Backbone) -> bool:
    """Return whether anything has written to the weights that cells share, since the first call for each of them.

    Writes in place raise a counter of torch. Those through `.data` do not: a few numbers of each parameter are compared
    too. What is resident is compared with the host.
    """
    for host in (backbone.pristine, *backbone.language_models):
        parameters = list(host.parameters())
        found = [value._version for value in parameters], _sample(parameters)
        versions, sample = backbone.seen.setdefault(id(host), found)
        if versions != found[0] or not torch.equal(sample, found[1]):
            return True
    return any(present.backbone is backbone and _differs_from_host(present) for present in _RESIDENT.values())


def _differs_from_host(present: Resident) -> bool:
    """Return whether resident parameters with memory of their own are other numbers than the host's."""
    own = [
        (known, origin)
        for known in present.parameters.values()
        if (origin := shared_origin(known)) is not None
        and known.untyped_storage().data_ptr() != origin.untyped_storage().data_ptr()
    ]
    if any(known._version for known, _ in own):
        return True
    expected = _sample([origin for _, origin in own], [known.dtype for known, _ in own])
    return not torch.equal(_sample([known for known, _ in own]), expected)


def _sample(parameters: list[nn.Parameter], dtypes: list[torch.dtype] | None = None) -> torch.Tensor:
    """Return the bits of about eight numbers of each parameter on the host, rounded to `dtypes` if given."""
    parts = []
    for at, value in enumerate(parameters):
        part = value.detach().reshape(-1)[:: max(1, value.numel() // _SAMPLED)]
        parts.append((part if dtypes is None else part.to(dtypes[at])).float())
    return torch.cat(parts).cpu().view(torch.int32) if parts else torch.empty(0, dtype=torch.int32)
