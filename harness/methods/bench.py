"""The bench that a method works at in one cell, and the ledger that it enters its spending in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from harness.backbones import BackboneFiles, Pooling, Weights
from harness.measure import (
    Device,
    Halvings,
    MemoryMeter,
    Phase,
    PhaseClock,
    Precision,
    PrecisionPolicy,
    halved_remark,
    known_flops,
)
from harness.records import Budget, CurvePoint, Facts, TextLengths
from harness.support import SmallerBatchesError, UnsupportedError
from harness.tasks import Answers, Floats, Kind, Labels, Reply, Rows, Source, words_of

if TYPE_CHECKING:
    from torch import nn

    from harness.backbones import Backbone
    from harness.features import FeatureStore, Layer, Tokens, TokenStore, Word
    from harness.measure import FlopsModel
    from harness.methods.rungs import Rungs
    from harness.serving import Connection
    from harness.training import AnswerForm, BudgetProgress

_PARTS = ("train", "test")


@dataclass
class Ledger:
    """Spending of a fit that no clock shows, and facts about it; the bench writes it, the record shows it.

    `train_flops` is not a number where a part of the operations could not be counted; `counted_flops` is None then.
    `computed_all` is whether everything that the fit is charged for was computed by it, and nothing came from a cache.
    `has_disturbed_features` is whether it is charged for features that were encoded while the machine was busy.
    `weights_bytes` and `shared_weights_bytes` are those of `records.Cost`; None where nobody has stated them.
    """

    train_flops: float = 0.0
    train_tokens: int = 0
    stopped_by: str | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    reused: set[str] = field(default_factory=set)
    computed_all: bool = True
    has_disturbed_features: bool = False
    weights_bytes: int | None = None
    shared_weights_bytes: int | None = None
    facts: Facts = field(default_factory=Facts)
    _n_read: dict[tuple[str, str], int] = field(default_factory=dict)
    _means: dict[tuple[str, str], float] = field(default_factory=dict)
    _cuts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

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

    def note_lengths(self, part: str, lengths: npt.NDArray[np.int64], n_rows: int, side: str = "") -> None:
        """Note the lengths of the sequences, in tokens, that `n_rows` rows of a part (`train`, `test`) are read in.

        `side` names the texts of pairs that are read apart; the mean length of a row is that of all its texts.
        """
        known = self._texts_of(part)
        longest = max(known.longest or 0, int(lengths.max(initial=0)))
        if part not in _PARTS:
            self.remarks[f"longest_{part}_tokens"] = str(longest)
        elif n_rows >= self._n_read.get((part, side), 1):
            self._n_read[part, side] = n_rows
            self._means[part, side] = float(lengths.sum()) / n_rows
            mean = sum(value for (of, _), value in self._means.items() if of == part)
            self._note_texts(part, replace(known, longest=longest, mean=mean))
        else:
            self._note_texts(part, replace(known, longest=longest))

    def note_cut(
        self, part: str, n_cut: int, n_texts: int, end: Literal["left", "right"] = "right", side: str = ""
    ) -> None:
        """Note how many texts of a part lost an end: never silent. `side` is that of `note_lengths`."""
        if n_cut and part in _PARTS:
            self._cuts[part, side] = n_cut, n_texts
            n_cut, n_texts = (
                sum(counts[at] for (of, _), counts in self._cuts.items() if of == part) for at in range(2)
            )
            known = self._texts_of(part)
            self._note_texts(part, replace(known, n_cut=n_cut, n_texts=n_texts, cut_side=end))

    def _texts_of(self, part: str) -> TextLengths:
        return getattr(self.facts, f"{part}_texts", None) or TextLengths()

    def _note_texts(self, part: str, texts: TextLengths) -> None:
        self.state(**{f"{part}_texts": texts})


@dataclass
class Bench:
    """Surroundings of a method in one cell: the task without its test rows, the backbone, the meters.

    Attributes:
        kind: kind of the task.
        n_outputs: number of scores for a row: one per class, or one per choice (the most of any row).
        n_strata: number of groups that draws are stratified by: the classes, or the kind's own.
        max_length: maximum number of tokens of a text.
        label_words: words for each class, in the order of the classes.
        prompt: template of the task's prompts; None where it has none.
        reply: request to a language model; None if answers are not texts.
        measure: function from answers and labels to the task's main metric, turned so that higher is better.
        backbone: the backbone; None for methods that need none.
        tokens, features: stores that all cells of the worker share.
        flops_models: training operations by method and backbone, shared likewise.
        clock, memory, ledger: clock, memory meter and ledger of this cell.
        budget: limits of the fit.
        seed: seed of the cell.
        device: device of the cell.
        report: function to call with the current step, the share of the budget spent and the loss.
        counts_flops: whether to count operations where no budget needs them; otherwise they are taken for 0.
        lone_classes: classes with one training row and no test row. Folds of the training rows never hold that row out.
        ranks_by_scores: whether the main metric ranks rows by their scores, so that no threshold matters.
        rungs: points at which a fit of steps is scored and may be dropped; None for none.
        halvings: batches that did not fit in memory.
        encoded_in: how often batches of encoding were halved when this cell first encoded in a precision.
        served: connection to the served model; None where the backbone is none.
        ending: words of prompts after their input, where long prompts lose the end of that (`Source.ending`).
        chat: whether prompts of written answers are turns of a chat, by the backbone's own template.
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
    ranks_by_scores: bool = False
    rungs: Rungs | None = None
    halvings: Halvings = field(default_factory=Halvings)
    encoded_in: dict[Precision, int] = field(default_factory=dict)
    ending: str | None = None
    chat: bool = False
    served: Connection | None = None

    @property
    def some_served(self) -> Connection:
        """The connection to the served model, for methods that ask one."""
        if self.served is None:
            raise RuntimeError("This cell has no served model.")
        return self.served

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
        room, source = self.some_backbone.max_length - reserved, rows.source
        if self.chat and self.reply is not None and source.prompts is not None:
            source = replace(source, chat=True)
            room -= min(self.reply.max_new_tokens, room // 2)  # a cut would take the end of the template
        tokens = self.tokens.tokens(source, self.kind, self.some_backbone, min(self.max_length, room))
        before, _, part = rows.source.key.rpartition("/")
        is_apart = self.kind.compares_apart and len(rows.source.fields) == 1
        side = before.rpartition("/")[2] if is_apart else ""
        self.ledger.note_lengths(part, tokens.lengths[tokens.sequences(rows.index)], len(rows), side)
        self.ledger.note_cut(part, tokens.n_truncated, tokens.n_rows, self._cut_side(rows.source), side)
        return tokens

    def _cut_side(self, source: Source) -> Literal["left", "right"]:
        """Return the end that texts lose: prompts of a causal model that writes lose their beginning."""
        is_asked = self.kind.form == "text" and source.prompts is not None and source.ending is None
        return "left" if is_asked and self.files.architecture == "causal" else source.cut

    def pooled(
        self,
        rows: Rows,
        phase: Phase,
        policy: PrecisionPolicy,
        *,
        pooling: Pooling | None = None,
        layer: Layer = "last",
        tokenised: bool = False,
        weights: Weights = "auto",
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
            weights: how the frozen weights are stored.

        Returns:
            Shape (rows, width), the mean over its windows where a row is read in several; where answers are choices,
            one vector each: shape (rows, most choices, width), not a number where a row has fewer.

        Raises:
            UsageError: the backbone has no such block; the message says how many it has.
            FloatingPointError: a feature is not finite.
            SmallerBatchesError: these rows needed smaller batches than earlier ones; the cell has to start again.
        """
        tokens, values = self._encoded(
            rows, phase, policy, tokenised=tokenised, pooling=pooling, layer=layer, weights=weights
        )
        counts = tokens.n_sequences(rows.index)
        if self.kind.form in ("spans", "tags") and len(rows):
            sums = np.add.reduceat(values, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
            return np.asarray(sums / counts[:, None], dtype=np.float32)
        if self.kind.form != "choices":
            return values
        packed = np.full((len(rows), self.n_outputs, values.shape[1]), np.nan, dtype=np.float32)
        packed[np.arange(self.n_outputs) < counts[:, None]] = values
        return packed

    def words(
        self,
        rows: Rows,
        phase: Phase,
        policy: PrecisionPolicy,
        *,
        word: Word = "mean",
        layer: Layer = "last",
        tokenised: bool = False,
        weights: Weights = "auto",
    ) -> Floats:
        """Return frozen features of each word, charged to `phase` at what they cost when they were computed.

        They take 4 bytes times the words times the width. The other arguments and the errors are those of `pooled`.

        Args:
            rows: sentences to encode.
            phase: phase to charge.
            policy: precision of the forward pass.
            word: tokens that make up a word's vector: the mean over all of its tokens, or the first one. The mean
                scored 1 to 2 points more for a linear probe on CrossNER with MiniLM.
            layer: layer to read.
            tokenised: whether the fit has been charged for the rows' token ids already.
            weights: how the frozen weights are stored.

        Returns:
            Shape (words, width), the words of all rows one after another. A word is read in the window in which it has
            most context; one without tokens has zeros.
        """
        tokens, values = self._encoded(
            rows, phase, policy, tokenised=tokenised, word=word, layer=layer, weights=weights
        )
        assert tokens.places is not None
        counts, n_words = tokens.n_sequences(rows.index), words_of(rows)
        first = np.repeat(np.cumsum(n_words) - n_words, counts)
        at = [start + tokens.places[w][:, 0] for start, w in zip(first, tokens.sequences(rows.index), strict=True)]
        found = np.zeros((int(n_words.sum()), values.shape[1]), dtype=np.float32)
        if at:
            found[np.concatenate(at)] = values
        return found

    def _encoded(
        self, rows: Rows, phase: Phase, policy: PrecisionPolicy, *, tokenised: bool, weights: Weights, **what: Any
    ) -> tuple[Tokens, Floats]:
        """Return the tokens of the rows' split and the features of the rows' sequences, charged to `phase`."""
        backbone = self.some_backbone
        precision = self.precision(policy)
        self.report("encoding", None, None)
        with self.clock.paused():
            held = backbone.frozen_bytes(precision, weights)
            self._note_weights(held, held)
            tokens = self.tokens_of(rows)
            encoded = self.features.pooled(
                rows.source,
                tokens.sequences(rows.index),
                tokens,
                backbone,
                self.max_length,
                precision,
                weights=weights,
                **what,
            )
        if encoded.halvings != self.encoded_in.setdefault(precision, encoded.halvings):
            raise SmallerBatchesError("Rows of this cell were encoded in batches of different sizes.")
        # A nearest neighbour or a tree would answer from NaN as from any number.
        if not np.isfinite(encoded.values).all():
            raise FloatingPointError(f"Backbone '{backbone.files.name}' gives features that are not finite.")
        seconds = 0.0 if tokenised else tokens.seconds_of(rows.index)
        self.clock.charge(phase, seconds + encoded.seconds)
        self.clock.charge("warmup", encoded.warmup_seconds)
        self.clock.charge("measure", encoded.spare_seconds)
        if encoded.halved is not None:
            self.ledger.remarks["encode_rows"] = halved_remark(*encoded.halved)
        self.memory.note(encoded.peak_rss_above_baseline_bytes, encoded.peak_device_bytes)
        if encoded.reused:
            self.ledger.reused.add("features")
        self.ledger.has_disturbed_features |= encoded.disturbed
        if phase == "encode" and not encoded.fresh:
            self.ledger.computed_all = False
        if phase == "encode":
            if encoded.flops_error is not None:
                self._flops_are_unknown(encoded.flops_error)
            self.ledger.train_flops += encoded.flops
            self.ledger.train_tokens += encoded.tokens
        return tokens, encoded.values

    @property
    def form(self) -> AnswerForm:
        """How a transformer is trained to give answers of the kind's form."""
        from harness.training import answer_form

        own: AnswerForm | None = self.kind.answer_form()
        return own or answer_form(self.kind.form)

    def note_weights(self, model: nn.Module, *, resident: bool = False) -> None:
        """Enter the bytes of the cell's weights, and of those that it shares with other cells, in the ledger.

        Args:
            model: all weights that the cell computes with.
            resident: whether it is the shared, frozen model itself.
        """
        from harness.backbones import weights_bytes

        self._note_weights(*weights_bytes(model, resident=resident))

    def _note_weights(self, total: int, shared: int) -> None:
        ledger = self.ledger
        own = max((ledger.weights_bytes or 0) - (ledger.shared_weights_bytes or 0), total - shared)
        ledger.shared_weights_bytes = max(ledger.shared_weights_bytes or 0, shared)
        ledger.weights_bytes = own + ledger.shared_weights_bytes

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
        from harness.measure import FlopsModel, counted

        if not self.counts_flops and self.budget.train_flops is None:
            return FlopsModel()
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
            found = counted(lambda: FlopsModel(constant=count_flops(run)))
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
        """Count a block for `phase` and say so; tries that ran out of memory are charged to "measure"."""
        self.report(phase, None, None)
        with self.clock.phase(phase), self.halvings.active(self._note_halving):
            yield

    def _note_halving(self, seconds: float) -> None:
        self.clock.set_aside(seconds)
        self.ledger.remarks.update(self.halvings.remarks)
