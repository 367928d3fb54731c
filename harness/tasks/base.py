"""The contract between kinds of task and the rest of the harness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.backbones import DEFAULT_BACKBONE
from harness.data import TaskSpec
from harness.records import Predictions, Score
from harness.support import Registry
from harness.tasks.toys import Toys

if TYPE_CHECKING:
    from harness.backbones import Backbone

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[Any]
"""Labels of rows, shape (rows,): class indices (int64) of classes, the index of the right choice, the
answers of a question (objects), or a text (objects)."""

Form: TypeAlias = str
"""Name of the form of an answer, which decides what stands on top of a backbone. A method says which it serves; a kind
has one: one of `FORMS`, or one of its own, which it then brings (`Kind.answer_form`)."""

FORMS: Mapping[Form, str] = {
    "classes": "one of several classes",
    "choices": "one of a row's own choices",
    "spans": "a part of the text",
    "text": "a text of its own",
}
"""The harness's own forms of answers, in words for messages. On top of a backbone they need:

- `classes`: one score a class, from one vector a row;
- `choices`: one score a choice, from one vector for each choice of a row;
- `spans`: two scores a token, of being an answer's first and its last;
- `text`: tokens, from the backbone's own language-modelling head."""


@dataclass(frozen=True, eq=False)
class Source:
    """The inputs of one split, without its labels; encoding and predicting see nothing else.

    Attributes:
        key: identity of the split's content, for caches (`<data fingerprint>/train`).
        texts: one text per row: the whole input, for methods that read words.
        fields: the inputs by the kind's roles, one value per row; just the texts where there is nothing else. Where
            answers are choices, `choices` has the texts of each row's; where they are spans, `context` the text that
            they are parts of.
        prompts: prompts for a language model, one per row; None where the task has none.
        cut: end at which a text that is too long is cut.
        characters: whether a backbone reads the characters of a text as words.
    """

    key: str
    texts: Sequence[str]
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    prompts: Sequence[str] | None = None
    cut: Literal["right", "left"] = "right"
    characters: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, n_rows: int) -> Source:
        """Return the first rows alone, as a split of their own."""
        return replace(
            self,
            key=f"{self.key}/first {n_rows}",
            texts=self.texts[:n_rows],
            fields={role: values[:n_rows] for role, values in self.fields.items()},
            prompts=None if self.prompts is None else self.prompts[:n_rows],
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a split, in an order. `labels` is None for test rows, whose labels no method may see.

    Attributes:
        source: the split that they belong to.
        index: positions in the split, shape (rows,).
        labels: labels, shape (rows,), or None.
        strata: groups for stratified draws, shape (rows,): the class, or zeros; None with `labels`.
    """

    source: Source
    index: Ints
    labels: Labels | None = None
    strata: Ints | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def texts(self) -> list[str]:
        """One text per row."""
        return [self.source.texts[position] for position in self.index]

    @property
    def known_labels(self) -> Labels:
        """The labels, where they may be seen; a method that asks for those of test rows has a bug."""
        if self.labels is None:
            raise RuntimeError("These rows come without labels: nothing about test rows is seen before predicting.")
        return self.labels

    @property
    def known_strata(self) -> Ints:
        """Groups for stratified draws and validation splits: the class, where the labels are classes."""
        labels = self.known_labels
        return labels if self.strata is None else self.strata

    def take(self, positions: Ints) -> Rows:
        """Return the rows at `positions` of these, in that order."""
        return Rows(
            self.source,
            self.index[positions],
            None if self.labels is None else self.labels[positions],
            None if self.strata is None else self.strata[positions],
        )

    def without_labels(self) -> Rows:
        """Return the same rows as a method predicts them."""
        return Rows(self.source, self.index)


@dataclass(frozen=True)
class Reply:
    """Request to a language model, for kinds whose answers are texts.

    Attributes:
        max_new_tokens: longest answer, its end included.
        num_beams: of a beam search; 1 is greedy.
        stop: texts that end an answer, and are no part of it.
        wants_likelihood: whether the model is asked for the likelihood of the text, and not to write one.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    wants_likelihood: bool = False


@dataclass(frozen=True, eq=False)
class Task:
    """A task that is ready to run: rows loaded, checked, deduplicated and capped.

    Attributes:
        spec: its entry in the suite, completed by the kind.
        kind: its kind.
        data: fingerprint of rows, labels and metric; part of a cell's identity.
        label_names: names of the classes, in the order of their indices; empty where labels are no classes.
        n_outputs: scores that are predicted for a row: one a class, or one a choice (the most that any row has); 0
            where answers are texts.
        train: the pool that training rows are drawn from; train_labels, train_strata and train_digests go with it.
        test: the test rows, capped, in a fixed order; test_labels goes with it.
        test_rows: fingerprint of the test rows and their order.
        n_test_available: test rows there were before the cap.
        provenance: origin of the rows, and counts of dropped rows.
        prompt: template of the sources' prompts; None where they have none.
        reply: request to a language model; None where it is not asked for a text.
        train_index, test_index: positions in `train` and `test` of the rows that are the task's; None is all. Tasks
            that are made of one split's rows share what is computed of them.
        class_rows: rows of each class in the source, test rows included, before copies are dropped and the cap.
        unscored: indices of the classes of a user's table that no test row has; they are trained on.
    """

    spec: TaskSpec
    kind: Kind
    data: str
    label_names: tuple[str, ...]
    n_outputs: int
    train: Source
    train_labels: Labels
    train_strata: Ints
    train_digests: Sequence[bytes]
    test: Source
    test_labels: Labels
    test_rows: str
    n_test_available: int
    provenance: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    reply: Reply | None = None
    train_index: Ints | None = None
    test_index: Ints | None = None
    class_rows: tuple[int, ...] = ()
    unscored: tuple[int, ...] = ()

    @property
    def pool_index(self) -> Ints:
        """Positions in `train` of the pool, in its order."""
        return np.arange(len(self.train), dtype=np.int64) if self.train_index is None else self.train_index

    @property
    def test_rows_to_predict(self) -> Rows:
        """The test rows, without labels."""
        every = self.test_index is None
        return Rows(self.test, np.arange(len(self.test), dtype=np.int64) if every else self.test_index)  # type: ignore[arg-type]

    @property
    def n_test(self) -> int:
        """Test rows that are scored."""
        return len(self.test_labels)

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    @property
    def metric(self) -> str:
        """Name of the main metric."""
        assert self.spec.metric is not None  # `Kind.resolve` fills it in
        return self.spec.metric

    @property
    def lone_classes(self) -> tuple[int, ...]:
        """Indices of the unscored classes with a single training row, which is trained on in every fold."""
        counts = np.bincount(self.train_strata, minlength=self.n_strata)
        return tuple(label for label in self.unscored if counts[label] == 1)

    @property
    def n_strata(self) -> int:
        """Number of groups for stratified draws: the classes, or one."""
        return max(1, len(self.label_names))

    @property
    def label_words(self) -> tuple[str, ...]:
        """Each class in words: the suite's, where the names of the classes are no words; else their names."""
        return self.spec.label_words or self.label_names


@dataclass(frozen=True, eq=False)
class Sequences:
    """The token ids of a split's rows, as a backbone reads them.

    Attributes:
        ids: of each sequence, special tokens included. Tokens of a second segment (the second text of a pair) are
            written as `-1 - id`, where the backbone tells segments apart; `features.tokens.pad` reads that.
        first: position of each row's first sequence, and of the end; shape (rows + 1,). None where each row is one.
        n_truncated: rows that were cut.
        places: of each sequence, which characters of the row's context each token stands for: shape (tokens, 2), -1
            for tokens that are not of the context. Only where answers are spans.
    """

    ids: Sequence[Sequence[int]]
    n_truncated: int
    first: Ints | None = None
    places: Sequence[npt.NDArray[np.int32]] | None = None


@dataclass(frozen=True, eq=False)
class TextAnswers:
    """Answers that are texts.

    Attributes:
        texts: one a row.
        confidence: between 0 and 1, shape (rows,); None where there is none.
        n_cut: answers that ended because they had reached the longest length allowed.
    """

    texts: Sequence[str]
    confidence: Floats | None = None
    n_cut: int = 0


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """Likelihoods of texts under a language model.

    Attributes:
        nll: minus the log-likelihood of each row's text, in nats, shape (rows,), float64.
        n_tokens: tokens that it is the sum over, shape (rows,).
    """

    nll: npt.NDArray[np.float64]
    n_tokens: Ints


Answers: TypeAlias = Floats | TextAnswers | Likelihoods
"""Answers of a fitted method for some rows: probabilities of shape (rows, outputs) for classes and choices, texts for
spans and generated text, likelihoods where a text's own likelihood is asked for."""


class Kind(ABC):
    """One kind of task. A new kind is a new file in this package that registers an instance.

    Methods do not know tasks and tasks do not know methods: what differs between kinds is the form of their answers,
    how a row becomes tokens, and how answers are decoded and scored.

    Class attributes:
        name: name in suites and records.
        form: form of its answers.
        reads_pairs: whether a sequence is made of two texts, so that a backbone may be told which a token is of.
        roles: purposes of its columns, each with the column's default name; an empty name has to be given, None may
            be left out.
        asks_for: the answers in words, for messages; has to be given for a form that is none of `FORMS`.
        main_metric: name of the metric that a task has unless it names another of `metrics`.
        likelihood_metrics: main metrics that need the likelihood of a text, and no answer.
        backbone: default backbone: a small pretrained transformer that serves it.
    """

    name: ClassVar[str]
    form: ClassVar[Form]
    asks_for: ClassVar[str] = ""
    reads_pairs: ClassVar[bool] = False
    roles: ClassVar[Mapping[str, str | None]]
    main_metric: ClassVar[str]
    likelihood_metrics: ClassVar[frozenset[str]] = frozenset()
    backbone: ClassVar[str] = DEFAULT_BACKBONE

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that may be a task's main one: the default, then those that say so, by name."""
        from harness.metrics import metrics

        others = [spec.name for spec in metrics if spec.scores & {self.name, self.form}]
        return tuple(dict.fromkeys([self.main_metric, *others]))

    @abstractmethod
    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Return the spec with its open settings filled in.

        Raises:
            UsageError: it has a setting that this kind does not use; the message names the key and what is accepted.
        """

    @abstractmethod
    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load and check the task's rows.

        Raises:
            DataError: a row breaks the kind's rules; the message names it.
            MissingResourceError: the data set is not available.
        """

    @abstractmethod
    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a made-up row by role, whose answer can be learned; contract tests are made of such rows."""

    @abstractmethod
    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Return the token ids of each row: special tokens included, at most `max_length` a sequence."""

    @abstractmethod
    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse answers of another shape or type, or answers that are not finite.

        Raises:
            ValueError, FloatingPointError: a bug of the method, or a fit that has diverged.
        """

    @abstractmethod
    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the part of the answers to the test rows that records store."""

    @abstractmethod
    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric of the test rows, its interval, and further metrics."""

    @abstractmethod
    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of any rows, in its own direction."""

    def answer_form(self) -> Any:
        """Return a `harness.training.AnswerForm`: head, loss and prediction of methods that train a transformer.

        None takes the harness's own for `form`. A kind whose form is none of `FORMS` has to return one. Another kind
        may, if its answers are those of its form.
        """
        return None

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the label of each row as a language model would write it."""
        return [label_words[label] for label in rows.known_labels]

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return the mean of minus the log-probability of the label, in nats; None without probabilities."""
        return None


def _why_no_kind(member: Any) -> str | None:
    """Return the reason why an object is no kind that can be listed and run; None if it is one."""
    if not isinstance(member, Kind):
        return f"{member!r:.80} is no kind of task"
    missing = [name for name in ("name", "form", "roles", "main_metric") if not hasattr(member, name)]
    if not missing and member.form not in FORMS and (member.answer_form() is None or not member.asks_for):
        missing = ["answer_form and asks_for, which its form needs"]
    return f"{type(member).__name__} does not say its {', '.join(missing)}" if missing else None


kinds: Registry[Kind] = Registry(
    "kind of task",
    "harness.tasks",
    group="harness.kinds",
    expected="an instance of a subclass of harness.tasks.Kind",
    why_not=_why_no_kind,
)
