"""Predictions and right answers of each test row, packed as JSON."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.support import UsageError

MAX_BYTES = 2**28
"""Maximum size in bytes of one record's unpacked predictions."""

MAX_STATISTICS = 64
_DTYPES = frozenset({"|u1", "|b1", "|i1", "<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"})
"""Types of the arrays that `to_json` packs: little-endian numbers."""


@dataclass(frozen=True)
class Predictions:
    """Prediction and right answer of each test row, on which all later statistics rest.

    For answers that are indices (of classes or choices), both are stored. For texts and likelihoods, the sufficient
    statistics of the task's metrics are stored, and the texts themselves.

    Attributes:
        rows: fingerprint of the test rows and their order; predictions with equal fingerprints may be compared row by
            row.
        predicted: predicted index per row, shape (n_test,); None if answers are not indices.
        target: right index per row, shape (n_test,); None with `predicted`.
        confidence: probability of the prediction, shape (n_test,), float16; None if there is none.
        statistics: arrays by name, first axis rows (`metrics.base.MetricSpec.row_statistics`).
        texts: answers that are texts, one per row; None otherwise.
    """

    rows: str
    predicted: npt.NDArray[np.int64] | None = None
    target: npt.NDArray[np.int64] | None = None
    confidence: npt.NDArray[np.float16] | None = None
    statistics: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Predicted and right indices; an error if answers are not indices."""
        if self.predicted is None or self.target is None:
            raise ValueError("These predictions are not indices of classes or choices.")
        return self.predicted, self.target

    def row_scores(self, metric: str) -> npt.NDArray[Any] | None:
        """Return the metric of each row, shape (n_test,); None if the metric is not the mean over rows."""
        if metric == "accuracy" and self.predicted is not None and self.target is not None:
            return np.asarray(self.predicted == self.target)
        stored = self.statistics
        if metric == "mae" and {"estimate", "truth"} <= stored.keys():
            return np.asarray(np.abs(stored["estimate"].astype(np.float64) - stored["truth"]))
        if metric == "subset_accuracy" and {"given", "wanted"} <= stored.keys():
            return np.asarray((stored["given"] == stored["wanted"]).all(axis=1))
        found = stored.get(metric)
        return found if found is not None and found.ndim == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return compact JSON: each array as base64 of its deflated bytes, in the smallest integer type that holds it.

        Empty `statistics` and `texts` are left out, as in versions that lacked them.
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

    def lengths(self) -> dict[str, int]:
        """Return the number of rows of each present part, by name."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("predicted", "target", "confidence", "texts")}
        parts |= {f"statistics.{name}": values for name, values in self.statistics.items()}
        return {name: len(part) if np.ndim(part) else 0 for name, part in parts.items() if part is not None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Predictions:
        """Return the predictions from the result of `to_json`.

        Parts are unpacked when somebody asks for them; one that cannot be raises a `UsageError` then.

        Raises:
            UsageError: a part differs from the format of `to_json`, or the parts would take more than `MAX_BYTES`.
        """
        _check_parts(value)
        predictions = object.__new__(cls)
        found = predictions.__dict__
        found["rows"] = value["rows"]
        packed = {name: value.get(name) for name in _UNPACK}
        found.update({name: {} if name == "statistics" else None for name, part in packed.items() if part is None})
        found[_PACKED] = {name: part for name, part in packed.items() if part is not None}
        return predictions

    if not TYPE_CHECKING:  # or every misspelt attribute would have a type

        def __getattr__(self, name: str) -> Any:
            """Return a part that is not unpacked yet: most readers need few of them."""
            part = self.__dict__.get(_PACKED, {}).get(name)
            if part is None:
                raise AttributeError(f"Predictions have no attribute '{name}'.")
            found = self.__dict__[name] = _UNPACK[name](part)
            return found


_PACKED = "_packed"


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


def _check_parts(value: Any) -> None:
    """Check packed predictions before anything is unpacked, since a few bytes may unpack to gigabytes."""
    if not isinstance(value, dict) or not isinstance(value.get("rows"), str) or not 0 < len(value["rows"]) <= 1000:
        raise UsageError("predictions is not an object with the fingerprint of its rows.")
    if unknown := value.keys() - {"rows", "predicted", "target", "confidence", "statistics", "texts"}:
        raise UsageError(f"predictions has the unknown part {min(unknown)[:80]!r}.")
    statistics = value.get("statistics", {})
    if not isinstance(statistics, dict) or len(statistics) > MAX_STATISTICS:
        raise UsageError(f"predictions.statistics is not an object of at most {MAX_STATISTICS} arrays.")
    n_bytes = 0
    for name, part in (*value.items(), *((f"statistics.{key[:80]}", packed) for key, packed in statistics.items())):
        if name in ("rows", "statistics") or (part is None and "." not in name):
            continue
        n_bytes += _check_part(part, f"predictions.{name}")
    if n_bytes > MAX_BYTES:
        raise UsageError(f"The predictions take {n_bytes:,} bytes; expected at most {MAX_BYTES:,}.")


def _check_part(part: Any, where: str) -> int:
    """Return the unpacked size of a part in bytes; refuse anything that `_pack` does not make."""
    if not isinstance(part, dict) or not isinstance(part.get("data"), str):
        raise UsageError(f"{where} is not an object with packed data.")
    n = part.get("n")
    if type(n) is not int or not 0 <= n <= MAX_BYTES:
        raise UsageError(f"{where}.n is not a whole number from 0 to {MAX_BYTES:,}.")
    if where.endswith(".texts"):
        return n
    dtype = part.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UsageError(f"{where}.dtype is not one of {', '.join(sorted(_DTYPES))}.")
    if where.endswith((".predicted", ".target")) and np.dtype(dtype).kind not in "iu":
        raise UsageError(f"{where}.dtype is '{dtype}'; expected whole numbers.")
    if where.startswith("predictions.statistics."):
        shape = part.get("shape")
        plain = isinstance(shape, list) and 1 <= len(shape) <= 8 and all(type(k) is int and k >= 0 for k in shape)
        if not plain or math.prod(part["shape"]) != n:
            raise UsageError(f"{where}.shape is not a list of 1 to 8 sizes whose product is n = {n}.")
    # Indices become 8 bytes wide.
    return n * 8


def _inflate(data: str, most: int, what: str) -> bytes:
    """Return inflated bytes; refuse more than `most` before they are allocated."""
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(binascii.a2b_base64(data, strict_mode=True), most + 1)
    except (ValueError, zlib.error) as error:
        raise UsageError(f"Packed {what} cannot be unpacked: {error}.") from None
    if len(raw) > most or stream.unconsumed_tail or not stream.eof:
        raise UsageError(f"Packed {what} hold more or fewer bytes than they say.")
    return raw


def _unpack(value: dict[str, Any]) -> npt.NDArray[Any]:
    dtype = np.dtype(value["dtype"])
    raw = _inflate(value["data"], value["n"] * dtype.itemsize, "predictions")
    if len(raw) != value["n"] * dtype.itemsize:
        raise UsageError(f"Packed predictions hold {len(raw) // dtype.itemsize} values; expected {value['n']}.")
    return np.frombuffer(raw, dtype=dtype)


def _pack_any(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return packed numbers of any shape; whole numbers get the smallest type that holds them."""
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
    raw = _inflate(value["data"], MAX_BYTES // 4, "texts")
    try:
        texts = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"Packed texts cannot be read: {error}.") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("Packed texts are not a list of texts.")
    if len(texts) != value["n"]:
        raise UsageError(f"Packed texts hold {len(texts)} answers; expected {value['n']}.")
    return tuple(texts)


_UNPACK: dict[str, Callable[[Any], Any]] = {
    "predicted": lambda part: _unpack(part).astype(np.int64),
    "target": lambda part: _unpack(part).astype(np.int64),
    "confidence": lambda part: _unpack(part).astype(np.float16),
    "statistics": lambda parts: {name: _unpack_any(part) for name, part in parts.items()},
    "texts": lambda part: _unpack_texts(part),
}
"""Function that unpacks each part."""

for _name in ("predicted", "target", "confidence", "texts"):  # their defaults would hide that they are not unpacked
    delattr(Predictions, _name)
