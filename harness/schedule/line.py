"""The driver's end of the connection to one worker process: threads read and write it, so the driver never waits.

A worker that is stopped in the middle of a message, or reads nothing, would otherwise stop the driver too.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from harness.schedule.job import FromWorker, ToWorker

_END_SECONDS = 1.0


class Line:
    """Messages to and from one process.

    Args:
        connection: to the process.
        news: set whenever something has come.
    """

    def __init__(self, connection: Connection, news: threading.Event) -> None:
        self._connection = connection
        self._news = news
        self._came: deque[FromWorker | Exception] = deque()
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def send(self, message: ToWorker) -> None:
        """Send a message as soon as the process takes it; a process that is dead is found out by `next`."""
        self._to_send.put(ForkingPickler.dumps(message))

    def next(self) -> FromWorker | None:
        """Return the next message, None where none has come yet.

        Raises:
            EOFError: the process has closed the connection: it is dead.
            Exception: what came is no message.
        """
        try:
            message = self._came.popleft()
        except IndexError:
            return None
        if isinstance(message, Exception):
            self._came.append(message)
            raise message
        return message

    def close(self) -> None:
        """Give up the connection, once the process is dead."""
        self._to_send.put(None)
        for thread in self._threads:
            thread.join(_END_SECONDS)
        if not any(thread.is_alive() for thread in self._threads):  # else a process that is left holds the other end
            self._connection.close()

    def _read(self) -> None:
        try:
            while True:
                self._came.append(self._connection.recv())
                self._news.set()
        except (EOFError, OSError):
            self._came.append(EOFError())
        except Exception as error:  # noqa: BLE001 - raised by `next`, in the thread that can do something about it
            self._came.append(error)
        self._news.set()

    def _write(self) -> None:
        with suppress(OSError):
            while (message := self._to_send.get()) is not None:
                self._connection.send_bytes(message)
