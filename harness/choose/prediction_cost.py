"""The time of predicting one text, by one method or by several whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.choose.tried import Tried

if TYPE_CHECKING:
    from harness.choose.search import Search


def milliseconds(tried: Tried) -> float:
    """Return the milliseconds of predicting one text, with reading it, as the fit's record measured them; 0 if none."""
    cost, score = tried.record.cost, tried.record.score
    return 0.0 if score is None else 1000 * (cost.predict_seconds or 0.0) / max(1, score.n_test)


def milliseconds_together(members: Sequence[Tried]) -> float:
    """Return the milliseconds of predicting one text with all members.

    Members on frozen features of one backbone share them. The quickest member of such a group counts as the reading of
    the text; each other one adds what it takes beyond that.
    """
    total, groups = 0.0, dict[str, list[float]]()
    for member in members:
        candidate, own = member.candidate, milliseconds(member)
        if candidate.reads_features and candidate.files is not None:
            groups.setdefault(candidate.files.fingerprint, []).append(own)
        else:
            total += own
    return total + sum(min(group) + sum(own - min(group) for own in group) for group in groups.values())


def rule_out_slow(search: Search, tried: Tried) -> None:
    """Take a method out of a search if it predicts too slowly, with all that read texts with the same backbone.

    A method on frozen features reads each text with the whole backbone, so that no other method on it is quicker.

    Args:
        search: the search; `most_milliseconds` is its limit.
        tried: a fit that has just been measured.
    """
    limit, candidate, takes = search.most_milliseconds, tried.candidate, milliseconds(tried)
    if limit is None or takes <= limit:
        return
    slow = [candidate]
    if candidate.reads_features:
        slow += [one for one in search.entrants if one is not candidate and one.files == candidate.files]
    for one in slow:
        least = "" if one is candidate else "at least "
        search.out[one.label] = f"takes {least}{takes:.1f} ms a text to predict"
    search.entrants[:] = [one for one in search.entrants if all(one is not other for other in slow)]
    names = ", ".join(one.label for one in slow)
    search.say(f"out, with {takes:.1f} ms a text to predict, where {limit:g} ms are allowed: {names}")
