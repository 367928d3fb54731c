"""The command `harness` and its options.

This module imports typer alone, so that `harness --help` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    name="harness",
    help="Compare ways of adapting a pretrained transformer on your task, and learn which fits your budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StoreOption = Annotated[
    str, typer.Option("--store", envvar="HARNESS_STORE", help="Where records are kept: a file or a database URL.")
]
MirrorOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--mirror", envvar="HARNESS_MIRROR", help="Folder with datasets/ and models/, looked in first."),
]
DEFAULT_STORE = "results/harness.sqlite"


@app.command()
def run(
    suite: Annotated[Optional[str], typer.Argument(help="A suite's name, or a YAML file.")] = None,  # noqa: UP045
    data: Annotated[Optional[Path], typer.Option(help="Your own CSV, JSONL or Parquet file.")] = None,  # noqa: UP045
    text: Annotated[str, typer.Option(help="With --data: the column with the texts.")] = "text",
    label: Annotated[str, typer.Option(help="With --data: the column with the labels.")] = "label",
    test: Annotated[Optional[Path], typer.Option(help="With --data: a file with the test rows.")] = None,  # noqa: UP045
    tasks: Annotated[Optional[str], typer.Option(help="Only these tasks: sst2,imdb")] = None,  # noqa: UP045
    methods: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="These methods: 'linear-probe,lora[rank=4],full'"),
    ] = None,
    sizes: Annotated[Optional[str], typer.Option(help="These training sizes: 32,8/class,all")] = None,  # noqa: UP045
    seeds: Annotated[Optional[str], typer.Option(help="These seeds: 0,1,2")] = None,  # noqa: UP045
    budget: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="What each fit may spend: epochs=3,train_seconds=60,peak_memory_bytes=8GB; or a set of budgets: "
            "small, medium, large. Repeat for several."
        ),
    ] = None,
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A hub id, ID@REVISION, or a local folder."),
    ] = None,
    tune: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Let each method try so many settings within each cell's budget, and keep the best."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells that failed again.")] = False,
    cell_limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop a cell that takes longer than this, loading and predicting included: 90s, 30m, 2h."),
    ] = None,
) -> None:
    """Run what is missing of a suite's grid, print the table, write the report."""
    from harness.cli.run import run_command

    code = run_command(
        suite=suite,
        data=data,
        text=text,
        label=label,
        test=test,
        tasks=tasks,
        methods=methods,
        sizes=sizes,
        seeds=seeds,
        budgets=budget,
        backbone=backbone,
        device=device,
        store=store,
        mirror=mirror,
        reports=reports,
        retry_failed=retry_failed,
        tune=tune,
        cell_limit=cell_limit,
    )
    raise typer.Exit(code)


@app.command()
def status(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A suite: also say what is missing of its defaults."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
) -> None:
    """Show what is done, failed and missing."""
    from harness.cli.inspect import show_status

    show_status(suite, store, mirror)


@app.command()
def report(
    suite: Annotated[Optional[str], typer.Argument(help="Only records that a run of this suite made.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder to write to.")] = None,  # noqa: UP045
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write tables (Markdown, CSV) and plots (PNG, SVG) of what is in the store."""
    from harness.cli.inspect import write_report_command

    write_report_command(suite, out, store)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .jsonl or .parquet.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write one row a cell."""
    from harness.cli.inspect import export_command

    export_command(file, store)


@app.command()
def methods(
    name: Annotated[Optional[str], typer.Argument(help="Explain this one.")] = None,  # noqa: UP045
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only those that serve this task of a shipped suite, or this kind of task."),
    ] = None,
) -> None:
    """List the methods, or explain one."""
    from harness.cli.catalogue import show_methods

    show_methods(name, task)


@app.command()
def suites(
    name: Annotated[Optional[str], typer.Argument(help="Explain this one.")] = None,  # noqa: UP045
) -> None:
    """List the suites, or explain one."""
    from harness.cli.catalogue import show_suites

    show_suites(name)


@app.command()
def doctor(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Check what a run of this suite would need."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
) -> None:
    """Say what is installed, which device and precision a run would use, what is cached, what is missing."""
    from harness.cli.doctor import diagnose

    raise typer.Exit(diagnose(suite, store, mirror))


def _version(asked: bool) -> None:
    if asked:
        import harness

        typer.echo(f"harness {harness.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 some cells failed, 2 wrong usage, 130 interrupted."""
    import signal

    from harness.errors import HarnessError

    if hasattr(signal, "SIGPIPE"):  # `harness methods | head`: end quietly, as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except HarnessError as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
