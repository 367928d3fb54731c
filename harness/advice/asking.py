"""`harness.advise(...)`: the question, the user's own records, and the reference results that come with the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.advice.answer import Advice, answer_question
from harness.advice.configured import configured_facts
from harness.advice.on_backbones import read_backbones
from harness.advice.own_texts import question_about
from harness.advice.question import Question
from harness.advice.spending import AskedSpending, asked_spending
from harness.analysis import asked_prices
from harness.cost import probes
from harness.data import TextColumns, UserData
from harness.forecast import merged_encoders, published_in, usable
from harness.records import PublishedEncoder, Record
from harness.store import published_encoders, read_source, reference_records
from harness.support import find_store, spelt_for_caller, uncollected


@uncollected()
@spelt_for_caller
def advise(
    store: str | Path | None = None,
    *,
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: str | Sequence[str] | None = None,
    label_separator: str | None = None,
    reference: bool = True,
    kind: str | None = None,
    n_train: int | None = None,
    classes: int | None = None,
    tokens: float | None = None,
    longest: float | None = None,
    longest_to_predict: float | None = None,
    terms: float | None = None,
    max_length: int | None = None,
    characters: bool | None = None,
    train_seconds: str | float | None = None,
    peak_memory: str | float | None = None,
    peak_memory_bytes: float | None = None,
    trainable_parameters: float | None = None,
    predict_milliseconds: float | None = None,
    min_score: float | None = None,
    backbone: str | None = None,
    device: str | None = None,
    task: str | None = None,
    backbones: str | Sequence[str] | None = None,
    predictions: float | None = None,
    price_per_hour: float | None = None,
    label_price: float | None = None,
    prices: str | Path | None = None,
    score_tolerance: float | None = None,
) -> Advice:
    """Say which method fits a budget, from what was measured; nothing is run.

    Args:
        store: a store, a .jsonl file of records or a folder of such files; None takes HARNESS_STORE, or
            `results/harness.sqlite`. A store that does not exist is no evidence.
        data: labelled texts, as a data frame or a file: they give the number, the classes and the lengths.
        text: column of `data` that holds the texts, or two for pairs; None is `text`.
        label: column of `data` that holds the labels, or several of 0 and 1; None is `label`.
        label_separator: text between the labels of a row of `data`, such as `|`.
        reference: whether the reference results that come with the package count too.
        kind: kind of task; None guesses it from the columns of `data`, and is `classification` without data.
        n_train: number of labelled examples; `data` gives it too. With 0, methods that need no labels are advised.
        classes: number of classes.
        tokens: mean number of tokens of a text.
        longest: tokens of the longest training text.
        longest_to_predict: tokens of the longest text to predict, where that is longer.
        terms: number of different words and pairs of neighbouring words in the training texts.
        max_length: tokens at which texts are cut; None is 128, as tasks cut them.
        characters: whether the texts are sequences of characters, such as proteins; None looks at `data`, and is
            false without data.
        train_seconds: limit of the training time: seconds, or a duration such as `10m`.
        peak_memory: limit of the memory: a size such as `8GB`, or bytes.
        peak_memory_bytes: the same, in bytes alone.
        trainable_parameters: limit of the number of trained parameters.
        predict_milliseconds: limit of the time to predict one text.
        min_score: score to reach, in the metric's own numbers; the cheapest methods come first then.
        backbone: the one backbone to answer for.
        device: the device whose seconds and memory are given.
        task: a measured task that the question is about.
        backbones: several backbones to answer for, by name, also ones that only others measured (MTEB's results come
            with the package); `all known` is each of them.
        predictions: number of predictions that will be made: methods with scores near the best are then ranked by their
            total cost, and `Advice.spending` has costs in use.
        price_per_hour: price of an hour of the machine; costs in use are then in money.
        label_price: price of one label.
        prices: YAML file of prices of machines and served models; None takes the file that HARNESS_PRICES names.
        score_tolerance: with `predictions`, score below the best one that is good enough; None is 0.01.

    Raises:
        UsageError: a field has no valid value, or nothing was measured that an answer could rest on.
    """
    question = question_about(
        data, text, label, train_seconds=train_seconds, peak_memory=peak_memory, peak_memory_bytes=peak_memory_bytes,
        kind=kind, label_separator=label_separator, n_train=n_train, classes=classes, tokens=tokens, longest=longest,
        longest_to_predict=longest_to_predict, terms=terms, max_length=max_length, characters=characters,
        trainable_parameters=trainable_parameters,
        predict_milliseconds=predict_milliseconds, min_score=min_score, backbone=backbone, device=device, task=task,
        backbones=read_backbones(backbones),
    )  # fmt: skip
    asked = asked_spending(predictions, asked_prices(price_per_hour, label_price, prices), score_tolerance)
    answer, _ = answer_from(question, own_records(find_store(store)), reference=reference, spending=asked)
    return answer


def answer_from(
    question: Question, own: list[Record], *, reference: bool, spending: AskedSpending | None = None
) -> tuple[Advice, int]:
    """Return the answer from the user's own records and the reference results, and how many of the former count.

    Args:
        question: the question.
        own: the user's records.
        reference: whether the results that come with the package count too: reference results and MTEB's.
        spending: question about costs in use; None asks nothing of them.
    """
    mine = [r for r in usable(own) if r.kind == question.kind and r.facts.measured_by is None]
    devices = Counter(record.device for record in mine)
    own_devices = [device for device, _ in devices.most_common()]
    records = [*own, *(reference_records() if reference else ())]

    def encoders() -> tuple[PublishedEncoder, ...]:
        return merged_encoders(published_encoders() if reference else (), published_in(own))

    # The default backbone speaks for the reference results; its configuration is needed to compare sizes.
    facts = {} if question.backbones is None else configured_facts([*question.backbones, *_measured(records)])
    answer = answer_question(question, records, probes(), own_devices, encoders, facts, spending)
    return answer, len(mine)


def _measured(records: Iterable[Record]) -> set[str]:
    return {record.cell.backbone for record in records if record.cell.backbone and record.facts.measured_by is None}


def own_records(store: str) -> list[Record]:
    """Return the user's records without predictions; none where there is no such store."""
    if "://" not in store and not Path(store).exists():
        return []
    return read_source(store, with_predictions=False)
