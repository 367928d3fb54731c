"""Language models: a backbone's transformer under the language-modelling head of the same files."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import GenerationConfig

from harness.backbones.headers import bare_name, read_headers, weight_files
from harness.backbones.loading import check_finite, load_weights, skeleton
from harness.backbones.locate import BackboneFiles
from harness.backbones.model import (
    Backbone,
    LanguageModel,
    language_model_class,
    whole_config,
    without_values,
)
from harness.backbones.residency import resident
from harness.backbones.weights import fit_classes, store_bfloat16

if TYPE_CHECKING:
    from harness.backbones.weights import Form


def language_model(backbone: Backbone, device: torch.device, form: Form) -> LanguageModel:
    """Return the language model on a device, in the form that it computes in.

    Raises:
        UsageError: the backbone is an encoder, or its files hold no such head.
    """
    host = host_language_model(backbone)
    model = resident(backbone, host.model, device, form)
    return host if model is host.model else LanguageModel(model, host.load_seconds)


_READ: WeakKeyDictionary[Backbone, LanguageModel] = WeakKeyDictionary()
"""The language model of each loaded backbone on the host, once it was read."""


def host_language_model(backbone: Backbone) -> LanguageModel:
    """Return the language model on the host, as its files store it; read once for a loaded backbone.

    A causal model's transformer is the backbone's own, and only its head is read.

    Raises:
        UsageError: the backbone is an encoder, or its files hold no such head.
    """
    if backbone not in _READ:
        _READ[backbone] = _read_language_model(backbone)
    return _READ[backbone]


def _read_language_model(backbone: Backbone) -> LanguageModel:
    files = backbone.files
    build = language_model_class(files)
    config = backbone.pristine.config
    if files.architecture == "sequence-to-sequence":
        config = whole_config(files)  # an encoder's own configuration says that it is one
    whole: Any = skeleton(build, config, files)  # importing its module is not charged to a cell
    started = time.perf_counter()
    model: Any = None
    if files.architecture == "causal":
        model = _with_head(whole, backbone)
    if model is None and files.has_weights:
        model = load_weights(build, config, files, lambda read: read)
    elif model is None:
        model = without_values(build, config, files)
    checking = time.perf_counter()
    check_finite(model, files)
    started += time.perf_counter() - checking  # checks are not charged to a cell
    if files.architecture == "causal":
        _share_transformer(model, backbone.pristine)
    model = model.eval().requires_grad_(False)
    fit_classes(model)
    backbone.language_models.append(model)
    return LanguageModel(model, time.perf_counter() - started)


def _share_transformer(model: Any, transformer: nn.Module) -> None:
    """Replace a language model's transformer by `transformer`, which has the same weights."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    setattr(model, model.base_model_prefix, transformer)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight


def _with_head(whole: Any, backbone: Backbone) -> nn.Module | None:
    """Return a causal model whose transformer is the backbone's, and whose head alone is read from the files.

    Args:
        whole: the language model on the meta device.
        backbone: the backbone.

    Returns:
        None where anything is out of the ordinary (a head under another name or of another shape, more than parameters
        to read): then transformers reads the whole model, and its checks say what is wrong.
    """
    files = backbone.files
    prefix = str(whole.base_model_prefix)
    head: Any = whole.get_output_embeddings()
    if not hasattr(whole, prefix) or getattr(whole, prefix) is whole or head is None:
        return None
    tied = bool(getattr(whole.config.get_text_config(), "tie_word_embeddings", False))
    setattr(whole, prefix, backbone.pristine)
    missing = [name for name, value in (*whole.named_parameters(), *whole.named_buffers()) if value.is_meta]
    if tied:
        if _names_of(head.weight, whole) & _held(files):  # both may be in the files, with different values
            return None
        head.weight = whole.get_input_embeddings().weight
        missing = [name for name, value in (*whole.named_parameters(), *whole.named_buffers()) if value.is_meta]
    if not files.has_weights:
        return whole if not missing else None
    tensors = _read(missing, files)
    for name in missing:
        owner, _, own = name.rpartition(".")
        module = whole.get_submodule(owner)
        expected, found = module._parameters.get(own), tensors.get(name)
        if expected is None or found is None or found.shape != expected.shape or not found.is_floating_point():
            return None
        wanted = found.dtype if found.dtype is torch.bfloat16 and backbone.is_bfloat16 else torch.float32
        module._parameters[own] = nn.Parameter(found.to(wanted), requires_grad=False)
    if backbone.is_bfloat16:
        store_bfloat16(whole)
    with contextlib.suppress(OSError):  # without the file, transformers takes the settings of the configuration
        whole.generation_config = GenerationConfig.from_pretrained(files.folder, local_files_only=True)
    return whole  # type: ignore[no-any-return]


def _names_of(parameter: nn.Parameter, model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters(remove_duplicate=False) if value is parameter}


def _held(files: BackboneFiles) -> set[str]:
    return set(read_headers(files.folder, files.name).tensors) if files.has_weights else set()


def _read(names: list[str], files: BackboneFiles) -> dict[str, torch.Tensor]:
    """Return the tensors of these names that the files hold."""
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    wanted = set(names)
    for path in weight_files(files.folder, files.name):
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - a safetensors file is not a mapping
                if bare_name(name) in wanted:
                    found[bare_name(name)] = opened.get_tensor(name)
    return found
