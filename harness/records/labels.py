"""Names of configurations and backbones: short, and unambiguous among those that are shown together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from harness.records.record import Cell
from harness.support import text

_OF_TASK = frozenset({"prompt"})
"""Settings that a task fills in: labels show them only where one task has several."""

_EXPERIMENT = "experiment"
"""The one setting of imported results, which state the name of a run in place of settings."""

MAX_LABEL = 30
"""Maximum length of a label in characters."""

_ABBREVIATIONS = (("learning_rate", "lr"),)
"""Short forms of names of settings; labels use them only where the full name does not fit."""


class ConfigurationName(NamedTuple):
    """Name of one configuration.

    Attributes:
        label: short name of at most `MAX_LABEL` characters, such as `lora[rank=4]`.
        settings: the distinguishing settings in full, such as `rank=4, targets=attention`; empty where there are none.
    """

    label: str
    settings: str


@dataclass
class _Configuration:
    """One configuration of a method, with every setting that its records state or imply.

    Attributes:
        method: name of the method.
        flat: its settings by dotted name, with the version where labels need it.
        restated: names in `flat` whose values are known defaults.
        known: names in `flat` with a known default.
        is_evidence: whether one of its records is evidence about methods.
        stated: its configurations as the cells state them.
    """

    method: str
    flat: dict[str, str]
    restated: set[str]
    known: set[str]
    is_evidence: bool = False
    stated: set[str] = field(default_factory=set)


def variants(
    cells: Iterable[Cell],
    defaults: Iterable[Mapping[str, Any]],
    *,
    devices: Iterable[str] | None = None,
    is_evidence: Iterable[bool] | None = None,
) -> list[str]:
    """Return the label of each cell's configuration; see `configuration_names`."""
    named = configuration_names(cells, defaults, devices=devices, is_evidence=is_evidence)
    return [name.label for name in named]


def configuration_names(
    cells: Iterable[Cell],
    defaults: Iterable[Mapping[str, Any]],
    *,
    devices: Iterable[str] | None = None,
    is_evidence: Iterable[bool] | None = None,
    limit: int = MAX_LABEL,
) -> list[ConfigurationName]:
    """Return the name of each cell's configuration, made of the settings that distinguish it from the method's others.

    A method with one configuration is called by its name. `lora[rank=4]` is an example of a longer label. Two different
    configurations never share a label.

    - A setting that a cell does not state has its default from `defaults` of any cell of that method and version.
      Configurations that are equal with these defaults are one, unless two of their cells fill the same place in a
      table (task, backbone, size, seed, device).
    - Settings at such a default are never part of a label. Other values of these settings always are
      (`tfidf[analyzer=char]`).
    - Where configurations are evidence, they are compared with each other only. Configurations that were only tried in
      order to choose settings are told by their difference from these.
    - The version is part of a label only if one configuration has several versions on one task and backbone. A bug fix
      that affects some backbones or kinds of task raises the version there only; it is still one method.
    - A label has at most `MAX_LABEL` characters: `lora[rank=4, +3]` leaves out three settings. A number tells equal
      ones apart: `lora[rank=4, +3] #2`.

    Args:
        cells: cells of any methods.
        defaults: for each cell, the settings that its configuration states only if they differ (`Facts.defaults`).
        devices: device of each cell; None where all ran on one.
        is_evidence: whether each cell is evidence about methods (`Facts.is_evidence`); None where all are.
        limit: maximum length of a label, where less than `MAX_LABEL` is free.
    """
    cells = _without_shared_settings(list(cells))
    by_version = _known_defaults(cells, defaults)
    evidence = [True] * len(cells) if is_evidence is None else list(is_evidence)
    places = _split(cells, by_version, [""] * len(cells) if devices is None else list(devices))
    found: dict[tuple[str, ...], _Configuration] = {}
    for cell, (key, resolved, version), counts in zip(cells, places, evidence, strict=True):
        configuration = found.get(key)
        if configuration is None:
            known = by_version[cell.method, cell.version]
            flat = _flatten(resolved)
            tops = {name: name.partition(".")[0] for name in flat}
            same = {top for top in known if canonical_text(resolved[top]) == canonical_text(known[top])}
            configuration = found[key] = _Configuration(
                cell.method,
                flat | ({"version": version} if version else {}),
                {name for name, top in tops.items() if top in same},
                {name for name, top in tops.items() if top in known},
            )
        configuration.is_evidence |= counts
    by_method: defaultdict[str, dict[tuple[str, ...], _Configuration]] = defaultdict(dict)
    for key, configuration in found.items():
        by_method[configuration.method][key] = configuration
    names: dict[tuple[str, ...], ConfigurationName] = {}
    taken: set[str] = set()
    for method in sorted(by_method):
        names.update(_named(method, by_method[method], taken, limit))
    return [names[key] for key, _, _ in places]


