"""Define the fields of imported tables, the values of a row, and the record of an imported result."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import harness
from harness.records import (
    Cell,
    Cost,
    CurvePoint,
    Facts,
    Forgetting,
    Predictions,
    Provenance,
    Record,
    Score,
    Status,
    fit_length_of,
    role_of,
)
from harness.support import UsageError

_MARK: Final = " (imported)"
"""Mark after the device's name, which keeps figures of another protocol apart from one's own."""

_TEXTS: Final = ("task", "kind", "backbone", "method", "family", "variant", "budget")
_TEXTS_TOO: Final = ("status", "metric", "device", "error")
_SIZES: Final = ("n_train", "labels_per_class", "classes", "seed", "n_test")
SCORE_FIELDS: Final = ("score", "score_low", "score_high", "train_score")
COSTS_SECONDS: Final = (
    *("load_seconds", "encode_seconds", "tune_seconds", "fit_seconds", "predict_seconds"),
    "train_flops",
)
COSTS_WHOLE: Final = (
    *("train_tokens", "peak_device_bytes", "peak_rss_bytes", "peak_rss_above_baseline_bytes"),
    *("n_parameters", "n_trainable", "artifact_bytes"),
)
FIELDS: Final = (
    *(*_TEXTS, *_SIZES, *SCORE_FIELDS, *_TEXTS_TOO),
    *(*COSTS_SECONDS, *COSTS_WHOLE, "higher_is_better"),
)
"""Names of the fields; `task`, `method`, `score`, `n_test` and a training size are required."""

NEEDED: Final = ("task", "method", "score")
CELL_FIELDS: Final = ("task", "backbone", "method", "variant", "budget", "n_train", "seed", "device")
"""Fields that distinguish results."""

UNKNOWN: Final = "unknown"
"""Value of `n_test` for a table that does not state it."""

SEED_BY_ROW: Final = "row"
"""Value of `seed` for a table whose otherwise equal rows are repeated runs."""

_LOWER: Final = frozenset(
    {
        *("perplexity", "ppl", "loss", "nll", "bpb", "error", "errors", "err", "wer", "cer", "ter", "ece"),
        *("mae", "mse", "rmse", "brier", "distance", "levenshtein", "latency"),
    }
)
"""Words in the names of metrics of which lower values are better."""

_LOWER_NAMES: Final = frozenset({"bits_per_byte"})
_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
_LARGEST = 1e30


@dataclass(frozen=True)
class ResultRow:
    """The values of a table's row by field, and its position (`where`)."""

    values: dict[str, Any]
    where: str

    def text(self, name: str) -> str | None:
        """Return a text; None if the field is empty."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, (dict, list)):
            raise UsageError(f"{self.where}: {name} is a nested value; expected a text.")
        text = str(value).strip()
        if len(text) > 1000:
            raise UsageError(f"{self.where}: {name} is {len(text):,} characters long; expected at most 1,000.")
        return text or None

    def number(self, name: str, least: float = -_LARGEST) -> float | None:
        """Return a finite number of at least `least`; None if the field is empty."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            found = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not least <= found <= _LARGEST:
            what = "a number" if least < 0 else f"a number of {least:g} or more"
            raise UsageError(f"{self.where}: {name} is {_shown(value)}; expected {what}, or nothing.")
        return found

    def whole(self, name: str) -> int | None:
        """Return a whole number of 0 or more; None if the field is empty."""
        found = self.number(name)
        if found is not None and (found < 0 or found != round(found) or found > 2**53):
            raise UsageError(f"{self.where}: {name} is {found:g}; expected a whole number of 0 or more.")
        return None if found is None else round(found)

    def n_train(self) -> int:
        """Return the number of labels used: `n_train`, or `labels_per_class` times `classes`.

        Raises:
            UsageError: the row states neither, or two different numbers.
        """
        stated, per_class, classes = (self.whole(name) for name in ("n_train", "labels_per_class", "classes"))
        product = None if per_class is None or classes is None else per_class * classes
        if stated is None and product is None:
            raise UsageError(f"{self.where}: n_train is missing, and there are no labels per class to multiply.")
        if None not in (stated, product) and stated != product:
            raise UsageError(
                f"{self.where}: n_train is {stated}, but {per_class} labels of each of {classes} classes are {product}."
            )
        return int(stated if stated is not None else product or 0)

    def higher_is_better(self, metric: str) -> bool:
        """Return the direction stated in the row, else the usual one for the metric's name."""
        said = self.text("higher_is_better")
        if said is None:
            words = re.split(r"[^a-z]+", metric.lower())
            return metric.lower() not in _LOWER_NAMES and not _LOWER & set(words)
        if said.lower() in _TRUE | _FALSE:
            return said.lower() in _TRUE
        raise UsageError(f"{self.where}: higher_is_better is {_shown(said)}; expected true or false.")


