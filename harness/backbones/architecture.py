"""The architecture of a backbone, decided from its model class and the flags of its attention."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from harness.support import UsageError

Architecture = Literal["encoder", "causal", "sequence-to-sequence", "served"]

_BASE: Final = "MODEL_MAPPING_NAMES"
_CAUSAL: Final = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_MASKED: Final = "MODEL_FOR_MASKED_LM_MAPPING_NAMES"
_TWO_STACKS: Final = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
_ENCODERS: Final = "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES"
_TEXT: Final = (
    *(_CAUSAL, _MASKED, _TWO_STACKS, _ENCODERS),
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
)
"""Mappings whose models read text."""

_COUNTS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ENCODER_COUNTS: Final = ("encoder_layers", "num_layers", "num_hidden_layers")
BLOCK_COUNTS: Final = (*_COUNTS, *_ENCODER_COUNTS, "num_decoder_layers", "decoder_layers")
"""Keys of configurations for the number of blocks."""

_WIDTHS: Final = ("hidden_size", "d_model", "n_embd", "dim")
"""Keys of configurations for the width of a hidden state."""

_BOTH_WAYS: Final = {"xlnet", "bert-generation"}
"""Types that transformers lists only as causal models, but that attend in both directions unless a flag is set."""


def architecture_of(config: Mapping[str, object], name: str) -> Architecture:
    """Return the architecture that a configuration builds.

    Args:
        config: content of `config.json`.
        name: the backbone, for messages.

    Raises:
        UsageError: the installed transformers has no such text model, or only a part of a model was saved.
    """
    kind = config.get("model_type")
    known = {mapping: _model_names(mapping) for mapping in (*_TEXT, _BASE)}
    if not isinstance(kind, str) or not any(kind in known[mapping] for mapping in _TEXT):
        stated = "states no model_type" if kind is None else f"states the model_type {kind!r}"
        raise UsageError(
            f"Backbone '{name}': config.json {stated}; expected a text model that the installed transformers knows. "
            "Check the file, or upgrade with: pip install --upgrade transformers."
        )
    if is_encoder_alone(config):
        return "encoder"
    if config.get("is_encoder_decoder", kind in known[_TWO_STACKS]):
        if kind not in known[_TWO_STACKS]:
            raise UsageError(
                f"Backbone '{name}': config.json states is_encoder_decoder, and {kind} is not a sequence-to-"
                "sequence language model. Expected false, or another model_type."
            )
        return "sequence-to-sequence"
    if kind in known[_TWO_STACKS]:
        raise UsageError(
            f"Backbone '{name}' is one stack of a sequence-to-sequence model ({kind}), saved as {_class_name(config)}; "
            "expected the whole model, or its encoder. Save the whole model with model.save_pretrained(FOLDER)."
        )
    if config.get("is_decoder") or config.get("causal") is True:
        return "causal"
    if kind not in known[_CAUSAL] or kind in known[_MASKED]:
        return "encoder"
    bidirectional = (
        config.get("use_bidirectional_attention") in (True, "all")
        or config.get("is_causal") is False
        or (kind in _BOTH_WAYS and config.get("attn_type") != "uni")
    )
    return "encoder" if bidirectional else "causal"


def is_encoder_alone(config: Mapping[str, object]) -> bool:
    """Return whether only the encoder of a sequence-to-sequence model was saved, as T5EncoderModel is."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _model_names(_TWO_STACKS):
        return False
    encoder = _model_names(_ENCODERS).get(kind)
    return encoder is not None and encoder != _model_names(_BASE).get(kind) and _class_name(config) == encoder


def blocks_of(config: Mapping[str, object]) -> int | None:
    """Return the number of blocks that a configuration states; those of the encoder if there are two stacks."""
    two_stacks = bool(config.get("is_encoder_decoder"))
    found = (config.get(name) for name in (_ENCODER_COUNTS if two_stacks else _COUNTS))
    return next((count for count in found if isinstance(count, int) and not isinstance(count, bool)), None)


def width_of(config: Mapping[str, object]) -> int | None:
    """Return the width of a hidden state that a configuration states, or that of its language model."""
    nested = config.get("text_config")
    found = [nested.get(name) for name in _WIDTHS] if isinstance(nested, dict) else []
    found += [config.get(name) for name in _WIDTHS]
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def _class_name(config: Mapping[str, object]) -> str:
    """Return the model class that a configuration names; empty if it names none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


_LISTED_AS_CAUSAL: Final = {
    *("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "opt", "phi", "gemma", "gemma2", "smollm3")
}


def architecture_in_version_0_1(config: Mapping[str, object]) -> Architecture:
    """Return the architecture by the rule of version 0.1, which used endings and a list of names."""
    if config.get("is_encoder_decoder"):
        return "sequence-to-sequence"
    if _class_name(config).endswith(("ForCausalLM", "LMHeadModel")) or config.get("model_type") in _LISTED_AS_CAUSAL:
        return "causal"
    return "encoder"


@functools.cache
def _model_names(mapping: str) -> Mapping[str, str]:
    """Return a mapping of transformers from model types to class names.

    It is read from the source text: importing the module would import torch, which planning does not need.
    """
    found = _mappings().get(mapping)
    if found is None:
        from transformers.models.auto import modeling_auto

        found = {kind: str(built) for kind, built in getattr(modeling_auto, mapping).items()}
    return found


@functools.cache
def _mappings() -> dict[str, dict[str, str]]:
    spec = importlib.util.find_spec("transformers")  # finds without importing it
    if spec is None or spec.origin is None:
        return {}
    try:
        text = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            try:
                found[node.targets[0].id] = dict(ast.literal_eval(node.value.args[0]))
            except (ValueError, TypeError, IndexError):  # not a plain list of pairs
                continue
    return found
