"""The pages of kinds, metrics and suites, from the registries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.methods import methods
from harness.metrics import MetricSpec, metrics
from harness.planning import load_suite, suite_names, suite_origin, whole_grid
from harness.tasks import FORMS, Kind, kinds
from tools.docs.describe import own, serves_kind
from tools.docs.markdown import code, fill, linked, read_docstring, table

FIRST = ("quickstart", "sentiment", "topics", "questions", "spam", "everything")
"""Suites that the page lists first; the others follow by name."""


def kinds_page() -> str:
    """Return the Markdown of the page on kinds of task."""
    ours = [kind for kind in kinds if own(kinds, kind.name)]
    rows = [
        (
            f"[`{kind.name}`](#{kind.name})",
            ", ".join(map(_role, kind.roles.items())),
            kind.form,
            ", ".join(map(code, kind.metrics)),
            kind.backbone.rpartition("/")[2],
        )
        for kind in ours
    ]
    headings = ("kind", "columns, by role", "form of an answer", "metrics, the default first", "default backbone")
    forms = [(code(form), meaning, ", ".join(map(code, _with_form(ours, form)))) for form, meaning in FORMS.items()]
    return fill(
        "kinds.md",
        {
            "kinds": table(headings, rows),
            "forms": table(("form", "an answer is", "kinds"), forms),
            "each": "\n\n".join("\n\n".join(_kind(kind)) for kind in ours),
        },
    )


def _role(role: tuple[str, str | None]) -> str:
    name, default = role
    if default is None:
        return f"`{name}` (optional)"
    return (
        f"`{name}` (must be named)" if default == "" else f"`{name}`" + (f" (`{default}`)" if default != name else "")
    )


def _with_form(ours: list[Kind], form: str) -> list[str]:
    return [kind.name for kind in ours if kind.form == form]


def _kind(kind: Kind) -> Iterator[str]:
    yield f"### {kind.name}"
    yield read_docstring(type(kind).__doc__).prose
    served = [cls.name for cls in methods if own(methods, cls.name) and serves_kind(cls, kind)]
    listed = ", ".join(f"[`{name}`](methods/{name}.md)" for name in served)
    n_methods = sum(own(methods, cls.name) for cls in methods)
    yield f"Methods: {'all' if len(served) == n_methods else listed}."


def metrics_page() -> str:
    """Return the Markdown of the page on metrics."""
    ours = [spec for spec in metrics if own(metrics, spec.name)]
    rows = [
        (
            f"[`{spec.name}`](#{spec.name.lower()})",
            _range(spec),
            "higher" if spec.higher_is_better else "lower",
            ", ".join(_scored(spec)) or "no kind",
        )
        for spec in ours
    ]
    return fill(
        "metrics.md",
        {
            "metrics": table(("metric", "range", "better", "main metric of"), rows, right=(1,)),
            "each": "\n\n".join("\n\n".join(_metric(spec)) for spec in ours),
        },
    )


def _range(spec: MetricSpec) -> str:
    return f"from {spec.low:g}" if spec.high is None else f"{spec.low:g} to {spec.high:g}"


def _scored(spec: MetricSpec) -> list[str]:
    """Return links to the kinds that a metric may be the main one of."""
    scored = [kind.name for kind in kinds if own(kinds, kind.name) and spec.name in kind.metrics]
    return [f"[{name}](kinds.md#{name})" for name in scored]


def _metric(spec: MetricSpec) -> Iterator[str]:
    yield f"### {spec.name}"
    yield spec.description
    how = "a mean over test rows" if spec.mean_over_rows else "a figure of all test rows together"
    yield f"- computed as: {how}\n- source: {linked(spec.source)}"


def suites_page() -> str:
    """Return the Markdown of the page on suites and their tasks."""
    names = [name for name in suite_names() if suite_origin(name) is None]
    names = sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    suites = {name: load_suite(name) for name in names}
    tasks: dict[str, Any] = {}
    used_in: dict[str, list[str]] = {}
    for name, suite in sorted(suites.items(), key=lambda item: item[1].test_cap is not None):  # whole tasks first
        for task in suite.tasks:
            tasks.setdefault(task, suite.task(task))
            used_in.setdefault(task, []).append(name)
    listed = [
        (
            code(name),
            suite.description,
            ", ".join(f"[{task}](#{task})" for task in suite.tasks),
            ", ".join(whole_grid(suite).sizes),
        )
        for name, suite in suites.items()
    ]
    return fill(
        "suites.md",
        {
            "suites": table(("suite", "what it asks", "tasks", "sizes"), listed, right=(3,)),
            "each_suite": "\n\n".join("\n\n".join(_suite(suite)) for suite in suites.values()),
            "each_task": "\n\n".join("\n\n".join(_task(tasks[name], used_in[name])) for name in sorted(tasks)),
        },
    )


def _suite(suite: Any) -> Iterator[str]:
    yield f"### Suite {suite.name}"
    grid = whole_grid(suite)
    budgets = [f"`--budget {name}`" for name in suite.budgets]
    facts = [
        ("backbone", ", ".join(map(code, grid.backbones or ()))),
        ("methods", ", ".join(map(_method, grid.methods))),
        ("seeds", ", ".join(map(str, sorted(grid.seeds)))),
        *(
            [("parts", f"{len(suite.parts)}, in the order of their value (`harness suites {suite.name}`)")]
            if suite.parts
            else []
        ),
        *([("test rows", f"at most {suite.test_cap:,} of each task")] if suite.test_cap else []),
        ("budget of a fit", code(suite.budget.label()) if suite.budget else "the methods' own lengths"),
        *([("sets of budgets", ", ".join(budgets))] if budgets else []),
    ]
    yield "\n".join(f"- {name}: {value}" for name, value in facts)


def _method(label: str) -> str:
    name = label.partition("[")[0]
    return f"[`{label}`](methods/{name}.md)" if name in methods and own(methods, name) else code(label)


def _task(spec: Any, suites: list[str]) -> Iterator[str]:
    yield f"### {spec.name}"
    yield spec.description
    kind = kinds.get(spec.kind)
    cut = "start" if spec.truncation_side == "left" else "end"
    facts = [
        ("kind", f"[`{spec.kind}`](kinds.md#{spec.kind})"),
        ("metric", code(spec.metric or kind.main_metric)),
        ("classes", str(len(spec.label_names)) if spec.label_names else ""),
        ("data", code(spec.data.label()) + (f", revision `{spec.data.revision}`" if spec.data.revision else "")),
        ("longest text", f"{spec.max_length} tokens; a longer one loses its {cut}"),
        ("licence", spec.licence),
        ("cite", linked(spec.citation or "")),
        ("defaults were chosen on it", "yes" if spec.chosen_on else ""),
        ("backbones that have seen it", ", ".join(map(code, spec.seen_by))),
        ("shares texts with", "; ".join(spec.overlaps)),
        ("notes", spec.notes or ""),
        ("suites", ", ".join(map(code, suites))),
    ]
    yield "\n".join(f"- {name}: {' '.join(value.split())}" for name, value in facts if value)
