"""How long the cells that are left will take, from those that are done."""

from __future__ import annotations

import math
from collections.abc import Iterable


class RemainingTime:
    """Learns wall-clock seconds of cells by method and size as they end."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], dict[int, list[float]]] = {}

    def add(self, task: str, method: str, n_train: int, seconds: float) -> None:
        """A cell has ended after `seconds`."""
        self._seconds.setdefault((task, method), {}).setdefault(n_train, []).append(seconds)

    def estimate(self, cells: Iterable[tuple[str, str, int]]) -> float | None:
        """Seconds for cells of (task, method, n_train); None before any cell has ended.

        A method that has run at another size only is taken to cost in proportion to the size's square root, since
        small sizes take a fixed number of steps; one that has not run at all, what an average cell did.
        """
        known = [second for by_size in self._seconds.values() for all_ in by_size.values() for second in all_]
        if not known:
            return None
        average = sum(known) / len(known)
        total = 0.0
        for task, method, n_train in cells:
            by_size = self._seconds.get((task, method)) or self._other_task(method)
            if not by_size:
                total += average
                continue
            nearest = min(by_size, key=lambda size: abs(size - n_train))
            mean = sum(by_size[nearest]) / len(by_size[nearest])
            total += mean * max(1.0, math.sqrt(n_train / nearest) if nearest else 1.0)
        return total

    def _other_task(self, method: str) -> dict[int, list[float]] | None:
        return next((by_size for (_, known), by_size in self._seconds.items() if known == method), None)
