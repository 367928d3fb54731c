"""Load a transformer with exactly the weights of its files, since transformers fills gaps with random numbers."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from harness.backbones.headers import SAVE_AGAIN, WRAPPERS, message_of, read_headers
from harness.backbones.locate import BackboneFiles
from harness.support import HarnessError, UsageError

if TYPE_CHECKING:
    from torch import nn

_SPARE_BYTES: Final = 1 << 28
"""Maximum memory of a model beyond twice the size of its files; larger models are refused before loading."""

_NAMED: Final = 3
"""Maximum number of tensors listed in one message."""

_PROBED: Final = 6
"""Number of tokens in the short inputs that test a loaded model."""

_SHARED: Final = 2
"""Number of leading tokens that the first two inputs share; the third input differs from the first in these."""

_CHANGES: Final = 1e-3
_SAME: Final = 1e-6
"""Thresholds of the relative change of the shared tokens' states.

Above the first, states depend on later tokens; below the second, they do not.
"""

_POSITIONS: Final = re.compile(r"^(?!.*rel).*(position|embed_pos|wpe)")
"""Names of tables with a row per position; tables of relative positions set no limit."""


def refusing(files: BackboneFiles, what: str, error: BaseException) -> UsageError:
    """Return the error for a backbone that a library could not read."""
    reason = message_of(error)
    return UsageError(f"Backbone '{files.name}' ({files.origin}) could not be {what}: {reason}.")


def read_config(files: BackboneFiles) -> Any:
    """Return the configuration as transformers reads it.

    Raises:
        UsageError: transformers refuses it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a library's parsers may raise any exception on a user's files
        raise refusing(files, "loaded by transformers", error) from error


def skeleton(build: Any, config: Any, files: BackboneFiles) -> nn.Module:
    """Return the model that a configuration describes, without memory for its weights.

    Args:
        build: class with `from_config` and `from_pretrained`.
        config: the configuration.
        files: the backbone.

    Raises:
        UsageError: transformers cannot build it, or it is far larger than the files.
    """
    import torch

    try:
        with torch.device("meta"):
            model: nn.Module = build.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise refusing(files, "built by transformers", error) from error
    if files.has_weights:
        held = read_headers(files.folder, files.name).n_bytes
        tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        asked = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if asked > 2 * held + _SPARE_BYTES:
            raise UsageError(
                f"Backbone '{files.name}': config.json describes a model of {asked / 1e9:,.1f} GB, and the files hold "
                f"weights for {held / 1e9:,.1f} GB. The configuration and the weights are of different models."
            )
    return model


def load_weights(build: Any, config: Any, files: BackboneFiles, part: Callable[[Any], nn.Module]) -> Any:
    """Return a model whose weights are those of the files, as `weights` stores them.

    Matrices and the vocabulary of a bfloat16 file stay in bfloat16, and everything else is raised to float32. float16
    is raised throughout, since bfloat16 cannot hold it.

    Args:
        build: class with `from_pretrained`.
        config: the configuration.
        files: the backbone.
        part: the part of the model that is read; weights may be missing outside it.

    Raises:
        UsageError: weights are missing, superfluous or of another shape.
    """
    import torch

    headers = read_headers(files.folder, files.name)
    renamed = {"key_mapping": {WRAPPERS: ""}} if headers.wrapped else {}
    try:
        with _reading_bfloat16() if headers.are_bfloat16 else contextlib.nullcontext():
            model, found = build.from_pretrained(
                files.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
                **renamed,
            )
    except HarnessError:
        raise
    except Exception as error:
        raise refusing(files, "loaded by transformers", error) from error
    _check_names(model, part(model), found, files)
    if headers.are_bfloat16:
        from harness.backbones.weights import store_bfloat16

        store_bfloat16(model)
    return model


