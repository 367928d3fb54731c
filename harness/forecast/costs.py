"""Expected seconds and bytes: what was measured, carried over by the work that a method does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import numpy as np

from harness.cost import Probed
from harness.forecast.evidence import Evidence, Point, by_method, measured_of, medians
from harness.forecast.pooled import Pooled, Spreads, Term, Where
from harness.forecast.texts import TaskTexts
from harness.forecast.work import log_bytes, log_work, longest_read

SPREADS: Final = {
    "seconds": Spreads(
        (
            Term("whole", (), 0.11, "x"),
            Term("whole", (), 0.18, "z"),
            Term("task", ("task",), 0.045),
            Term("task", ("task",), 0.095, "x"),
            Term("method", ("group",), 0.54),
            Term("method", ("group",), 0.025, "x"),
            Term("method", ("group",), 0.065, "z"),
            Term("backbone", ("backbone",), 1.0),
            Term("backbone", ("backbone", "group"), 0.15),
            Term("both", ("task", "group"), 0.075),
            Term("method", ("method",), 0.28),
            Term("method", ("method",), 0.13, "x"),
            Term("both", ("task", "method"), 0.01),
            Term("both", ("task", "method"), 0.055, "x"),
        ),
        noise=0.13,
    ),
    "memory": Spreads(
        (
            Term("whole", (), 0.29, "x"),
            Term("whole", (), 0.17, "z"),
            Term("task", ("task",), 0.13),
            Term("task", ("task",), 0.045, "x"),
            Term("method", ("group",), 0.38),
            Term("method", ("group",), 0.18, "x"),
            Term("method", ("group",), 0.05, "z"),
            Term("backbone", ("backbone",), 0.7),
            Term("backbone", ("backbone", "group"), 0.15),
            Term("both", ("task", "group"), 0.12),
            Term("method", ("method",), 0.01),
            Term("method", ("method",), 0.01, "x"),
            Term("both", ("task", "method"), 0.005),
            Term("both", ("task", "method"), 0.025, "x"),
        ),
        noise=0.115,
    ),
    "predict": Spreads(
        (
            Term("whole", (), 0.39, "x"),
            Term("whole", (), 0.43, "z"),
            Term("task", ("task",), 0.22),
            Term("task", ("task",), 0.085, "x"),
            Term("method", ("group",), 0.68),
            Term("method", ("group",), 0.18, "x"),
            Term("method", ("group",), 0.18, "z"),
            Term("backbone", ("backbone",), 1.0),
            Term("backbone", ("backbone", "group"), 0.15),
            Term("both", ("task", "group"), 0.07),
            Term("method", ("method",), 0.035),
            Term("method", ("method",), 0.01, "x"),
            Term("both", ("task", "method"), 0.005),
            Term("both", ("task", "method"), 0.02, "x"),
        ),
        noise=0.12,
    ),
}
"""Spreads of the logarithms of seconds of a unit of work, of bytes of what is held, and of seconds a token.

