"""Commands that answer which method fits, and what they rest on. Imports typer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from harness.cli.options import (
    DEFAULT_STORE,
    BackboneOption,
    DeviceOption,
    MaxLengthOption,
    MethodsOption,
    MetricOption,
    MirrorOption,
    StoreOption,
    StrictOption,
)

ReferenceOption = Annotated[bool, typer.Option(help="Count the reference results that come with the package.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(advise)
    app.command("validate-advice")(validate_advice)
    app.command()(choose)
    app.command()(predict)
    app.command()(probe)


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
    train_seconds: Annotated[Optional[str], typer.Option(help="Training may take: 10m, 2h, or seconds: 600.")] = None,  # noqa: UP045
    peak_memory: Annotated[Optional[str], typer.Option(help="Memory it may take: 8GB, 7.5GiB.")] = None,  # noqa: UP045
    trainable_parameters: Annotated[Optional[float], typer.Option(help="Parameters it may train.")] = None,  # noqa: UP045
    predict_milliseconds: Annotated[Optional[float], typer.Option(help="Predicting a text may take.")] = None,  # noqa: UP045
    min_score: Annotated[Optional[float], typer.Option(help="Score to be reached as cheaply as can be.")] = None,  # noqa: UP045
    backbone: Annotated[Optional[str], typer.Option(help="Only what was measured on it.")] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option(help="Whose seconds and memory are asked for.")] = None,  # noqa: UP045
    task: Annotated[Optional[str], typer.Option(help="A task that was measured.")] = None,  # noqa: UP045
    store: StoreOption = DEFAULT_STORE,
    reference: ReferenceOption = True,
    as_json: Annotated[bool, typer.Option("--json", help="All of the answer, as JSON.")] = False,
) -> None:
    """Say which method fits a budget, from what was measured; runs nothing."""
    from harness.advice import Question
    from harness.cli.advise import advise_command, describe
    from harness.records import parse_bytes
    from harness.support import UsageError, parse_duration

    memory = None if peak_memory is None else parse_bytes(peak_memory, "--peak-memory")
    seconds = None if train_seconds is None else parse_duration(train_seconds, "--train-seconds", bare=True)
    told: dict[str, Any] = {} if data is None else describe(data, text, label)
    if n_train is not None:  # of another number of texts they are others
        told.pop("terms", None)
    told |= {k: v for k, v in {"n_train": n_train, "classes": classes, "tokens": tokens}.items() if v is not None}
    if tokens is not None:  # then the file's own lengths are not what is asked about
        told.pop("longest", None)
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


def validate_advice(
    kind: Annotated[str, typer.Option(help="Kind of task.")] = "classification",
    store: StoreOption = DEFAULT_STORE,
    reference: ReferenceOption = True,
) -> None:
    """Say how good the advice is: each task is left out and advised for from the others."""
    from harness.cli.advise import validate_command

    validate_command(kind, store, reference=reference)


def choose(
    data: Annotated[Path, typer.Option(help="Your labelled texts: a CSV, JSONL or Parquet file.")],
    within: Annotated[str, typer.Option(help="Time for all of it, start-up included: 10m, 1h.")],
    save: Annotated[Path, typer.Option(help="Folder for the model; must not exist, or be empty.")],
    text: Annotated[str, typer.Option(help="The column with the texts.")] = "text",
    label: Annotated[str, typer.Option(help="The column with the labels.")] = "label",
    test: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file with the test rows; else a quarter of each class is held out."),
    ] = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    peak_memory: Annotated[Optional[str], typer.Option(help="Memory that a fit may take: 8GB, 7.5GiB.")] = None,  # noqa: UP045
    methods: MethodsOption = None,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    reference: ReferenceOption = True,
) -> None:
    """Spend a time on your own data: find the best method, fit it to all of them, score it once, save it."""
    from harness.cli.choose import ChooseOptions, choose_command

    options = ChooseOptions(
        data, text, label, test, within, save, peak_memory, methods, backbone, device, store, mirror, reference,
        metric, max_length, strict,
    )  # fmt: skip
    raise typer.Exit(choose_command(options))


def predict(
    model: Annotated[Path, typer.Option(help="Folder of a model that `harness choose` has saved.")],
    data: Annotated[Path, typer.Option(help="A CSV, TSV, JSON, JSONL or Parquet file with texts.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write, .csv or .tsv: the rows of --data with the columns `prediction` and `probability`. "
            "Both are empty where a text is blank or not valid Unicode."
        ),
    ],
    text: Annotated[str, typer.Option(help="The column with the texts.")] = "text",
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
) -> None:
    """Predict the classes of new texts with a saved model.

    The model is checked before anything is predicted: every file, every tensor. The output appears whole or not at all.
    """
    from harness.cli.predict import predict_command

    raise typer.Exit(predict_command(model, data, text, out, device, overwrite=overwrite))


def probe(
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="A hub id, a local folder, or a shape: llama-3.2-1b-like, llama-3.2-3b-like, bert-base-like, "
            "bert-large-like."
        ),
    ] = None,
    methods: Annotated[str, typer.Option(help="These methods: 'lora[rank=4],full'")] = "linear-probe,lora,full",
    batch_size: Annotated[int, typer.Option(help="Texts of a step.")] = 16,
    seq_len: Annotated[int, typer.Option(help="Tokens of a text.")] = 32,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Take the configuration alone: costs do not depend on weights.")
    ] = False,
    device: DeviceOption = "auto",
    mirror: MirrorOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was found, as JSON.")] = False,
) -> None:
    """Measure what a step of each method takes on this device, in a minute, without data."""
    from harness.cli.probe import ProbeOptions, probe_command

    options = ProbeOptions(backbone, methods, batch_size, seq_len, random_weights, device, mirror, as_json)
    raise typer.Exit(probe_command(options))
