"""Commands about methods for a budget, and about saved models. Imports typer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.completion import complete_kind
from harness.cli.options import (
    BackboneOption,
    BackbonesOption,
    ConcurrencyOption,
    DeviceOption,
    EndpointApiOption,
    EndpointKeyOption,
    EndpointModelOption,
    EndpointOption,
    EndpointRevisionOption,
    EndpointScoringOption,
    EndpointTimeoutOption,
    JsonOption,
    KindOption,
    LabelOption,
    LabelPriceOption,
    MaxCostOption,
    MaxLengthOption,
    MaxTokensOption,
    MethodsOption,
    MetricOption,
    MirrorOption,
    OwnKindOption,
    PredictionsOption,
    PriceFileOption,
    PricePerHourOption,
    ReferenceOption,
    SeparatorOption,
    SourceOption,
    StoreOption,
    StrictOption,
    TestOption,
    TextOption,
    with_endpoint,
)
from harness.cli.streams import ASK, INSPECT, USE
from harness.support import DEFAULT_STORE


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("advise", rich_help_panel=ASK)(_advise)
    app.command("break-even", rich_help_panel=ASK)(_break_even)
    app.command("validate-advice", rich_help_panel=ASK)(_validate_advice)
    app.command("rank-backbones", rich_help_panel=ASK)(_rank_backbones)
    app.command("replay", rich_help_panel=ASK)(_replay)
    app.command("labels", rich_help_panel=ASK)(_labels)
    app.command("choose", rich_help_panel=USE)(_choose)
    app.command("predict", rich_help_panel=USE)(_predict)
    app.command("speed", rich_help_panel=USE)(_speed)
    app.command("probe", rich_help_panel=INSPECT)(_probe)


def _advise(
    n_train: Annotated[
        int | None, typer.Option("--n-train", help="Number of labelled examples; 0: methods that need none.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A file of labelled texts; their number, classes and lengths follow from it."),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    label_separator: SeparatorOption = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Kind of task. Default: guessed from the columns of --data, or classification.",
            autocompletion=complete_kind,
        ),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Mean number of tokens of a text.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a text that are read; the rest is cut off. Default: 128.")
    ] = None,
    characters: Annotated[
        bool | None,
        typer.Option(
            "--characters/--words",
            help="The texts are sequences of characters, such as proteins. Default: as in --data, or words.",
            show_default=False,
        ),
    ] = None,
    train_seconds: Annotated[str | None, typer.Option(help="Longest training: 10m, 2h, or seconds: 600.")] = None,
    peak_memory: Annotated[str | None, typer.Option(help="Largest memory of a fit: 8GB, 7.5GiB.")] = None,
    trainable_parameters: Annotated[float | None, typer.Option(help="Largest number of trained parameters.")] = None,
    predict_milliseconds: Annotated[float | None, typer.Option(help="Longest time to predict one text.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Score to reach as cheaply as possible.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Use only records of this backbone.")] = None,
    backbones: Annotated[
        str | None,
        typer.Option(help="Compare these backbones, separated by commas, also published ones; or: all known."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device to predict seconds and memory for.")] = None,
    task: Annotated[str | None, typer.Option(help="Advise on this task, which has records.")] = None,
    predictions: Annotated[
        float | None,
        typer.Option(help="Number of predictions that you will make: the cheapest of the good methods come first."),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Price of an hour of the machine, in your currency: costs in use are in money.")
    ] = None,
    label_price: LabelPriceOption = None,
    prices: PriceFileOption = None,
    score_tolerance: Annotated[
        float | None,
        typer.Option(help="With --predictions: a score this much below the best is good enough. Default: 0.01."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    reference: ReferenceOption = True,
    every: Annotated[bool, typer.Option("--all", help="List all methods that fit, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Recommend a method for a budget from existing records.

    The answer has tiers from cheap to best, with what each buys. Nothing is run. With --predictions or a price, the
    answer puts prompting beside training. The exit code is 1 if no method fits.
    """
    asked = dict(locals())
    from harness.cli.advise import advise_command

    raise typer.Exit(advise_command(**asked))


