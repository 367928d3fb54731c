"""Facts about backbones, from the configurations that lie on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from harness.records import EncoderFacts, Pretraining

_SENTENCE_FILES: Final = ("modules.json", "config_sentence_transformers.json")
"""Files that sentence-transformers saves beside a configuration."""


def configured_facts(names: Iterable[str], mirror: Path | None = None) -> dict[str, EncoderFacts]:
    """Return facts about the backbones whose configurations are there; others are left out.

    Args:
        names: folders, or hub ids in the mirror, by their whole name or the last part of it.
        mirror: folder with `models/<hub id>/`; None takes HARNESS_MIRROR.
    """
    said = os.environ.get("HARNESS_MIRROR") if mirror is None else str(mirror)
    found = {}
    for name in names:
        for full, folder in _places(name, Path(said) / "models" if said else None):
            config = _config(folder)
            if config is not None:
                found[full] = _facts(config, folder)
                break
    return found


def _places(name: str, models: Path | None) -> Iterable[tuple[str, Path]]:
    if name.startswith(("/", "./", "../", "~")):
        yield name, Path(name).expanduser()
    elif models is not None and ".." not in name:
        yield name, models / name
        if "/" not in name and models.is_dir():
            yield from ((f"{folder.parent.name}/{name}", folder) for folder in sorted(models.glob(f"*/{name}")))


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _facts(config: dict[str, Any], folder: Path) -> EncoderFacts:
    def whole(*keys: str) -> int | None:
        values = (config.get(key) for key in keys)
        return next((value for value in values if type(value) is int and value > 0), None)

    width, layers = whole("hidden_size", "d_model", "n_embd", "dim"), whole("num_hidden_layers", "n_layer", "n_layers")
    words = whole("vocab_size")
    parameters = 12 * layers * width**2 + (words or 0) * width if width and layers else None
    return EncoderFacts(
        n_parameters=parameters,
        width=width,
        layers=layers,
        max_tokens=whole("max_position_embeddings", "n_positions"),
        pretraining=_pretraining(config, folder),
    )


def _pretraining(config: dict[str, Any], folder: Path) -> Pretraining | None:
    if any((folder / name).is_file() for name in _SENTENCE_FILES):
        return "sentence encoder"
    classes = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes):
        return "causal"
    return "masked LM" if any(name.endswith("ForMaskedLM") for name in classes) else None
