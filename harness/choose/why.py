"""Why another method is saved than the one that validated best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.choose.tried import Tried, validated


def why_not_the_best(
    saved: str, tried: Sequence[Tried], expected: Mapping[str, float], missed: Mapping[str, str], metric: str
) -> str | None:
    """Return why the saved method is not the one that validated best, in a few sentences; None where it is.

    Args:
        saved: label of the saved method.
        tried: all fits of the race.
        expected: score that each method was expected to reach on new rows, by its label.
        missed: why the last fit of a method came to nothing, by its label.
        metric: the task's main metric.
    """
    fits: dict[str, list[Tried]] = {}
    for one in tried:
        fits.setdefault(one.candidate.label, []).append(one)
    scores = {label: found for label, own in fits.items() if (found := validated(own)) is not None}
    best = max(scores, key=lambda label: scores[label][0], default=saved)
    if best == saved or (saved in scores and scores[saved][0] >= scores[best][0]):
        return None
    value, n_rows = scores[best]
    own = f"which validated at {scores[saved][0]:.3f}" if saved in scores else "which was not validated"
    said = f"{best} validated best, with {metric} {value:.3f} on {n_rows:,} rows. Saved is {saved}, {own}"
    if best in missed:
        return f"{said}, because {missed[best]}."
    if expected.get(saved, 0.0) >= expected.get(best, 0.0):
        return (
            f"{said}, because it is expected to do better on new rows: {expected[saved]:.3f}, against "
            f"{expected[best]:.3f} of {best}. The estimate uses other tasks, the number of validation rows and the "
            "labels available."
        )
    return f"{said}, because it was fitted before the race and no better method was fitted in time."
