"""`harness methods` and `harness suites`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.as_json import print_json
from harness.cli.console import make_console
from harness.methods import (
    CAPABILITIES,
    LANGUAGE_MODEL,
    Choice,
    Method,
    Range,
    capabilities_of,
    methods,
    methods_that_can,
)
from harness.records import AuditedDefault, Budget, audited_defaults
from harness.support import unknown_name
from harness.tasks import Kind, kinds

if TYPE_CHECKING:
    from harness.planning import Axes, Suite

FAMILIES = (
    "baseline",
    "frozen features",
    "partial fine-tuning",
    "full fine-tuning",
    "contrastive",
    "auxiliary parameters",
    "in context",
)
"""Families in the order of the list, from free ones to those that need a large model; others come last."""

_LENGTH = ("learning_rate", "epochs")
_SHORT = {"encoder": "encoder", "causal": "causal", "sequence-to-sequence": "seq2seq"}


def show_methods(name: str | None, task: str | None = None, can: str | None = None, *, as_json: bool = False) -> None:
    """Print the methods by family, those that serve a task or have a capability, or one of them in full.

    Args:
        name: the method to explain.
        task: a task of a shipped suite, or a kind of task; only methods that serve it are listed.
        can: capabilities of `methods.CAPABILITIES`, with commas between them; only methods with all of them are listed.
        as_json: whether to print JSON: one object for `name`, else a list of them.

    Raises:
        UsageError: there is no such method, task, kind or capability.
    """
    console = make_console()
    capable = methods_that_can([] if can is None else [one.strip() for one in can.split(",")])
    if name is not None:
        if as_json:
            print_json(_method_facts(methods.get(name)))
        else:
            _explain(console, methods.get(name))
        return
    wanted = None if task is None else _kind_of(task)
    served = [cls for cls in capable if wanted is None or _serves_kind(cls, *wanted)]
    served.sort(key=lambda cls: (*_family_position(cls.family), cls.name))
    if as_json:
        print_json([_method_facts(cls) for cls in served])
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    family = None
    for cls in served:
        if cls.family != family:
            table.add_row(Text(f"{chr(10) if family else ''}{cls.family}", style="bold"))
            family = cls.family
        about = Text(cls.trains)
        origin = methods.origin(cls.name)
        package = f" · from {origin}" if origin else ""
        mark = "experimental · " if cls.experimental else ""
        abilities = f" · can {', '.join(capabilities_of(cls))}" if cls.can else ""
        about.append(f"\n{mark}needs {_needs_of(cls)}{abilities} · {cls.source}{package}", style="dim")
        brief = _settings_in_brief(cls)
        if brief:
            about.append(f"\n{brief}")
        table.add_row(Text(f"  {cls.name}"), about)
    if wanted is not None:
        console.print(f"Methods that serve {task}, a {wanted[0].name} task:\n", markup=False, highlight=False)
    if not served:
        console.print(f"No such method has the capabilities {can}.", markup=False, highlight=False)
    console.print(table)
    for line in (
        "\nEach method is listed with what it trains; the kinds of backbone it can adapt, and its other needs; what "
        "can be done with a fit; where it comes from; the default settings that tell it from others. `harness methods "
        "NAME` explains one.",
        "Settings go in brackets: --methods 'lora[rank=4],full'. With --tune 8, methods choose some of them.",
    ):
        console.print(line, markup=False, highlight=False)


def _family_position(family: str) -> tuple[int, str]:
    """Return the position of a family in the list."""
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), family)


def _needs_of(cls: type[Method]) -> str:
    """Return the kinds of backbone that a method adapts, and its other needs; `none` for nothing."""
    kinds = " / ".join(short for kind, short in _SHORT.items() if kind in cls.serves)
    return ", ".join(filter(None, (kinds, cls.needs))) or "none"


def _telling_settings(cls: type[Method]) -> list[str]:
    """Return the names of the settings that tell a method from others.

    They are declared by its own class, or searched over. Gradient methods add their learning rate and epochs.
    """
    names = [name for name in inspect.get_annotations(cls) if name in cls.model_fields]
    names += [name for name in cls.search_space if name in cls.model_fields]
    if "learning_rate" in cls.model_fields:
        names = [name for name in names if name not in _LENGTH] + [name for name in _LENGTH if name in cls.model_fields]
    return list(dict.fromkeys(names))


def _settings_in_brief(cls: type[Method]) -> str:
    """Return the defaults of the settings that tell a method from others."""
    defaults = cls().model_dump(mode="json")
    return ", ".join(f"{name}={_setting_text(defaults[name])}" for name in _telling_settings(cls))


def _setting_text(value: Any) -> str:
    """Return a setting's value as the command line takes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _search_text(setting: Choice | Range | None) -> str:
    """Return the values that `--tune` tries for a setting; empty where it tries none."""
    if setting is None:
        return ""
    if isinstance(setting, Choice):
        return ", ".join(_setting_text(value) for value in setting.values)
    return f"{setting.low:g} to {setting.high:g}{' (log)' if setting.log else ''}"