def _without_shared_settings(cells: list[Cell]) -> list[Cell]:
    """Return cells without the settings that their task fills in, where all cells of a method and a task share them."""
    stating = [cell for cell in cells if not _OF_TASK.isdisjoint(cell.config)]
    if not stating:
        return cells
    values: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in cells:
        values[cell.method, cell.task].add(canonical_text({name: cell.config.get(name, "") for name in _OF_TASK}))
    shared = {method for method, _ in values} - {method for (method, _), found in values.items() if len(found) > 1}
    kept: dict[int, dict[str, Any]] = {}
    for cell in stating:
        kept.setdefault(id(cell.config), {name: v for name, v in cell.config.items() if name not in _OF_TASK})
    is_shared = {id(cell) for cell in stating if cell.method in shared}
    return [replace(cell, config=kept[id(cell.config)]) if id(cell) in is_shared else cell for cell in cells]


_Version = tuple[str, int]
"""A method's name and version."""


def _known_defaults(cells: Sequence[Cell], defaults: Iterable[Mapping[str, Any]]) -> dict[_Version, dict[str, Any]]:
    """Return the defaults of unstated settings by method and version; those on which cells disagree are left out."""
    found: defaultdict[_Version, dict[str, Any]] = defaultdict(dict)
    disputed: set[tuple[str, int, str]] = set()
    done: set[tuple[str, int, int]] = set()
    kept = []  # alive, so that their ids stay their own
    for cell, known in zip(cells, defaults, strict=True):
        of_version = found[cell.method, cell.version]
        if (cell.method, cell.version, id(known)) in done:
            continue
        done.add((cell.method, cell.version, id(known)))
        kept.append(known)
        for name, value in known.items():
            if name in of_version and canonical_text(of_version[name]) != canonical_text(value):
                disputed.add((cell.method, cell.version, name))
            of_version[name] = value
    for method, version, name in disputed:
        del found[method, version][name]
    return found


