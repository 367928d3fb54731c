"""A deadline for whole answers: the time-outs of HTTP clients begin anew with every byte."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

_ENDS = "harness_ends"


def deadline_hooks(seconds: float) -> dict[str, list[Callable[[Any], None]]]:
    """Return hooks of an HTTP client by which answers time out whose last byte comes too late.

    Hooks, other than a transport, leave the proxies of the environment in use.

    Args:
        seconds: maximum seconds from a request to the end of its answer.
    """

    def begin(request: Any) -> None:
        request.extensions = {**request.extensions, _ENDS: time.monotonic() + seconds}

    def bound(response: Any) -> None:
        library = importlib.import_module(type(response).__module__.partition(".")[0])  # httpx, or its successor
        response.stream = _until(response.stream, response.request.extensions[_ENDS], seconds, library)

    return {"request": [begin], "response": [bound]}


def _until(stream: Any, ends: float, seconds: float, library: Any) -> Any:
    """Return the bytes of an answer as a stream that ends with the library's time-out at a deadline."""

    class Timed(library.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            for part in stream:
                if time.monotonic() > ends:
                    raise library.ReadTimeout(f"The answer had not ended after {seconds:g} s.")
                yield part

        def close(self) -> None:
            stream.close()

    return Timed()