def imported(
    *,
    cell: Cell,
    device: str,
    kind: str,
    family: str,
    status: Status,
    source: str,
    protocol: str,
    score: Score | None = None,
    train_score: float | None = None,
    cost: Cost | None = None,
    curve: tuple[CurvePoint, ...] = (),
    error: str | None = None,
    started_at: str = "",
    packages: dict[str, str] | None = None,
    commit: str | None = None,
    precision: str = "unknown",
    platform: str = "unknown",
    dataset: dict[str, Any] | None = None,
    forgetting: Forgetting | None = None,
    missing: dict[str, str] | None = None,
    method_here: str | None = None,
    measured_by: str | None = None,
    is_evidence: bool = True,
    has_seen_task: bool | None = None,
    attempt: int = 1,
    predictions: Predictions | None = None,
    wall_seconds: float | None = None,
    remarks: dict[str, str] | None = None,
) -> Record:
    """Return the record of an imported result.

    Args:
        cell: method and task under their original names; `data` is a name, not a fingerprint.
        device: device of the run.
        kind: kind of the task.
        family: family of the method.
        status: status of the run.
        source: the file, for the record's provenance.
        protocol: explanation of figures that have a different meaning here.
        score: score on the test rows; None unless the status is `ok`.
        train_score: score on the training rows.
        cost: cost of the run.
        curve: progress of the run.
        error: reason for a status other than `ok`.
        started_at: start of the run as stated in the file.
        packages: versions of packages.
        commit: commit of the code that ran.
        precision: precision of the backbone's arithmetic.
        platform: operating system.
        dataset: known facts about the data.
        forgetting: forgetting, as the other project measured it.
        missing: reasons for missing figures, by figure.
        method_here: method of the harness that the result is of; None where there is none.
        measured_by: name of the source that published it, which keeps it out of advice on methods.
        is_evidence: whether the score is evidence about methods.
        has_seen_task: whether the model is known to be trained on the task's data; None is unknown.
        attempt: number of the attempt; see `outside.attempt_at`.
        predictions: scores of single rows.
        wall_seconds: seconds of the whole run.
        remarks: remarks for readers, by subject.
    """
    provenance = Provenance(
        harness=f"imported by {harness.__version__}",
        commit=commit,
        dirty=None,
        packages=packages or {},
        threads=0,
        precision=precision,
        python="unknown",
        platform=platform,
        started_at=started_at,
        wall_seconds=wall_seconds,
        dataset=dataset or {},
    )
    return Record(
        suite="imported",
        device=marked(device),
        kind=kind,
        family=family,
        cell=cell,
        status=status,
        provenance=provenance,
        score=score,
        train_score=train_score,
        cost=cost or Cost(),
        curve=curve,
        error=error,
        attempt=attempt,
        predictions=predictions,
        facts=Facts(
            role=role_of(cell.to_json(), family),
            fit_length=fit_length_of(cell.config),
            defaults={"tune": None},
            imported_from=source,
            protocol=protocol,
            forgetting=forgetting,
            missing=missing or {},
            method_here=method_here,
            measured_by=measured_by,
            is_evidence=is_evidence,
            has_seen_task=has_seen_task,
            remarks=remarks or {},
        ),
    )


def marked(device: str) -> str:
    """Return a device's name with the mark of imported results."""
    return device if device.endswith(_MARK) else device + _MARK


def listed(numbers: Sequence[int], most: int = 6) -> str:
    """Return the first numbers as a text: `1, 2, 3 and 4 more`."""
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
