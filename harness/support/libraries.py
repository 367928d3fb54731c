"""What libraries are told before they are imported."""

from __future__ import annotations

import os

_OF_WORKERS = "ignore:resource_tracker:UserWarning"


def quiet_libraries() -> None:
    """Keep what libraries print while loading out of the progress display; their warnings reach the log only."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that wait in a spin slow a busy machine down many times over; a short spin costs nothing on a quiet one.
    # Read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # A worker that is stopped leaves semaphores behind; multiprocessing removes them, and need not say so.
    said = os.environ.get("PYTHONWARNINGS", "")
    if _OF_WORKERS not in said:
        os.environ["PYTHONWARNINGS"] = f"{said},{_OF_WORKERS}" if said else _OF_WORKERS
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
