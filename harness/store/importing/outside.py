"""Read JSON that other tools wrote, with the file and the field in each message, and make parts of records of it."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

import numpy as np

from harness.records import MAX_SEED, Predictions, Record, Score, check_record, dump, payload_of
from harness.store.importing.fields import ResultRow
from harness.support import StoreError, UsageError, is_secret_name, mask_text

MAX_LINE: Final = 2**28
"""Longest line of a file of samples, in bytes."""

_MOST_TEXT: Final = 300
"""Longest setting that a configuration states in full; of a longer one it has a hash."""

_SECRET: Final = re.compile(
    r"(?:api_?key|access_?key|private_?key|auth_?token|access_?token|hf_token|^token|authorization|credentials?)$",
    re.IGNORECASE,
)
"""Names of settings that hold secrets, beside those of `is_secret_name`."""

_ROUNDING: Final = 1e-6
"""Distance from the end of a metric's range that rounding explains."""

_LAST_SECOND: Final = 2**31 - 1
_HALF_WIDTH: Final = 1.959964
"""Half the width of a normal 95 % interval, in standard errors."""

_HUNDREDFOLD: Final = frozenset({"bleu", "chrf", "ter", "sacrebleu", "rouge1", "rouge2", "rougeL", "rougeLsum"})
_CORRELATIONS: Final = frozenset({"mcc", "matthews", "pearson", "spearman", "kendall", "correlation", "corrcoef"})
_ENDLESS: Final = frozenset({"perplexity", "ppl", "loss", "nll", "mae", "mse", "rmse", "wer", "cer", "bits", "elo"})


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file; NaN and infinities are accepted, as Python writes them.

    Args:
        path: the file.
        what: the expected content in words, for the message.

    Raises:
        UsageError: the file cannot be read, or is not JSON; the message names the line.
    """
    try:
        return parse_json(path.read_bytes(), str(path), what)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


def parse_json(raw: bytes, where: str, what: str) -> Any:
    """Return parsed JSON; see `read_json`."""
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{where} cannot be read as JSON: {reason}. Expected {what}. Is the file complete?") from None


def part(value: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return an object inside an object; an empty one where it is missing or null.

    Raises:
        UsageError: it is something else.
    """
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{where}: {name} is {type(found).__name__}; expected an object.")
    return found


