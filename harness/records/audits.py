"""Facts that come with the package: how far default settings are behind other ones (`harness audit-defaults`)."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.records.facts import settings_in_words
from harness.support import UsageError, replacing

MOST_POINTS_BEHIND = 2.0
"""Points by which tuned settings may be ahead before a default is flagged."""


@dataclass(frozen=True)
class AuditedDefault:
    """A method's default settings against tuned ones, on one backbone.

    Scores and differences are in points: a hundredth of the metric's unit.

    Attributes:
        method: name of the method.
        version: its version.
        config: its default configuration. The facts say nothing about another one.
        backbone: name of the backbone.
        tasks: tasks that were compared.
        sizes: training sizes.
        n_seeds: fewest seeds of a task and size.
        n_trials: settings that tuning tried on validation rows.
        default, tuned: mean scores over tasks and sizes, in points.
        points: tuned less default, positive where tuned settings are better.
        low, high: 95 % interval of `points` over the seeds and test rows of these tasks; None where it is unknown.
        held_out: what was judged by settings that the rest chose (`tasks`, `seeds and test rows`); None where tuning
            chose them on validation rows.
        better: what the settings that do best over all places change of the default; empty where the default does
            best, None where tuning chose.
    """

    method: str
    version: int
    config: dict[str, Any]
    backbone: str
    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    n_seeds: int
    n_trials: int
    default: float
    tuned: float
    points: float
    low: float | None
    high: float | None
    held_out: str | None = None
    better: dict[str, Any] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the default is more than `MOST_POINTS_BEHIND` points behind, and behind beyond noise."""
        return self.points > MOST_POINTS_BEHIND and self.low is not None and self.low > 0

    @property
    def said(self) -> str:
        """The finding in words: difference, interval and what it rests on."""
        ends = "" if self.low is None or self.high is None else f" ({self.low:+.1f} to {self.high:+.1f})"
        on = f"{', '.join(self.tasks)} at {', '.join(f'{size:,}' for size in self.sizes)} labels"
        seeds = "one seed" if self.n_seeds == 1 else f"{self.n_seeds} seeds"
        scores = f"{self.points:+.1f} points{ends} on {on}, {seeds}"
        if self.held_out is None:
            return f"the best of {self.n_trials} settings scores {scores}"
        best = f"{self.does_better} does best of {self.n_trials + 1}" if self.better else "the default does best"
        return f"{best}; settings chosen on other {self.held_out} score {scores}"

    @property
    def does_better(self) -> str:
        """Settings that do better, in words: `learning_rate=0.01`, or `tune=8` where tuning chose them."""
        if self.better is None:
            return f"tune={self.n_trials}"
        return settings_in_words(self.better)

    def is_of(self, method: str, config: Mapping[str, Any], backbone: str | None) -> bool:
        """Return whether a configuration is this default, on this backbone."""
        return (method, backbone) == (self.method, self.backbone) and config == self.config

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values, with the verdict as `is_behind`."""
        return {**asdict(self), "is_behind": self.is_behind}


@functools.cache
def audited_defaults() -> tuple[AuditedDefault, ...]:
    """Return the audits that come with the package."""
    file = importlib.resources.files("harness.records") / "audited_defaults.json"
    return tuple(map(_read, json.loads(file.read_text(encoding="utf-8"))))


@functools.cache
def _flagged() -> tuple[AuditedDefault, ...]:
    return tuple(one for one in audited_defaults() if one.is_behind)


def flagged_default(
    method: str, config: Mapping[str, Any], backbone: str | None, version: int | None = None
) -> AuditedDefault | None:
    """Return the audit that comes with the package and flags a configuration; None where none does.

    Without a version, the method's present one is meant: audits of earlier versions do not stay in the package.
    """
    of_version = (one for one in _flagged() if version in (None, one.version))
    return next((one for one in of_version if one.is_of(method, config, backbone)), None)


def _read(value: dict[str, Any]) -> AuditedDefault:
    newer = {"held_out": None, "better": None}
    known = {field.name: {**newer, **value}[field.name] for field in fields(AuditedDefault)}
    return AuditedDefault(**{**known, "tasks": tuple(known["tasks"]), "sizes": tuple(known["sizes"])})


def write_audits(audits: Iterable[AuditedDefault], path: Path) -> None:
    """Write audits to a JSON file; those of other methods, versions or backbones in the file stay.

    Raises:
        UsageError: the file exists and holds no audits.
        StoreError: the file cannot be written.
    """
    before: list[AuditedDefault] = []
    if path.exists():
        try:
            before = [_read(value) for value in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"'{path}' exists and holds no audits of defaults. Name a new file, or one that --write wrote."
            ) from error
    kept = {(one.method, one.backbone): one for one in (*before, *audits)}
    value = [one.to_dict() for _, one in sorted(kept.items())]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
