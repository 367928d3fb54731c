"""Ctrl-C once asks a run to end after the cells that are running; twice ends it now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While it is entered, Ctrl-C sets `asked` the first time and raises KeyboardInterrupt the second.

    Args:
        remark: is told what the first one means.
    """

    def __init__(self, remark: Callable[[str], None]) -> None:
        self.asked = False
        self._remark = remark
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._remark("Stopping after the running cell; Ctrl-C again stops now.")
