"""The command `harness` and its options.

This module imports little, so `harness --help` is fast; each command imports what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import answering, releases
from harness.cli.completion import (
    complete_capabilities,
    complete_kind,
    complete_methods,
    complete_suite,
    complete_words,
)
from harness.cli.options import (
    DeviceOption,
    JsonOption,
    MethodArgument,
    MirrorOption,
    OverwriteOption,
    PriceFileOption,
    SourceOption,
    StoreOption,
    TrackOption,
    with_grid,
)
from harness.cli.streams import COMPARE, INSPECT, KEEP, Commands, make_streams_tolerant, print_masked_traceback
from harness.support import DEFAULT_STORE

app = typer.Typer(
    name="harness",
    cls=Commands,
    help="Compare ways of adapting a pretrained transformer on your task, and learn which fits your budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("run", rich_help_panel=COMPARE)
@with_grid
def _run(
    grid: dict[str, Any],
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells that failed again.")] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Run cells again if the machine was disturbed while they ran.")
    ] = False,
    within: Annotated[
        str | None,
        typer.Option(help="End within this time, tables and report included, with the most useful cells: 30m, 2h."),
    ] = None,
    cell_limit: Annotated[
        str | None,
        typer.Option(help="Stop a cell that takes longer than this, loading and predicting included: 90s, 30m, 2h."),
    ] = None,
    on_oom: Annotated[
        str,
        typer.Option(
            help="When a cell runs out of memory: record it only, or halve: run it again in smaller pieces that fit.",
            autocompletion=complete_words("record", "halve"),
        ),
    ] = "record",
    throughput: Annotated[
        int,
        typer.Option(
            help="Number of cells to run at a time on one device. Cost tables leave out their times. Experimental."
        ),
    ] = 1,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="On a GPU, use only kernels that repeat their results bit for bit. They may be slower.",
        ),
    ] = False,
    price_per_hour: Annotated[
        float | None,
        typer.Option(help="Price of an hour of the device, in your currency: records and tables show each cell's."),
    ] = None,
    inference: Annotated[
        bool,
        typer.Option(
            "--inference",
            help="Also measure the use of each fitted model: latency, texts a second, memory, size, loading. About 5 s "
            "a cell.",
        ),
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            help="Executor of the cells: local or ray (experimental).", autocompletion=complete_words("local", "ray")
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(help="With --executor ray: auto or the cluster's address; none starts one on this machine."),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(help="With --executor ray: number of workers. Default: one per GPU, or one per node."),
    ] = None,
    ray_cores: Annotated[int | None, typer.Option(help="With --executor ray: cores of each worker.")] = None,
    track: TrackOption = None,
    show: Annotated[bool, typer.Option("--open", help="Open the report's page in the browser.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a summary as JSON on standard output; all else on standard error.")
    ] = False,
) -> None:
    """Run the missing cells of a suite, and report the results.

    Each cell is stored as soon as it ends, so the same command continues where an interrupted one stopped.
    """
    asked = dict(locals())
    from harness.cli.run import run_command

    raise typer.Exit(run_command(**asked.pop("grid"), **asked))


@app.command("plan", rich_help_panel=COMPARE)
@with_grid
def _plan(
    grid: dict[str, Any],
    probe: Annotated[
        bool, typer.Option(help="Measure a few steps of each method without a record; else use arithmetic.")
    ] = True,
    device_memory: Annotated[
        str | None,
        typer.Option(help="Plan for a device with this memory that need not be here: --device cuda, 24GB."),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="List the parts of each method's memory: weights, gradients, ...")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict the seconds and memory of a run.

    Only short probes are run; with --no-probe or --device-memory, none. The exit code is 1 if one of several backbones
    cannot be used.
    """
    from harness.cli.plan import plan_command

    code = plan_command(**grid, probe=probe, device_memory=device_memory, shows_parts=memory, as_json=as_json)
    raise typer.Exit(code)


