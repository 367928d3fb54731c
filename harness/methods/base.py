"""The contract of a method, and the registry of methods.

A method is a frozen pydantic model: its fields are its configuration, its class variables say what it is. It is given
training rows and a bench, and returns something fitted that predicts. It never sees test labels, and test rows only
when it predicts. Torch, transformers and peft are imported inside the functions that use them, since planning needs
methods for their configurations alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.backbones import Architecture, BackboneFiles
from harness.methods.bench import Bench
from harness.records import ROLES, TRAINS_INSIDE, Budget, FitLength, Role, Workload
from harness.support import Registry, UsageError, unknown_name
from harness.tasks import FORMS, Answers, Form, Kind, Rows, Task, kinds

if TYPE_CHECKING:
    from harness.training import AdaptedModel

ENCODER: frozenset[Architecture] = frozenset({"encoder"})
LANGUAGE_MODEL: frozenset[Architecture] = frozenset({"causal", "sequence-to-sequence"})
SERVED: frozenset[Architecture] = frozenset({"served"})
ANY_ARCHITECTURE: frozenset[Architecture] = ENCODER | LANGUAGE_MODEL
NO_BACKBONE: frozenset[Architecture] = frozenset()

CAPABILITIES: dict[str, str] = {
    "merge": "its addition can be merged into the weights, so that predicting costs what the backbone costs",
    "convert-to-lora": "its addition is one of LoRA, or can be turned into one (peft's convert_to_lora)",
    "quantise": "the backbone under its addition may be in 4 bits (bitsandbytes)",
    "vllm": "vLLM serves a fit that writes its answers on a causal backbone: an adapter of LoRA, or a whole model",
}
"""Capabilities of a fitted method at its default settings: names, and their meanings.

A method that adds nothing has nothing to merge: predicting with `full` costs what the backbone costs. vLLM reads no
head of classes, since that head is the harness's own.
"""

_WRITTEN_AT_FIRST: frozenset[Form] = frozenset({"text", "spans"})
"""Forms of answers that version 0.1 wrote."""


@dataclass(frozen=True)
class Choice:
    """A setting to search over: one of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A setting to search over: a number from `low` to `high`, by its logarithm if `log`; whole if both ends are."""

    low: float
    high: float
    log: bool = False


SearchSpace = Mapping[str, Choice | Range]


class Fitted(ABC):
    """A fitted method: it predicts, and it knows what must be saved to predict again."""

    n_parameters: int | None
    n_trainable: int

    @abstractmethod
    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Return an answer for each row, in their order, in the form that the kind asks for."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was trained, by name."""

    def state(self) -> dict[str, Any]:
        """Return anything else that predicting needs, as JSON values."""
        return {}

    def adapted_model(self) -> AdaptedModel | None:
        """Return the model whose transformer was trained, to measure forgetting on; None where there is none."""
        return None


