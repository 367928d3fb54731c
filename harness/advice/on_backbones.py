"""Methods on several backbones: how a backbone changes each method's score, and what that rests on."""

from __future__ import annotations

import difflib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.forecast import Effect, EncoderModel, Lift, Point
from harness.records import TRAINS_INSIDE, EncoderFacts, PublishedEncoder, Role
from harness.support import UsageError, text

ALL_KNOWN: Final = "all known"
"""Word for every backbone that was measured or published."""

_KIND: Final = "classification"
"""Kind of the published results."""

_REST: Final[Mapping[str, float]] = {"frozen features": 0.2, "fine-tuning": 0.5}
"""Spread, in logits, of what a backbone changes for methods of a role beyond its probes."""

_REST_OF_OTHERS: Final = 0.8
"""The same for methods that published probes tell nothing of: prompting, training from scratch."""

_NO_SENTENCE_ENCODERS: Final = ("causal", "masked LM")
"""Kinds of pretraining that no published encoder has: their results and sizes tell nothing of such a backbone."""

_UNLIKE: Final = 0.6
"""Spread, in logits, of the change by such a backbone, on all tasks and between tasks."""

_BY_SIZE: Final = 0.25
"""Change of fine-tuned scores, in logits, for each e-fold of the transformer's parameters, beyond the probes' change.

Full fine-tuning to 256 labels of SST-2, TREC and Banking77 on four backbones gave 0.3 for a larger encoder, more for
a shallower one, and less than none for a causal one: few backbones, so `_REST` is wide.
"""


CARRIED: Final = (
    "Scores of methods on backbones without records are carried over from the backbone with the most, by published "
    "probes and by size; their seconds and memory are not known (`harness plan --backbones` predicts them)."
)
"""Note on methods that were not measured on a backbone."""


@dataclass(frozen=True)
class Basis:
    """What an answer for one backbone rests on.

    Attributes:
        backbone: name of the backbone.
        n_records: number of records of methods on it, own ones and the package's.
        n_published: number of published results of its probes.
        n_unknown: number of these of which nobody says whether the backbone was trained on the task.
        is_base: whether other backbones are compared with it: it has the most measurements.
        seen: names of tasks that it was trained on, by its authors: results on these do not count.
    """

    backbone: str
    n_records: int
    n_published: int
    n_unknown: int
    is_base: bool
    seen: tuple[str, ...] = ()

    def sentence(self, source: str) -> str:
        """Return a sentence on the basis.

        Args:
            source: name of who published the results.
        """
        parts = [text.counted(self.n_records, "record")] if self.n_records else []
        if self.n_published:
            known = f", {self.n_unknown} of unknown contamination" if self.n_unknown else ""
            parts.append(f"{text.counted(self.n_published, 'published probe')} ({source}{known})")
        if not self.is_base and not parts:
            parts.append("no measurement, only its publisher's other encoders and its size")
        seen = f"; {', '.join(self.seen)} left out: it was trained on them" if self.seen else ""
        return f"{self.backbone}: {' and '.join(parts)}{seen}."


@dataclass(frozen=True)
class OnBackbones:
    """Points that name their backbones, and methods carried to backbones that they were not measured on.

    Attributes:
        points: all points that count, those of other backbones with their change (`Point.lift`).
        carried: points of the base and the change, by label of the carried method.
        wanted: labels that are answered for.
        backbones: backbone by label; None for methods without one.
        bases: what the answer for each backbone rests on.
    """

    points: list[Point]
    carried: dict[str, tuple[Sequence[Point], Lift]]
    wanted: frozenset[str]
    backbones: dict[str, str | None]
    bases: tuple[Basis, ...]


