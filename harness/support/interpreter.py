"""Settings of the interpreter: garbage collection, and the output of libraries."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRACKER_WARNINGS = "ignore:resource_tracker:UserWarning"


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection, which would repeatedly visit the many objects being made.

    For a hundred thousand cells or records, which form no cycles, collection takes half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def quiet_libraries() -> None:
    """Keep libraries' output while loading out of the progress display; their warnings only reach the log."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Spinning threads slow a busy machine down many times over; a short spin costs nothing on a quiet one. torch reads
    # this on its first import.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # A worker that is stopped leaves semaphores behind; multiprocessing removes them, so its warning is silenced.
    given = os.environ.get("PYTHONWARNINGS", "")
    if _TRACKER_WARNINGS not in given:
        os.environ["PYTHONWARNINGS"] = f"{given},{_TRACKER_WARNINGS}" if given else _TRACKER_WARNINGS
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # a kernel that is not used
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
