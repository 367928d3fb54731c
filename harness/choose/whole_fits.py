"""The second stage of a search: whole fits of methods that train inside the transformer, from cheap to dear."""

from __future__ import annotations

from harness.choose.candidates import Candidate
from harness.choose.outlook import Outlook, Step, next_step, plan_ahead, promising
from harness.choose.search import SHORTEST_FIT_SECONDS, Search
from harness.choose.settings import train_harder
from harness.support import describe_duration


def run_whole_fits(search: Search) -> None:
    """Fit methods on folds, with all their steps, while that is expected to raise the score of the saved model.

    Before each fit all fits that are worth their time are planned anew, and the cheapest of them is run. The time for a
    whole last fit of the leader is kept. Where no fit is worth its time, the method that is expected to do best gets
    all of it (`Search.favourite`).
    """
    trained = those_that_fit(search)
    while trained:
        trained = [candidate for candidate in trained if candidate.label not in search.out]
        step = choose_step(search, [*trained, *_probes_of_others(search)])
        if step is None:
            break
        _fit(search, step)
        trained = [train_harder(search, one) if one is step.candidate else one for one in trained]
    _say_left_out(search)


def _probes_of_others(search: Search) -> list[Candidate]:
    """Return the cheap methods on backbones that the first stage left alone, which may be fitted next.

    The linear probe shows what a backbone is worth; the others on it follow.
    """
    if not search.has_several:
        return []
    read = {id(tried.candidate.files) for tried in search.tried if tried.candidate.files is not None}
    return [
        one
        for one in search.entrants
        if one.is_cheap
        and one.files is not None
        and one.label not in search.out
        and not search.measured(one)
        and (one.method.name == "linear-probe" or (id(one.files) in read and one.files is not search.first))
    ]


def _say_left_out(search: Search) -> None:
    """Say which backbones were left out, and why."""
    if not search.has_several:
        return
    by_backbone: dict[str, list[Candidate]] = {}
    for candidate in search.entrants:
        if candidate.files is not None:
            by_backbone.setdefault(candidate.files.name, []).append(candidate)
    for name, own in by_backbone.items():
        if any(tried.candidate.files is own[0].files for tried in search.tried):
            continue
        quickest = min(search.last_seconds(candidate) for candidate in own)
        why = (
            f"its quickest fit would take about {describe_duration(quickest)}, and {describe_duration(search.left)} "
            "are left"
            if quickest > search.left
            else "what it is expected to gain is not worth its time"
        )
        search.say(f"{name} is left out: {why}")


def those_that_fit(search: Search) -> list[Candidate]:
    """Return the methods that train inside the transformer and fit into memory."""
    found = []
    for candidate in search.entrants:
        if candidate.is_cheap or candidate.label in search.out:
            continue
        needs = search.too_large(candidate)
        if needs is not None:
            search.out[candidate.label] = f"needs about {needs / 1e9:.1f} GB"
            search.say(f"{candidate.label} needs about {needs / 1e9:.1f} GB: does not fit")
            continue
        found.append(candidate)
    return found


def choose_step(search: Search, trained: list[Candidate]) -> Step | None:
    """Return the fit that is run next; None where the last fit comes next.

    Args:
        search: the search; `favourite` is set to the method that is expected to do best with what is left.
        trained: methods that may be fitted next.
    """
    cheap = search.measured_cheap()
    outlook = Outlook(search, [*trained, *cheap], search.left)
    ahead = outlook.rivals(outlook.left)
    eligible = [i for i, one in enumerate(outlook.candidates) if not one.is_cheap or search.measured(one)]
    leader = outlook.candidates[max(eligible, key=lambda i: ahead.mean[i])]
    hopeful = promising(outlook)
    open_ = [candidate for candidate in hopeful if not (candidate.is_cheap and search.measured(candidate))]
    steps = [step for candidate in open_ if (step := next_step(search, candidate)) is not None]
    planned, _ = plan_ahead(search, outlook, steps)
    if planned:
        step = min(planned, key=lambda one: one.seconds)
        others = [one.candidate.label for one in sorted(planned, key=lambda one: one.seconds) if one is not step]
        search.say(
            f"next: {step.candidate.label}, about {describe_duration(step.seconds)}"
            + (f"; then perhaps {', '.join(others)}" if others else "")
        )
        return step
    search.favourite = None
    if leader.is_cheap or search.measured(leader):
        search.say(f"no further fit is worth its time: {leader.label} is expected to do best")
        return None
    step = next((one for one in steps if one.candidate is leader), None)
    i = outlook.candidates.index(leader)
    both = outlook.last[i] + (outlook.again[i] if outlook.last[i] + outlook.again[i] <= outlook.left else 0.0)
    if step is not None and step.seconds + both <= outlook.left:  # nothing is saved unseen where there is time to see
        return step
    if outlook.left - search.overhead_of(leader) >= SHORTEST_FIT_SECONDS:
        search.favourite = leader
        search.say(f"{leader.label} is expected to do best, and trying it first would take too much of its time")
    return None


def _fit(search: Search, step: Step) -> None:
    """Run a fit within the time that its own last fit does not need, and the last fit of the best so far."""
    kept = max([search.last_seconds(step.candidate), *(search.last_seconds(one) for one in _best_so_far(search))])
    task, overhead = search.folds[step.fold], search.overhead_of(step.candidate)
    if step.candidate.is_cheap:
        search.run(step.candidate, step.fold, min(search.end, search.now() + 2 * step.seconds + 5.0))
        return
    seconds = max(SHORTEST_FIT_SECONDS, step.seconds - overhead, search.left - kept - overhead)
    until = min(search.end, search.now() + seconds + 2 * overhead + 5.0)
    search.run(step.candidate, step.fold, until, seconds, n=search.readable(step.candidate, task, seconds))


def _best_so_far(search: Search) -> list[Candidate]:
    known = [candidate for candidate in search.entrants if search.measured(candidate)]
    if not known:
        return []
    return [known[int(search.rivals(known, search.left).mean.argmax())]]