z is the doublings of tokens a text above 32; for bytes, of tokens of the longest text above 64. They are the most
likely ones of the reference results (docs/explanation/advice.md), rounded."""

_WITHOUT_BACKBONE: Final = Spreads(
    (
        Term("whole", (), 0.3, "x"),
        Term("whole", (), 0.1, "z"),
        Term("task", ("task",), 0.2),
        Term("task", ("task",), 0.15, "x"),
        Term("method", ("group",), 0.5),
        Term("method", ("method",), 0.5),
        Term("both", ("task", "group"), 0.4),
        Term("both", ("task", "method"), 0.1, "x"),
    ),
    noise=0.2,
)
"""Spreads of methods that read no transformer: their costs go by words and classes, and differ more between tasks."""


@dataclass(frozen=True)
class Costs:
    """Expected costs of methods on one device, by method; a method whose cost is not known is left out.

    Attributes:
        seconds: seconds of training.
        memory: peak bytes.
        predict: seconds to predict a text.
        trainable: trainable parameters, as measured.
        stored: stored bytes, as measured.
        notes: sentences on what was carried over from another device.
    """

    seconds: dict[str, float]
    memory: dict[str, float]
    predict: dict[str, float]
    trainable: dict[str, float]
    stored: dict[str, float]
    notes: tuple[str, ...] = ()


class CostModel:
    """Expected costs on a device; costs that were not measured there are carried over from another device.

    Args:
        points: measurements.
        evidence: gives the lengths of texts, and the devices.
        device: the device; None where nothing was timed.
        timed: devices, those with the most timed points first: the first that a method was timed on speaks for it.
        probes: probes of devices, for those without measurements.
    """

    def __init__(
        self,
        points: Sequence[Point],
        evidence: Evidence,
        device: str | None,
        timed: Sequence[str],
        probes: Sequence[Probed] = (),
    ) -> None:
        self._by_method = by_method(points)
        self._evidence = evidence
        self._device = device
        self._timed = timed
        self._probes = probes
        self._fitted: dict[tuple[str, str, bool], _Fitted] = {}

    def expected(self, asked: TaskTexts) -> Costs:
        """Return the costs of every method that was measured on any device."""
        device, points = self._device, self._by_method
        found = {name: self._on(asked, device, name) for name in SPREADS}
        here, notes, unknown = dict(found["seconds"]), [], False
        for other in self._timed:
            if device is None or other == device:
                continue
            missing = {name: _measured_on(other, points, name) - found[name].keys() for name in SPREADS}
            if self._is_accelerator(other) != self._is_accelerator(device):  # an accelerator's bytes are not a host's
                missing["memory"] = set()
            if missing["memory"]:
                whose = f"Memory of {_named(missing['memory'])}" if found["memory"] else "Memory"
                notes.append(f"{whose} is that of {other}.")
                found["memory"] = {**_of(missing["memory"], self._on(asked, other, "memory")), **found["memory"]}
            late = missing["seconds"] | missing["predict"]
            if not late:
                continue
            there = self._on(asked, other, "seconds")
            shared = [here[method] / there[method] for method in here.keys() & there.keys()]
            ratio = median(shared) if shared else self._scale_of(device, other)
            if ratio is None:
                unknown = True
                continue
            by = "what both measured" if shared else f"a probe of {device}"
            if missing["seconds"]:
                whose = f"Seconds of {_named(missing['seconds'])}" if found["seconds"] else "Seconds"
                notes.append(f"{whose} are those of {other} times {ratio:.2f}, by {by}.")
            for name in ("seconds", "predict"):
                if missing[name]:
                    slow = _of(missing[name], self._on(asked, other, name))
                    found[name] |= {method: ratio * value for method, value in slow.items()}
        if unknown and not found["seconds"]:
            notes.append(f"Nothing that was measured or probed on {device} says how fast it is.")
        if device is not None:
            for method, own in points.items():
                self._bound(method, own, found["seconds"])
        return Costs(
            **found,
            trainable=medians(points, lambda point: point.trainable),
            stored=medians(points, lambda point: point.stored),
            notes=tuple(notes),
        )

    def _bound(self, method: str, own: list[Point], seconds: dict[str, float]) -> None:
        """Bound a method's seconds: none where it trains nothing, at most its limit where fits are cut short."""
        if method not in seconds and all(point.n_train == 0 for point in own):
            seconds[method] = 0.0
        limits = [point.most_seconds for point in own if point.most_seconds is not None]
        if limits and method in seconds:
            seconds[method] = min(seconds[method], max(limits))

    def _is_accelerator(self, device: str) -> bool:
        if device in self._evidence.devices:
            return device in self._evidence.accelerators
        return any(probed.is_accelerator for probed in self._probes if probed.device == device)

    def _scale_of(self, device: str, base: str) -> float | None:
        """Return how many times as long a step takes on a device that was probed as on one that was measured.

        It is the median ratio of seconds of a unit of work, over the methods that both know; None where there are none.
        A probe of another backbone, or of other settings, does not count.
        """
        ratios = []
        for probed in self._probes:
            points = matching(probed, [point for own in self._by_method.values() for point in own])
            if probed.device != device or not points or probed.seconds <= 0:
                continue
            asked = TaskTexts(None, 256, tokens=float(probed.seq_len))
            there = self._on(asked, base, "seconds").get(points[0].method)
            if there is None:
                continue
            of_probe = math.log(probed.seconds) - math.log((probed.batch_size or 1) * probed.seq_len / 32)
            ratios.append(math.exp(of_probe - math.log(there) + log_work(points[0], asked)))
        return median(ratios) if ratios else None

    def _on(self, asked: TaskTexts, device: str | None, name: str) -> dict[str, float]:
        """Return the cost of each method that was measured on the device; for this very task and size as measured.

        Methods with and without a backbone have models of their own: neither tells anything of the other.
        """
        found: dict[str, float] = {}
        for reads in (True, False):
            if device is None:
                continue
            key = (device, name, reads)
            if key not in self._fitted:
                self._fitted[key] = _Fitted(self._by_method, self._evidence, device, name, reads=reads)
            found |= self._fitted[key].expected(asked)
        return found


