"""The command `harness` and its options.

This module imports typer alone, so that `harness --help` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from harness.cli import answering
from harness.cli.options import (
    DEFAULT_STORE,
    BackboneOption,
    BudgetOption,
    DataOption,
    DeviceOption,
    LabelOption,
    MaxLengthOption,
    MethodsOption,
    MetricOption,
    MirrorOption,
    OverwriteOption,
    SeedsOption,
    SizesOption,
    StoreOption,
    StrictOption,
    SuiteArgument,
    TasksOption,
    TestOption,
    TextOption,
    TuneOption,
)
from harness.cli.streams import MaskingGroup, make_streams_tolerant, print_masked_traceback

app = typer.Typer(
    name="harness",
    cls=MaskingGroup,
    help="Compare ways of adapting a pretrained transformer on your task, and learn which fits your budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    suite: SuiteArgument = None,
    data: DataOption = None,
    text: TextOption = "text",
    label: LabelOption = "label",
    test: TestOption = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    tasks: TasksOption = None,
    methods: MethodsOption = None,
    sizes: SizesOption = None,
    seeds: SeedsOption = None,
    budget: BudgetOption = None,
    backbone: BackboneOption = None,
    tune: TuneOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells that failed again.")] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Run cells again during which the machine was disturbed.")
    ] = False,
    within: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="End within this time, tables and report included, with the most useful cells: 30m, 2h."),
    ] = None,
    cell_limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop a cell that takes longer than this, loading and predicting included: 90s, 30m, 2h."),
    ] = None,
    on_oom: Annotated[
        str,
        typer.Option(
            help="When a cell runs out of memory: record it, or record it and halve: run it again in pieces of half "
            "the size."
        ),
    ] = "record",
    throughput: Annotated[
        int, typer.Option(help="Run so many cells at a time on one device. Their times are in no cost table.")
    ] = 1,
    price_per_hour: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="What an hour of the device costs, in your currency: records and tables show each cell's."),
    ] = None,
    executor: Annotated[str, typer.Option(help="Where cells run: local or ray")] = "local",
    ray_address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --executor ray: auto or the cluster's address; none starts one on this machine."),
    ] = None,
    ray_workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --executor ray: how many workers; else one a GPU, or one a node."),
    ] = None,
    ray_cores: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --executor ray: cores of each worker."),
    ] = None,
) -> None:
    """Run what is missing of a suite's grid, print the table, write the report."""
    from harness.cli.request import Asked
    from harness.cli.run import RunOptions, run_command

    asked = Asked(
        suite, data, text, label, test, tasks, methods, sizes, seeds, budget, backbone, device, mirror, tune,
        metric, max_length, strict,
    )  # fmt: skip
    options = RunOptions(
        store=store,
        reports=reports,
        retry_failed=retry_failed,
        remeasure=remeasure,
        cell_limit=cell_limit,
        within=within,
        on_oom=on_oom,
        throughput=throughput,
        price_per_hour=price_per_hour,
        executor=executor,
        ray_address=ray_address,
        ray_workers=ray_workers,
        ray_cores=ray_cores,
    )
    raise typer.Exit(run_command(asked, options))


@app.command()
def plan(
    suite: SuiteArgument = None,
    data: DataOption = None,
    text: TextOption = "text",
    label: LabelOption = "label",
    test: TestOption = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    tasks: TasksOption = None,
    methods: MethodsOption = None,
    sizes: SizesOption = None,
    seeds: SeedsOption = None,
    budget: BudgetOption = None,
    backbone: BackboneOption = None,
    tune: TuneOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    probe: Annotated[
        bool, typer.Option(help="Measure a few steps of each method that no record tells of; else go by arithmetic.")
    ] = True,
) -> None:
    """Say which cells a run would have, and what they would take: seconds, memory. Nothing is run but short probes."""
    from harness.cli.plan import plan_command
    from harness.cli.request import Asked

    asked = Asked(
        suite, data, text, label, test, tasks, methods, sizes, seeds, budget, backbone, device, mirror, tune,
        metric, max_length, strict,
    )  # fmt: skip
    plan_command(asked, store, probe=probe)


@app.command()
def status(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A suite: also say what is missing of its defaults."),
    ] = None,
    data: DataOption = None,
    text: TextOption = "text",
    label: LabelOption = "label",
    test: TestOption = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    tasks: TasksOption = None,
    methods: MethodsOption = None,
    sizes: SizesOption = None,
    seeds: SeedsOption = None,
    budget: BudgetOption = None,
    backbone: BackboneOption = None,
    tune: TuneOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
) -> None:
    """Show what is done, failed and missing; with the options of a run, of that run."""
    from harness.cli.inspect import show_status
    from harness.cli.request import Asked

    asked = Asked(
        suite, data, text, label, test, tasks, methods, sizes, seeds, budget, backbone, device, mirror, tune,
        metric, max_length, strict,
    )  # fmt: skip
    show_status(asked, store)


