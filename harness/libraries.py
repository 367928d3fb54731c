"""What libraries are told before they are imported."""

from __future__ import annotations

import os


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
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
