"""The command `harness` and its options.

This module imports typer alone, so that `harness --help` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

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


SuiteArgument = Annotated[Optional[str], typer.Argument(help="A suite's name, or a YAML file.")]  # noqa: UP045
DataOption = Annotated[Optional[Path], typer.Option(help="Your own CSV, JSONL or Parquet file.")]  # noqa: UP045
TextOption = Annotated[str, typer.Option(help="With --data: the column with the texts.")]
LabelOption = Annotated[str, typer.Option(help="With --data: the column with the labels.")]
TestOption = Annotated[Optional[Path], typer.Option(help="With --data: a file with the test rows.")]  # noqa: UP045
TasksOption = Annotated[Optional[str], typer.Option(help="Only these tasks: sst2,imdb")]  # noqa: UP045
MethodsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="These methods: 'linear-probe,lora[rank=4],full'"),
]
SizesOption = Annotated[Optional[str], typer.Option(help="These training sizes: 32,8/class,all")]  # noqa: UP045
SeedsOption = Annotated[Optional[str], typer.Option(help="These seeds: 0,1,2")]  # noqa: UP045
BudgetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="What each fit may spend: epochs=3,train_seconds=60,peak_memory_bytes=8GB; or a set of budgets: "
        "small, medium, large. Repeat for several."
    ),
]
BackboneOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A hub id, ID@REVISION, or a local folder."),
]
TuneOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Let each method try so many settings within each cell's budget, and keep the best."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]


@app.command()
def run(
    suite: SuiteArgument = None,
    data: DataOption = None,
    text: TextOption = "text",
    label: LabelOption = "label",
    test: TestOption = None,
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

    asked = Asked(suite, data, text, label, test, tasks, methods, sizes, seeds, budget, backbone, device, mirror, tune)
    options = RunOptions(
        store=store,
        reports=reports,
        retry_failed=retry_failed,
        cell_limit=cell_limit,
        within=within,
        on_oom=on_oom,
        throughput=throughput,
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

    asked = Asked(suite, data, text, label, test, tasks, methods, sizes, seeds, budget, backbone, device, mirror, tune)
    plan_command(asked, store, probe=probe)


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
    store: Annotated[
        str, typer.Option(help="Store, .jsonl file of records, or folder of such files.", envvar="HARNESS_STORE")
    ] = DEFAULT_STORE,
    figures: Annotated[str, typer.Option(help="Formats of the figures: some of png, svg, pdf.")] = "png,svg,pdf",
) -> None:
    """Write a page (HTML), tables (Markdown, CSV, LaTeX) and figures (PNG, SVG, PDF) of what was measured."""
    from harness.cli.inspect import write_report_command

    write_report_command(suite, out, store, figures)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .jsonl or .parquet.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write one row a cell."""
    from harness.cli.inspect import export_command

    export_command(file, store)


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
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take in results that others measured, or that another machine did."""
    from harness.cli.inspect import import_command

    import_command(files, form, mapping or [], store)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Store, .jsonl file of records, or folder of such files.")],
    b: Annotated[str, typer.Argument(help="Another: of a later commit, say, or of another machine.")],
    out: Annotated[Optional[Path], typer.Option(help="Also write all rows to this .csv file.")] = None,  # noqa: UP045
) -> None:
    """Say what got better or worse from A to B, beyond noise; exit code 1 where something got worse."""
    from harness.cli.inspect import compare_command

    raise typer.Exit(compare_command(a, b, out))


@app.command()
def advise(
    n_train: Annotated[Optional[int], typer.Option("--n-train", help="Labelled examples that there are.")] = None,  # noqa: UP045
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file of labelled texts, which says how many there are, of how many classes, how long."),
    ] = None,
    text: Annotated[str, typer.Option(help="Its column of texts.")] = "text",
    label: Annotated[str, typer.Option(help="Its column of labels.")] = "label",
    kind: Annotated[str, typer.Option(help="Kind of task: classification, text-pair, ...")] = "classification",
    classes: Annotated[Optional[int], typer.Option(help="How many classes there are.")] = None,  # noqa: UP045
    tokens: Annotated[Optional[float], typer.Option(help="Tokens of a text, on average.")] = None,  # noqa: UP045
    train_seconds: Annotated[Optional[str], typer.Option(help="Training may take: 600, 10m, 2h.")] = None,  # noqa: UP045
    peak_memory: Annotated[Optional[str], typer.Option(help="Memory it may take: 8GB, 7.5GiB.")] = None,  # noqa: UP045
    trainable_parameters: Annotated[Optional[float], typer.Option(help="Parameters it may train.")] = None,  # noqa: UP045
    predict_milliseconds: Annotated[Optional[float], typer.Option(help="Predicting a text may take.")] = None,  # noqa: UP045
    min_score: Annotated[Optional[float], typer.Option(help="Score to be reached as cheaply as can be.")] = None,  # noqa: UP045
    backbone: Annotated[Optional[str], typer.Option(help="Only what was measured on it.")] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option(help="Whose seconds and memory are asked for.")] = None,  # noqa: UP045
    task: Annotated[Optional[str], typer.Option(help="A task that was measured.")] = None,  # noqa: UP045
    store: StoreOption = DEFAULT_STORE,
    reference: Annotated[bool, typer.Option(help="Count the reference results that come with the package.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="All of the answer, as JSON.")] = False,
) -> None:
    """Say which method fits a budget, from what was measured; runs nothing."""
    from harness.advice import Question
    from harness.budgets import parse_budget
    from harness.cli.advise import advise_command, describe
    from harness.durations import parse_duration
    from harness.errors import UsageError

    memory = None if peak_memory is None else parse_budget(f"peak_memory_bytes={peak_memory}").peak_memory_bytes
    seconds = None if train_seconds is None else parse_duration(train_seconds, "--train-seconds")
    told: dict[str, Any] = {} if data is None else describe(data, text, label)
    told |= {k: v for k, v in {"n_train": n_train, "classes": classes, "tokens": tokens}.items() if v is not None}
    if "n_train" not in told:
        raise UsageError("How many labelled examples are there? Give --n-train NUMBER, or --data FILE.")
    question = Question(
        kind=kind,
        **told,
        train_seconds=seconds,
        peak_memory_bytes=memory,
        trainable_parameters=trainable_parameters,
        predict_milliseconds=predict_milliseconds,
        min_score=min_score,
        backbone=backbone,
        device=device,
        task=task,
    )
    raise typer.Exit(advise_command(question, store, reference=reference, as_json=as_json))


@app.command("validate-advice")
def validate_advice(
    kind: Annotated[str, typer.Option(help="Kind of task.")] = "classification",
    store: StoreOption = DEFAULT_STORE,
    reference: Annotated[bool, typer.Option(help="Count the reference results that come with the package.")] = True,
) -> None:
    """Say how good the advice is: each task is left out and advised for from the others."""
    from harness.cli.advise import validate_command

    validate_command(kind, store, reference=reference)


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
        typer.secho("Stopped.", err=True)
        sys.exit(130)
