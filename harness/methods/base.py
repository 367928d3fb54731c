"""The contract of a method, and the bench it works at.

A method is a frozen pydantic model: its fields are its configuration, its class variables say what it is. It is given
training rows and a bench, and returns something fitted that predicts. It never sees test labels, and test rows only
when it predicts. Torch, transformers and peft are imported inside the functions that use them, since planning needs
methods for their configurations alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.backbones import Architecture, BackboneFiles, Pooling
from harness.measure import Device, MemoryMeter, Phase, PhaseClock, Precision, PrecisionPolicy, known_flops
from harness.records import ROLES, TRAINS_INSIDE, Budget, CurvePoint, Facts, FitLength, Role, TextLengths, Workload
from harness.support import Registry, UnsupportedError, UsageError
from harness.tasks import FORMS, Answers, Floats, Form, Kind, Labels, Reply, Rows, Task, kinds

if TYPE_CHECKING:
    from torch import nn

    from harness.backbones import Backbone
    from harness.features import FeatureStore, Layer, Tokens, TokenStore
    from harness.measure import FlopsModel
    from harness.training import AnswerForm, BudgetProgress

ENCODER: frozenset[Architecture] = frozenset({"encoder"})
LANGUAGE_MODEL: frozenset[Architecture] = frozenset({"causal", "sequence-to-sequence"})
ANY_ARCHITECTURE: frozenset[Architecture] = ENCODER | LANGUAGE_MODEL
NO_BACKBONE: frozenset[Architecture] = frozenset()


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

_PARTS = ("train", "test")


@dataclass
class Ledger:
    """Spending of a fit that no clock shows, and facts about it; the bench writes it, the record shows it.

    `train_flops` is not a number where a part of the operations could not be counted; `counted_flops` is None then.
    `computed_all` is whether everything that the fit is charged for was computed by it, and nothing came from a cache.
    """

    train_flops: float = 0.0
    train_tokens: int = 0
    stopped_by: str | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    reused: set[str] = field(default_factory=set)
    computed_all: bool = True
    facts: Facts = field(default_factory=Facts)
    _n_read: dict[str, int] = field(default_factory=dict)

    @property
    def counted_flops(self) -> float | None:
        """The operations of the fit; None where they could not be counted."""
        return known_flops(self.train_flops)

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks on the fit in words, by subject; a method adds its own."""
        return self.facts.remarks

    def state(self, **facts: Any) -> None:
        """Set facts by the names of their fields."""
        self.facts = replace(self.facts, **facts)

    def adopt(self, of_fit: Facts) -> None:
        """Take over what a fit of its own ledger has stated."""
        own = self.facts
        self.facts = replace(
            own,
            train_texts=of_fit.train_texts or own.train_texts,
            test_texts=of_fit.test_texts or own.test_texts,
            n_terms=of_fit.n_terms,
            counts_words=of_fit.counts_words,
            penalty=of_fit.penalty,
            missing={**own.missing, **of_fit.missing},
            remarks={**own.remarks, **of_fit.remarks},
        )

    def note_lengths(self, part: str, lengths: npt.NDArray[np.int64], n_rows: int) -> None:
        """Note the lengths of the sequences, in tokens, that `n_rows` rows of a part (`train`, `test`) are read in."""
        known = self._texts_of(part)
        longest = max(known.longest or 0, int(lengths.max(initial=0)))
        if part not in _PARTS:
            self.remarks[f"longest_{part}_tokens"] = str(longest)
        elif n_rows >= self._n_read.get(part, 1):
            self._n_read[part] = n_rows
            self._note_texts(part, replace(known, longest=longest, mean=float(lengths.sum()) / n_rows))
        else:
            self._note_texts(part, replace(known, longest=longest))

    def note_cut(self, part: str, n_cut: int, n_texts: int, side: Literal["left", "right"] = "right") -> None:
        """Note how many texts of a part lost an end: never silent."""
        if n_cut and part in _PARTS:
            known = self._texts_of(part)
            self._note_texts(part, replace(known, n_cut=n_cut, n_texts=n_texts, cut_side=side))

    def _texts_of(self, part: str) -> TextLengths:
        return getattr(self.facts, f"{part}_texts", None) or TextLengths()

    def _note_texts(self, part: str, texts: TextLengths) -> None:
        self.state(**{f"{part}_texts": texts})