class _Fitted:
    """Seconds of training, bytes or seconds a text on one device, fitted once."""

    def __init__(
        self, by_method: dict[str, list[Point]], evidence: Evidence, device: str, name: str, *, reads: bool
    ) -> None:
        self._evidence, self._device, self._name = evidence, device, name
        own = {
            method: [p for p in points if (p.backbone is not None) == reads and (getattr(p, name).get(device) or 0) > 0]
            for method, points in by_method.items()
        }
        self._known = {method: points for method, points in own.items() if points}
        where, values = [], []
        for points in self._known.values():
            for point in points:
                texts = evidence.texts.of(point.task, point.n_train, point.classes)
                where.append(_where(point, texts, name))
                work = _log_work(point, texts, name, point.trainable)
                values.append(math.log(getattr(point, name)[device]) - work)
        spreads = SPREADS[name] if reads else _WITHOUT_BACKBONE
        self._model = Pooled(where, np.array(values), np.zeros(len(values)), spreads) if where else None

    def expected(self, asked: TaskTexts) -> dict[str, float]:
        """Return the expected cost by method."""
        if self._model is None:
            return {}
        own = (p.classes for points in self._known.values() for p in points if p.task == asked.task)
        texts = self._evidence.texts.filled(replace(asked, classes=asked.classes or next(own, None)))
        last = {method: points[-1] for method, points in self._known.items()}
        # What uses no labels reads none, however many there are.
        read = {
            method: texts if any(point.n_train for point in self._known[method]) else replace(texts, n_train=0)
            for method in last
        }
        means = self._model.means([_where(point, read[method], self._name) for method, point in last.items()])
        found = {
            method: math.exp(float(mean) + _log_work(point, read[method], self._name))
            for (method, point), mean in zip(last.items(), means, strict=True)
        }
        for method, points in self._known.items():
            cell = measured_of(asked, points)
            if cell is not None:
                found[method] = getattr(cell, self._name)[self._device]
        return found


def matching(probed: Probed, points: Iterable[Point]) -> list[Point]:
    """Return the points of the configuration and the backbone that was probed, whatever their batches."""
    if probed.backbone is None:
        return []
    return [
        point
        for point in points
        if point.name == probed.method and point.backbone == probed.backbone and _same(point.config, probed.config)
    ]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether settings that both have are equal; not the batch, which a probe fits to the device."""
    return all(one[name] == other[name] for name in one.keys() & other.keys() - {"batch_size"})


def _measured_on(device: str, by_method: dict[str, list[Point]], name: str) -> set[str]:
    return {method for method, own in by_method.items() if any((getattr(p, name).get(device) or 0) > 0 for p in own)}


def _of(methods: set[str], values: dict[str, float]) -> dict[str, float]:
    return {method: value for method, value in values.items() if method in methods}


def _named(methods: set[str]) -> str:
    return ", ".join(sorted(methods)) if len(methods) <= 3 else f"{len(methods)} methods"


def _where(point: Point, texts: TaskTexts, name: str) -> Where:
    x = (math.log2(max(texts.n_train, 1)) - 8) / 3 if name != "predict" else 0.0
    z = math.log2(texts.tokens / 32) if texts.tokens and (texts.n_train or name == "predict") else 0.0
    if name == "memory":
        longest = longest_read(point, texts)
        z = math.log2(longest / 64) if longest else 0.0
    return Where(x, z, texts.task, point.on or point.method, point.like, backbone=point.backbone)


def _log_work(point: Point, texts: TaskTexts, name: str, coefficients: float | None = None) -> float:
    """Return the logarithm of the work that a cost is proportional to: texts read, bytes held or tokens predicted."""
    if name == "seconds":
        return log_work(point, texts)
    if name == "memory":
        return log_bytes(point, texts, coefficients)
    return math.log((texts.tokens or 32.0) / 32) if point.backbone is not None else 0.0