@contextlib.contextmanager
def _reading_bfloat16() -> Iterator[None]:
    """Let transformers read matrices and the vocabulary without raising them to float32.

    transformers reads each parameter in the type that the model on the meta device gives it. Buffers are computed in
    float32 as ever, which `dtype=torch.bfloat16` would round. The plan of types is asked for between both.
    """
    from transformers import PreTrainedModel

    from harness.backbones.weights import narrow_on_meta

    plan: Any = getattr(PreTrainedModel, "_get_dtype_plan", None)
    if plan is None:  # another version: everything is read in float32, and narrowed afterwards
        yield
        return

    def narrowing(model: Any, dtype: Any) -> Any:
        narrow_on_meta(model)
        return plan(model, dtype)

    changed: Any = PreTrainedModel
    changed._get_dtype_plan = narrowing
    try:
        yield
    finally:
        changed._get_dtype_plan = plan


def _check_names(model: nn.Module, kept: nn.Module, found: dict[str, Any], files: BackboneFiles) -> None:
    """Refuse a model if a weight does not come from the files, or if a weight in the files is not used."""
    read = {id(tensor) for tensor in kept.state_dict(keep_vars=True).values()}
    names = {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in read}
    other = sorted(entry for entry in found["mismatched_keys"] if entry[0] in names)
    if other:
        name, given, expected = other[0]
        raise UsageError(
            f"Backbone '{files.name}': {name} has the shape {tuple(given)}; config.json makes it {tuple(expected)} "
            f"({len(other)} tensors differ). The configuration and the weights are of different models."
        )
    missing = sorted(name for name in names & set(found["missing_keys"]) if not _is_computed(name, model))
    prefix = str(getattr(model, "base_model_prefix", ""))
    if missing and hasattr(model, prefix) and not any(name.startswith(f"{prefix}.") for name in missing):
        raise UsageError(
            f"Backbone '{files.name}' has no weights for {_listed(missing)}: its files were saved without the "
            "language-modelling head. Expected them as save_pretrained of the whole model."
        )
    if missing:
        raise UsageError(
            f"Backbone '{files.name}' has no weights for {_listed(missing)}. The files are incomplete, hold another "
            f"model, or were saved under other names. {SAVE_AGAIN}"
        )
    superfluous = sorted(name for name in found["unexpected_keys"] if _is_of_body(name, model, files))
    if superfluous:
        raise UsageError(
            f"Backbone '{files.name}' holds {_listed(superfluous)}, which the model of config.json does not read. "
            "Expected the configuration that the weights were saved with: more layers, or an adapter merged first."
        )
    problems = [str(problem) for key in ("error_msgs", "conversion_errors") for problem in found.get(key) or ()]
    if problems:
        raise UsageError(f"Backbone '{files.name}' could not be loaded by transformers: {problems[0][:300]}.")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _is_computed(name: str, model: Any) -> bool:
    """Return whether a missing tensor is a table that transformers computes from the configuration and never saves."""
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    ignored = {*(model._keys_to_ignore_on_load_missing or ()), *(model._keys_to_ignore_on_save or ())}
    # A base class may inherit a list whose names begin with the prefix that only the whole model has.
    spellings = (name, prefix + name, name.removeprefix(prefix))
    is_ignored = any(re.search(pattern, spelling) for pattern in ignored for spelling in spellings)
    return (is_ignored or "Sinusoid" in type(module).__name__) and _is_the_same_always(model, module, own)


def _is_the_same_always(model: Any, module: nn.Module, own: str) -> bool:
    """Return whether transformers computes a module's tensor independently of the seed."""
    import torch

    for seed in (0, 1):
        made = copy.deepcopy(module)
        tensor = getattr(made, own)
        vars(tensor).pop("_is_hf_initialized", None)  # transformers' mark of a tensor that it leaves as it is
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tensor.fill_(seed)  # without initialisation the two differ
            model._init_weights(made)
        if not torch.equal(getattr(made, own), getattr(module, own)):
            return False
    return True


