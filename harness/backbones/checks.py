"""Refuse a backbone's files before anything is loaded, without importing torch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harness.backbones.headers import FLOATS, SAVE_AGAIN, SINGLE, Headers
from harness.backbones.layout import Layout, read_object
from harness.support import UsageError

_COUNTS: Final = ("layer", "layers", "block", "blocks", "groups", "group_num", "experts", "labels")
"""Endings of the entries that set a number of modules or classes."""

_MOST: Final = 10_000
"""Maximum value of such an entry; transformers makes these one by one, even if the weights hold fewer."""

_LARGEST: Final = 10**8
"""Maximum value of any other entry except rates; Llama 4 has 10 million positions."""

_MASK_DIMENSIONS: Final = 4


def check_configuration(layout: Layout, config: Mapping[str, Any], name: str) -> None:
    """Refuse entries that make transformers read other files, run code, or need another library.

    Args:
        layout: positions of the backbone's parts.
        config: content of its `config.json`.
        name: the backbone, for messages.

    Raises:
        UsageError: the folder holds an adapter, needs custom code, is quantised, or names its own kernels.
    """
    folder = layout.transformer
    for place in {folder, folder.parent if layout.pooling_file is not None else folder}:
        if (place / "adapter_config.json").exists():
            raise UsageError(
                f"Backbone '{name}' holds an adapter (adapter_config.json), which stands on another backbone; expected "
                "one whole model. Merge them first: peft's model.merge_and_unload().save_pretrained(FOLDER)."
            )
    tokenizer = folder / "tokenizer_config.json"
    for file, content in (
        ("config.json", config),
        ("tokenizer_config.json", read_object(tokenizer, name) if tokenizer.exists() else {}),
    ):
        if content.get("auto_map"):
            raise UsageError(
                f"Backbone '{name}' needs custom code (auto_map in {file}), and the harness runs no such code. If "
                "transformers' own class computes the same, load and save the backbone with it, without auto_map."
            )
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise UsageError(
                f"Backbone '{name}' is quantised ({key} in config.json); expected float weights. Use the original, or "
                "save model.dequantize() with save_pretrained."
            )
    if config.get("transformers_weights"):
        raise UsageError(f"Backbone '{name}': config.json names its weights file; expected {SINGLE}. {SAVE_AGAIN}")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"):
        if config.get(key) not in (None, "eager", "sdpa"):
            raise UsageError(
                f"Backbone '{name}': config.json asks for {key} {config[key]!r}; expected eager, sdpa or none. "
                "Remove the entry."
            )
    for key, number in _numbers(config):
        most = _MOST if key.endswith(_COUNTS) else _LARGEST
        if number > most and "theta" not in key:
            raise UsageError(f"Backbone '{name}': {key} in config.json is {number:.3g}; expected at most {most:,}.")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every integer of a configuration, with its entry."""
    if isinstance(value, Mapping):
        for inner, content in value.items():
            yield from _numbers(content, str(inner))
    elif isinstance(value, list):
        for content in value:
            yield from _numbers(content, key)
    elif isinstance(value, int):
        yield key, value


