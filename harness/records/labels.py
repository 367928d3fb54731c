"""Labels of configurations: a method's name, and what tells one configuration of it from its others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from harness.records.record import Cell


def variants(cells: Iterable[Cell], defaults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a label for each cell's configuration of its method, by what tells it from the method's others.

    Args:
        cells: of any methods.
        defaults: of each cell, the settings that its configuration states only where they differ (`Facts.defaults`).

    A version tells cells apart only where a task and a backbone have cells of one configuration in several versions. A
    fault that is mended on some backbones, or for some kinds of task, raises the version there only, and a method is
    still one method.

    Such as `lora[rank=4]`: two configurations never share a label, and a method with one configuration bears its own
    name. A setting that is stated only where it differs from the default (`tfidf[analyzer=char]`) is always told.
    """
    cells = list(cells)
    unstated: defaultdict[str, set[str]] = defaultdict(set)
    for cell, known_defaults in zip(cells, defaults, strict=True):
        unstated[cell.method].update(known_defaults)
    versions: defaultdict[tuple[str | None, ...], set[int]] = defaultdict(set)
    told: dict[int, str] = {}
    for cell in cells:
        if id(cell.config) not in told:
            told[id(cell.config)] = canonical_text(cell.config)
        versions[cell.method, cell.task, cell.backbone, told[id(cell.config)]].add(cell.version)
    several = {key[0] for key, found in versions.items() if len(found) > 1}
    configured: list[tuple[str, str]] = []
    settings: dict[tuple[str, str], dict[str, str]] = {}
    known: dict[tuple[int, int, str], tuple[Any, tuple[str, str]]] = {}  # cells share their configurations
    for cell in cells:
        same = known.get((id(cell.config), cell.version, cell.method))
        if same is None:
            flat = {**_flatten(cell.config), "version": str(cell.version) if cell.method in several else ""}
            key = (cell.method, canonical_text(flat))
            settings[key] = flat
            same = known[id(cell.config), cell.version, cell.method] = (cell.config, key)
        configured.append(same[1])
    labels = {key: storable(label) for key, label in _variants(settings, unstated).items()}
    return [labels[key] for key in configured]


def _variants(
    settings: Mapping[tuple[str, str], dict[str, str]], unstated: Mapping[str, set[str]]
) -> dict[tuple[str, str], str]:
    by_method: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for (method, _), flat in settings.items():
        by_method[method].append(flat)
    labels = {}
    for key, flat in settings.items():
        method = key[0]
        others = by_method[method]
        told = [
            name
            for name in sorted(flat)
            if name.partition(".")[0] in unstated[method] or any(other.get(name) != flat[name] for other in others)
        ]
        labels[key] = _label(method, {name: flat[name] for name in told})
    return labels


def configuration_label(method: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return a label for a configuration by its settings that are not the defaults: `lora[rank=4]`."""
    return _label(method, _flatten({name: value for name, value in config.items() if defaults.get(name) != value}))


def _label(method: str, told: Mapping[str, str]) -> str:
    inner = ", ".join(f"{name}={value}" for name, value in told.items())
    return f"{method}[{inner}]" if inner else method


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted names, values as JSON without the quotes of a plain word."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            text = canonical_text(value)
            flat[prefix + name] = value if isinstance(value, str) and value.isidentifier() else text
    return flat


def canonical_text(value: Any) -> str:
    """JSON of a value, keys sorted, letters as they are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def storable(text: str) -> str:
    """The text with lone surrogates spelt out: an undecodable file name in an error must not break a whole export."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