@app.command()
def report(
    suite: Annotated[Optional[str], typer.Argument(help="Only records that a run of this suite made.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder to write to.")] = None,  # noqa: UP045
    store: Annotated[
        str, typer.Option(help="Store, .jsonl file of records, or folder of such files.", envvar="HARNESS_STORE")
    ] = DEFAULT_STORE,
    figures: Annotated[str, typer.Option(help="Formats of the figures: some of png, svg, pdf.")] = "png,svg,pdf",
    overwrite: OverwriteOption = False,
) -> None:
    """Write a page (HTML), tables (Markdown, CSV, LaTeX) and figures (PNG, SVG, PDF) of what was measured."""
    from harness.cli.inspect import write_report_command

    write_report_command(suite, out, store, figures, overwrite=overwrite)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .jsonl or .parquet.")],
    store: StoreOption = DEFAULT_STORE,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one row per cell."""
    from harness.cli.inspect import export_command

    export_command(file, store, overwrite=overwrite)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of results, or folders of such files.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="harness: what `export` writes; peft: results of the PEFT library's method comparison; table: any "
            "tidy table.",
        ),
    ] = "harness",
    mapping: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--map", help="For a table: FIELD=COLUMN, or FIELD==VALUE for one value in all rows."),
    ] = None,
    scale: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For a table: percent or fraction, how its scores are written."),
    ] = None,
    ignore: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="For a table: leave this column out. Repeat for several."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take in results that others measured, or that another machine did."""
    from harness.cli.inspect import import_command

    import_command(files, form, mapping or [], store, scale=scale, ignore=ignore)


@app.command()
def forget(
    task: Annotated[Optional[str], typer.Option(help="Records of this task.")] = None,  # noqa: UP045
    method: Annotated[Optional[str], typer.Option(help="Records of this method.")] = None,  # noqa: UP045
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Records of this backbone; none for methods that use none."),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="Records of this device, by its full name.")] = None,  # noqa: UP045
    suite: Annotated[Optional[str], typer.Option(help="Records with this label.")] = None,  # noqa: UP045
    status: Annotated[Optional[str], typer.Option(help="Records of this status, such as failed.")] = None,  # noqa: UP045
    id_: Annotated[Optional[str], typer.Option("--id", help="Cells whose id begins with this.")] = None,  # noqa: UP045
    before: Annotated[Optional[str], typer.Option(help="Stored before this date or time, UTC.")] = None,  # noqa: UP045
    after: Annotated[Optional[str], typer.Option(help="Stored at this date or time or later, UTC.")] = None,  # noqa: UP045
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove records from a store: those that match all that is given. Shows them and asks first."""
    from harness.cli.forget import forget_command
    from harness.store import Wanted

    wanted = Wanted(task, method, backbone, device, suite, status, id_, before, after)
    raise typer.Exit(forget_command(wanted, store, yes=yes))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Store, .jsonl file of records, or folder of such files.")],
    b: Annotated[str, typer.Argument(help="Another: of a later commit, say, or of another machine.")],
    out: Annotated[Optional[Path], typer.Option(help="Also write all rows to this .csv file.")] = None,  # noqa: UP045
    overwrite: OverwriteOption = False,
) -> None:
    """Say what got better or worse from A to B, beyond noise; exit code 1 where something got worse."""
    from harness.cli.inspect import compare_command

    raise typer.Exit(compare_command(a, b, out, overwrite=overwrite))


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
def kinds() -> None:
    """List the kinds of task, with their metrics."""
    from harness.cli.registered import show_kinds

    show_kinds()


@app.command()
def metrics() -> None:
    """List the metrics, with the kinds of task that each scores."""
    from harness.cli.registered import show_metrics

    show_metrics()


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


answering.add_to(app)


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
    del version  # its callback printed it
    make_streams_tolerant()


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 some cells failed, 2 wrong usage, 130 interrupted."""
    import signal

    from harness.support import HarnessError

    make_streams_tolerant()
    sys.excepthook = print_masked_traceback
    if hasattr(signal, "SIGPIPE"):  # `harness methods | head`: end quietly, as other commands do
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except HarnessError as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("Stopped.", err=True)
        sys.exit(130)
