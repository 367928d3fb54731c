"""`harness choose` as a searcher of replays."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from harness.choose import Search, search_within
from harness.records import Record
from harness.replay.searchers import Play, candidate_of
from harness.support import HarnessError


def choose(play: Play) -> Record | None:
    """Search as `harness choose` does, with its stages and rules, on the recorded runs."""
    entrants = [candidate_of(play.runs, one) for one in play.configurations]
    search = Search(
        play.runs, play.runs.task, play.runs.folds, entrants, copy.copy(play.belief), play.within, None, lambda _: None
    )
    search.tries_settings = False  # the recorded ones are configurations of their own
    with tempfile.TemporaryDirectory() as aside:
        try:
            record, _, _ = search_within(search, Path(aside) / "aside", Path(aside) / "model", play.within)
        except HarnessError:
            return None
    return record