class Method(BaseModel, ABC):
    """A way to adapt a backbone to a task, with its configuration.

    Class attributes:
        name: name on the command line, in suites and in records.
        version: part of a cell's identity. Raise it when a fault is corrected that made cells wrong on every backbone.
        mended: later versions by transformers' model type, for faults that made cells wrong on some architectures
            only. Cells on other architectures keep their identity.
        family: heading under which it is listed.
        role: use that it makes of the transformer; advice and plans depend on it.
        trains: what it trains, in a phrase.
        source: paper and arXiv number, or other origin.
        serves: architectures that it can adapt; empty for methods that use no backbone.
        forms: forms of answers that it can give. They decide which kinds of task it serves.
        serves_own_forms: whether it also serves every kind that brings an answer form of its own.
        needs_plain_head: whether it trains the harness's own head, and so serves no kind that brings another.
        writes: forms of answers for which the language model writes a text.
        serves_pairs: whether it can read two texts in one sequence.
        needs_pairs: whether it serves only kinds that compare two texts by their vectors.
        finds_likelihood: whether it can say how likely a text is.
        uses_labels: whether it looks at labels. A method that does not runs once, at n_train 0.
        search_space: settings that `--tune` searches over, by name; empty if there is nothing to tune.
        newer_settings: settings that were added after records of the method had been published. At their defaults they
            are no part of the configuration, so these defaults never change. Those of base classes need not be named.
        needs: further needs besides a backbone, such as `CUDA`, in a word or two; empty for none.
        experimental: why its figures deserve less trust than those of others, as a sentence; empty where they do not.
        is_candidate: whether `choose` considers it where no methods are named.
        can: what can be done with a fit at default settings, by names of `CAPABILITIES`.
        probabilities_are: what its probabilities of classes are, in a phrase, where they do not estimate how often a
            class is right; empty where they do.

    Attributes:
        tune: number of settings to try on a validation split of the training rows, within the cell's budget. The best
            is then fitted on all rows. None fits the given settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    mended: ClassVar[Mapping[str, int]] = {}
    family: ClassVar[str]
    role: ClassVar[Role]
    trains: ClassVar[str]
    source: ClassVar[str]
    serves: ClassVar[frozenset[Architecture]] = ANY_ARCHITECTURE
    forms: ClassVar[frozenset[Form]] = frozenset({"classes"})
    serves_own_forms: ClassVar[bool] = False
    needs_plain_head: ClassVar[bool] = False
    writes: ClassVar[frozenset[Form]] = frozenset({"text"})
    serves_pairs: ClassVar[bool] = True
    needs_pairs: ClassVar[bool] = False
    finds_likelihood: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    search_space: ClassVar[SearchSpace] = {}
    newer_settings: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[str] = ""
    experimental: ClassVar[str] = ""
    is_candidate: ClassVar[bool] = True
    can: ClassVar[frozenset[str]] = frozenset()
    probabilities_are: ClassVar[str] = ""

    tune: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _has_something_to_tune(self) -> Self:
        if self.tune is not None and not self.search_space:
            raise UsageError(
                f"Method '{self.name}' was given tune={self.tune} and has no settings to search over; leave it out "
                "(`harness methods NAME` shows what a method searches over)."
            )
        return self

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return the version that a cell carries: `version`, or a later one where a fault has been mended.

        Args:
            files: the cell's backbone; None for methods that use none.
            form: the form of the answers.
        """
        if files is None:
            return self.version
        # Version 0.1 wrote with the backbone's own penalties and forced tokens.
        is_rewritten = files.wrote_otherwise and form in self.writes & _WRITTEN_AT_FIRST
        return max(self.version + is_rewritten, self.mended.get(files.model_type, 0))

    def cell_version(self, files: BackboneFiles | None, form: Form) -> int:
        """Return the version in a cell's identity: that of `version_on`, or a later one where defaults have changed."""
        return self.version_on(files, form)

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that says on which model types the version is a later one; empty for none."""
        numbers = sorted(set(cls.mended.values()))
        named = {number: sorted(name for name, known in cls.mended.items() if known == number) for number in numbers}
        return "; ".join(f"version {number} on {', '.join(names)}" for number, names in named.items())

    def config(self) -> dict[str, Any]:
        """Return the fully resolved configuration, as JSON values; part of a cell's identity.

        `tune` and other settings that came later are left out at their defaults, so that those identities are what
        they were before the settings existed.
        """
        config = self.model_dump(mode="json")
        for name, default in self.defaults().items():
            if config[name] == default:
                del config[name]
        return config

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings that a configuration states only where they differ, as JSON values of their defaults."""
        newer = {name for base in cls.__mro__ for name in vars(base).get("newer_settings", ())}
        values = {name: cls.model_fields[name].default for name in sorted({"tune", *newer})}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def why_not_kind(cls, kind: Kind) -> str | None:
        """Return the reason why this method serves no task of a kind, whatever the backbone; None if it serves some."""
        own = kind.answer_form() is not None
        if kind.form not in cls.forms and not (own and cls.serves_own_forms):
            answers = " and ".join(FORMS.get(form, form) for form in sorted(cls.forms, key=[*FORMS, *cls.forms].index))
            return f"'{cls.name}' gives {answers}; a {kind.name} task asks for {kind.asks_for or FORMS[kind.form]}."
        if kind.form == "text" and cls.serves and not cls.serves & (LANGUAGE_MODEL | SERVED):
            return f"'{cls.name}' adapts encoders; a {kind.name} task is answered by a language model."
        if own and cls.needs_plain_head:
            return f"'{cls.name}' trains a linear layer on top; a {kind.name} task brings another head."
        if kind.reads_pairs and kind.form == "classes" and not cls.serves_pairs:
            return f"'{cls.name}' compares single texts; a {kind.name} task is about two."
        if cls.needs_pairs and not kind.compares_apart:
            return f"'{cls.name}' compares two texts by their vectors; a {kind.name} task does not ask for that."
        return None

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Return why this method cannot serve the task, backbone or device (`cpu`, `cuda`); None if it can."""
        asked = kinds.get(kind)
        reason = self.why_not_kind(asked)
        if reason is not None:
            return reason
        architecture = files.architecture if files is not None else None
        if self.serves and architecture not in self.serves:
            given = architecture or "no backbone"
            return (
                f"'{self.name}' adapts {', '.join(sorted(self.serves))} backbones; this one is {given}. Name another "
                "backbone, or another method (`harness methods` lists them)."
            )
        if asked.form == "text" and self.serves and architecture == "encoder":
            return (
                f"A {kind} task is answered by a language model; this backbone is an encoder, which is none. Name a "
                "causal or sequence-to-sequence backbone."
            )
        return None

    def why_not(self, task: Task, files: BackboneFiles | None, device: str) -> str | None:
        """`why_unsupported`, and whether this very task asks for what the method cannot say."""
        reason = self.why_unsupported(task.kind.name, files, device)
        if reason is not None or task.reply is None or not task.reply.wants_likelihood:
            return reason
        if not self.finds_likelihood:
            return f"'{self.name}' shows questions with their answers; '{task.metric}' scores the texts themselves."
        if files is not None and files.architecture == "served":
            return f"'{task.metric}' is the likelihood of a whole text, which servers do not return. Use a local model."
        if files is not None and files.architecture == "sequence-to-sequence":
            return (
                f"'{task.metric}' is the likelihood of a text under a causal model; this backbone has a decoder apart."
            )
        return None

    def on_task(self, task: Task) -> Method:
        """Return the method with the settings that a task states for it; itself where there are none."""
        return self

    def settings_to_try(self) -> SearchSpace:
        """Return the part of the search space that `tune` may take beside the other settings."""
        return self.search_space

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return how much of a transformer of `n_blocks` blocks a cell runs: nothing, unless a method says more.

        Plans go by it, records carry it, and the contract tests compare it with what a fit does. A method that uses a
        transformer, other than by prompts, must have one of its own.
        """
        return Workload()

    def n_added(self, width: int, n_blocks: int) -> float:
        """Return about how many parameters a fit adds to a transformer of this size; 0 for few or none."""
        return 0.0

    @property
    def quantised_bytes(self) -> float | None:
        """Bytes of a number in the blocks' matrices, for methods that quantise them; None for all others."""
        return None

    def fit_length(self) -> FitLength | None:
        """Return the optimiser steps of a fit as a function of labels; None where a fit takes none."""
        return None

    def halved(self) -> Method | None:
        """Return the same method in less memory, every step the same, for a cell that ran out; None for none."""
        return None

    def in_a_hurry(self) -> Self:
        """Return the same method with settings for a search with little time; itself where there are none."""
        return self

    @property
    def fits_per_cell(self) -> int:
        """Number of fits in a cell: several where a setting is chosen by folds of the training rows."""
        return 1

    def warm_up(self) -> None:
        """Import and start what `fit` uses for the first time; called once a process, before anything is measured."""

    @abstractmethod
    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Adapt to the training rows within the bench's budget."""

    @abstractmethod
    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Rebuild what `fit` returned from its saved tensors and state."""


def _why_no_method(member: Any) -> str | None:
    """Return the reason why an object is no method that can be listed and run; None if it is one."""
    if not (isinstance(member, type) and issubclass(member, Method)):
        return f"{member!r:.80} is no method"
    lacks = sorted(member.__abstractmethods__)
    if lacks:
        return f"{member.__name__} lacks {', '.join(lacks)}"
    try:
        check_declarations(member)
    except UsageError as error:
        return str(error).rstrip(".")
    return None


methods: Registry[type[Method]] = Registry(
    "method", "harness.methods", expected="a subclass of harness.methods.Method", why_not=_why_no_method
)

M = TypeVar("M", bound=type[Method])


def method(cls: M) -> M:
    """Register a method's class under its name.

    Raises:
        UsageError: the class leaves out something that has no safe default; the message names it.
    """
    check_declarations(cls)
    methods.add(cls.name, cls)
    return cls


def capabilities_of(cls: type[Method]) -> list[str]:
    """Return what can be done with a method's fits, in the order of `CAPABILITIES`."""
    return [name for name in CAPABILITIES if name in cls.can]


