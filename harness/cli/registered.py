"""`harness kinds` and `harness metrics`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.as_json import print_json
from harness.metrics import metrics
from harness.tasks import FORMS, kinds


def show_kinds(*, as_json: bool = False) -> None:
    """Print the kinds of task, with their roles, metrics and the package that each comes from."""
    if as_json:
        print_json(
            [
                {
                    "kind": kind.name,
                    "answers": kind.asks_for or FORMS[kind.form],
                    "columns": list(kind.roles),
                    "metrics": list(kind.metrics),
                    "package": kinds.origin(kind.name),
                }
                for kind in kinds
            ]
        )
        return
    table = _table("Kinds of task", "kind", "answers", "columns", "metrics")
    for kind in kinds:
        about = kind.asks_for or FORMS[kind.form]
        row = (_named(kind.name, kinds.origin(kind.name)), about, ", ".join(kind.roles), ", ".join(kind.metrics))
        table.add_row(*map(Text, row))
    Console().print(table)


def show_metrics(*, as_json: bool = False) -> None:
    """Print the metrics, with the kinds that each scores, its range and the package that it comes from."""
    if as_json:
        print_json(
            [
                {
                    "metric": spec.name,
                    "kinds": [kind.name for kind in kinds if spec.name in kind.metrics],
                    "low": spec.low,
                    "high": spec.high,
                    "higher_is_better": spec.higher_is_better,
                    "about": spec.description,
                    "package": metrics.origin(spec.name),
                }
                for spec in metrics
            ]
        )
        return
    table = _table("Metrics", "metric", "scores", "range", "about")
    for spec in metrics:
        scored = ", ".join(kind.name for kind in kinds if spec.name in kind.metrics) or "no task, beside other metrics"
        high = "no limit" if spec.high is None else f"{spec.high:g}"
        better = "higher" if spec.higher_is_better else "lower"
        row = (_named(spec.name, metrics.origin(spec.name)), scored, f"{spec.low:g} to {high}, {better} is better")
        table.add_row(*map(Text, (*row, spec.description)))
    Console().print(table)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _named(name: str, origin: str | None) -> str:
    return name if origin is None else f"{name}\nfrom {origin}"
