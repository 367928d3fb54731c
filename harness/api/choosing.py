"""Choose the best method for a user's own data within a time limit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.display import Display, make_display
from harness.api.own_data import own_task
from harness.api.requests import Several, find_mirror, read_backbones, read_methods, read_seconds
from harness.serving import answers_beside, contact, read_endpoint
from harness.support import (
    UsageError,
    cache_folder,
    checked_path,
    find_store,
    quiet_libraries,
    real_number,
    spelt_for_caller,
    wrong_argument,
)

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.choose import Chosen
    from harness.data import TextColumns, UserData
    from harness.records import Record
    from harness.serving import EndpointOptions
    from harness.tasks import LabelColumns


@spelt_for_caller
def choose(
    *,
    data: UserData,
    within: str | float,
    save: str | Path,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    test: UserData | None = None,
    name: str | None = None,
    metric: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    peak_memory: str | int | None = None,
    predict_milliseconds: float | None = None,
    methods: Several[str] | None = None,
    backbone: str | Path | None = None,
    backbones: Several[str | Path] | Path | None = None,
    refit: bool = True,
    device: str = "auto",
    store: str | Path | None = None,
    mirror: str | Path | None = None,
    reference: bool = True,
    settings: bool = True,
    price_per_hour: float | None = None,
    prices: str | Path | None = None,
    endpoint: EndpointOptions | Mapping[str, Any] | None = None,
    began: float | None = None,
    progress: bool | Display = True,
) -> Chosen:
    """Find the best method for your own data within a time limit, fit it to all the data, score it once and save it.

    Args:
        data: your labelled texts: a data frame, or the path of a file.
        within: time for everything, such as `10m`, or in seconds.
        save: folder of the model; it must be missing or empty. `load_model` reads it.
        text: column of `data` that holds the texts; several go in the order of the kind's roles, such as
            `premise,hypothesis` or `question,context`. None takes the kind's own names, such as `text`.
        label: column of `data` that holds the labels, or several columns of 0 and 1 such as `["billing", "post"]`. None
            takes the kind's own name, such as `label`.
        kind: kind of the task, such as `regression`; None guesses it from the values of the columns.
        label_separator: text between the labels of a row, such as `|`, for the kind `multi-label`.
        test: rows to test on, of the same sort as `data`; None holds out a quarter of them, of each class.
        name: name of the task; None takes the file's, or `data`.
        metric: main metric, one of the kind's (`harness kinds`); None is the kind's first, such as accuracy.
        max_length: tokens of a text that are read; None is 128.
        strict: whether to refuse rows without a text or a label, and classes that cannot be scored.
        peak_memory: memory that a fit may need, such as `8GB`, or in bytes; None is no limit.
        predict_milliseconds: longest time for predicting one text on this machine; slower methods and ensembles are
            ruled out. None is no limit.
        methods: candidate methods; None takes all but those that only measure a task. Prompts are among them where a
            backbone is a language model.
        backbone: a hub id, `ID@REVISION` or a local folder; None takes the default.
        backbones: one such or several to choose among; one that cannot be used is left out, and the rest goes on.
        refit: whether the saved model is fitted to held-out test rows too, once they have scored it. Rows of `test` are
            never trained on.
        device: `auto`, `cpu` or `cuda`.
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`.
        mirror: folder with models/, searched first; None takes HARNESS_MIRROR.
        reference: whether to use the reference results of the package.
        settings: whether to try other settings of the best method, where there is time for it.
        price_per_hour: price of an hour of this machine; the answer then says what predictions cost.
        prices: YAML file of prices of machines and served models; None takes the file that HARNESS_PRICES names.
        endpoint: served models that may win, such as `{"url": "http://127.0.0.1:8000/v1", "model": "NAME"}`, with the
            keys of `harness.run`. They are asked about at most 200 validation rows, within `max_cost` and `max_tokens`.
        began: start of the time limit, by `time.monotonic`; None is now.
        progress: whether to show the reasoning; or a display of your own.

    Returns:
        The winner, its score on rows that no decision used, and all attempts.

    Raises:
        UsageError: too little time, a folder that is not empty, or no method that serves the task.
        DataError: the data cannot be used.
        HarnessError: nothing could be fitted; the message says why.

    Warns:
        DataWarning: labels or texts of `data` look wrong.
    """
    start = time.monotonic() if began is None else began
    from harness.choose import check_save_folder, check_time, choose_within
    from harness.measure import check_device_name
    from harness.records import parse_bytes

    seconds = read_seconds(within, "--within")
    if seconds is None:
        raise wrong_argument("within", within, "a duration such as '10m', or a number of seconds above 0")
    folder = Path(checked_path("save", save, "a folder that is missing or empty"))
    check_time(seconds)
    check_save_folder(folder)
    check_device_name(device)
    most = None
    if peak_memory is not None:
        most = (
            parse_bytes(peak_memory, "--peak-memory")
            if isinstance(peak_memory, str)
            else round(real_number("peak_memory", peak_memory, "a size such as '8GB', or a number of bytes"))
        )
    named = read_backbones(backbone, backbones)
    slowest = None
    if predict_milliseconds is not None:
        slowest = real_number("predict_milliseconds", predict_milliseconds, "a number of milliseconds above 0")
        if not slowest > 0:
            raise UsageError(
                f"--predict-milliseconds {slowest:g} was given; expected a number above 0, such as 5: the longest time "
                "for predicting one text."
            )
    from harness.analysis import asked_prices

    costs = asked_prices(price_per_hour, None, prices)
    options = read_endpoint(endpoint)
    if options is not None and options.prices is None and prices is not None:
        options = options.model_copy(update={"prices": Path(prices)})
    quiet_libraries()
    from harness.backbones import DEFAULT_BACKBONE
    from harness.measure import host_limit_bytes
    from harness.methods import parse_methods
    from harness.saved import check_can_be_saved
    from harness.schedule import Limits, LocalWorkers, find_backbones
    from harness.store import Store, reference_records
    from harness.tasks import kinds

    texts = read_methods(methods)
    asked = None if texts is None else parse_methods(texts)
    display = make_display(progress)

    def say(line: str) -> None:
        display.say(f"{time.monotonic() - start:6.1f} s  {line}")

    def prior() -> list[Record]:
        return list(reference_records()) if reference else []

    with LocalWorkers(device, cache_folder(), limits=Limits(None, host_limit_bytes())) as workers:
        workers.warm_up()  # it imports what it needs while the data are read
        spec = own_task(
            data,
            text,
            label,
            test,
            name,
            kind=kind,
            label_separator=label_separator,
            metric=metric,
            max_length=max_length,
            strict=strict,
        )
        check_can_be_saved(spec.kind)
        where = find_mirror(mirror)
        located: tuple[BackboneFiles, ...] = ()
        served = () if options is None else tuple(contact(options, answers_beside(find_store(store))))
        only_asks = asked is not None and all("served" in method.serves for method in asked if method.serves)
        needs = asked is None or any(method.serves for method in asked)
        if needs and (named or not (served and only_asks)):
            found = find_backbones({spec.name: named or [DEFAULT_BACKBONE]}, where, weights=True)
            located = found.backbones[spec.name]
            if not located:
                raise found.errors[0] if len(found.errors) == 1 else found.error()
            for line in (*(f"left out: {missing}" for missing in found.missing), *found.notes):
                display.say(line)
        task = kinds.get(spec.kind).prepare(spec, where)
        display.data(task, located[0] if located else None)
        with Store.open(find_store(store)) as opened:
            return choose_within(
                task,
                located,
                workers,
                opened,
                folder,
                within=seconds,
                began=start,
                methods=asked,
                most_bytes=most,
                most_milliseconds=slowest,
                prior=prior,
                refit=refit,
                settings=settings,
                prices=costs,
                served=served,
                say=say,
            )