def split_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Return the prose of a class's docstring, and the description of each attribute.

    The docstring has Google's style: a section `Attributes:` of lines `name: meaning` or `a, b: meaning`. Lines that
    are indented further continue the one before.
    """
    prose, _, rest = re.sub(r"\s+$", "", inspect.cleandoc(doc)).partition("\nAttributes:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    indent = ""
    for line in rest.splitlines():
        if not line.strip():
            continue
        if not line.startswith(" "):
            break  # the next section
        indent = indent or line[: len(line) - len(line.lstrip())]
        found = re.match(rf"{indent}(\w+(?:, \w+)*):\s*(.*)", line)
        if found:
            names = found.group(1).split(", ")
            meanings.update(dict.fromkeys(names, found.group(2)))
        else:
            meanings.update({name: f"{meanings[name]} {line.strip()}".strip() for name in names})
    return prose.strip(), meanings


def setting_meanings(cls: type[Method]) -> dict[str, str]:
    """Return the meaning of each setting, from the docstrings of the class and its bases; the nearest wins."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings.update(split_docstring(vars(base).get("__doc__") or "")[1])
    return {name: meanings[name] for name in cls.model_fields if name in meanings}


def _kind_of(task: str) -> tuple[Kind, bool]:
    """Return the kind of a task, or the kind of that name, and whether the likelihood of texts scores it."""
    from harness.planning import load_suite, suite_names

    if task in kinds:
        return kinds.get(task), False
    known = {name: spec for suite in suite_names() for name, spec in load_suite(suite).tasks.items()}
    if task not in known:
        raise unknown_name("task", task, [*known, *kinds.names()])
    kind = kinds.get(known[task].kind)
    return kind, known[task].metric in kind.likelihood_metrics


def _serves_kind(cls: type[Method], kind: Kind, wants_likelihood: bool = False) -> bool:
    """Return whether a method can answer tasks of a kind, on a backbone that it adapts."""
    if cls.why_not_kind(kind) is not None or (wants_likelihood and not cls.finds_likelihood):
        return False
    return kind.form != "text" or not cls.serves or bool(cls.serves & LANGUAGE_MODEL)


def _method_facts(cls: type[Method]) -> dict[str, Any]:
    """Return what `harness methods NAME` prints, as plain values."""
    meanings, defaults = setting_meanings(cls), cls().model_dump(mode="json")
    return {
        "method": cls.name,
        "family": cls.family,
        "version": cls.version,
        "later_versions": cls.later_versions() or None,
        "about": split_docstring(cls.__doc__ or "")[0],
        "trains": cls.trains,
        "architectures": sorted(cls.serves),
        "needs": cls.needs or None,
        "can": capabilities_of(cls),
        "kinds": [kind.name for kind in kinds if _serves_kind(cls, kind)],
        "source": cls.source,
        "package": methods.origin(cls.name),
        "audits": [audited.to_dict() for audited in audits_of(cls)],
        "settings": [
            {
                "setting": name,
                "default": default,
                "tune_tries": _search_text(cls.search_space.get(name)) or None,
                "meaning": meanings.get(name),
            }
            for name, default in defaults.items()
            if name != "tune" or cls.search_space
        ],
    }


def audits_of(cls: type[Method]) -> list[AuditedDefault]:
    """Return the audits of a method's present default settings, by backbone; some backbones raise the version."""
    config = cls().config()
    return [
        one
        for one in audited_defaults()
        if (one.method, one.config) == (cls.name, config) and one.version >= cls.version
    ]


def _explain(console: Console, cls: type[Method]) -> None:
    console.print(Text(f"{cls.name} ({cls.family}, version {cls.version})", style="bold"))
    for paragraph in re.split(r"\n\s*\n", split_docstring(cls.__doc__ or "")[0]):
        console.print(Text(re.sub(r"\n(?=\w|`)", " ", paragraph) + "\n"))  # lines of a list keep theirs
    console.print(Text(f"Trains: {cls.trains}\nNeeds: {_needs_of(cls)}"))
    for ability in capabilities_of(cls):
        console.print(Text(f"Can {ability}: {CAPABILITIES[ability]}"))
    if cls.experimental:
        console.print(Text(f"Experimental: {cls.experimental}"))
    served = [kind.name for kind in kinds if _serves_kind(cls, kind)]
    console.print(Text(f"Kinds of task: {', '.join(served)}\nSource: {cls.source}"))
    if methods.origin(cls.name):
        console.print(Text(f"Package: {methods.origin(cls.name)}"))
    later = cls.later_versions()
    if later:
        console.print(Text(f"Later versions: {later}"))
    for audited in audits_of(cls):
        verdict = "behind tuned settings" if audited.is_behind else "not shown to be behind"
        console.print(Text(f"Defaults on {audited.backbone.rsplit('/', 1)[-1]}: {verdict}; {audited.said}"))
    meanings = setting_meanings(cls)
    defaults = cls().model_dump(mode="json")
    if not cls.search_space:
        console.print(Text("Search space: none, so there is nothing for --tune to choose"))
        del defaults["tune"]
    if not defaults:
        return
    table = Table(title="Settings", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=24)
    if cls.search_space:
        table.add_column("--tune tries", max_width=24)
    table.add_column("meaning")
    names = list(dict.fromkeys([*_telling_settings(cls), *(name for name in defaults if name != "tune"), *defaults]))
    for name in names:
        searched = [_search_text(cls.search_space.get(name))] if cls.search_space else []
        table.add_row(*map(Text, (name, _setting_text(defaults[name]), *searched, meanings.get(name, ""))))
    console.print(table)