def _split(
    cells: Sequence[Cell], by_version: Mapping[_Version, Mapping[str, Any]], devices: Sequence[str]
) -> list[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Return for each cell the key of its configuration, all of its settings, and its version where labels need it."""
    resolved: list[tuple[str, str, dict[str, Any]]] = []  # as stated, with defaults as text, and as values
    known: dict[tuple[int, str, int], tuple[Any, tuple[str, str, dict[str, Any]]]] = {}  # cells share configurations
    told: dict[tuple[int, str, int], str] = {}  # what is no known default
    versions: defaultdict[tuple[str | None, ...], set[int]] = defaultdict(set)
    for cell in cells:
        at = (id(cell.config), cell.method, cell.version)
        if at not in known:
            of_version = by_version[cell.method, cell.version]
            values = {**of_version, **cell.config}
            known[at] = (cell.config, (canonical_text(cell.config), canonical_text(values), values))
            told[at] = canonical_text({n: v for n, v in values.items() if n not in of_version or v != of_version[n]})
        resolved.append(known[at][1])
        versions[cell.method, cell.task, cell.backbone, told[at]].add(cell.version)
    several = {key[0] for key, found in versions.items() if len(found) > 1}
    keys = [
        (cell.method, of_cell[1], str(cell.version) if cell.method in several else "")
        for cell, of_cell in zip(cells, resolved, strict=True)
    ]
    stated: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for key, (own, _, _) in zip(keys, resolved, strict=True):
        stated[key].add(own)
    apart: set[tuple[str, str, str]] = set()
    filled: dict[tuple[Any, ...], str] = {}
    for cell, key, (own, _, _), device in zip(cells, keys, resolved, devices, strict=True):
        if len(stated[key]) > 1 and key not in apart:
            place = (cell.task, cell.data, cell.backbone, cell.weights, cell.n_train, cell.draw, cell.budget, cell.seed)
            if filled.setdefault((key, device, *place), own) != own:
                apart.add(key)
    return [
        ((*key, own) if key in apart else key, values, key[2])
        for key, (own, _, values) in zip(keys, resolved, strict=True)
    ]


def _named(
    method: str, configurations: Mapping[tuple[str, ...], _Configuration], taken: set[str], limit: int = MAX_LABEL
) -> dict[tuple[str, ...], ConfigurationName]:
    """Name the configurations of one method, and add their labels to `taken`."""
    imported = {key: one for key, one in configurations.items() if _EXPERIMENT in one.flat}
    if imported and len(configurations) > 1:  # their runs have names, and no settings to compare
        own = {key: one for key, one in configurations.items() if key not in imported}
        return {**(_named(method, own, taken, limit) if own else {}), **_by_experiment(method, imported, taken, limit)}
    evidence = [one for one in configurations.values() if one.is_evidence] or list(configurations.values())
    differ = _differing(evidence)
    differ_in_all = _differing(list(configurations.values()))
    n_values = {name: len({one.flat.get(name) for one in configurations.values()}) for name in differ_in_all}
    asked: dict[tuple[str, ...], dict[str, str]] = {}
    settings: dict[tuple[str, ...], str] = {}
    for key, one in configurations.items():
        differing = (differ_in_all & one.flat.keys()) - one.restated
        told = ((one.known & one.flat.keys()) - one.restated) | (differ & differing)
        if not any(one is other for other in evidence):
            told |= {name for name in differing if one.flat[name] != evidence[0].flat.get(name)}
        asked[key] = {name: one.flat[name] for name in sorted(told)}
        settings[key] = storable(_joined({name: one.flat[name] for name in sorted(told | differing)}))
    # Names with more values tell more; the version comes first, because nothing else tells it.
    order = sorted(n_values, key=lambda name: (name != "version", -n_values[name], name))
    if not all(
        _short(method, told, order, limit).is_in_full for told in asked.values()
    ):  # one style for all of a method
        asked = {key: _abbreviated(told) for key, told in asked.items()}
        order = [_abbreviation(name) for name in order]
    labels: dict[tuple[str, ...], str] = {}
    for key in sorted(configurations, key=lambda key: (not configurations[key].is_evidence, len(asked[key]), key)):
        label, n = _short(method, asked[key], order, limit).label, 1
        while text.plain(label) in taken:
            n += 1
            suffix = f" #{n}"
            label = _short(method, asked[key], order, limit - len(suffix)).label + suffix
        taken.add(text.plain(label))
        labels[key] = label
    return {key: ConfigurationName(label, settings[key]) for key, label in labels.items()}


def _by_experiment(
    method: str, configurations: Mapping[tuple[str, ...], _Configuration], taken: set[str], limit: int
) -> dict[tuple[str, ...], ConfigurationName]:
    """Name imported configurations by their runs: `lora[rank32-dora]`."""
    found: dict[tuple[str, ...], ConfigurationName] = {}
    for key in sorted(configurations):
        run = storable(configurations[key].flat[_EXPERIMENT].strip('"'))
        ending, n = "", 1
        while text.plain(label := _cut(storable(method), run, limit - len(ending)) + ending) in taken:
            n += 1
            ending = f" #{n}"
        taken.add(text.plain(label))
        found[key] = ConfigurationName(label, f"{_EXPERIMENT}={run}")
    return found


def _cut(method: str, run: str, limit: int) -> str:
    """Return a method with the name of a run in brackets, which is cut at `limit` characters."""
    label = _bracketed(method, run)
    return label if len(label) <= limit else f"{label[: max(1, limit - 2)]}…]"


def _differing(configurations: Sequence[_Configuration]) -> set[str]:
    """Return the names of settings that differ; a setting that one of them lacks differs too."""
    first, *others = (one.flat for one in configurations)
    names = {name for flat in (first, *others) for name in flat}
    return {name for name in names if any(flat.get(name) != first.get(name) for flat in others)}


def configuration_label(method: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return a label for a configuration by its settings that are not the defaults: `lora[rank=4]`.

    Where it leaves out settings, it ends with four digits of their hash, which tell it from similar configurations.
    """
    told = _told(config, defaults)
    short = _short(method, told)
    if not short.is_in_full:
        short = _short(method, _abbreviated(told))
    if short.is_in_full:
        return short.label
    suffix = f" #{hashlib.sha256(storable(_bracketed(method, _joined(told))).encode()).hexdigest()[:4]}"
    return _short(method, _abbreviated(told), limit=MAX_LABEL - len(suffix)).label + suffix


def configuration_in_full(method: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return a method with all its settings that are not the defaults, as `--methods` takes it: `lora[rank=4]`."""
    return _bracketed(method, _joined(_told(config, defaults)))


def _told(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    told = {name: value for name, value in config.items() if defaults.get(name) != value and name not in _OF_TASK}
    return _flatten(told)


BackboneKey: TypeAlias = "tuple[str, str | None]"
"""A backbone's name and the fingerprint of its files, as cells state them; the fingerprint may be unknown (None)."""

_FINGERPRINT_DIGITS = 4


def short_backbones(backbones: Iterable[BackboneKey]) -> dict[BackboneKey, str]:
    """Return a short name of each backbone, unambiguous among those given.

    - A hub id loses its owner where no other name ends alike: `all-MiniLM-L6-v2`.
    - A local folder keeps its mark: `local:my-model`.
    - Where different files have one name, the first digits of their fingerprints follow: `local:my-model #3fa9`.

    Args:
        backbones: name and fingerprint of each, such as `(cell.backbone, cell.weights)`; repetitions do no harm.
    """
    fingerprints: defaultdict[str, set[str]] = defaultdict(set)
    for name, weights in backbones:
        fingerprints[name].update(() if weights is None else (weights,))
    endings = Counter(name.rpartition("/")[2] for name in fingerprints)
    found: dict[BackboneKey, str] = {}
    for name, known in fingerprints.items():
        ending = name.rpartition("/")[2]
        short = storable(name if name.startswith("local:") or endings[ending] > 1 else ending)
        digits = _FINGERPRINT_DIGITS
        while len({weights[:digits] for weights in known}) < len(known):
            digits += 1
        found[name, None] = short
        for weights in known:
            found[name, weights] = f"{short} #{weights[:digits]}" if len(known) > 1 else short
    return found


class _Short(NamedTuple):
    label: str
    is_in_full: bool


def _short(method: str, told: Mapping[str, str], order: Sequence[str] = (), limit: int = MAX_LABEL) -> _Short:
    """Return a label of at most `limit` characters, and whether it shows everything.

    Args:
        method: name of the method.
        told: settings that the label should show.
        order: names of settings, the most important first; others follow by name.
        limit: maximum number of characters.
    """
    method = storable(method)
    told = {storable(name): storable(value) for name, value in told.items()}
    if len(label := _bracketed(method, _joined(told))) <= limit:
        return _Short(label, True)
    rank = {storable(name): i for i, name in enumerate(order)}
    kept: dict[str, str] = {}
    for name in sorted(told, key=lambda name: (rank.get(name, len(rank)), name)):
        trial = {other: told[other] for other in sorted({*kept, name})}
        if len(_bracketed(method, f"{_joined(trial)}, +{len(told) - len(trial)}")) <= limit:
            kept = trial
    rest = f"+{len(told) - len(kept)}" if told else ""
    label = _bracketed(method, f"{_joined(kept)}, {rest}" if kept else rest)
    if len(label) > limit:
        end = _bracketed("", rest)
        label = f"{method[: limit - len(end) - 1]}…{end}"
    return _Short(label, False)


def _abbreviated(told: dict[str, str]) -> dict[str, str]:
    """Return settings with short forms of their names, or as they are if two would have one name."""
    short = {_abbreviation(name): value for name, value in told.items()}
    return short if len(short) == len(told) else told


def _abbreviation(name: str) -> str:
    for full, short in _ABBREVIATIONS:
        name = name.replace(full, short)
    return name


def _bracketed(method: str, inner: str) -> str:
    return f"{method}[{inner}]" if inner else method


def _joined(told: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in told.items())


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings by dotted names; values are JSON, without quotes around plain words."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            as_json = canonical_text(value)
            flat[prefix + name] = value if isinstance(value, str) and value.isidentifier() else as_json
    return flat


def canonical_text(value: Any) -> str:
    """Return JSON of a value with sorted keys and unescaped letters."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def storable(value: str) -> str:
    """Return a text with lone surrogates escaped: one undecodable file name must not break an export."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
