"""`harness methods` and `harness suites`."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.methods.base import Method, methods
from harness.records import Budget


def show_methods(name: str | None) -> None:
    """The methods by family, or one of them in full."""
    console = Console()
    if name is not None:
        _explain(console, methods.get(name))
        return
    table = Table(title="Methods", title_justify="left")
    for heading in ("family", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in ("trains", "backbone", "source"):
        table.add_column(heading, overflow="fold")
    for cls in sorted(methods, key=lambda cls: (cls.family, cls.name)):
        serves = ", ".join(sorted(cls.serves)) or "none needed"
        table.add_row(*(Text(cell) for cell in (cls.family, cls.name, cls.trains, serves, cls.source)))
    console.print(table)
    console.print(
        "`harness methods NAME` explains one. Settings go in brackets: --methods 'lora[rank=4],full'.", markup=False
    )


def _explain(console: Console, cls: type[Method]) -> None:
    console.print(Text(f"{cls.name} ({cls.family}, version {cls.version})", style="bold"))
    console.print(Text(inspect.cleandoc(cls.__doc__ or "")))
    console.print(Text(f"\nTrains: {cls.trains}\nBackbone: {', '.join(sorted(cls.serves)) or 'none needed'}"))
    console.print(Text(f"Kinds of task: {', '.join(sorted(cls.kinds))}\nSource: {cls.source}"))
    table = Table(title="Settings", title_justify="left")
    table.add_column("setting")
    table.add_column("default")
    for setting, value in cls().config().items():
        table.add_row(Text(setting), Text(str(value)))
    if table.row_count:
        console.print(table)


def show_suites(name: str | None) -> None:
    """The shipped suites, or one of them in full."""
    from harness.suites import load_suite, suite_names

    console = Console()
    if name is None:
        table = Table(title="Suites", title_justify="left")
        for heading in ("suite", "tasks", "methods", "sizes", "about"):
            table.add_column(heading, overflow="fold")
        for known in suite_names():
            suite = load_suite(known)
            sizes = ", ".join(map(str, suite.sizes))
            row = (suite.name, ", ".join(suite.tasks), str(len(suite.methods)), sizes, suite.description)
            table.add_row(*map(Text, row))
        console.print(table)
        console.print("`harness suites NAME` explains one; `harness run NAME` runs it.", markup=False)
        return
    suite = load_suite(name)
    console.print(Text(f"{suite.name}: {suite.description}", style="bold"))
    console.print(Text(f"Backbone: {suite.backbone}\nMethods: {', '.join(suite.methods)}"))
    console.print(
        Text(
            f"Sizes: {', '.join(map(str, suite.sizes))}\nSeeds: {', '.join(map(str, suite.seeds))}\n"
            f"Budget: {(suite.budget or Budget()).label()}"
        )
    )
    for task_name in suite.tasks:
        spec = suite.task(task_name)
        console.print(Text(f"\nTask {spec.name} ({spec.kind}, {spec.metric}): {spec.description}", style="bold"))
        console.print(Text(f"Data: {spec.data.label()}, revision {spec.data.revision or 'not pinned'}"))
        console.print(Text(f"Licence: {spec.licence}\nCitation: {spec.citation or 'none'}"))
