"""Options that several commands share. The module imports little."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.completion import (
    METRICS,
    complete_kind,
    complete_method,
    complete_methods,
    complete_suite,
    complete_words,
)
from harness.support import DEFAULT_STORE

StoreOption = Annotated[
    str, typer.Option("--store", envvar="HARNESS_STORE", help="Store of the records: a file or a database URL.")
]
SourceOption = Annotated[
    str,
    typer.Option("--store", envvar="HARNESS_STORE", help="Store, .jsonl file of records, or folder of such files."),
]
MirrorOption = Annotated[
    Path | None,
    typer.Option("--mirror", envvar="HARNESS_MIRROR", help="Folder with datasets/ and models/, searched first."),
]
SuiteArgument = Annotated[
    str | None, typer.Argument(help="A suite's name, or a YAML file.", autocompletion=complete_suite)
]
DataOption = Annotated[Path | None, typer.Option(help="Your own CSV, TSV, JSON, JSONL, Parquet or CoNLL file.")]
TextOption = Annotated[
    str | None,
    typer.Option(
        help="With your own data: the column with the texts, or several, such as premise,hypothesis or "
        "question,context. Default: text, or the names of --kind.",
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        help="With your own data: the column with the labels, or several of 0 and 1: billing,post. Default: label, or "
        "the name of --kind.",
    ),
]
OwnKindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="With your own data: the kind of task: regression, multi-label, ... Default: guessed from the columns.",
        autocompletion=complete_kind,
    ),
]
SeparatorOption = Annotated[
    str | None,
    typer.Option(help="With --kind multi-label: the text between the labels of a row, such as '|'."),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        help="With your own data: the question to a language model, with the columns' names in braces: "
        "'Review: {text}\\nSentiment:'. Default: a wording of the kind of task.",
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(help="With your own data: a file with the test rows; else a quarter of each class is held out."),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="With your own data: the main metric, one of the kind's: accuracy, macro_f1, rmse, ...",
        autocompletion=complete_words(*METRICS),
    ),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(help="With your own data: tokens of a text that are read; the rest is cut off. Default: 128."),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="With your own data: refuse rows without a text or a label, and classes that cannot be scored.",
    ),
]
MethodsOption = Annotated[
    str | None,
    typer.Option(help="Only these methods: 'linear-probe,lora[rank=4],full'", autocompletion=complete_methods),
]
BackboneOption = Annotated[str | None, typer.Option(help="A hub id, ID@REVISION, or a local folder.")]
BackbonesOption = Annotated[
    str | None, typer.Option(help="Several backbones, each with each method: ID,ID@REVISION,./FOLDER")
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", help="URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1."),
]
EndpointModelOption = Annotated[
    str | None, typer.Option(help="With --endpoint: the model's name on the server, or several: NAME,NAME")
]
EndpointRevisionOption = Annotated[
    str | None, typer.Option(help="With --endpoint: revision of the model, as you know it; part of the results.")
]
EndpointApiOption = Annotated[
    str | None,
    typer.Option(
        help="With --endpoint: auto, chat or completions.",
        autocompletion=complete_words("auto", "chat", "completions"),
    ),
]
EndpointScoringOption = Annotated[
    str | None,
    typer.Option(
        help="With --endpoint: auto, log-probabilities, constrained or parsing.",
        autocompletion=complete_words("auto", "log-probabilities", "constrained", "parsing"),
    ),
]
EndpointKeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="VARIABLE",
        help="With --endpoint: environment variable that holds the key. Default: OPENAI_API_KEY.",
    ),
]
EndpointTimeoutOption = Annotated[
    float | None, typer.Option(help="With --endpoint: seconds to wait for one answer. Default: 60.")
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(help="With --endpoint: maximum number of requests at a time. Default: 8.")
]
MaxCostOption = Annotated[
    float | None, typer.Option(help="With --endpoint: maximum price of all stored answers; needs --prices.")
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help="With --endpoint: maximum number of tokens of all stored answers.")
]
PricesOption = Annotated[
    Path | None, typer.Option(help="With --endpoint: YAML file of prices. Default: the file that HARNESS_PRICES names.")
]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:1", autocompletion=complete_words("auto", "cpu", "cuda"))
]
KindOption = Annotated[
    str, typer.Option(help="Kind of task: classification, text-pair, ...", autocompletion=complete_kind)
]
MethodArgument = Annotated[str | None, typer.Argument(help="Explain this one.", autocompletion=complete_method)]
ReferenceOption = Annotated[bool, typer.Option(help="Use the reference results that come with the package.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing file, even one that this command did not write.")
]

PredictionsOption = Annotated[
    float | None, typer.Option(help="Number of predictions that you will make: total costs are shown.")
]
PricePerHourOption = Annotated[
    float | None, typer.Option(help="Price of an hour of the machine, in your currency. Default: as records state it.")
]
PriceFileOption = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of prices of machines and served models. Default: the file that HARNESS_PRICES names."
    ),
]
LabelPriceOption = Annotated[
    float | None, typer.Option(help="Price of one label, in your currency. Default: labels cost nothing.")
]

TrackOption = Annotated[
    str | None,
    typer.Option(
        help="Send each record to these trackers: mlflow, trackio, wandb, tensorboard.",
        autocompletion=complete_words("mlflow", "trackio", "wandb", "tensorboard"),
    ),
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the answer as JSON on standard output; all else goes to standard error.")
]


def _grid(
    suite: SuiteArgument = None,
    data: DataOption = None,
    text: TextOption = None,
    label: LabelOption = None,
    kind: OwnKindOption = None,
    label_separator: SeparatorOption = None,
    prompt: PromptOption = None,
    test: TestOption = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks: sst2,imdb")] = None,
    methods: MethodsOption = None,
    sizes: Annotated[str | None, typer.Option(help="These training sizes: 32,8/class,all")] = None,
    seeds: Annotated[str | None, typer.Option(help="These seeds: 0,1,2")] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="Limits of each fit: epochs=3,train_seconds=60,peak_memory_bytes=8GB; or a set of budgets: "
            "small, medium, large. Repeat for several.",
            autocompletion=complete_words("small", "medium", "large", "epochs=", "train_seconds="),
        ),
    ] = None,
    backbone: BackboneOption = None,
    backbones: BackbonesOption = None,
    endpoint_url: EndpointOption = None,
    endpoint_model: EndpointModelOption = None,
    endpoint_revision: EndpointRevisionOption = None,
    endpoint_api: EndpointApiOption = None,
    endpoint_scoring: EndpointScoringOption = None,
    endpoint_key: EndpointKeyOption = None,
    endpoint_timeout: EndpointTimeoutOption = None,
    concurrency: ConcurrencyOption = None,
    max_cost: MaxCostOption = None,
    max_tokens: MaxTokensOption = None,
    prices: PricesOption = None,
    tune: Annotated[
        int | None,
        typer.Option(help="Number of settings that each method tries within a cell's budget; the best is kept."),
    ] = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
) -> None:
    """Declare the options of `run`, `plan` and `status`, by the names of the arguments of `harness.run`."""


_GRID = inspect.signature(_grid, eval_str=True).parameters


def with_grid(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_grid`, before its own; their values are passed in the dict `grid`."""

    def flat(**given: Any) -> None:
        command(with_endpoint({name: given.pop(name) for name in _GRID}), **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*_GRID.values(), *own)]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__doc__ = command.__doc__
    flat.__annotations__ = {}
    return flat


def names_a_run(grid: dict[str, Any]) -> bool:
    """Return whether any option of a grid was given, apart from the device, the store and the mirror."""
    places = ("device", "store", "mirror")
    return any(
        value is not None if name == "endpoint" else value != _GRID[name].default
        for name, value in grid.items()
        if name not in places
    )


def with_endpoint(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with the options of an endpoint as one mapping, `endpoint`; None where none was given."""
    found = {field: given.pop(name) for name, field in _ENDPOINT.items()}
    return {**given, "endpoint": found if any(value is not None for value in found.values()) else None}


_ENDPOINT = {
    "endpoint_url": "url",
    "endpoint_model": "model",
    "endpoint_revision": "revision",
    "endpoint_api": "api",
    "endpoint_scoring": "scoring",
    "endpoint_key": "key",
    "endpoint_timeout": "timeout",
    "concurrency": "concurrency",
    "max_cost": "max_cost",
    "max_tokens": "max_tokens",
    "prices": "prices",
}
"""Fields of `EndpointOptions` by the parameters that set them."""
