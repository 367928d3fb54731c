"""The search of settings inside `choose`: variants of a candidate, by continued fits, within some seconds."""

from __future__ import annotations

from harness.choose.candidates import Candidate
from harness.choose.search import Search


def search_settings(search: Search, candidate: Candidate, seconds: float) -> list[Candidate]:
    """Run variants of a candidate within so many seconds; return the new candidates.

    Every fit is noted in `search.tried`.

    Args:
        search: the search.
        candidate: a candidate that trains inside the transformer, whose whole fit on a fold is known.
        seconds: seconds for all variants together.
    """
    return []