def check_headers(headers: Headers, config: Mapping[str, Any], name: str) -> None:
    """Refuse files whose tensors cannot be the weights that the configuration describes.

    Args:
        headers: headers of the files; without tensors, nothing is checked.
        config: content of `config.json`.
        name: the backbone, for messages.

    Raises:
        UsageError: weights are integers, or no tensor has as many rows as the vocabulary.
    """
    if not headers.tensors:
        return
    for tensor, header in sorted(headers.tensors.items()):
        is_mask = header.size == 1 or len(header.shape) == _MASK_DIMENSIONS
        if tensor.endswith((".weight", ".bias")) and header.dtype not in FLOATS and not is_mask:
            raise UsageError(
                f"Backbone '{name}': {tensor} has the type {header.dtype}; expected one of {', '.join(FLOATS)}. "
                "Quantised weights are not read: use the original."
            )
    n_rows = vocabulary_size(config)
    if n_rows is not None and not any(header.shape[:1] == (n_rows,) for header in headers.tensors.values()):
        raise UsageError(
            f"Backbone '{name}': config.json states a vocabulary of {n_rows} tokens, and no tensor has {n_rows} rows. "
            f"The configuration and the weights are of different models. {SAVE_AGAIN}"
        )


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Return the vocabulary size that a configuration states; None if it states none."""
    inner = config.get("text_config")
    for stated in (config, inner if isinstance(inner, Mapping) else {}):
        value = stated.get("vocab_size")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def check_tokenizer(folder: Path, config: Mapping[str, Any], name: str) -> None:
    """Refuse a folder whose tokenizer has more tokens than the backbone has embeddings.

    Special tokens of tokenizer.json may have larger ids: loading removes them.

    Args:
        folder: the transformer's.
        config: content of its `config.json`.
        name: the backbone, for messages.

    Raises:
        UsageError: the tokenizer has more tokens, or one of its files cannot be read.
    """
    n_rows = vocabulary_size(config)
    largest, file = _largest_token(folder, name)
    if n_rows is not None and largest >= n_rows:
        raise too_many_tokens(name, largest, n_rows, file)


def too_many_tokens(name: str, largest: int, n_rows: int, file: str) -> UsageError:
    """Return the error for a tokenizer whose ids go beyond the embeddings."""
    return UsageError(
        f"Backbone '{name}': {file} has a token with the id {largest}, and the backbone has embeddings for the ids 0 "
        f"to {n_rows - 1}. The tokenizer is another model's, or the embeddings were not resized: "
        "model.resize_token_embeddings(len(tokenizer)), then save both."
    )


def _has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer in any format that gives a fast one in transformers."""
    if any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        return True
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return True
    return any(path.is_file() for pattern in ("*.model", "*.spm") for path in folder.glob(pattern))


def require_tokenizer(folder: Path, name: str) -> None:
    """Refuse a folder without a tokenizer, since transformers would make one with five tokens.

    Raises:
        UsageError: there is none.
    """
    if not _has_tokenizer(folder):
        raise UsageError(
            f"Backbone '{name}' has no tokenizer; expected tokenizer.json beside config.json. "
            "Save it with transformers: tokenizer.save_pretrained(FOLDER)."
        )


def _largest_token(folder: Path, name: str) -> tuple[int, str]:
    """Return the largest id of a token that is not special, and the file that holds it; -1 if no file states one."""
    found = (-1, "")
    for file in ("tokenizer.json", "vocab.json", "vocab.txt"):
        path = folder / file
        if path.is_file():
            status = path.stat()
            found = (_largest_id(path, status.st_size, status.st_mtime_ns, name), file)
            break
    added = folder / "added_tokens.json"
    if added.is_file() and not (folder / "tokenizer.json").is_file():
        ids = [value for value in read_object(added, name).values() if isinstance(value, int)]
        found = max(found, (max(ids, default=-1), added.name))
    return found


@functools.lru_cache(maxsize=64)
def _largest_id(path: Path, size: int, modified_ns: int, name: str) -> int:  # noqa: ARG001
    """Return the same, cached by the file's size and time of change."""
    if path.suffix == ".txt":
        with path.open("rb") as lines:
            return sum(1 for _ in lines) - 1
    content = read_object(path, name)
    if path.name == "vocab.json":
        return max((value for value in content.values() if isinstance(value, int)), default=-1)
    model, added = content.get("model"), content.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list) or not vocabulary or not isinstance(added, list):
        raise UsageError(f"Backbone '{name}': tokenizer.json has no vocabulary; expected model.vocab in it.")
    entries = [entry for entry in added if isinstance(entry, dict)]
    special = {entry.get("id") for entry in entries if entry.get("special") is True}
    ids = {entry.get("id") for entry in entries}
    ids |= set(vocabulary.values()) if isinstance(vocabulary, dict) else set(range(len(vocabulary)))
    return max((value for value in ids - special if isinstance(value, int)), default=-1)
