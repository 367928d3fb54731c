"""Check the JSON of a record that somebody else wrote before it becomes a record.

Records of schema 1 are checked by the same rules: they have `provenance.measured` in place of facts.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.records.facts import Facts
from harness.records.fields import (
    MAX_NAME,
    MAX_WHOLE,
    FieldCheck,
    check_fields,
    check_list,
    check_number,
    check_of,
    check_text,
    check_whole,
    explain,
    shown,
)
from harness.records.record import SCHEMA, Record
from harness.records.upgrade import upgraded
from harness.support import StoreError

_MAX_CLASSES = 100_000
"""Largest number of classes or choices; statistics make a table of that many rows."""


def check_record(value: Any) -> None:
    """Refuse the JSON of a record if a field violates the schema in type, range, size or meaning.

    Args:
        value: result of `json.loads`. `check_predictions` checks its predictions.

    Raises:
        StoreError: the message names the field, what it holds and what was expected.
    """
    if not isinstance(value, dict):
        raise StoreError(f"it is {shown(value)}; expected an object with the fields of a record")
    if (schema := value.get("schema")) not in (1, SCHEMA) or type(schema) is not int:
        raise StoreError(f"schema is {shown(schema)}; this version reads schema 1 and {SCHEMA}")
    given = value
    if schema == 1:
        value = _without_notes(value)
    check_fields(value, Record, "")
    if value.get("status") == "ok":
        if value["score"] is None:
            raise StoreError("status is 'ok', but score is null; expected a score")
        if value["error"] is not None:
            raise StoreError("status is 'ok', but error is a text; expected null")
    elif value["score"] is not None or value.get("predictions") is not None:
        raise StoreError(f"status is '{value['status']}', but there is a score or predictions; expected null")
    elif value["error"] is None:
        raise StoreError(f"status is '{value['status']}', but error is null; expected the reason")
    _check_cell(value["cell"])
    if value["score"] is not None:
        _check_score(value["score"])
    _check_notes(value["provenance"].get("dataset") or {})
    for part in ("train_texts", "test_texts"):
        _check_lengths(value["facts"].get(part) or {}, f"facts.{part}")
    if schema == 1:  # or it could be read, and not be read again once it is written
        check_fields(upgraded(given)["facts"].to_json(), Facts, "facts")


def _without_notes(value: dict[str, Any]) -> dict[str, Any]:
    """Check the notes on measuring of schema 1; return the JSON without them and with empty facts."""
    if "facts" in value:
        raise StoreError("facts is no field of a record of schema 1")
    provenance = value.get("provenance")
    if type(provenance) is not dict or "measured" not in provenance:
        return {**value, "facts": {}}
    notes = provenance["measured"]
    if (expected := _check_notes_of_1(notes)) is not None:
        raise StoreError(explain("provenance.measured", notes, expected))
    for part in ("train", "test"):
        name = f"longest_{part}_tokens"
        if name in notes and not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", notes[name]):
            raise StoreError(explain(f"provenance.measured.{name}", notes[name], "a number of tokens"))
    rest = {name: item for name, item in provenance.items() if name != "measured"}
    return {**value, "provenance": rest, "facts": {}}


def check_predictions(record: Record) -> None:
    """Refuse predictions that do not fit the record's score.

    Raises:
        StoreError: the message names the field, what it holds and what was expected.
    """
    found, score = record.predictions, record.score
    if found is None or score is None:
        return
    for name, length in found.lengths().items():
        if length != score.n_test:
            raise StoreError(f"predictions.{name} has {length} rows; expected score.n_test = {score.n_test}")
    if (found.predicted is None) != (found.target is None):
        raise StoreError("predictions has one of predicted and target; expected both or neither")
    n_classes = record.provenance.dataset.get("n_classes", _MAX_CLASSES)
    for name, indices in (("predicted", found.predicted), ("target", found.target)):
        if indices is not None and indices.size and not (indices.min() >= -1 and indices.max() < n_classes):
            raise StoreError(
                f"predictions.{name} goes from {indices.min()} to {indices.max()}; expected classes below {n_classes}"
            )
    if found.confidence is not None and not _all_shares(found.confidence):
        raise StoreError("predictions.confidence holds a value outside 0 to 1; expected probabilities")
    for name, values in found.statistics.items():
        if not np.all(np.isfinite(values)):
            raise StoreError(f"predictions.statistics.{name} holds a value that is not finite; expected numbers")
    if score.metric == "accuracy" and found.predicted is not None and found.target is not None and score.n_test:
        accuracy = float(np.mean(found.predicted == found.target))
        if not math.isclose(accuracy, score.value, abs_tol=1e-6):
            raise StoreError(f"score.value is {score.value:g}; expected the accuracy of predictions, {accuracy:g}")


_ONE_AS_BITS = 0x3C00


def _all_shares(values: npt.NDArray[np.float16]) -> bool:
    """Return whether all values are from 0 to 1."""
    # The bits of positive half floats sort like their values, and integers compare ten times as fast.
    if not values.size or values.view(np.uint16).max() <= _ONE_AS_BITS:
        return True
    return bool(np.all((values >= 0) & (values <= 1)))


def _check_cell(cell: Mapping[str, Any]) -> None:
    if (cell["backbone"] is None) != (cell["weights"] is None):
        raise StoreError("cell has one of backbone and weights; expected both or neither")
    for name in ("data", "weights"):
        text = cell[name]
        if text is not None and (not text.isprintable() or text != text.strip()):
            raise StoreError(f"cell.{name} is {shown(text)}; expected a fingerprint, without blanks around it")
    _check_settings(cell["config"])


_SETTINGS: dict[str, FieldCheck] = {
    "batch_size": functools.partial(check_whole, 1, MAX_WHOLE),
    "epochs": functools.partial(check_number, 1e-9, 1e9),
    "min_steps": functools.partial(check_whole, 0, MAX_WHOLE),
    "max_steps": functools.partial(check_whole, 0, MAX_WHOLE),
    "n_pairs": functools.partial(check_whole, 0, MAX_WHOLE),
}
"""Checks of settings that forecasts compute with."""

_check_notes_of_1 = check_of(dict[str, str], "")
_optional_text = check_of(str | None, "")
_NOTES: dict[str, FieldCheck] = {
    **dict.fromkeys(("hub", "config", "revision"), _optional_text),
    "n_classes": functools.partial(check_whole, 1, _MAX_CLASSES),
    **dict.fromkeys(
        ("overlaps", "seen_by", "class_names"),
        functools.partial(check_list, functools.partial(check_text, 0, MAX_NAME)),
    ),
}
"""Checks of notes on the data that reports and advice read."""


def _check_settings(config: Mapping[str, Any]) -> None:
    for name, check in _SETTINGS.items():
        item = config.get(name)
        if item is not None and (expected := check(item)) is not None:
            raise StoreError(explain(f"cell.config.{name}", item, expected))


def _check_notes(dataset: Mapping[str, Any]) -> None:
    for name, check in _NOTES.items():
        item = dataset.get(name)
        if item is not None and (expected := check(item)) is not None:
            raise StoreError(explain(f"provenance.dataset.{name}", item, expected))


def _check_lengths(texts: Mapping[str, Any], where: str) -> None:
    n_cut, n_texts = texts.get("n_cut"), texts.get("n_texts")
    if (n_cut is None) != (n_texts is None) or (n_cut is not None and n_cut > n_texts):
        raise StoreError(f"{where}.n_cut is {n_cut}; expected at most {where}.n_texts = {n_texts}")


def _check_score(score: Mapping[str, Any]) -> None:
    low, high, available = score["low"], score["high"], score.get("n_test_available")
    if low is not None and high is not None and low > high:
        raise StoreError(f"score.low is {low:g} and score.high is {high:g}; expected low to be at most high")
    if available is not None and available < score["n_test"]:
        raise StoreError(f"score.n_test_available is {available}; expected at least score.n_test = {score['n_test']}")
