"""How much a fit reads, by the settings that its record states: what its seconds grow with."""

from __future__ import annotations

import math
from typing import Any

from harness.advice.evidence import Point


def log_work(point: Point, n_train: int, tokens: float | None) -> float:
    """Logarithm of the texts that a fit to `n_train` labels reads, times their tokens (of 32).

    A small fit has as many steps as a somewhat larger one, and a large one as many as its rows: its settings tell,
    where a straight line in the number of labels does not. How many passes a text of a step takes is the method's own,
    and so is what a unit of work takes; methods without a backbone grow with their rows.
    """
    if point.backbone is None:
        return math.log(max(n_train, 1))
    return math.log(texts_read(point.config, n_train) * (tokens or 32.0) / 32)


def texts_read(config: dict[str, Any], n_train: int) -> float:
    """Texts that go through the transformer in a fit of a method with these settings, at least 1.

    Args:
        config: as records carry it.
        n_train: labels.
    """
    if "batch_size" not in config or "pooling" in config:  # frozen features: each text once
        return float(max(n_train, 1))
    batch = int(config["batch_size"])
    n_pairs = config.get("n_pairs")
    items = n_train if n_pairs is None else 2 * int(n_pairs) * n_train
    per_epoch = max(1, math.ceil(items / batch))
    steps = max(math.ceil(float(config.get("epochs", 1.0)) * per_epoch), int(config.get("min_steps", 1)))
    if n_pairs is not None:
        return n_train + 2.0 * batch * min(steps, int(config.get("max_steps", steps)))
    return float(steps * min(batch, max(n_train, 1)))