@dataclass
class Bench:
    """Surroundings of a method in one cell: the task without its test rows, the backbone, the meters.

    Attributes:
        kind, n_outputs, max_length: of the task; n_outputs scores of a row (classes, or most choices), max_length in
            tokens.
        n_strata: groups that draws are stratified by: the classes, or one.
        label_words: each class in words that a person would use, in the order of the classes.
        prompt: the template by which the task words what a language model is asked; None where it has none.
        reply: what is asked of a language model; None where answers are no texts.
        measure: the task's main metric of (answers, labels), turned so that higher is better.
        backbone: None for methods that need none.
        tokens, features: shared by all cells of the worker.
        flops_models: training FLOPs by method and backbone, shared likewise.
        clock, memory, ledger: of this cell.
        budget: what the fit may spend.
        seed: of the cell.
        device: where it runs.
        report: called with (what, fraction of the budget spent, loss) as the fit goes on.
        counts_flops: whether operations of batches are counted where no budget needs them; else they are taken for 0.
        lone_classes: classes with a single training row and no test row: folds of the training rows never hold it out.
    """

    kind: Kind
    n_outputs: int
    n_strata: int
    max_length: int
    label_words: tuple[str, ...]
    prompt: str | None
    reply: Reply | None
    measure: Callable[[Answers, Labels], float]
    backbone: Backbone | None
    tokens: TokenStore
    features: FeatureStore
    flops_models: dict[str, FlopsModel]
    clock: PhaseClock
    memory: MemoryMeter
    ledger: Ledger
    budget: Budget
    seed: int
    device: Device
    report: Callable[[str, float | None, float | None], None]
    counts_flops: bool = True
    lone_classes: tuple[int, ...] = ()

    @property
    def some_backbone(self) -> Backbone:
        """The backbone, for methods that need one."""
        if self.backbone is None:
            raise RuntimeError("This method uses a backbone and must say so in `serves`.")
        return self.backbone

    @property
    def files(self) -> BackboneFiles:
        """The files of the backbone, for methods that need one."""
        return self.some_backbone.files

    def precision(self, policy: PrecisionPolicy) -> Precision:
        """Return the precision that the policy comes to on this device."""
        return self.device.precision(policy)

    def token_rows(self, rows: Rows, phase: Phase, reserved: int = 0) -> list[npt.NDArray[np.int32]]:
        """Return token ids of each sequence of these rows; `phase` is charged their share of tokenising the split.

        `reserved` positions of the backbone are left for what is not text.
        """
        with self.clock.paused():
            tokens = self.tokens_of(rows, reserved)
        self.clock.charge(phase, tokens.seconds_of(rows.index))
        return [tokens.row(int(position)) for position in tokens.sequences(rows.index)]

    def tokens_of(self, rows: Rows, reserved: int = 0) -> Tokens:
        """Return the tokens of the whole split that these rows are of, made once; nobody is charged here."""
        max_length = min(self.max_length, self.some_backbone.max_length - reserved)
        tokens = self.tokens.tokens(rows.source, self.kind, self.some_backbone, max_length)
        part = rows.source.key.rpartition("/")[2]
        self.ledger.note_lengths(part, tokens.lengths[tokens.sequences(rows.index)], len(rows))
        self.ledger.note_cut(part, tokens.n_truncated, tokens.n_rows, rows.source.cut)
        return tokens

    def pooled(
        self,
        rows: Rows,
        phase: Phase,
        policy: PrecisionPolicy,
        *,
        pooling: Pooling | None = None,
        layer: Layer = "last",
        tokenised: bool = False,
    ) -> Floats:
        """Return frozen features, charged to `phase` at what they cost when they were computed.

        Args:
            rows: what is encoded.
            phase: who pays: `encode` for training rows, `predict` for test rows.
            policy: precision of the forward pass.
            pooling: which tokens are read; None is the backbone's own.
            layer: `last`; `average`, the mean over the outputs of all blocks, without the embeddings; or the index of a
                block, from 1 or, if it is negative, from the end; 0 is the output of the embeddings.
            tokenised: whether the fit has been charged for the rows' token ids (`token_rows`) already.

        Returns:
            Shape (rows, width), the mean over its windows where a row is read in several; where answers are choices,
            one vector each: shape (rows, most choices, width), not a number where a row has fewer.

        Raises:
            UsageError: the backbone has no such block; the message says how many it has.
            FloatingPointError: a feature is not finite.
        """
        backbone = self.some_backbone
        precision = self.precision(policy)
        self.report("encoding", None, None)
        with self.clock.paused():
            tokens = self.tokens_of(rows)
            encoded = self.features.pooled(
                rows.source,
                tokens.sequences(rows.index),
                tokens,
                backbone,
                self.max_length,
                precision,
                pooling=pooling,
                layer=layer,
            )
        # A nearest neighbour or a tree would answer from NaN as from any number.
        if not np.isfinite(encoded.values).all():
            raise FloatingPointError(f"Backbone '{backbone.files.name}' gives features that are not finite.")
        seconds = 0.0 if tokenised else tokens.seconds_of(rows.index)
        self.clock.charge(phase, seconds + encoded.seconds)
        self.clock.charge("warmup", encoded.warmup_seconds)
        self.clock.charge("measure", encoded.spare_seconds)
        self.memory.note(encoded.peak_rss_above_baseline_bytes, encoded.peak_device_bytes)
        if encoded.reused:
            self.ledger.reused.add("features")
        if phase == "encode" and not encoded.fresh:
            self.ledger.computed_all = False
        if phase == "encode":
            if encoded.flops_error is not None:
                self._flops_are_unknown(encoded.flops_error)
            self.ledger.train_flops += encoded.flops
            self.ledger.train_tokens += encoded.tokens
        counts = tokens.n_sequences(rows.index)
        if self.kind.form == "spans" and len(rows):
            sums = np.add.reduceat(encoded.values, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
            return np.asarray(sums / counts[:, None], dtype=np.float32)
        if self.kind.form != "choices":
            return encoded.values
        packed = np.full((len(rows), self.n_outputs, encoded.values.shape[1]), np.nan, dtype=np.float32)
        packed[np.arange(self.n_outputs) < counts[:, None]] = encoded.values
        return packed

    @property
    def form(self) -> AnswerForm:
        """How a transformer is trained to give answers of the kind's form."""
        from harness.training import answer_form

        own: AnswerForm | None = self.kind.answer_form()
        return own or answer_form(self.kind.form)

    def fresh_transformer(self) -> nn.Module:
        """Return a copy of the pretrained weights that nothing has touched."""
        with self.clock.phase("load"):
            return self.some_backbone.fresh(self.device.torch_device())

    def flops_model(self, key: str, count: Callable[[], FlopsModel]) -> FlopsModel:
        """Return the operations of a batch, counted the first time that `key` is asked for.

        Counting is no cell's time. Where it fails, the operations are not a number, and the record says why.

        Raises:
            UnsupportedError: the operations cannot be counted, and the budget limits them.
        """
        from harness.measure import UNCOUNTED, counted

        if not self.counts_flops and self.budget.train_flops is None:
            return UNCOUNTED
        if key not in self.flops_models:
            with self.clock.phase("measure"):
                self.flops_models[key] = counted(count)
        found = self.flops_models[key]
        if found.error is not None:
            self._flops_are_unknown(found.error)
        return found

    def count_train_flops(self, run: Callable[[], object]) -> None:
        """Count the operations of `run`, which is run once more for it, and enter them in the ledger."""
        from harness.measure import FlopsModel, count_flops, counted

        with self.clock.phase("measure"):
            found = counted(lambda: FlopsModel(0.0, 0.0, 0.0, count_flops(run)))
        if found.error is not None:
            self._flops_are_unknown(found.error)
        self.ledger.train_flops += found.constant

    def _flops_are_unknown(self, why: str | None) -> None:
        """Note that operations cannot be counted; refuse a budget that limits them."""
        self.ledger.facts.missing["train_flops"] = str(why)
        if self.budget.train_flops is not None:
            raise UnsupportedError(
                f"The budget limits train_flops, and the operations of backbone '{self.files.name}' cannot be counted "
                f"({why}). Give a budget of seconds, steps or epochs instead."
            )

    def seeded(self, purpose: str) -> int:
        """Return a 63-bit seed from the cell's seed and what it is for, the same for every method."""
        import hashlib

        digest = hashlib.blake2b(f"{purpose}/{self.seed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def progress(self, default_steps: int, steps_per_epoch: int) -> BudgetProgress:
        """Return the budget's progress, encoding so far included."""
        from harness.training import BudgetProgress

        return BudgetProgress(
            self.budget, default_steps, steps_per_epoch, lambda: self.clock.train_seconds, self.ledger.train_flops
        )

    @contextmanager
    def working(self, phase: Phase) -> Iterator[None]:
        """Count a block for `phase` and say so."""
        self.report(phase, None, None)
        with self.clock.phase(phase):
            yield


class Fitted(ABC):
    """A fitted method: it predicts, and it knows what must be saved to predict again."""

    n_parameters: int
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


class Method(BaseModel, ABC):
    """A way to adapt a backbone to a task, with its configuration.

    Class attributes:
        name: as the command line, suites and records carry it.
        version: part of a cell's identity; raise it when a fault is mended that made cells wrong on every backbone.
        mended: where a fault made cells wrong on some architectures only: the version there, by transformers' model
            type. Cells on other architectures keep their identity.
        family: the group it is listed under.
        role: what it does with the transformer; advice and plans go by it.
        trains: what it trains, in a phrase.
        source: where it comes from (paper, arXiv id).
        serves: architectures that it can adapt; empty for methods that use no backbone.
        forms: forms of answers that it can give: which kinds of task it serves follows from that.
        serves_own_forms: whether it also serves every kind that brings an answer form of its own.
        needs_plain_head: whether it trains the harness's own head, and so serves no kind that brings another.
        writes: forms of answers for which the language model writes a text.
        serves_pairs: whether it makes sense of two texts in one sequence.
        finds_likelihood: whether it can be asked how likely a text is.
        uses_labels: False for methods that look at no label; they run once, at n_train 0.
        search_space: settings that `--tune` searches over, by name; empty where there is nothing to tune.
        newer_settings: settings that came after records of the method had been published: no part of its
            configuration while they have their defaults, which therefore never change.
        needs: what it needs besides a backbone (`CUDA`, say), in a word or two; empty for nothing.

    Attributes:
        tune: how many settings of the search space are tried on a validation split of the training rows, inside the
            cell's budget, before the best is fitted on all rows; None fits these settings.
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
    finds_likelihood: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    search_space: ClassVar[SearchSpace] = {}
    newer_settings: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[str] = ""

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
        is_rewritten = files.wrote_otherwise and form in self.writes
        return max(self.version + is_rewritten, self.mended.get(files.model_type, 0))

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
            if getattr(self, name) == default:
                del config[name]
        return config

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default values of the settings that a configuration states only where they differ."""
        return {name: cls.model_fields[name].default for name in sorted({"tune", *cls.newer_settings})}

    @classmethod
    def why_not_kind(cls, kind: Kind) -> str | None:
        """Return the reason why this method serves no task of a kind, whatever the backbone; None if it serves some."""
        own = kind.answer_form() is not None
        if kind.form not in cls.forms and not (own and cls.serves_own_forms):
            answers = " and ".join(FORMS.get(form, form) for form in sorted(cls.forms, key=[*FORMS, *cls.forms].index))
            return f"'{cls.name}' gives {answers}; a {kind.name} task asks for {kind.asks_for or FORMS[kind.form]}."
        if own and cls.needs_plain_head:
            return f"'{cls.name}' trains a linear layer on top; a {kind.name} task brings another head."
        if kind.reads_pairs and kind.form == "classes" and not cls.serves_pairs:
            return f"'{cls.name}' compares single texts; a {kind.name} task is about two."
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
        if files is not None and files.architecture == "sequence-to-sequence":
            return (
                f"'{task.metric}' is the likelihood of a text under a causal model; this backbone has a decoder apart."
            )
        return None

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return how much of a transformer of `n_blocks` blocks a cell runs: nothing, unless a method says more.

        Plans go by it, records carry it, and the contract tests compare it with what a fit does. A method that uses a
        transformer, other than by prompts, must have one of its own.
        """
        return Workload()

    def fit_length(self) -> FitLength | None:
        """Return the optimiser steps of a fit as a function of labels; None where a fit takes none."""
        return None

    def halved(self) -> Method | None:
        """Return the same method in less memory, every step the same, for a cell that ran out; None for none."""
        return None

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
    return f"{member.__name__} lacks {', '.join(lacks)}" if lacks else None


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


def check_declarations(cls: type[Method]) -> None:
    """Refuse a method's class that does not say what it is, or what its fits cost.

    Raises:
        UsageError: a class variable without a default is missing, or the workload is.
    """
    missing = sorted(name for name in cls.__class_vars__ if not hasattr(cls, name) and not name.startswith("_"))
    if missing:
        first = missing[0]
        meaning = _MEANINGS.get(first, "see the docstring of the class that asks for it")
        raise UsageError(
            f"Method class '{cls.__name__}' declares no {', no '.join(missing)}. Add `{first} = ...` to the class "
            f"({meaning})."
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
