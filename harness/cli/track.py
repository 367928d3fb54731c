"""`harness export --track`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from harness.api import said_of_tracked, send_records
from harness.cli.as_json import print_json
from harness.cli.console import say
from harness.support import UsageError, mask_store


def track_command(track: str | None, file: Path | None, store: str, suite: str | None, *, as_json: bool = False) -> int:
    """Send the records of a store to trackers; return 1 if some could not be sent."""
    if track is None and file is not None:
        raise UsageError(f"--suite {suite} was given; it goes with --track.")
    if track is None:
        raise UsageError("No file was given; expected one to write (results.csv), or --track mlflow.")
    if file is not None:
        raise UsageError(f"'{file}' and --track {track} were given; expected one of them.")
    found = send_records(track, store, suite=suite)
    if as_json:
        print_json({"store": mask_store(store), "tracked": [asdict(one) for one in found]})
    else:
        for one in found:
            say(said_of_tracked(one, store, suite))
    return 1 if any(one.n_unsent for one in found) else 0
