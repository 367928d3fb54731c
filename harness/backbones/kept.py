"""Backbones that stay in the host's memory after their cells: the last one, and others as far as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from harness.backbones.locate import BackboneFiles
    from harness.backbones.model import Backbone

KEPT_BYTES: Final = 2e9
"""Bytes of the weights of all backbones that stay loaded; the last one stays whatever its size."""


class _Info(NamedTuple):
    """Number of calls that found a backbone loaded, and of those that loaded one."""

    hits: int
    misses: int


class KeptBackbones:
    """A function that loads backbones, and keeps those that were used last.

    Cells of several backbones may alternate, so that loading them once is cheap; but a worker's memory must not grow
    with their number.

    Args:
        load: loads a backbone.
        forget: called with each backbone that is let go of.
    """

    def __init__(self, load: Callable[[BackboneFiles], Backbone], forget: Callable[[Backbone], None]) -> None:
        self._load = load
        self._forget = forget
        self._kept: OrderedDict[BackboneFiles, Backbone] = OrderedDict()
        self._info = _Info(0, 0)
        self.__doc__ = load.__doc__

    def __call__(self, files: BackboneFiles) -> Backbone:
        """Return a backbone; the least recently used ones make room before it is loaded."""
        if files in self._kept:
            self._kept.move_to_end(files)
            self._info = self._info._replace(hits=self._info.hits + 1)
            return self._kept[files]
        self._make_room(files.n_weight_bytes)
        loaded = self._load(files)
        self._info = self._info._replace(misses=self._info.misses + 1)
        self._kept[files] = loaded
        return loaded

    def cache_info(self) -> _Info:
        """Return how often a backbone was found loaded, and how often it was loaded."""
        return self._info

    def cache_clear(self) -> None:
        """Let go of all backbones."""
        while self._kept:
            self._forget(self._kept.popitem(last=False)[1])

    def _make_room(self, wanted: int) -> None:
        while self._kept and wanted + sum(kept.n_host_bytes for kept in self._kept.values()) > KEPT_BYTES:
            self._forget(self._kept.popitem(last=False)[1])
