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
from harness.tasks._wordings import PLAIN, PromptWording
from harness.tasks.toys import Toys

if TYPE_CHECKING:
    from harness.backbones import Backbone

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[Any]
"""Labels of rows, first axis rows: class indices or indices of right choices (int64), answers to questions or texts
(objects), numbers (float64), 0 or 1 for each label (uint8, shape (rows, labels)), or arrays of tags (objects)."""

Form: TypeAlias = str
"""Name of the form of an answer, which decides the head on top of a backbone.

A method declares the forms that it serves. A kind has one form: one of `FORMS`, or its own, which `Kind.answer_form`
then returns.
"""

FORMS: Mapping[Form, str] = {
    "classes": "one of several classes",
    "choices": "one of a row's own choices",
    "spans": "a part of the text",
    "text": "a text of its own",
    "number": "a number",
    "labels": "any number of labels",
    "tags": "a tag for each word",
}
"""The harness's own forms of answers, with descriptions for messages. They need on top of a backbone:

- `classes`: one score per class, from one vector per row;
- `choices`: one score per choice, from one vector for each choice of a row;
- `spans`: two scores per token, for the first and the last token of an answer;
- `text`: tokens, from the backbone's own language-modelling head;
- `number`: one number, from one vector per row;
- `labels`: one score per label, from one vector per row;
- `tags`: one score per tag, from a vector for each word of a row."""