def methods_that_can(names: Iterable[str]) -> list[type[Method]]:
    """Return the methods with all of some capabilities.

    Args:
        names: names of `CAPABILITIES`.

    Raises:
        UsageError: there is no such capability.
    """
    wanted = frozenset(names)
    for name in sorted(wanted - set(CAPABILITIES)):
        raise unknown_name("capability", name, CAPABILITIES)
    return [cls for cls in methods if wanted <= cls.can]


def check_declarations(cls: type[Method]) -> None:
    """Refuse a method's class that does not say what it is, or what its fits cost.

    Raises:
        UsageError: a class variable without a default is missing, or the workload is; or the role is not in `ROLES`, or
            a capability not in `CAPABILITIES`.
    """
    missing = sorted(name for name in cls.__class_vars__ if not hasattr(cls, name) and not name.startswith("_"))
    if missing:
        first = missing[0]
        meaning = _MEANINGS.get(first, "see the docstring of the class that asks for it")
        raise UsageError(
            f"Method class '{cls.__name__}' declares no {', no '.join(missing)}. Add `{first} = ...` to the class "
            f"({meaning})."
        )
    if cls.role not in ROLES:
        raise UsageError(
            f"Method class '{cls.__name__}' declares the role {cls.role!r:.80}. Set `role` to {_MEANINGS['role']}."
        )
    if unknown := sorted(cls.can - set(CAPABILITIES)):
        raise UsageError(
            f"Method class '{cls.__name__}' declares that it can {', '.join(unknown)}. Names to choose from: "
            f"{', '.join(CAPABILITIES)}."
        )
    if cls.role in {"frozen features", *TRAINS_INSIDE} and cls.workload is Method.workload:
        raise UsageError(
            f"Method class '{cls.__name__}' has the role '{cls.role}' and declares no workload: it would be planned as "
            "if it cost nothing. Define `workload(n_train, budget, n_blocks)`, or derive from a class that does."
        )
    if cls.role in TRAINS_INSIDE and cls.fit_length is Method.fit_length:
        raise UsageError(
            f"Method class '{cls.__name__}' has the role '{cls.role}' and declares no `fit_length()`: the steps of its "
            "fits as a function of labels. Define it, or derive from a class that does."
        )


_MEANINGS = {
    "role": "one of " + ", ".join(f"'{role}'" for role in ROLES),
    "share_trained": "share of the transformer's parameters that have gradients: 1.0 for all, 0.0 for next to none",
}
"""Class variables without a default, and what they hold."""
