"""Find the parts of a backbone in a folder, in the layout of transformers or of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.backbones.architecture import Architecture
from harness.backbones.pooling import Pooling, declared_pooling
from harness.support import UsageError

POOLING: Final = "1_Pooling/config.json"
"""Usual place of the declared pooling."""

MODULES: Final = "modules.json"
CHAT_TEMPLATE: Final = "chat_template.jinja"
"""File of the tokenizer's chat template. Older tokenizers have it in tokenizer_config.json."""

_OLD_FOLDER: Final = "0_Transformer"
_LARGEST_JSON: Final = 1 << 28  # bytes; the largest tokenizer.json in use has 33 million

READ_FILES: Final = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.*.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.spm",
    CHAT_TEMPLATE,
    POOLING,
)
"""Files that determine what a backbone computes; they are hashed into the fingerprint.

generation_config.json is one of them only where it says how an answer begins, or with which tokens a turn of a chat
ends: otherwise only the task sets how text is generated.
"""

FETCHED: Final = (
    *READ_FILES,
    MODULES,
    "adapter_config.json",
    "generation_config.json",
    "README.md",
    "sentence_bert_config.json",
    "*_Pooling/config.json",
    f"{_OLD_FOLDER}/*.json",
    f"{_OLD_FOLDER}/*.safetensors",
    f"{_OLD_FOLDER}/*.txt",
    f"{_OLD_FOLDER}/*.model",
)
"""Files to fetch from the hub: those above, and the files that say which of them are read."""


@dataclass(frozen=True)
class Layout:
    """The parts of a backbone.

    Attributes:
        transformer: folder with config.json, the weights and the tokenizer.
        pooling_file: file that declares the pooling; None if no file does.
    """

    transformer: Path
    pooling_file: Path | None


def is_backbone(folder: Path) -> bool:
    """Return whether a folder looks like a backbone in any layout."""
    places = (folder / "config.json", folder / MODULES, folder / _OLD_FOLDER / "config.json")
    return any(place.is_file() for place in places)


def find_parts(folder: Path, name: str) -> Layout:
    """Return the positions of a backbone's parts, from `modules.json` if there is one.

    Args:
        folder: the backbone's folder, or the transformer's folder within it.
        name: the backbone, for messages.

    Raises:
        UsageError: the modules are not a transformer followed by pooling, or a part is missing.
    """
    parent = folder.parent
    inside_another = not (folder / MODULES).is_file() and (parent / MODULES).is_file()
    root = parent if inside_another and _holds(parent, folder, name) else folder
    if (root / MODULES).is_file():
        return _by_modules(root, name)
    transformer = root
    if not (root / "config.json").is_file() and (root / _OLD_FOLDER / "config.json").is_file():
        transformer = root / _OLD_FOLDER
    pooling = root / POOLING
    return Layout(transformer, pooling if pooling.exists() else None)


def _holds(root: Path, folder: Path, name: str) -> bool:
    try:
        return _by_modules(root, name).transformer == folder
    except UsageError:  # the file above belongs to something else
        return False


def _by_modules(root: Path, name: str) -> Layout:
    modules = list(_modules(root, name))
    if not modules or modules[0][0] != "Transformer":
        first = modules[0][0] if modules else "no module"
        raise UsageError(f"Backbone '{name}': {MODULES} begins with {first}; expected a Transformer module.")
    transformer = _inside(root, modules[0][1], name)
    if not (transformer / "config.json").is_file():
        raise UsageError(f"Backbone '{name}': {MODULES} names the folder '{modules[0][1]}', which has no config.json.")
    for declared in (root / "sentence_bert_config.json", transformer / "sentence_bert_config.json"):
        if declared.is_file():
            _check_output(read_object(declared, name), name)
            break
    if len(modules) == 1 or modules[1][0] in ("Normalize", "Dense"):
        return Layout(transformer, None)
    kind, place = modules[1]
    if kind != "Pooling":
        raise UsageError(
            f"Backbone '{name}': {MODULES} has {kind} behind the transformer; the harness reads Pooling alone. "
            "Expected Transformer and Pooling; to pool by the mean instead, copy the folder without modules.json."
        )
    pooling = _inside(root, place, name) / "config.json"
    if not pooling.is_file():
        raise UsageError(f"Backbone '{name}': {MODULES} names '{place}/config.json', which is missing.")
    return Layout(transformer, pooling)


def _modules(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield (class name, folder) of each module of a sentence-transformers model."""
    listed = read_json(root / MODULES, name)
    entries = listed if isinstance(listed, list) else [None]
    for entry in entries:
        kind, place = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str):
            raise UsageError(f"Backbone '{name}': {MODULES} is not a list of modules, each with a type and a path.")
        yield kind.rpartition(".")[2], place


def _inside(root: Path, place: str, name: str) -> Path:
    path = root / place
    if Path(place).is_absolute() or ".." in Path(place).parts or "\0" in place:
        raise UsageError(f"Backbone '{name}': {MODULES} names '{place}'; expected a folder inside the backbone's.")
    return path


def _check_output(config: dict[str, Any], name: str) -> None:
    modalities = config.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, dict) else None
    output = text.get("method_output_name") if isinstance(text, dict) else None
    if output not in (None, "last_hidden_state"):
        raise UsageError(
            f"Backbone '{name}': sentence_bert_config.json pools {output!r}; the harness pools last_hidden_state alone."
        )


def pooling_of(layout: Layout, architecture: Architecture, name: str) -> Pooling:
    """Return the declared pooling, else the mean over real tokens, or the last real token of a causal backbone."""
    if layout.pooling_file is None:
        return "last" if architecture == "causal" else "mean"
    where = f"Backbone '{name}': {layout.pooling_file.parent.name}/config.json"
    return declared_pooling(read_object(layout.pooling_file, name), where)


def read_object(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UsageError: it cannot be read, or is not an object.
    """
    value = read_json(path, name)
    if not isinstance(value, dict):
        raise UsageError(f"Backbone '{name}': {path.name} holds a {type(value).__name__}; expected an object.")
    return value


def read_json(path: Path, name: str) -> Any:
    """Return the JSON value in a file.

    Raises:
        UsageError: it is not a regular file, is too large, or is not JSON.
    """
    try:
        if not path.is_file():  # a folder, a pipe, a link to nothing
            raise UsageError(f"Backbone '{name}': {path.name} is missing or no regular file.")
        if path.stat().st_size > _LARGEST_JSON:
            raise UsageError(
                f"Backbone '{name}': {path.name} has {path.stat().st_size:,} bytes; expected a small file."
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UsageError(f"Backbone '{name}': {path.name} cannot be read as JSON: {reason}.") from None