@dataclass(frozen=True, eq=False)
class Source:
    """The inputs of one split, without its labels; encoding and predicting see nothing else.

    Attributes:
        key: identity of the split's content, for caches (`<data fingerprint>/train`).
        texts: one text per row: the whole input, for methods that read words.
        fields: the inputs by the kind's roles, one value per row; only the texts if there is nothing else. For choices,
            `choices` holds the texts of each row's choices. For spans, `context` holds the text that contains them. For
            tags, `tokens` holds tuples of words.
        prompts: prompts for a language model, one per row; None where the task has none.
        cut: end at which a text that is too long is cut.
        ending: words after the input of every prompt; a prompt that is too long loses the end of its input, and keeps
            these. None cuts prompts of causal models at their beginning.
        chat: whether prompts are tokenized as the user's turns of a chat, by the backbone's own template.
        characters: whether a backbone reads the characters of a text as words.
    """

    key: str
    texts: Sequence[str]
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    prompts: Sequence[str] | None = None
    cut: Literal["right", "left"] = "right"
    characters: bool = False
    ending: str | None = None
    chat: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Ints) -> Source:
        """Return a split of only the rows at some positions; its key is no key of a cache."""
        part = self.key.rpartition("/")[2]
        return replace(
            self,
            key=f"{self.key}/taken/{part}",
            texts=[self.texts[at] for at in positions],
            fields={role: [values[at] for at in positions] for role, values in self.fields.items()},
            prompts=None if self.prompts is None else [self.prompts[at] for at in positions],
        )

    def first(self, n_rows: int) -> Source:
        """Return a split of only the first rows."""
        return replace(
            self,
            key=f"{self.key}/first {n_rows}",
            texts=self.texts[:n_rows],
            fields={role: values[:n_rows] for role, values in self.fields.items()},
            prompts=None if self.prompts is None else self.prompts[:n_rows],
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a split, in an order. Test rows have no `labels`, since no method may see them.

    Attributes:
        source: split that the rows belong to.
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
    def parts(self) -> tuple[list[str], ...]:
        """The texts of the rows as people read them: one list, or two for pairs."""
        fields = self.source.fields
        columns = [fields["first"], fields["second"]] if set(fields) == {"first", "second"} else [self.source.texts]
        return tuple([str(values[position]) for position in self.index] for values in columns)

    @property
    def known_labels(self) -> Labels:
        """Labels of the rows; a method that reads those of test rows has a bug."""
        if self.labels is None:
            raise RuntimeError("These rows come without labels: nothing about test rows is seen before predicting.")
        return self.labels

    @property
    def known_strata(self) -> Ints:
        """Groups for stratified draws and validation splits: the classes, if the labels are classes."""
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
        """Return the same rows without labels, for prediction."""
        return Rows(self.source, self.index)


@dataclass(frozen=True)
class Reply:
    """Request to a language model, for kinds whose answers are texts.

    Attributes:
        max_new_tokens: maximum number of tokens of an answer, its end included.
        num_beams: number of beams; 1 is greedy.
        stop: texts that end an answer and are not part of it. An answer that begins with one is empty, as on servers.
        wants_likelihood: whether to return the likelihood of the text instead of writing one.
        end_ids: further tokens that end an answer, such as the one that ends a turn of a chat.
    """

    max_new_tokens: int = 64
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    wants_likelihood: bool = False
    end_ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Task:
    """A task that is ready to run: rows loaded, checked, deduplicated and capped.

    Attributes:
        spec: its entry in the suite, completed by the kind.
        kind: its kind.
        data: fingerprint of rows, labels and metric; part of a cell's identity.
        label_names: names of the classes, labels or tags, in the order of their indices; empty for other answers.
        n_outputs: number of scores to predict for a row: one per class or label, one per choice (the largest number of
            any row), one per tag for each word, or one number; 0 if answers are texts.
        train: pool of training rows; train_labels, train_strata and train_digests belong to it.
        test: test rows, capped, in a fixed order; test_labels belongs to it.
        test_rows: fingerprint of the test rows and their order.
        n_test_available: number of test rows before the cap.
        provenance: origin of the rows, and counts of dropped rows.
        prompt: template of the sources' prompts; None without prompts.
        reply: request to a language model; None if the answers are not texts.
        train_index, test_index: positions of the task's rows in `train` and `test`; None is all. Tasks on rows of one
            split share its tokens and features.
        class_rows: rows of each class in the source, test rows included, before dropping copies and capping.
        unscored: indices of classes of a user's table without test rows; they are trained on.
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
        """Number of scored test rows."""
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
        """Indices of unscored classes with a single training row, which every fold trains on."""
        counts = np.bincount(self.train_strata, minlength=self.n_strata)
        return tuple(label for label in self.unscored if counts[label] == 1)

    @property
    def n_strata(self) -> int:
        """Number of groups for stratified draws: the classes, or the kind's own groups (`Kind.strata`)."""
        if self.has_classes:
            return max(1, len(self.label_names))
        return int(self.train_strata.max(initial=0)) + 1

    @property
    def has_classes(self) -> bool:
        """Whether each row has one of the classes `label_names`."""
        return bool(self.label_names) and self.kind.form not in ("labels", "tags")

    @property
    def label_words(self) -> tuple[str, ...]:
        """Words for each class: the suite's `label_words`, else the names of the classes."""
        return self.spec.label_words or self.label_names


@dataclass(frozen=True, eq=False)
class Sequences:
    """The token ids of a split's rows, as a backbone reads them.

    Attributes:
        ids: token ids of each sequence, special tokens included. If the backbone distinguishes segments, tokens of the
            second segment (the second text of a pair) are written as `-1 - id`; `features.tokens.pad` reads this.
        first: position of each row's first sequence, and of the end; shape (rows + 1,). None if each row is one
            sequence.
        n_truncated: number of rows that were cut.
        places: for answers that are spans, the start and end in the row's context of each token of a sequence: shape
            (tokens, 2), -1 for tokens outside the context. For tags, the words that are predicted in each sequence:
            shape (words, 3), with the word's position in its row, its first token, and the token behind its last.
    """

    ids: Sequence[Sequence[int]]
    n_truncated: int
    first: Ints | None = None
    places: Sequence[npt.NDArray[np.int32]] | None = None


@dataclass(frozen=True, eq=False)
class TextAnswers:
    """Answers that are texts.

    Attributes:
        texts: one text per row.
        confidence: confidence between 0 and 1, shape (rows,); None if unknown.
        n_cut: number of answers that ended at the maximum length.
    """

    texts: Sequence[str]
    confidence: Floats | None = None
    n_cut: int = 0


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """Likelihoods of texts under a language model.

    Attributes:
        nll: negative log-likelihood of each row's text, in nats, shape (rows,), float64.
        n_tokens: number of tokens that it sums over, shape (rows,).
    """

    nll: npt.NDArray[np.float64]
    n_tokens: Ints


@dataclass(frozen=True, eq=False)
class Unscaled:
    """Numbers that order rows as the target does, on no scale of the target: errors in its units are not defined.

    Attributes:
        values: one number per row, shape (rows,), float32.
    """

    values: Floats


Answers: TypeAlias = Floats | TextAnswers | Likelihoods | Unscaled
"""Answers of a fitted method for some rows, by the form of answers:

- classes and choices: probabilities of shape (rows, outputs);
- number: estimates in the target's units, shape (rows, 1), or `Unscaled` ones;
- labels: scores from 0 to 1, shape (rows, labels); a label is given where its score is at least 0.5;
- tags: probabilities of shape (words, tags), the words of all rows one after another;
- spans and text: `TextAnswers`, or `Likelihoods` if the task scores the likelihood of texts."""


class Kind(ABC):
    """One kind of task. A new kind is a new file in this package that registers an instance.

    Methods and tasks do not depend on each other. Kinds differ in the form of their answers, in how a row becomes
    tokens, and in how answers are decoded and scored.

    Class attributes:
        name: name in suites and records.
        form: form of its answers.
        reads_pairs: whether a sequence consists of two texts, whose segments a backbone may distinguish.
        compares_apart: whether methods on frozen features encode the two texts of a row apart (`sides`).
        roles: roles of its columns, each with the column's default name. An empty name means that the column is
            required, None that it is optional.
        asks_for: description of the answers, for messages; required for a form that is not one of `FORMS`.
        main_metric: name of the default main metric; a task may name another of `metrics`.
        likelihood_metrics: main metrics of the likelihood of a text, which need no answer.
        backbone: default backbone: a small pretrained transformer that serves it.
    """

    name: ClassVar[str]
    form: ClassVar[Form]
    asks_for: ClassVar[str] = ""
    reads_pairs: ClassVar[bool] = False
    compares_apart: ClassVar[bool] = False
    roles: ClassVar[Mapping[str, str | None]]
    main_metric: ClassVar[str]
    likelihood_metrics: ClassVar[frozenset[str]] = frozenset()
    backbone: ClassVar[str] = DEFAULT_BACKBONE

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that may be a task's main one: the default, then others for this kind, by name."""
        from harness.metrics import metrics

        others = [spec.name for spec in metrics if spec.scores & {self.name, self.form}]
        return tuple(dict.fromkeys([self.main_metric, *others]))

    @abstractmethod
    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Return the spec with its open settings filled in.

        Raises:
            UsageError: it has a setting that this kind does not use; the message names the key and accepted ones.
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
        """Return a made-up row by role, whose answer can be learned. Contract tests use such rows."""

    @abstractmethod
    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Return the token ids of each row: special tokens included, at most `max_length` per sequence."""

    def n_answers(self, rows: Rows) -> int:
        """Return the number of answers to some rows: one a row, unless a kind has several."""
        return len(rows)

    @abstractmethod
    def check(self, task: Task, answers: Answers, n_rows: int) -> None:
        """Refuse answers of another shape or type, or answers that are not finite.

        Args:
            task: the task.
            answers: answers to some rows.
            n_rows: number of answers to expect (`n_answers`).

        Raises:
            ValueError, FloatingPointError: a bug in the method, or a diverged fit.
        """

    @abstractmethod
    def decode(self, task: Task, answers: Answers) -> Predictions:
        """Return the predictions to store in records, from the answers to the test rows."""

    @abstractmethod
    def score(self, task: Task, predictions: Predictions) -> Score:
        """Return the main metric of the test rows, its interval, and further metrics."""

    @abstractmethod
    def measure(self, task: Task, answers: Answers, labels: Labels) -> float:
        """Return the task's main metric of some rows, in its own direction."""

    def sides(self, rows: Rows) -> tuple[Rows, ...]:
        """Return the rows as methods on frozen features encode them: as they are, or each text of a pair apart."""
        return (rows,)

    def strata(self, labels: Labels, names: Sequence[str] = ()) -> Ints:
        """Return the group of each row for stratified draws where labels are no classes, shape (rows,).

        Args:
            labels: labels of the whole pool, first axis rows.
            names: names of the labels or tags (`Task.label_names`).
        """
        return np.zeros(len(labels), dtype=np.int64)

    def validation_groups(self, strata: Ints) -> Ints:
        """Return the groups of drawn rows by which folds and validation rows are dealt, shape (rows,): the strata.

        Rows of each group are dealt in turn, in the order drawn, so that few rows of many groups leave nothing to
        validate on. A kind whose strata may be many and small returns zeros: the draw is stratified already.
        """
        return strata

    def remarks(self, rows: Rows, n_outputs: int) -> dict[str, str]:
        """Return remarks on the drawn training rows for a record, by name."""
        return {}

    def answer_form(self) -> Any:
        """Return a `harness.training.AnswerForm`: head, loss and prediction of methods that train a transformer.

        None takes the harness's own for `form`. A kind whose form is not one of `FORMS` must return one. Another kind
        may, if its answers have its form.
        """
        return None

    def in_words(self, rows: Rows, label_words: Sequence[str]) -> list[str]:
        """Return the label of each row as a language model would write it."""
        return [label_words[label] for label in rows.known_labels]

    def question(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[str, Reply] | None:
        """Return what to ask a language model where it writes answers that are no texts; None for other kinds.

        Args:
            names: names of the labels or tags.
            is_shown: whether demonstrations show answers. Without them, the question also states the scale of a number
                where the kind has one.

        Returns:
            A template with `{text}` for the row's text, and the settings of generation.
        """
        return None

    def wordings(self, names: Sequence[str], *, is_shown: bool = True) -> tuple[PromptWording, ...]:
        """Return how a language model may be asked about a row where the task has no prompt of its own.

        The first one is the default. Methods that look at labels may choose among them (`few-shot`).

        Args:
            names: the classes, labels or tags in words.
            is_shown: as for `question`.
        """
        asked = self.question(names, is_shown=is_shown)
        return (PLAIN if asked is None else PromptWording("", asked[0]),)

    def wordings_beside(
        self, prompt: str | None, names: Sequence[str], *, is_shown: bool = True
    ) -> tuple[PromptWording, ...]:
        """Return the wordings that a task leaves to choose from: the kind's; none where the task has its own prompt.

        Args:
            prompt: the task's prompt; None without one. The kind's first wording is no prompt of its own.
            names: as for `wordings`.
            is_shown: as for `question`.
        """
        known = self.wordings(names, is_shown=is_shown)
        return known if prompt in (None, known[0].template) else ()

    def schema(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the JSON schema of a written answer; None where the answer is a text, a class or a choice.

        `read_replies` reads answers of this schema as well as plain ones. The root is an object whose keys are all
        required, since servers accept no other.

        Args:
            names: names of the labels or tags.
        """
        return None

    def read_replies(
        self, texts: Sequence[str], rows: Rows, names: Sequence[str], shown: Sequence[str] = ()
    ) -> tuple[Answers, int]:
        """Return the answers that written ones stand for, and the number of those that could not be read.

        Args:
            texts: written answers, one a row: plain, or JSON of the `schema`, in a code fence or not.
            rows: the rows.
            names: names of the labels or tags.
            shown: answers of the demonstrations, as `in_words` writes them.

        Raises:
            UnreadableError: too few answers could be read.
        """
        if self.form in ("text", "spans"):
            return TextAnswers(list(texts)), 0
        raise NotImplementedError(f"Language models write no answers to {self.name} tasks.")

    def log_loss(self, answers: Answers, labels: Labels) -> float | None:
        """Return the mean negative log-probability of the label, in nats; None without probabilities."""
        return None


def _why_no_kind(member: Any) -> str | None:
    """Return the reason why an object is not a valid kind; None if it is one."""
    if not isinstance(member, Kind):
        return f"{member!r:.80} is not a kind of task"
    missing = [name for name in ("name", "form", "roles", "main_metric") if not hasattr(member, name)]
    if not missing and member.form not in FORMS and (member.answer_form() is None or not member.asks_for):
        missing = ["answer_form and asks_for, which its form needs"]
    return f"{type(member).__name__} does not define {', '.join(missing)}" if missing else None


kinds: Registry[Kind] = Registry(
    "kind of task",
    "harness.tasks",
    group="harness.kinds",
    expected="an instance of a subclass of harness.tasks.Kind",
    why_not=_why_no_kind,
)
