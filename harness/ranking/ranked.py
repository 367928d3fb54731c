"""The answer to which backbone suits a task: one entry per backbone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.ranking.forecasting import Forecast
from harness.ranking.measuring import Signals

if TYPE_CHECKING:
    import pandas as pd

METRIC = "accuracy"
"""Metric of the probes and of the forecast."""


@dataclass(frozen=True)
class RankedBackbone:
    """One backbone. Figures are None where they are unknown.

    Attributes:
        backbone: its name.
        asked: the name or folder that it was asked for by, as `--backbone` takes it.
        status: `ranked`; `costs only` where there are no weights or no memory for them; `failed` otherwise.
        why: reason of a status other than `ranked`.
        architecture: encoder, causal or sequence-to-sequence.
        n_parameters: all parameters, embeddings included.
        licence: licence by its model card.
        seen: reason to believe that it was trained on the task's data; None where nothing says so.
        signals: figures of its frozen features.
        forecast: expected accuracy of full fine-tuning.
        encode_seconds, score_seconds: seconds of encoding, and of probes, LogME and H-score.
        encode_peak_bytes: memory of encoding, with the weights.
        full_seconds, full_peak_bytes: planned training time and memory of full fine-tuning.
        encode_flops, full_flops: operations of encoding and of full fine-tuning, by arithmetic.
    """

    backbone: str
    asked: str
    status: Literal["ranked", "costs only", "failed"]
    why: str | None = None
    architecture: str | None = None
    n_parameters: float | None = None
    licence: str | None = None
    seen: str | None = None
    signals: Signals | None = None
    forecast: Forecast | None = None
    encode_seconds: float | None = None
    score_seconds: float | None = None
    encode_peak_bytes: float | None = None
    full_seconds: float | None = None
    full_peak_bytes: float | None = None
    encode_flops: float | None = None
    full_flops: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Ranking:
    """Backbones for a task, the best forecast first; then those with costs only, then those that failed.

    Attributes:
        task: name of the task.
        device: name of the device.
        n_train: labels of the fine-tuning that is forecast.
        n_rows: labelled rows that were encoded.
        backbones: the entries.
        seconds: time of the whole ranking, loading included.
    """

    task: str
    device: str
    n_train: int
    n_rows: int
    backbones: tuple[RankedBackbone, ...] = field(repr=False)
    seconds: float

    @property
    def ranked(self) -> tuple[RankedBackbone, ...]:
        """Entries with a forecast, the best first."""
        return tuple(entry for entry in self.backbones if entry.status == "ranked")

    @property
    def best(self) -> RankedBackbone | None:
        """The entry with the highest forecast; None where no backbone was ranked."""
        return self.ranked[0] if self.ranked else None

    @property
    def cost_share(self) -> float | None:
        """Seconds of encoding and scoring, as a share of the planned seconds of fine-tuning all ranked backbones."""
        planned = sum(entry.full_seconds or 0.0 for entry in self.ranked)
        spent = sum((entry.encode_seconds or 0.0) + (entry.score_seconds or 0.0) for entry in self.ranked)
        return spent / planned if planned else None

    def to_frame(self) -> pd.DataFrame:
        """Return one row per backbone, with the signals and the forecast in columns of their own."""
        import pandas as pd

        rows = []
        for entry in self.backbones:
            flat = entry.to_dict()
            signals, expected = flat.pop("signals"), flat.pop("forecast")
            forecasts = {f"forecast_{name}": value for name, value in (expected or {}).items()}
            rows.append({**flat, **(signals or {}), **forecasts})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as plain values."""
        return {
            "task": self.task,
            "device": self.device,
            "metric": METRIC,
            "n_train": self.n_train,
            "n_rows": self.n_rows,
            "seconds": self.seconds,
            "cost_share": self.cost_share,
            "best": None if self.best is None else self.best.backbone,
            "backbones": [entry.to_dict() for entry in self.backbones],
        }

    def _repr_html_(self) -> str:
        shown = self.to_frame().dropna(axis=1, how="all")
        return str(shown.to_html(index=False, float_format="{:.3f}".format))