def _suite_facts(name: str) -> dict[str, Any]:
    """Return what `harness suites NAME` prints, as plain values."""
    from harness.planning import BUDGET_SETS, load_suite, resolve_parts, suite_origin, whole_grid

    suite = load_suite(name)
    grid = whole_grid(suite)
    return {
        "suite": suite.name,
        "about": suite.description,
        "package": suite_origin(name),
        "backbones": list(grid.backbones or ()),
        "methods": list(grid.methods),
        "sizes": list(grid.sizes),
        "seeds": sorted(grid.seeds),
        "parts": [dataclasses.asdict(part) for part in resolve_parts(suite)] if suite.parts else None,
        "budget": (suite.budget or Budget()).label(),
        "budget_sets": {
            one: [budget.label() for budget in suite.budget_set(one)] for one in {**BUDGET_SETS, **suite.budgets}
        },
        "tasks": [
            {
                "task": spec.name,
                "kind": spec.kind,
                "metric": spec.metric,
                "about": spec.description,
                "data": spec.data.label(),
                "revision": spec.data.revision,
                "licence": spec.licence,
                "citation": spec.citation or None,
            }
            for spec in map(suite.task, suite.tasks)
        ],
    }


def _show_part(console: Console, at: int, part: Axes, suite: Suite) -> None:
    """Print the axes of one part of a suite."""
    where = "every task" if len(part.tasks) == len(suite.tasks) else ", ".join(part.tasks)
    lines = [f"Part {at}: {where}", f"  methods: {', '.join(part.methods)}"]
    if part.backbones is not None:
        lines.append(f"  backbones: {', '.join(part.backbones)}")
    lines.append(f"  sizes: {', '.join(part.sizes)}; seeds: {', '.join(map(str, part.seeds))}")
    console.print(Text("\n".join(lines)))


def show_suites(name: str | None, *, as_json: bool = False) -> None:
    """Print the shipped suites, or one of them in full."""
    from harness.planning import BUDGET_SETS, load_suite, resolve_parts, suite_names, suite_origin, whole_grid

    if as_json:
        print_json([_suite_facts(one) for one in suite_names()] if name is None else _suite_facts(name))
        return
    console = Console()
    if name is None:
        table = Table(title="Suites", title_justify="left")
        for heading in ("suite", "tasks", "methods", "sizes", "about"):
            table.add_column(heading, overflow="fold")
        for known in suite_names():
            suite = load_suite(known)
            grid = whole_grid(suite)
            package = suite_origin(known)
            listed = f"{suite.name}\nfrom {package}" if package else suite.name
            row = (listed, ", ".join(suite.tasks), str(len(grid.methods)), ", ".join(grid.sizes), suite.description)
            table.add_row(*map(Text, row))
        console.print(table)
        console.print("`harness suites NAME` explains one; `harness run NAME` runs it.", markup=False)
        return
    suite = load_suite(name)
    console.print(Text(f"{suite.name}: {suite.description}", style="bold"))
    grid = whole_grid(suite)
    backbones = grid.backbones or ()
    heading = "Backbones" if suite.backbones is not None or (len(backbones) > 1 and suite.parts) else "Backbone"
    console.print(Text(f"{heading}: {', '.join(backbones)}"))
    if suite.parts:
        for at, part in enumerate(resolve_parts(suite), start=1):
            _show_part(console, at, part, suite)
    else:
        sizes, seeds = ", ".join(grid.sizes), ", ".join(map(str, grid.seeds))
        console.print(Text(f"Methods: {', '.join(grid.methods)}\nSizes: {sizes}\nSeeds: {seeds}"))
    console.print(Text(f"Budget: {(suite.budget or Budget()).label()}"))
    for set_name in {**BUDGET_SETS, **suite.budgets}:
        labels = "; ".join(budget.label() for budget in suite.budget_set(set_name))
        console.print(Text(f"--budget {set_name}: {labels}"))
    for task_name in suite.tasks:
        spec = suite.task(task_name)
        console.print(Text(f"\nTask {spec.name} ({spec.kind}, {spec.metric}): {spec.description}", style="bold"))
        console.print(Text(f"Data: {spec.data.label()}, revision {spec.data.revision or 'not pinned'}"))
        console.print(Text(f"Licence: {spec.licence}\nCitation: {spec.citation or 'none'}"))