@app.command("audit-defaults", rich_help_panel=COMPARE)
def _audit_defaults(
    methods: Annotated[
        str | None, typer.Option(help="Only these gradient methods: lora,full", autocompletion=complete_methods)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks of the shipped suites. Default: three that no default was chosen on.")
    ] = None,
    backbones: Annotated[str | None, typer.Option(help="Backbones: ID,ID@REVISION,./FOLDER. Default: two.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Training sizes. Default: 128.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds. Default: 0,1,2.")] = None,
    trials: Annotated[int, typer.Option(help="Number of settings that tuning tries on validation rows.")] = 8,
    rates: Annotated[
        str | None,
        typer.Option(help="Run each method and full at these learning rates in place of tuning: 1e-5,1e-4,1e-3"),
    ] = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    within: Annotated[
        str | None, typer.Option(help="End within this time, with the most useful cells: 30m, 2h.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Predict the cost, and run nothing.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Add the facts to a JSON file, such as the one that the package ships.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare default settings with tuned ones.

    The cells are those of an ordinary grid, so the same command continues where an interrupted one stopped. A default
    is flagged where tuned settings score more than two points more, beyond noise. With `--rates`, the output has the
    best learning rate of each method as a multiple of that of `full`.
    """
    asked = dict(locals())
    from harness.cli.audit import audit_command

    raise typer.Exit(audit_command(shows_plan=asked.pop("plan"), **asked))


@app.command("status", rich_help_panel=COMPARE)
@with_grid
def _status(grid: dict[str, Any], as_json: JsonOption = False) -> None:
    """Count the cells that are done, failed and missing.

    With the options of a run, count the cells of that run on this device.
    """
    from harness.cli.inspect import show_status

    show_status(**grid, as_json=as_json)


@app.command("report", rich_help_panel=COMPARE)
def _report(
    suite: Annotated[
        str | None, typer.Argument(help="Only records that a run of this suite made.", autocompletion=complete_suite)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: reports/SUITE or reports/all.")] = None,
    store: SourceOption = DEFAULT_STORE,
    figures: Annotated[str, typer.Option(help="Formats of the figures: some of png, svg, pdf.")] = "png,svg,pdf",
    prices: PriceFileOption = None,
    overwrite: OverwriteOption = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a report: a page, tables and figures.

    The page is HTML. Tables are written as Markdown, CSV and LaTeX, figures as PNG, SVG and PDF.
    """
    from harness.cli.inspect import write_report_command

    write_report_command(suite, out, store, figures, prices=prices, overwrite=overwrite, show=show, as_json=as_json)


@app.command("export", rich_help_panel=KEEP)
def _export(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="File to write, whose name ends in .csv, .jsonl or .parquet; a folder for --format eee.",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="table: one row per cell; eee: one file per record in the schema of Every Eval Ever.",
            autocompletion=complete_words("table", "eee"),
        ),
    ] = "table",
    instances: Annotated[
        bool, typer.Option("--instances", help="For eee: the answers to single test rows too.")
    ] = False,
    track: TrackOption = None,
    suite: Annotated[
        str | None,
        typer.Option(help="With --track: only records that a run of this suite made.", autocompletion=complete_suite),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the records as a table, or for other tools.

    A table has one row per cell. A tracker gets the records that it does not have. The exit code is 1 if some
    could not be sent.
    """
    if track is not None or file is None or suite is not None:
        from harness.cli.track import track_command

        raise typer.Exit(track_command(track, file, store, suite, as_json=as_json))
    from harness.cli.inspect import export_command

    export_command(file, store, form=form, instances=instances, overwrite=overwrite, as_json=as_json)


@app.command("import", rich_help_panel=KEEP)
def _import(
    files: Annotated[list[Path], typer.Argument(help="Files of results, or folders of such files.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="harness: what `export` writes; eee: Every Eval Ever; inspect: logs of Inspect; lm-eval: results of "
            "lm-evaluation-harness; mteb: MTEB's results; peft: results of the PEFT library's method comparison; "
            "setfit: results of SetFit's scripts; table: any tidy table.",
            autocompletion=complete_words("harness", "eee", "inspect", "lm-eval", "mteb", "peft", "setfit", "table"),
        ),
    ] = "harness",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="For a table: FIELD=COLUMN, or FIELD==VALUE for one value in all rows."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="For a table: percent or fraction, how its scores are written.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="For a table: leave this column out. Repeat for several.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Import results of another machine or another project."""
    from harness.cli.inspect import import_command

    import_command(files, form, mapping or [], store, scale=scale, ignore=ignore, as_json=as_json)


@app.command("forget", rich_help_panel=KEEP)
def _forget(
    task: Annotated[str | None, typer.Option(help="Records of this task.")] = None,
    method: Annotated[str | None, typer.Option(help="Records of this method.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Records of this backbone; none for methods that use none.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Records of this device, by its full name.")] = None,
    suite: Annotated[str | None, typer.Option(help="Records with this label.")] = None,
    status: Annotated[str | None, typer.Option(help="Records of this status, such as failed.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Cells whose id begins with this.")] = None,
    before: Annotated[str | None, typer.Option(help="Stored before this date or time, UTC.")] = None,
    after: Annotated[str | None, typer.Option(help="Stored at this date or time or later, UTC.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Delete the records that match all given options.

    The records are listed first, and you are asked. With --json and without --yes they are listed only.
    """
    from harness.cli.forget import forget_command
    from harness.store import Wanted

    wanted = Wanted(task, method, backbone, device, suite, status, id_, before, after)
    raise typer.Exit(forget_command(wanted, store, yes=yes, as_json=as_json))


releases.add_to(app)


@app.command("methods", rich_help_panel=INSPECT)
def _methods(
    name: MethodArgument = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="List only methods that serve this task of a shipped suite, or this kind of task.",
            autocompletion=complete_kind,
        ),
    ] = None,
    can: Annotated[
        str | None,
        typer.Option(
            help="List only methods with all of these capabilities: merge, convert-to-lora, quantise, vllm.",
            autocompletion=complete_capabilities,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods, or explain one."""
    from harness.cli.catalogue import show_methods

    show_methods(name, task, can, as_json=as_json)


@app.command("kinds", rich_help_panel=INSPECT)
def _kinds(as_json: JsonOption = False) -> None:
    """List the kinds of task, with their metrics."""
    from harness.cli.registered import show_kinds

    show_kinds(as_json=as_json)


@app.command("metrics", rich_help_panel=INSPECT)
def _metrics(as_json: JsonOption = False) -> None:
    """List the metrics, with the kinds of task they score."""
    from harness.cli.registered import show_metrics

    show_metrics(as_json=as_json)


@app.command("suites", rich_help_panel=INSPECT)
def _suites(
    name: Annotated[str | None, typer.Argument(help="Explain this one.", autocompletion=complete_suite)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the suites, or explain one."""
    from harness.cli.catalogue import show_suites

    show_suites(name, as_json=as_json)


@app.command("doctor", rich_help_panel=INSPECT)
def _doctor(
    suite: Annotated[
        str | None, typer.Option(help="Check what a run of this suite would need.", autocompletion=complete_suite)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show packages, device, and files that are missing.

    The exit code is 1 if a file is missing.
    """
    from harness.cli.doctor import diagnose

    raise typer.Exit(diagnose(suite, store, mirror, as_json=as_json))


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
        app(prog_name="harness")  # also where it runs as `python -m harness`, as completion needs
    except HarnessError as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("Stopped.", err=True)
        sys.exit(130)
