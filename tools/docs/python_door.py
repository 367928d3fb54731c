"""The page of the Python functions and classes, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import harness
import harness.methods
import harness.metrics
import harness.tasks
import harness.testing
from tools.docs.markdown import Docstring, code, fill, read_docstring, table, unwrapped

FUNCTIONS = (
    *(
        "run",
        "plan",
        "choose",
        "rank_backbones",
        "advise",
        "break_even",
        "read_records",
        "report",
        "compare",
        "publish",
    ),
    *("audit_defaults", "replay", "load_model", "measure_inference"),
)
"""Functions of `harness`, in the order of the page."""

_WIDTH = 100


def python_page() -> str:
    """Return the Markdown of the page."""
    from harness.advice import Advice, AdvisedMethod
    from harness.advice.spending import AdvisedSpending
    from harness.api.display import TerminalDisplay
    from harness.api.plans import PlanGroup, PlanRow
    from harness.choose import Chosen
    from harness.ranking import RankedBackbone, Ranking
    from harness.records import AuditedDefault, Inference, Record
    from harness.replay import Replayed
    from harness.report import Compared
    from harness.site import Published

    results: list[type] = [harness.Results, harness.RunResult, harness.Plan, PlanRow, PlanGroup]
    results += [harness.Audit, AuditedDefault]
    results += [Chosen, Ranking, RankedBackbone, Advice, AdvisedMethod, AdvisedSpending, harness.BreakEvens]
    results += [Compared, Published, Replayed, harness.SavedModel, harness.InferenceCost, Inference]
    errors = [error for error in _errors() if error.__doc__]
    return fill(
        "python.md",
        {
            "functions": _all(_function(f"harness.{name}", getattr(harness, name)) for name in FUNCTIONS),
            "results": _all(_class(cls.__name__, cls) for cls in results),
            "displays": _all(_class(cls.__name__, cls) for cls in (harness.Display, TerminalDisplay)),
            "record": f"`harness.read_records` returns `{Record.__name__}` objects: [records](records.md).",
            "errors": table(("class", "meaning"), [(code(e.__name__), _first(e)) for e in errors]),
            "testing": _all(
                [
                    *(_function(f"harness.testing.{name}", getattr(harness.testing, name)) for name in _testing()),
                    _class("harness.testing.Lab", harness.testing.Lab),
                ]
            ),
            "contracts": _all(
                _class(name, cls)
                for name, cls in (
                    ("harness.methods.Method", harness.methods.Method),
                    ("harness.methods.Fitted", harness.methods.Fitted),
                    ("harness.methods.Bench", harness.methods.Bench),
                    ("harness.methods.Choice", harness.methods.Choice),
                    ("harness.methods.Range", harness.methods.Range),
                    ("harness.tasks.Kind", harness.tasks.Kind),
                    ("harness.tasks.Rows", harness.tasks.Rows),
                    ("harness.metrics.MetricSpec", harness.metrics.MetricSpec),
                )
            ),
        },
    )


def _testing() -> list[str]:
    found = [name for name in dir(harness.testing) if not name.startswith("_")]
    return [name for name in found if inspect.isfunction(getattr(harness.testing, name))]


def _errors() -> list[type]:
    from harness.support import errors

    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, (Exception, Warning))]
    return [cls for cls in found if cls.__module__ == errors.__name__]


def _all(sections: Any) -> str:
    return "\n\n".join("\n\n".join(section) for section in sections)


def _function(name: str, function: Any) -> Iterator[str]:
    told = read_docstring(function.__doc__)
    yield f"### {name}"
    yield signature(name, function)
    yield told.prose
    yield from _sections(told, function)


def _class(name: str, cls: type) -> Iterator[str]:
    told = read_docstring(vars(cls).get("__doc__"))
    yield f"### {name}"
    bases = [base.__name__ for base in cls.__bases__ if base.__module__.startswith("harness.")]
    yield told.prose + (f" It extends `{bases[0]}`." if bases else "")
    for section in ("Class attributes", "Args", "Attributes"):
        meanings = told.entries(section)
        if section == "Args" and meanings == {**meanings, **told.entries("Attributes")}:
            continue
        if meanings:
            heading = {"Class attributes": "class attribute", "Args": "argument"}.get(section, "attribute")
            yield table((heading, "meaning"), _together(meanings))
    members = [(one, member) for one, member in vars(cls).items() if not one.startswith("_") and _is_told(member)]
    rows = [(code(_call(one, member)), _member_text(member)) for one, member in members]
    if rows:
        yield table(("member", "what it does"), rows)


def _together(meanings: dict[str, str]) -> list[tuple[str, str]]:
    """Return rows of names and their meaning; neighbours with one meaning share a row."""
    rows = itertools.groupby(meanings.items(), key=lambda entry: entry[1])
    return [(", ".join(code(name) for name, _ in entries), meaning) for meaning, entries in rows]


def _is_told(member: Any) -> bool:
    if isinstance(member, property):
        return bool(member.__doc__)
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    return inspect.isfunction(function) and bool(function.__doc__)


def _call(name: str, member: Any) -> str:
    """Return a property's name, or the call of a method with its arguments' names."""
    if isinstance(member, property):
        return name
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name not in ("self", "cls")]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    listed: list[str] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in "".join(listed):
            listed.append("*")
        listed.append(stars.get(parameter.kind, "") + parameter.name)
    return f"{name}({', '.join(listed)})"


def _member_text(member: Any) -> str:
    function = member if isinstance(member, property) else getattr(member, "__func__", member)
    return _one_line(read_docstring(function.__doc__).prose)


def _sections(told: Docstring, function: Any) -> Iterator[str]:
    parameters = inspect.signature(function).parameters
    meanings = told.entries("Args")
    if meanings:
        rows = [(code(name), _default(parameters.get(name)), meaning) for name, meaning in meanings.items()]
        yield table(("argument", "default", "meaning"), rows)
    for section in ("Example", "Returns"):
        if section in told.sections:
            text = told.sections[section]
            yield f"```pycon\n{text}\n```" if text.startswith(">>>") else f"**{section}**: {unwrapped(text)}"
    for section in ("Raises", "Warns"):
        meanings = told.entries(section)
        if meanings:
            yield f"**{section}**\n\n" + "\n".join(f"- `{name}`: {said}" for name, said in meanings.items())


def _default(parameter: inspect.Parameter | None) -> str:
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return "required"
    return code(repr(parameter.default))


def signature(name: str, function: Any) -> str:
    """Return the signature as Python code, annotations as they are written in the source."""
    shown = str(inspect.signature(function))
    shown = re.sub(r"(?<=: )'([^']*)'|(?<=-> )'([^']*)'", lambda found: found.group(1) or found.group(2), shown)
    if len(name) + len(shown) > _WIDTH:
        inner, _, returned = shown.rpartition(")")
        parts = _split(inner.removeprefix("("))
        shown = "(\n" + textwrap.indent(",\n".join(parts), "    ") + f",\n){returned}"
    return f"```python\n{name}{shown}\n```"


def _split(parameters: str) -> list[str]:
    """Return the parameters, split at the commas outside brackets and quotes."""
    parts, depth, quoted = [""], 0, False
    for letter in parameters:
        quoted ^= letter == "'"
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _first(cls: type) -> str:
    return _one_line(read_docstring(cls.__doc__).prose)


def _one_line(prose: str) -> str:
    """Return prose on one line, without blocks of code."""
    return " ".join(re.sub(r"```.*?```", "", prose, flags=re.DOTALL).split())
