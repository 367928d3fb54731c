"""Send records to experiment trackers: those of a run as they come, or those of a store later."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.support import DEFAULT_STORE, find_store, mask_store, text

if TYPE_CHECKING:
    from harness.api.display import Display
    from harness.api.requests import Several
    from harness.records import Record
    from harness.tracking import Sending, Tracked


def recorder(sending: Sending, display: Display) -> Callable[[Record], None]:
    """Return the function that a run calls with each stored record; it says when a tracker gives up."""

    def recorded(record: Record) -> None:
        sending.add(record)
        for line in sending.news():
            display.remark(line)

    return recorded


def show_tracked(found: tuple[Tracked, ...], display: Display, store: str, suite: str | None) -> None:
    """Say what each tracker has kept, and how to send the rest."""
    for one in found:
        display.say(said_of_tracked(one, store, suite), style="yellow" if one.n_unsent else None)


def said_of_tracked(found: Tracked, store: str, suite: str | None = None) -> str:
    """Return in words what a tracker has kept; where records are missing, the command that sends them."""
    n = found.n_sent + found.n_known + found.n_unsent
    before = f", {found.n_known:,} {'was' if found.n_known == 1 else 'were'} there already" * bool(found.n_known)
    kept = f"{found.tracker}: {text.counted(found.n_sent, 'record')} sent{before}."
    if not found.n_unsent:
        return f"{kept[:-1]}; {found.where}" if found.where is not None else kept
    command = ["harness", "export", "--track", found.tracker]
    command += [] if suite is None else ["--suite", suite]
    command += [] if store == DEFAULT_STORE else ["--store", mask_store(store)]
    if found.goes_on:
        return (
            f"{found.tracker}: {n - found.n_unsent:,} of {text.counted(n, 'record')} sent; it is slow, and its process "
            f"goes on for a minute at most. What is missing then: `{shlex.join(command)}`"
        )
    were = "was" if found.n_unsent == 1 else "were"
    return (
        f"{found.tracker}: {found.n_unsent:,} of {text.counted(n, 'record')} {were} not sent: {found.why}. The store "
        f"has all of them. To send them later: `{shlex.join(command)}`"
    )


def send_records(track: Several[str], store: str | None = None, *, suite: str | None = None) -> tuple[Tracked, ...]:
    """Send all records of a store to trackers, with earlier attempts; those that a tracker has are not sent twice.

    Args:
        track: names of trackers.
        store: path or URL of the records; None takes HARNESS_STORE, or `results/harness.sqlite`.
        suite: only records that a run of this suite made.

    Raises:
        UsageError: an unknown tracker, a package that is not installed, or a suite that no record names.
        StoreError: the store cannot be read.
    """
    from harness.store import Store, of_suite
    from harness.tracking import Sending, read_trackers

    chosen = read_trackers(track)
    with Store.open(find_store(store), read_only=True) as opened, Sending(chosen) as sending:
        for record in of_suite(opened.records(latest_only=False), suite):
            sending.add_waiting(record)
        return sending.finish_waiting()
