"""What was predicted of each test row and what was right, packed as JSON."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError


@dataclass(frozen=True)
class Predictions:
    """Per test row: what was predicted and what was right. All later statistics rest on these.

    Where answers are indices (of classes, of choices), both are here. Where they are texts, or likelihoods, the
    sufficient statistics of the task's metrics are, and the texts themselves.

    Attributes:
        rows: fingerprint of the test rows and their order; equal fingerprints may be compared row by row.
        predicted: index per row, shape (n_test,); None where answers are none.
        target: right index per row, shape (n_test,); None with `predicted`.
        confidence: probability of what is predicted, shape (n_test,), float16; None where there is none.
        statistics: arrays by name, first axis rows (`metrics.base.MetricSpec.row_statistics`).
        texts: answers that are texts, one a row; None otherwise.
    """

    rows: str
    predicted: npt.NDArray[np.int64] | None = None
    target: npt.NDArray[np.int64] | None = None
    confidence: npt.NDArray[np.float16] | None = None
    statistics: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What was predicted and what was right, where answers are indices."""
        if self.predicted is None or self.target is None:
            raise ValueError("These predictions are no indices of classes or choices.")
        return self.predicted, self.target

    def row_scores(self, metric: str) -> npt.NDArray[Any] | None:
        """The metric of each row alone, shape (n_test,), where it is the mean of them; None where it is not."""
        if metric == "accuracy" and self.predicted is not None and self.target is not None:
            return np.asarray(self.predicted == self.target)
        found = self.statistics.get(metric)
        return found if found is not None and found.ndim == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Compact JSON: each array as base64 of its deflated bytes in the smallest integer type that holds it.

        `statistics` and `texts` are left out where there are none, as they were before they existed.
        """
        packed: dict[str, Any] = {
            "rows": self.rows,
            "predicted": None if self.predicted is None else _pack(_narrow(self.predicted)),
            "target": None if self.target is None else _pack(_narrow(self.target)),
            "confidence": None if self.confidence is None else _pack(self.confidence.astype("<f2")),
        }
        if self.statistics:
            packed["statistics"] = {name: _pack_any(values) for name, values in self.statistics.items()}
        if self.texts is not None:
            packed["texts"] = _pack_texts(self.texts)
        return packed

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Predictions:
        """The inverse of `to_json`."""
        confidence, texts = value.get("confidence"), value.get("texts")
        indices = {
            name: None if value.get(name) is None else _unpack(value[name]).astype(np.int64)
            for name in ("predicted", "target")
        }
        return cls(
            rows=value["rows"],
            confidence=None if confidence is None else _unpack(confidence).astype(np.float16),
            statistics={name: _unpack_any(packed) for name, packed in value.get("statistics", {}).items()},
            texts=None if texts is None else _unpack_texts(texts),
            **indices,
        )


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in ("<u1", "<u2", "<i4"):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return values.astype(dtype)
    return values.astype("<i8")


def _pack(values: npt.NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode("ascii")
    return {"dtype": values.dtype.str, "n": int(values.size), "data": data}


def _unpack(value: dict[str, Any]) -> npt.NDArray[Any]:
    raw = zlib.decompress(base64.b64decode(value["data"]))
    values = np.frombuffer(raw, dtype=np.dtype(value["dtype"]))
    if values.size != value["n"]:
        raise UsageError(f"Packed predictions hold {values.size} values; expected {value['n']}.")
    return values


def _pack_any(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Numbers of any shape; whole ones in the smallest type that holds them."""
    whole = np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_
    flat = values.reshape(-1)
    packed = _pack(_narrow(flat.astype(np.int64)) if whole else flat.astype(flat.dtype.newbyteorder("<")))
    return {**packed, "shape": list(values.shape)}


def _unpack_any(value: dict[str, Any]) -> npt.NDArray[Any]:
    values = _unpack(value).reshape(value["shape"])
    return values.astype(np.int64) if np.issubdtype(values.dtype, np.integer) else values


def _pack_texts(texts: tuple[str, ...]) -> dict[str, Any]:
    raw = json.dumps(list(texts), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return {"n": len(texts), "data": base64.b64encode(zlib.compress(raw, 6)).decode("ascii")}


def _unpack_texts(value: dict[str, Any]) -> tuple[str, ...]:
    texts = json.loads(zlib.decompress(base64.b64decode(value["data"])).decode("utf-8", "surrogatepass"))
    if len(texts) != value["n"]:
        raise UsageError(f"Packed texts hold {len(texts)} answers; expected {value['n']}.")
    return tuple(texts)
