"""The costs of one record: of one prediction, and of everything before the first one, in seconds and in money."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.analysis.total_cost import Expenses
from harness.records import Record, ServedFacts
from harness.support import UsageError, real_number


@dataclass(frozen=True)
class ServedPrice:
    """Price of a served model, in the user's currency.

    Attributes:
        prompt_per_million: price of a million tokens of prompts.
        completion_per_million: price of a million tokens that the model writes.
        cached_prompt_per_million: price of a million prompt tokens that the server reads from its cache; None is the
            full price.
        per_hour: price of an hour of the machine that serves the model; None where tokens alone are charged.
    """

    prompt_per_million: float = 0.0
    completion_per_million: float = 0.0
    cached_prompt_per_million: float | None = None
    per_hour: float | None = None


@dataclass(frozen=True)
class Prices:
    """Prices that a user states. None is not known.

    Attributes:
        per_hour: price of an hour of a machine without a price of its own; None takes the price that each record
            states.
        per_label: price of one label; None counts no labels.
        machines: price of an hour by the device's name.
        models: prices by the name of a served model; a model without one costs what the record states.
    """

    per_hour: float | None = None
    per_label: float | None = None
    machines: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    models: Mapping[str, ServedPrice] = field(default_factory=lambda: MappingProxyType({}))

    def hour_of(self, record: Record) -> float | None:
        """Return the price of an hour of the machine that a record was measured on."""
        own = self.machines.get(record.device, self.per_hour)
        return record.provenance.price_per_hour if own is None else own

    def model_of(self, backbone: str | None) -> ServedPrice | None:
        """Return the price of a backbone by its name; a served one may have the name that its server uses."""
        name = backbone or ""
        return self.models.get(name) or self.models.get(name.removeprefix("served:"))


NO_PRICES = Prices()


def stated_prices(
    price_per_hour: float | None = None, label_price: float | None = None, file: Mapping[str, Any] | None = None
) -> Prices:
    """Return the prices that a user states.

    Args:
        price_per_hour: price of an hour of each machine that `file` does not name; None takes the default of `file`, or
            the price that a record states.
        label_price: price of one label; None counts no labels.
        file: content of a file of prices: `machines`, the price of an hour by device, where `default` is that of all
            others; and `models`, the fields of `ServedPrice` by name of the model.

    Raises:
        UsageError: a price is negative, or no number.
    """
    content = file or {}
    hours = {name: _price("price_per_hour", price, "0.35") for name, price in content.get("machines", {}).items()}
    machines = {name: hour for name, hour in hours.items() if hour is not None}
    default = machines.pop("default", None)
    stated = _price("price_per_hour", price_per_hour, "0.35")
    known = {item.name for item in fields(ServedPrice)}
    return Prices(
        per_hour=default if stated is None else stated,
        per_label=_price("label_price", label_price, "0.05"),
        machines=machines,
        models={
            name: ServedPrice(**{field_: value for field_, value in own.items() if field_ in known})
            for name, own in content.get("models", {}).items()
        },
    )


def asked_prices(
    price_per_hour: float | None = None, label_price: float | None = None, path: str | Path | None = None
) -> Prices:
    """Return the prices that a user states by options and in a file.

    Args:
        price_per_hour: price of an hour of each machine that the file does not name.
        label_price: price of one label; None counts no labels.
        path: the file of prices; None takes the one that HARNESS_PRICES names, if any.

    Raises:
        UsageError: a price is negative or no number, or the file is no valid file of prices.
    """
    from harness.serving import read_prices

    found = read_prices(path)
    return stated_prices(price_per_hour, label_price, None if found is None else found.model_dump())


def _price(name: str, value: float | None, example: str) -> float | None:
    if value is None:
        return None
    number = real_number(name, value, f"a price of at least 0, such as {example}")
    if not 0 <= number < math.inf:
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option} {number:g} was given; expected a price of at least 0, such as {example}.")
    return number


@dataclass(frozen=True)
class Spending:
    """Costs of one record. None is not known.

    Attributes:
        device: device that measured the seconds.
        is_served: whether the predictions came from a served model.
        train_seconds: seconds of encoding training rows, tuning and fitting.
        predict_seconds: seconds of one prediction: those of predicting the test rows, over their number. For a served
            model, requests ran side by side.
        train_price: price of the seconds of training; for a served model, of the requests before the first prediction.
        label_price: price of all labels that the method may look at; 0 where labels have no price.
        predict_price: price of one prediction: of its seconds, or of its requests to a served model.
    """

    device: str
    is_served: bool
    train_seconds: float | None
    predict_seconds: float | None
    train_price: float | None
    label_price: float
    predict_price: float | None


def spending_of(record: Record, prices: Prices = NO_PRICES) -> Spending:
    """Return the costs of a record with a score. Seconds of a cell that shared its device are not known."""
    cost, served = record.cost, record.facts.served
    n_test = record.score.n_test if record.score is not None else 0
    is_alone = record.provenance.cells_at_a_time == 1
    train = cost.train_seconds if is_alone else None
    if train is None and is_alone and record.facts.role == "prompting" and cost.predict_seconds is not None:
        train = 0.0  # a prompt without rows to choose from does nothing before its first prediction
    each = cost.predict_seconds / n_test if is_alone and n_test and cost.predict_seconds is not None else None
    hour = prices.hour_of(record)
    train_price = None if train is None or hour is None else train * hour / 3600
    each_price = None if each is None or hour is None else each * hour / 3600
    if served is not None:
        cell = record.cell
        fit, predictions = split_requests(served, n_train=cell.n_train, n_test=n_test, config=cell.config)
        train_price = price_of_requests(fit, cell.backbone, prices, train)
        paid = price_of_requests(predictions, cell.backbone, prices, None if each is None else each * n_test)
        each_price = None if paid is None or not n_test else paid / n_test
    return Spending(
        device=record.device,
        is_served=served is not None,
        train_seconds=train,
        predict_seconds=each,
        train_price=train_price,
        label_price=(prices.per_label or 0.0) * record.cell.n_train,
        predict_price=each_price,
    )


def split_requests(
    served: ServedFacts, *, n_train: int, n_test: int, config: Mapping[str, Any]
) -> tuple[ServedFacts | None, ServedFacts | None]:
    """Return the facts about the requests of the fit, and those of the predictions; None where they are unknown.

    An earlier version stated only their sum. All of it is the predictions' where there is one request for each test
    row, or where a method without labels is not calibrated: then nothing is asked before.

    Args:
        served: facts about all requests of a cell.
        n_train: its number of labels.
        n_test: its number of test rows.
        config: settings of its method.
    """
    asks_before = n_train > 0 or config.get("calibration") == "content-free"
    if served.fit_requests is None and (not asks_before or served.n_requests == n_test):
        served = replace(
            served,
            fit_requests=0,
            fit_prompt_tokens=0,
            fit_cached_prompt_tokens=0,
            fit_completion_tokens=0,
            fit_price=0.0,
        )
    return served.in_fit, served.in_predictions


def price_of_requests(
    served: ServedFacts | None, model: str | None, prices: Prices, seconds: float | None = None
) -> float | None:
    """Return the price of a cell's requests: by the user's prices, else as the record states it; None if unknown.

    Args:
        served: facts about the requests; None where they are unknown.
        model: name of the served model.
        prices: the user's prices.
        seconds: seconds of the requests together, for a server that is paid by the hour; None is unknown.
    """
    if served is None:
        return None
    stated = prices.model_of(model)
    if stated is None:
        return served.price
    tokens = _price_of_tokens(served, stated)
    if tokens is None or stated.per_hour is None:
        return tokens
    return None if seconds is None else tokens + stated.per_hour * seconds / 3600


def _price_of_tokens(served: ServedFacts, stated: ServedPrice) -> float | None:
    """Return the price of the counted tokens; None where they have a price, and the server counted none."""
    if not (stated.prompt_per_million or stated.completion_per_million):
        return 0.0
    if served.prompt_tokens is None or served.completion_tokens is None:
        return None
    cached = served.cached_prompt_tokens or 0
    per_cached = stated.cached_prompt_per_million
    millionths = stated.prompt_per_million * (served.prompt_tokens - cached)
    millionths += (stated.prompt_per_million if per_cached is None else per_cached) * cached
    millionths += stated.completion_per_million * served.completion_tokens
    return millionths / 1e6


@dataclass(frozen=True)
class Spent:
    """Costs of one configuration over its records; None where a record does not know them.

    Attributes:
        seconds: training and predictions in seconds.
        money: training, labels and predictions in money.
        devices: devices that measured the seconds.
        is_served: whether predictions came from a served model.
        n_records: number of records.
    """

    seconds: Expenses | None
    money: Expenses | None
    devices: frozenset[str]
    is_served: bool
    n_records: int

    def is_timed_like(self, other: Spent) -> bool:
        """Return whether seconds of both may be compared: they are of one device, and not of a server."""
        one = len(self.devices) == 1 and self.devices == other.devices
        return one and not (self.is_served or other.is_served)


def spent(records: Iterable[Record], prices: Prices = NO_PRICES) -> Spent:
    """Return the costs of the records of one configuration at one size.

    Records that the machine disturbed count only where all were disturbed. A cost is unknown where one of the records
    lacks it.

    Args:
        records: scored records, at least one.
        prices: what machines, labels and tokens cost.
    """
    given = list(records)
    kept = [record for record in given if record.unsteady is None] or given
    found = [spending_of(record, prices) for record in kept]
    labels = found[0].label_price
    return Spent(
        seconds=_expenses([one.train_seconds for one in found], [one.predict_seconds for one in found], 0.0),
        money=_expenses([one.train_price for one in found], [one.predict_price for one in found], labels),
        devices=frozenset(one.device for one in found),
        is_served=any(one.is_served for one in found),
        n_records=len(found),
    )


def _expenses(training: Sequence[float | None], each: Sequence[float | None], labels: float) -> Expenses | None:
    known = [(a, b) for a, b in zip(training, each, strict=True) if a is not None and b is not None]
    if not known or len(known) < len(training):
        return None
    return Expenses(tuple(a for a, _ in known), tuple(b for _, b in known), labels)