def _break_even(
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    n_train: Annotated[
        int | None, typer.Option("--n-train", help="Only trained methods with this number of labels.")
    ] = None,
    predictions: PredictionsOption = None,
    price_per_hour: PricePerHourOption = None,
    label_price: LabelPriceOption = None,
    prices: PriceFileOption = None,
    store: SourceOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show after how many predictions training pays.

    Each trained method stands beside each prompted one on the same task. Nothing is run.
    """
    asked = dict(locals())
    from harness.cli.break_even import break_even_command

    raise typer.Exit(break_even_command(**asked))


def _validate_advice(
    kind: KindOption = "classification",
    store: StoreOption = DEFAULT_STORE,
    reference: ReferenceOption = True,
    encoders: Annotated[
        bool,
        typer.Option("--encoders", help="Validate expected scores of encoders against published results instead."),
    ] = False,
    published: Annotated[
        Path | None, typer.Option(help="With --encoders: a table of MTEB's results instead of the package's.")
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Validate learning curves instead: forecast larger sizes from smaller ones."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the quality of the advice on tasks with records.

    Each data set is left out in turn, and the advice for its tasks comes from the records of the others.
    """
    from harness.cli.advise import validate_command, validate_encoders_command

    if labels:
        from harness.cli.labels import validate_labels_command

        validate_labels_command(kind, store, reference=reference, as_json=as_json)
    elif encoders or published is not None:
        validate_encoders_command(published, as_json=as_json)
    else:
        validate_command(kind, store, reference=reference, as_json=as_json)


def _rank_backbones(
    backbones: Annotated[
        str, typer.Option(help="Candidates: hub ids, local folders, or shapes such as bert-base-like: a,b,c")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Your labelled texts: a CSV, TSV, JSON, JSONL, Parquet or CoNLL file.")
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    kind: OwnKindOption = None,
    label_separator: SeparatorOption = None,
    task: Annotated[str | None, typer.Option(help="A task of a shipped suite, instead of --data: sst2")] = None,
    n_train: Annotated[
        int | None,
        typer.Option("--n-train", help="Labels of the fine-tuning to forecast. Default: all training rows."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Labelled rows to encode, at most 1,000. Default: half of --n-train, from 128 to 256."),
    ] = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    device: DeviceOption = "auto",
    mirror: MirrorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank backbones for a task before fine-tuning any.

    A few hundred labelled texts are encoded with each. The exit code is 1 if no backbone can be ranked.
    """
    asked = dict(locals())
    from harness.cli.rank_backbones import rank_backbones_command

    raise typer.Exit(rank_backbones_command(**asked))


def _replay(
    grids: Annotated[
        str | None,
        typer.Option(help="Grids as TASK:LABELS, with commas between them, or `all`; default: eight reference grids."),
    ] = None,
    within: Annotated[
        str, typer.Option(help="Times of a search: shares of the time of all fits together, or durations: 5%,10%,30s.")
    ] = "5%,10%",
    seeds: Annotated[int, typer.Option(help="Number of splits of each grid.")] = 20,
    searchers: Annotated[
        str | None, typer.Option(help="Searchers to compare: choose, random, asha, tpe, ...; default: all.")
    ] = None,
    records: Annotated[
        str | None, typer.Option(help="A store, a file of records or a folder of them; default: the reference results.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare `choose` with other searches on recorded grids.

    Nothing is fitted. Recorded fits take their recorded seconds on a simulated clock.
    """
    asked = dict(locals())
    from harness.cli.replay import replay_command

    replay_command(**asked)


def _labels(
    data: Annotated[Path, typer.Option(help="Your labelled texts: a CSV, TSV, JSON, JSONL, Parquet or CoNLL file.")],
    text: TextOption = None,
    label: LabelOption = None,
    kind: OwnKindOption = None,
    label_separator: SeparatorOption = None,
    test: Annotated[
        Path | None,
        typer.Option(help="A file with rows to score on, whose labels do not count; else rows are scored in folds."),
    ] = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    methods: MethodsOption = None,
    backbone: BackboneOption = None,
    within: Annotated[str, typer.Option(help="Time limit of the fits: 2m, 1h.")] = "2m",
    min_score: Annotated[float | None, typer.Option(help="Score to reach: how many labels does it need?")] = None,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    reference: ReferenceOption = True,
    as_json: JsonOption = False,
) -> None:
    """Say what more labels would buy, from your first ones.

    Quick methods, or those of --methods, are fitted to an eighth, a quarter, a half and all of your labels. Learning
    curves through their scores tell what twice and four times the labels bring, with 80 % intervals.
    """
    asked = dict(locals())
    from harness.cli.labels import labels_command

    raise typer.Exit(labels_command(**asked))


def _choose(
    data: Annotated[Path, typer.Option(help="Your labelled texts: a CSV, TSV, JSON, JSONL, Parquet or CoNLL file.")],
    within: Annotated[str, typer.Option(help="Time limit for everything, start-up included: 10m, 1h.")],
    save: Annotated[Path, typer.Option(help="Folder for the model; it must be missing or empty.")],
    text: TextOption = None,
    label: LabelOption = None,
    kind: OwnKindOption = None,
    label_separator: SeparatorOption = None,
    test: TestOption = None,
    metric: MetricOption = None,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    peak_memory: Annotated[str | None, typer.Option(help="Largest memory of a fit: 8GB, 7.5GiB.")] = None,
    predict_milliseconds: Annotated[
        float | None,
        typer.Option(help="Longest time for predicting one text, in milliseconds; rules out slower models."),
    ] = None,
    methods: MethodsOption = None,
    backbone: BackboneOption = None,
    backbones: BackbonesOption = None,
    refit: Annotated[
        bool,
        typer.Option("--refit/--no-refit", help="Fit the saved model to held-out test rows too, after its score."),
    ] = True,
    device: DeviceOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    mirror: MirrorOption = None,
    reference: ReferenceOption = True,
    settings: Annotated[
        bool, typer.Option("--settings/--no-settings", help="Whether to try other settings of the best method.")
    ] = True,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Price of an hour of this machine: the answer says what predictions cost.")
    ] = None,
    prices: PriceFileOption = None,
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
    as_json: JsonOption = False,
) -> None:
    """Find and save the best method for your own data.

    The search ends within a time limit. The best method is fitted to all training rows, scored once on rows that no
    decision has seen, and saved. If there is time, the saved model is fitted to those rows too; --no-refit keeps the
    scored one. With --endpoint, a served model may win too.
    """
    asked = {**with_endpoint({**locals(), "prices": None}), "prices": prices}
    from harness.cli.choose import choose_command

    raise typer.Exit(choose_command(**asked))


def _predict(
    model: Annotated[Path, typer.Option(help="Folder of a model saved by `harness choose`.")],
    data: Annotated[Path, typer.Option(help="A CSV, TSV, JSON, JSONL, Parquet or CoNLL file with texts.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write, .csv, .tsv, .jsonl or .parquet: the rows of --data with the column `prediction` "
            "and, for classes, `probability`. Both are empty where a text is blank or not valid Unicode."
        ),
    ],
    text: Annotated[
        str | None,
        typer.Option(
            help="The column with the texts, or two for pairs: premise,hypothesis. Default: text, or tokens for tags."
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add the probability of each class, or each label's score.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(help="Add this many of the most probable classes: `top_1`, `top_1_probability`, `top_2`, ..."),
    ] = None,
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Merge what the method added into the weights first: the same answers, faster."),
    ] = False,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="Where the served model of a saved prompt is. Default: as it was saved.")
    ] = None,
    endpoint_key: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable that holds its key. Default: as it was saved."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the answers for new texts with a saved model.

    A prediction is a class, a number, labels (`a|b` in a table) or the tags of words (`O B-PER` in a table). Every
    file of the model is checked before anything is predicted. The output appears whole or not at all.
    """
    asked = dict(locals())
    from harness.cli.predict import predict_command

    raise typer.Exit(predict_command(**asked))


def _speed(
    model: Annotated[Path, typer.Option(help="Folder of a model saved by `harness choose`.")],
    data: Annotated[Path, typer.Option(help="A CSV, TSV, JSON, JSONL, Parquet or CoNLL file with typical texts.")],
    text: Annotated[
        str | None,
        typer.Option(
            help="The column with the texts, or two for pairs: premise,hypothesis. Default: text, or tokens for tags."
        ),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what using a saved model costs on this machine.

    It measures seconds for one text, texts a second in the best batches, memory, bytes on disk and seconds to load;
    where the method added something to the weights, also merged. It takes about ten seconds.
    """
    from harness.cli.speed import speed_command

    raise typer.Exit(speed_command(model, data, text, device, as_json=as_json))


def _probe(
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A hub id, a local folder, or a shape: llama-3.2-1b-like, llama-3.2-3b-like, bert-base-like, "
            "bert-large-like."
        ),
    ] = None,
    methods: MethodsOption = "linear-probe,lora,full",
    batch_size: Annotated[int, typer.Option(help="Number of texts in a step.")] = 16,
    seq_len: Annotated[int, typer.Option(help="Number of tokens in a text.")] = 32,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Use random weights: costs do not depend on their values.")
    ] = False,
    device: DeviceOption = "auto",
    mirror: MirrorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of a step of each method on this device.

    Takes about a minute and needs no data. The exit code is 1 if nothing could be measured.
    """
    asked = dict(locals())
    from harness.cli.probe import probe_command

    raise typer.Exit(probe_command(**asked))