def _is_of_body(name: str, model: nn.Module, files: BackboneFiles) -> bool:
    """Return whether a tensor that was not read belongs inside the transformer, not to a head on top of it."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    base = getattr(model, prefix, model) if prefix else model
    inside = name.removeprefix(f"{prefix}.")
    if inside.partition(".")[0] not in {child for child, _ in base.named_children()}:
        return False
    if inside in {buffer for buffer, _ in base.named_buffers()}:  # made anew from the configuration
        return False
    header = _header_of(name, files)
    # Masks that earlier versions of transformers saved: booleans, and the number that stands for minus infinity.
    return header is None or (header.size > 1 and header.dtype not in ("BOOL", "U8"))


def _header_of(name: str, files: BackboneFiles) -> Any:
    tensors = read_headers(files.folder, files.name).tensors
    endings = (known for known in tensors if known == name or known.endswith(f".{name}"))
    return tensors.get(name) or next((tensors[known] for known in endings), None)


def check_finite(model: nn.Module, files: BackboneFiles) -> None:
    """Refuse weights that are not finite numbers.

    Raises:
        UsageError: one is NaN or infinite.
    """
    import torch

    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.numel():
            low, high = torch.aminmax(value)  # NaN passes through both
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise UsageError(
                    f"Backbone '{files.name}': {name} holds NaN or infinite numbers; expected finite weights. "
                    "The file is damaged, or training it diverged: use another checkpoint."
                )


def check_behaviour(model: nn.Module, files: BackboneFiles, n_tokens: int) -> int:
    """Run a few tokens through a transformer, and refuse it if its architecture differs from the one in its files.

    Args:
        model: with its weights, on the CPU, in evaluation mode.
        files: the backbone.
        n_tokens: rows of its embeddings.

    Returns:
        Width of its hidden states.

    Raises:
        UsageError: it gives no valid hidden states, or attends to other tokens than its architecture allows.
    """
    import torch

    spread = torch.linspace(0, n_tokens - 1, 2 * _PROBED - _SHARED).long()
    start, first, second = spread[:_SHARED], spread[_SHARED:_PROBED], spread[_PROBED:]
    ids = torch.stack([torch.cat(parts) for parts in ((start, first), (start, second), (second[:_SHARED], first))])
    try:
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            width = int(states.shape[2])
    except Exception as error:
        raise refusing(files, "run on a few tokens", error) from error
    if states.shape[:2] != ids.shape or not bool(torch.isfinite(states).all()):
        raise UsageError(
            f"Backbone '{files.name}' turns {_PROBED} tokens into hidden states of shape {tuple(states.shape)}, some "
            "of them NaN or infinite; expected finite states for each token."
        )
    change = _change(states[0, :_SHARED], states[1, :_SHARED])
    if max(change, _change(states[0, _SHARED:], states[2, _SHARED:])) < _SAME:
        raise UsageError(
            f"Backbone '{files.name}': its states of a token depend on no other token, neither before nor after it. "
            "Its weights are zeros, or transformers needs kernels for its attention that are not installed, as for MRA."
            " Use another backbone."
        )
    if files.architecture == "causal" and change > _CHANGES:
        raise UsageError(
            f"Backbone '{files.name}' is taken for causal, but its states depend on later tokens. Expected a "
            "config.json that says so: is_decoder, is_causal or use_bidirectional_attention."
        )
    if files.architecture == "encoder" and change < _SAME:
        raise UsageError(
            f"Backbone '{files.name}' is taken for an encoder, but its states do not depend on later tokens: it is "
            "causal. Expected a config.json that says so: is_decoder, or no is_causal and use_bidirectional_attention."
        )
    return width


def _change(states: Any, others: Any) -> float:
    """Return the relative difference of hidden states."""
    return float((states - others).norm() / states.norm().clamp(min=1e-30))


def longest_input(model: nn.Module) -> int | None:
    """Return the maximum number of tokens that a transformer's positions allow; None without a limit.

    Some tables (RoBERTa's, OPT's) skip their first rows, which reduces the limit.
    """
    config: Any = model.config
    stated = getattr(config, "max_position_embeddings", None)
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    for name, module in model.named_modules():
        own = name.rpartition(".")[2]
        weight = getattr(module, "weight", None)
        if _POSITIONS.search(own) and getattr(weight, "ndim", 0) == 2:
            padding, offset = getattr(module, "padding_idx", None), getattr(module, "offset", 0)
            first = padding + 1 if isinstance(padding, int) else offset if isinstance(offset, int) else 0
            limits.append(int(weight.shape[0]) - first)  # type: ignore[union-attr]
    return min(limits, default=None)