def listed_parts(value: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """Return a list of objects inside an object; an empty one where it is missing or null.

    Raises:
        UsageError: it is something else.
    """
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError(f"{where}: {name} is not a list of objects.")
    return found


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a number; NaN is one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream the objects of a JSON Lines file with their line numbers, one at a time in memory.

    Raises:
        UsageError: a line is no JSON object; the message names it.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if line.isspace():
                    continue
                where = f"{path}, line {number}"
                if len(line) > MAX_LINE:
                    raise UsageError(f"{where} has more than {MAX_LINE:,} bytes; expected one JSON object a line.")
                value = parse_json(line, where, "one JSON object a line")
                if not isinstance(value, dict):
                    raise UsageError(f"{where} is no JSON object.")
                yield number, value
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


# ---- parts of records


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings for a configuration: no nulls, no secrets, nested values as text, long texts as a hash."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or _is_secret(name):
            continue
        kept = _without_secrets(value)
        if isinstance(value, float) and not math.isfinite(value):
            kept = str(value)
        elif not isinstance(value, (str, int, float, bool)):
            kept = json.dumps(kept, sort_keys=True, default=str)
        if isinstance(kept, str) and len(kept) > _MOST_TEXT:
            kept = f"sha256 {short_hash(kept)}"
        found[str(name)[:200]] = kept
    return found


def _is_secret(name: object) -> bool:
    return is_secret_name(str(name)) or _SECRET.search(str(name)) is not None


def _without_secrets(value: Any) -> Any:
    """Return a JSON value without named secrets, and with the passwords of addresses masked."""
    if isinstance(value, dict):
        return {name: _without_secrets(item) for name, item in value.items() if not _is_secret(name)}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def bare_address(url: str | None) -> str | None:
    """Return an address without user name, password and parameters; None without one."""
    found = urlsplit(url or "")
    if not found.hostname:
        return None
    port = f":{found.port}" if found.port is not None else ""
    return f"{found.scheme}://{found.hostname}{port}{found.path}"[:500]


def short_hash(*parts: str) -> str:
    """Return 16 hexadecimal digits that identify texts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def interval(
    metric: str, value: float, error: float | None, highest: float | None
) -> tuple[float | None, float | None]:
    """Return the normal 95 % interval of a score with a standard error, within the range of the metric.

    Args:
        metric: name of the metric; correlations go from -1, others from 0 unless the score is negative.
        value: the score.
        error: its standard error; None gives no interval.
        highest: upper end of the range; None without one.
    """
    if error is None:
        return None, None
    low, high = value - _HALF_WIDTH * error, value + _HALF_WIDTH * error
    if set(re.split(r"[^a-z]+", metric.lower())) & _CORRELATIONS:
        low = max(min(-1.0, value), low)
    elif value >= 0:
        low = max(0.0, low)
    return low, high if highest is None else min(max(highest, value), high)


def points_down(metric: str, row: ResultRow) -> bool:
    """Return whether lower values of a metric are better, by its name alone."""
    return not row.higher_is_better(metric)


def highest_by_name(metric: str, value: float) -> float | None:
    """Return the upper end of a metric of another tool: 1 or 100 where its name and value allow it."""
    words = set(metric.replace("-", "_").lower().split("_"))
    if words & _ENDLESS:
        return None
    if metric.partition(" ")[0] in _HUNDREDFOLD and value <= 100:
        return 100.0
    return 1.0 if value <= 1 else None


def data_text(text: str) -> str:
    """Return a description of data as a cell may have it: printable, without blanks around it, and not too long."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:900].strip()


def attempt_at(seconds: float | None) -> int:
    """Return the attempt of a run: its seconds since 1970, so that a later run takes precedence; 1 without a time."""
    if seconds is None or not 1 <= seconds <= _LAST_SECOND:
        return 1
    return int(seconds)


def seconds_of(text: str | None) -> float | None:
    """Return the seconds since 1970 of a time in ISO format, in UTC where it names no zone; None if it is none."""
    if not text:
        return None
    try:
        found = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def iso_of(seconds: float | None) -> str:
    """Return a time in ISO format; an empty text without one."""
    if seconds is None or not 0 <= seconds < 1e11:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def seed_of(value: Any) -> int:
    """Return a seed that a cell may have; 0 where none is stated."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEED else 0


def row_scores(metric: str, rows: str, values: list[float]) -> Predictions:
    """Return the scores of single rows, which comparisons with other results on the same rows need."""
    found = np.asarray(values, dtype=np.float64)
    whole = found.astype(np.int64)
    return Predictions(rows=rows, statistics={metric: whole if np.array_equal(whole, found) else found})


def refuse_beyond_range(score: Score, where: str) -> None:
    """Refuse a score that its metric cannot have, where the metric is one of the harness.

    Raises:
        UsageError: it is outside the metric's range.
    """
    from harness.metrics import metrics

    if score.metric not in metrics.names():
        return
    spec = metrics.get(score.metric)
    high = math.inf if spec.high is None else spec.high
    if not spec.low - _ROUNDING <= score.value <= high + _ROUNDING:
        expected = f"{spec.low:g} or more" if spec.high is None else f"{spec.low:g} to {spec.high:g}"
        raise UsageError(
            f"{where}: {score.metric} is {score.value:g}; expected {expected}. Is it a percentage, or another metric?"
        )


def checked(record: Record, where: str) -> Record:
    """Return a record if a store could read it back and its metric can have its score.

    Raises:
        UsageError: a field is out of range; the message names it.
    """
    if record.score is not None:
        refuse_beyond_range(record.score, where)
    try:
        check_record(json.loads(dump({**payload_of(record), "predictions": None})))
    except StoreError as error:
        raise UsageError(f"{where} cannot be imported: {error}.") from None
    return record
