"""Labels of configurations: a method's name, and the settings that distinguish it from the method's others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from harness.records.record import Cell


def variants(cells: Iterable[Cell], defaults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a label for each cell's configuration, made of the settings that distinguish it from the method's others.

    Args:
        cells: cells of any methods.
        defaults: for each cell, the settings that its configuration states only if they differ (`Facts.defaults`).

    The version is part of a label only if one configuration has several versions on one task and backbone. A bug fix
    that affects some backbones or kinds of task raises the version there only; it is still one method.

    An example is `lora[rank=4]`. Two configurations never share a label. The label of a method with one configuration
    is its name. A setting that is stated only if it differs from the default is always part of the label
    (`tfidf[analyzer=char]`).
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
    """Return nested settings by dotted names; values are JSON, without quotes around plain words."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            text = canonical_text(value)
            flat[prefix + name] = value if isinstance(value, str) and value.isidentifier() else text
    return flat


def canonical_text(value: Any) -> str:
    """Return JSON of a value with sorted keys and unescaped letters."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def storable(text: str) -> str:
    """Return the text with lone surrogates escaped: one undecodable file name must not break an export."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