def read_backbones(said: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names in a list or in a text with commas, each once; None for none.

    Raises:
        UsageError: a name is empty.
    """
    if said is None:
        return None
    names = [name.strip() for name in (said.split(",") if isinstance(said, str) else said)]
    if not names or not all(names):
        raise UsageError(f"--backbones {said!r} was given; expected names separated by commas, or '{ALL_KNOWN}'.")
    return tuple(dict.fromkeys(names))


def spread_over_backbones(
    points: Sequence[Point],
    asked: Sequence[str] | None,
    kind: str,
    encoders: Callable[[], Sequence[PublishedEncoder]],
    facts: Mapping[str, EncoderFacts],
) -> OnBackbones | None:
    """Return methods on each backbone; None where there is one backbone, and no other is asked for.

    Args:
        points: relevant points on all backbones.
        asked: backbones to answer for; None takes those with points.
        kind: kind of the task.
        encoders: returns published encoders; called only where they are needed.
        facts: facts about backbones, by name, such as their configurations state them.

    Raises:
        UsageError: a backbone was neither measured nor published, and nothing is known about it.
    """
    counted: Counter[str] = Counter()
    for point in points:
        if point.backbone is not None:
            counted[point.backbone] += point.n_records
    measured = sorted(counted, key=lambda name: (-counted[name], name))
    if not measured or (asked is None and len(measured) < 2) or (asked is not None and set(asked) == {measured[0]}):
        if asked is None or measured:
            return None
        raise UsageError("No record with a backbone is there to compare backbones with. Run a suite first.")
    base = measured[0]
    published = encoders() if kind == _KIND else ()
    by_name = {encoder.name: encoder for encoder in published}
    if asked is None:
        names = measured
    elif tuple(asked) == (ALL_KNOWN,):
        names = list(dict.fromkeys([*measured, *(e.name for e in published if e.facts.has_open_weights)]))
    else:
        names = [_full_name(name, {*measured, *by_name, *facts}) for name in asked]
    model = _fitted(tuple(published)) if published else None
    short = short_names({*names, *measured})
    lifts = {name: _Lifts(name, base, model, by_name, facts) for name in {*names, *measured} - {base}}
    named = [
        point
        if point.backbone is None
        else replace(
            point,
            method=f"{point.method} on {short[point.backbone]}",
            on=point.method,
            lift=None if point.backbone == base else lifts[point.backbone].of(point.facts.role),
        )
        for point in points
    ]
    known = {point.method for point in named}
    by_method: dict[str, list[Point]] = {}
    for point in named:
        if point.backbone == base and point.on is not None:
            by_method.setdefault(point.on, []).append(point)
    backbones: dict[str, str | None] = {point.method: point.backbone for point in named}
    carried: dict[str, tuple[Sequence[Point], Lift]] = {}
    for name in names:
        for method, own in by_method.items():
            label = f"{method} on {short[name]}"
            if label not in known:
                carried[label] = (own, lifts[name].of(own[0].facts.role))
                backbones[label] = name
    wanted = frozenset(label for label, name in backbones.items() if name is None or name in names)
    bases = tuple(_basis(name, counted[name], by_name.get(name), is_base=name == base) for name in names)
    return OnBackbones(named, carried, wanted, backbones, bases)


@functools.lru_cache(maxsize=2)
def _fitted(encoders: tuple[PublishedEncoder, ...]) -> EncoderModel:
    return EncoderModel(encoders)


class _Lifts:
    """Changes by one backbone against the base, by role."""

    def __init__(
        self,
        name: str,
        base: str,
        model: EncoderModel | None,
        published: Mapping[str, PublishedEncoder],
        facts: Mapping[str, EncoderFacts],
    ) -> None:
        self._name = name
        own = facts.get(name) or (published[name].facts if name in published else EncoderFacts())
        of_base = facts.get(base) or (published[base].facts if base in published else EncoderFacts())
        is_like_published = name in published or own.pretraining not in _NO_SENTENCE_ENCODERS
        if model is None or not is_like_published:
            self._effect = Effect(0.0, _UNLIKE, _UNLIKE, 0, 0)
        else:
            self._effect = model.effect(name, base, None if name in published else own)
        sizes = [_transformer_parameters(one) for one in (own, of_base)]
        if None in sizes:  # the two must be of one kind
            sizes = [one.n_parameters for one in (own, of_base)]
        first, second = sizes
        self._growth = math.log(first / second) if first and second and is_like_published else 0.0

    def of(self, role: Role | None) -> Lift:
        """Return the change for methods of a role."""
        effect = self._effect
        if role == "frozen features":
            return Lift(self._name, role, effect.mean, effect.own, effect.between, _REST[role])
        if role in TRAINS_INSIDE and role in _REST:
            mean = effect.mean + _BY_SIZE * self._growth
            return Lift(self._name, role, mean, effect.own, effect.between, _REST[role])
        return Lift(self._name, role, 0.0, 0.0, 0.0, _REST_OF_OTHERS)


def _transformer_parameters(facts: EncoderFacts) -> float | None:
    """Return the parameters of the blocks: twelve times the squared width each; None where they are not known."""
    return 12.0 * facts.layers * facts.width**2 if facts.layers and facts.width else None


def _basis(name: str, n_records: int, encoder: PublishedEncoder | None, *, is_base: bool) -> Basis:
    results = () if encoder is None else encoder.results
    clean = [result for result in results if not result.has_seen_task]
    unknown = sum(result.has_seen_task is None for result in clean)
    seen = tuple(sorted(result.task for result in results if result.has_seen_task))
    return Basis(name, n_records, len(clean), unknown, is_base, seen)


def _full_name(name: str, known: set[str]) -> str:
    """Return the full name of a backbone that was given by its full name or the last part of it."""
    if name in known:
        return name
    ends = sorted(other for other in known if other.rpartition("/")[2] == name)
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UsageError(f"--backbones names '{name}', which may be {' or '.join(ends)}. Give the full name.")
    near = difflib.get_close_matches(name, [*known, *(other.rpartition("/")[2] for other in known)], n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"--backbones names '{name}', which is neither among the records nor among the published encoders, "
        f"and no configuration of it is in the mirror. {hint}`--backbones 'all known'` lists all."
    )


def short_names(names: set[str]) -> dict[str, str]:
    """Return the last part of each name; the whole name where several end alike."""
    ends = Counter(name.rpartition("/")[2] for name in names)
    return {name: name if ends[name.rpartition("/")[2]] > 1 else name.rpartition("/")[2] for name in names}
