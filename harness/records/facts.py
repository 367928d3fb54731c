"""Facts about a cell that later layers read: its method's role, the texts it read, and how it was measured."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.records.canonical import made, shared
from harness.records.encoders import EncoderFacts
from harness.records.forgetting import Forgetting
from harness.records.inference import Inference
from harness.records.served import ServedFacts
from harness.records.workload import FitLength, Workload

Role = Literal["floor", "baseline", "frozen features", "fine-tuning", "from scratch", "prompting"]
"""Role of the transformer in a method, which decides how its records may be used.

- `floor`: it ignores the texts; never a candidate for use.
- `baseline`: it learns from the texts without a transformer.
- `frozen features`: it learns from the frozen transformer's features.
- `fine-tuning`: it takes optimiser steps inside the pretrained transformer.
- `from scratch`: it trains the same architecture from random weights.
- `prompting`: it prompts the pretrained model, and trains nothing.
"""

ROLES: tuple[Role, ...] = typing.get_args(Role)
TRAINS_INSIDE: frozenset[Role] = frozenset({"fine-tuning", "from scratch"})
"""Roles whose fits take steps inside the transformer."""


@dataclass(frozen=True)
class TextLengths:
    """Lengths in tokens of the texts of one part that a method read; None is unknown.

    Attributes:
        longest: tokens of the longest one, after cutting.
        mean: tokens of a text, over those that the cell read.
        n_texts: number of texts that were checked for cutting.
        n_cut: number of these that were too long, and were cut.
        cut_side: end that was cut off.
    """

    longest: int | None = None
    mean: float | None = None
    n_texts: int | None = None
    n_cut: int | None = None
    cut_side: Literal["left", "right"] = "right"

    @property
    def share_cut(self) -> float | None:
        """Share of the texts that were cut; None if none was, or if unknown."""
        return self.n_cut / self.n_texts if self.n_cut and self.n_texts else None


_COMPARES_VECTORS: frozenset[str] = frozenset({"label-similarity"})
"""Methods of the prompting role that compare vectors of an encoder, and ask no language model."""


def prompts_model(role: Role | None, method: str) -> bool:
    """Return whether a method, by its role and name, prompts a language model."""
    return role == "prompting" and method not in _COMPARES_VECTORS


@dataclass(frozen=True)
class Facts:
    """Facts about one cell; None is unknown.

    Attributes:
        role: role of the transformer in the method.
        workload: work of this cell, as its method declares it; for one fit where settings are tuned.
        fit_length: steps of a fit as a function of labels, for methods that take any.
        defaults: default values of the settings that a configuration states only where they differ.
        at_defaults: whether the configuration is the method's default one; None is unknown.
        learning_rate: peak learning rate that was used, where it is not the setting's value; None where it is.
        is_evidence: whether the score is evidence about methods; false if it served to choose settings or methods.
        train_texts, test_texts: lengths of the texts that were read.
        n_terms: terms that a bag of words found in the training texts.
        counts_words: whether these terms are words and pairs of words, as other such methods count them.
        penalty: inverse penalty of a logistic regression, given or chosen.
        tuned_trials: description of the tuning; None without tuning.
        tuned_settings: settings that tuning chose.
        unsteady: description of what disturbed the machine while the cell was measured; None for nothing.
        left_behind: description of work that the method left running when it returned; None for nothing.
        on_oom: description of how the cell was changed to need less memory.
        run_as: settings that the cell ran with instead of its own, so that it fits into memory: the same steps in
            pieces, or with blocks computed again. None where it ran as asked.
        peak_rss_source, energy_source: source of these figures.
        missing: reasons for missing figures, by figure.
        packages: other packages that the cell's method, kind or metric come from, by which of these.
        imported_from: file of imported results.
        method_here: method of the harness that an imported result is of; None where there is none, or it is unknown.
        protocol: explanation of imported figures that have a different meaning here.
        remarks: the method's remarks on its fit, by subject. For people: no code reads them.
        measured_by: who measured it, where that is a published source such as MTEB.
        encoder: facts about the backbone, as that source states them.
        has_seen_task: whether the backbone's authors name the task's training data among theirs; None is unknown.
        n_draws: number of draws of the training texts that the score is the mean of; None is one, or unknown.
        served: facts about the requests, where the cell asked a served model.
        forgetting: distance of the adapted transformer from the pretrained one on outside text.
        inference: cost of using the fitted model, where the run measured it.
        merged_inference: the same with the method's addition merged into the weights; None where it cannot be merged.
    """

    role: Role | None = None
    workload: Workload | None = None
    fit_length: FitLength | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    at_defaults: bool | None = None
    learning_rate: float | None = None
    is_evidence: bool = True
    train_texts: TextLengths | None = None
    test_texts: TextLengths | None = None
    n_terms: float | None = None
    counts_words: bool = True
    penalty: float | None = None
    tuned_trials: str | None = None
    tuned_settings: dict[str, Any] | None = None
    unsteady: str | None = None
    left_behind: str | None = None
    on_oom: str | None = None
    run_as: dict[str, Any] | None = None
    peak_rss_source: str | None = None
    energy_source: str | None = None
    missing: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    imported_from: str | None = None
    method_here: str | None = None
    protocol: str | None = None
    remarks: dict[str, str] = field(default_factory=dict)
    measured_by: str | None = None
    encoder: EncoderFacts | None = None
    has_seen_task: bool | None = None
    n_draws: int | None = None
    served: ServedFacts | None = None
    forgetting: Forgetting | None = None
    inference: Inference | None = None
    merged_inference: Inference | None = None

    @property
    def trains_inside(self) -> bool:
        """Whether the fit takes optimiser steps inside the transformer."""
        return self.role in TRAINS_INSIDE

    def in_words(self) -> dict[str, str]:
        """Return remarks on how the cell was measured, by subject, for readers of a report."""
        told = {
            "peak_rss": self.peak_rss_source,
            "energy": self.energy_source,
            "left_behind": self.left_behind,
            "on_oom": self.on_oom,
            "run_as": None if self.run_as is None else f"{settings_in_words(self.run_as)}, to fit into memory",
            "imported_from": self.imported_from,
            "protocol": self.protocol,
            "measured_by": self.measured_by,
            "has_seen_task": None if self.has_seen_task is None else "yes" if self.has_seen_task else "no",
            "chosen_c": None if self.penalty is None else str(self.penalty),
            **{f"{kind} from": package for kind, package in self.packages.items()},
            **{f"{figure}_missing": why for figure, why in self.missing.items()},
            **self.remarks,
        }
        return {name: text for name, text in told.items() if text is not None}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; fields at their defaults are left out."""
        return stated(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | Facts) -> Facts:
        """Return the facts from the result of `to_json`; `Facts` of an upgrade are returned unchanged."""
        if isinstance(value, Facts):
            return value
        facts = made(cls, value)
        found = facts.__dict__
        for name in _PARTS.keys() & value.keys():
            if found[name] is not None:
                found[name] = made(_PARTS[name], found[name])
        if type(facts.defaults) is dict:
            found["defaults"] = shared(facts.defaults)
        return facts


_PARTS: dict[str, type] = {
    "workload": Workload,
    "fit_length": FitLength,
    "train_texts": TextLengths,
    "test_texts": TextLengths,
    "encoder": EncoderFacts,
    "served": ServedFacts,
    "forgetting": Forgetting,
    "inference": Inference,
    "merged_inference": Inference,
}


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as `--methods` takes them: `accumulation=4, gradient_checkpointing=true`."""
    return ", ".join(f"{name}={str(value).lower()}" for name, value in settings.items())


def stated(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, also inside inner dataclasses."""
    found = {}
    for item in dataclasses.fields(value):
        own = getattr(value, item.name)
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if own != default or type(own) is not type(default):
            found[item.name] = stated(own) if dataclasses.is_dataclass(own) else own
    return found
