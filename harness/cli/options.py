"""Options that several commands have. Imports typer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

StoreOption = Annotated[
    str, typer.Option("--store", envvar="HARNESS_STORE", help="Where records are kept: a file or a database URL.")
]
MirrorOption = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--mirror", envvar="HARNESS_MIRROR", help="Folder with datasets/ and models/, looked in first."),
]
DEFAULT_STORE = "results/harness.sqlite"


SuiteArgument = Annotated[Optional[str], typer.Argument(help="A suite's name, or a YAML file.")]  # noqa: UP045
DataOption = Annotated[Optional[Path], typer.Option(help="Your own CSV, TSV, JSON, JSONL or Parquet file.")]  # noqa: UP045
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
MetricOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="With your own data: the main metric: accuracy, macro_f1, matthews or f1."),
]
MaxLengthOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="With your own data: tokens of a text that are read; what is beyond is cut off. Else 128."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="With your own data: refuse rows without a text or a label, and classes that cannot be scored.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
