"""Describe a task: its data, columns, splits and metric, as validated and frozen types.

Only pydantic is imported, so that suites can be listed without loading a data set.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")

Embedded = Literal["docstrings"]
"""Names of data that every machine with Python has; `harness.data.docstrings` builds them."""


def _text_of_label(value: object) -> object:
    """Return a label that YAML read as a number (`[0, 1]`) as its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


LabelName = Annotated[str, BeforeValidator(_text_of_label), Field(min_length=1)]


class _Frozen(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Files(_Frozen):
    """Local files in CSV, JSONL or Parquet format, recognised by their endings.

    Attributes:
        train: path of the rows to train on; relative to the suite's file where a suite names it.
        test: path of the test rows; None holds out a part of `train`.
    """

    train: str = Field(min_length=1)
    test: str | None = Field(default=None, min_length=1)


class DataSource(_Frozen):
    """The source of a task's rows: exactly one of `hub`, `files` and `embedded`.

    Attributes:
        hub: id of a data set on the Hugging Face hub ("SetFit/sst2"), looked up in the mirror first.
        config: configuration of the hub's data set; None for its only one.
        revision: commit of the hub's repository; None if it could not be verified.
        files: local files.
        embedded: data built on this machine.
    """

    hub: str | None = None
    config: str | None = None
    revision: str | None = Field(default=None, min_length=1)
    files: Files | None = None
    embedded: Embedded | None = None

    @field_validator("hub")
    @classmethod
    def _hub_is_an_id(cls, value: str | None) -> str | None:
        # The id becomes a path below the mirror and must not lead out of it.
        if value is not None and not (HUB_ID.fullmatch(value) and ".." not in value):
            raise ValueError(f"'{value}' is not a hub id; expected NAME or OWNER/NAME")
        return value

    @field_validator("config")
    @classmethod
    def _config_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not (_FOLDER_NAME.fullmatch(value) and ".." not in value):
            raise ValueError(f"'{value}' is not the name of a configuration; expected letters, digits, '_', '-', '.'")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSource:
        given = [name for name in ("hub", "files", "embedded") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of hub, files, embedded; got {' and '.join(given) or 'none'}")
        if self.hub is None and (self.config or self.revision):
            raise ValueError("config and revision belong to a hub id; leave them out of files and embedded data")
        return self

    def label(self) -> str:
        """Return a short text for messages: `SetFit/sst2`, `nyu-mll/glue (mrpc)`, `tickets.csv`, `docstrings`."""
        if self.files is not None:
            return self.files.train
        if self.embedded is not None:
            return self.embedded
        return f"{self.hub} ({self.config})" if self.config else str(self.hub)


class Columns(BaseModel):
    """Columns of the data set by the roles of the kind of task (`Kind.roles`).

    Roles beside the two below belong to other kinds (`first`, `question`, `choices`, ...); a kind refuses unknown
    roles.

    Attributes:
        text: column of the text to classify.
        label: column of its label: a name from `label_names`, or an index into them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[str, Field(min_length=1)]]

    text: str = Field(default="text", min_length=1)
    label: str = Field(default="label", min_length=1)

    @property
    def given(self) -> dict[str, str]:
        """Columns by role, for the roles that were set."""
        return {role: getattr(self, role) for role in self.model_fields_set}


class Decoding(_Frozen):
    """Settings of text generation, part of the task's fingerprint: greedy by default, or a beam search.

    Attributes:
        max_new_tokens: maximum length of an answer.
        num_beams: number of beams; 1 is greedy.
        stop: texts that end generation and are cut off; a language model without training on the task rarely ends
            by itself.
    """

    max_new_tokens: int = Field(default=64, ge=1)
    num_beams: int = Field(default=1, ge=1)
    stop: tuple[str, ...] = ()


class Splits(_Frozen):
    """Names of the data set's splits by purpose.

    Attributes:
        train: pool from which training rows are drawn.
        validation: the data set's own validation split. For choosing the project's defaults, never for a cell.
        test: rows to score on; None holds out a part of `train` by a fixed hash.
    """

    train: str = Field(default="train", min_length=1)
    validation: str | None = Field(default=None, min_length=1)
    test: str | None = Field(default="test", min_length=1)


class TaskSpec(_Frozen):
    """One task: a data set with a kind and one main metric. A published task never changes its meaning.

    Attributes:
        name: the task's name; part of a cell's identity.
        kind: name of the kind of task ("classification").
        description: one line about the prediction to make.
        data: source of the rows.
        columns: columns by role.
        splits: splits by purpose.
        label_names: classes in the order of their indices; empty takes those of the training rows, sorted.
        label_columns: columns of 0 and 1, one per label, in place of the role `label`; for several labels a row.
        label_separator: text between the labels of a row where they are joined (`a|b`); None reads lists.
        label_words: each class in everyday words ("a number"), in the order of `label_names`, for methods that read
            them; empty uses the names. If given, they are part of the data's fingerprint.
        metric: name of the main metric; None takes the kind's first.
        max_length: maximum tokens of a text; the rest is cut off, or read in windows.
        truncation_side: end at which a text is cut. `input` is for prompts of written answers: a prompt that is too
            long loses the end of its input, and keeps the words after that (`Summary:`).
        characters: whether a backbone reads the text character by character (the residues of a protein), as words
            of one character.
        prompt: template of the text that a language model reads; fields in braces name input columns
            (`"Question: {question} Answer:"`). None takes the kind's own. It is part of the data's fingerprint, unless
            `prompt_in_configuration`.
        prompt_in_configuration: whether the prompt belongs to the configuration of the methods that read it, and not to
            the data. The cells of other methods then do not depend on it. Not for kinds whose answers are texts.
        decoding: settings of generation, for kinds whose answers are texts.
        test_cap: maximum number of test rows, chosen by a fixed hash; None scores all.
        licence: licence of the data as found, or "not stated".
        citation: publication to cite.
        content: fingerprint (`rows.content_fingerprint`) of the copy that the task was checked on. A different copy is
            noted and not refused, since mirrors may hold subsets.
        content_test_cap: `test_cap` that `content` was taken with; None for the present one.
        backbone: default pretrained transformer of a run; None takes the kind's. Not part of the task's identity.
        chosen_on: whether the project's default settings were chosen on this data set's training and validation rows;
            reports mark such tasks.
        chooses: whether the task's scores choose among settings: they are then no evidence of what methods reach.
        seen_by: backbones known to have been trained on this data set; reports list them.
        overlaps: data sets known to share texts with this one, with a short explanation; reports list them.
        notes: remarks about the data for readers of the results.
        kind_because: reason for which the kind of a user's own data was guessed, as a clause; None if it was named. Not
            part of the task's identity.
        strict: whether to refuse the user's own files that have rows without a text or a label, or classes that cannot
            be scored. Otherwise such rows are left out, and such classes are trained on but not scored. Not part of
            the task's identity: it makes no difference to a file without such rows and classes.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: str = Field(default="classification", min_length=1)
    description: str = ""
    data: DataSource
    columns: Columns = Columns()
    splits: Splits = Splits()
    label_names: tuple[LabelName, ...] = ()
    label_columns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    label_separator: str | None = Field(default=None, min_length=1)
    label_words: tuple[str, ...] = ()
    metric: str | None = Field(default=None, min_length=1)
    max_length: int = Field(default=128, ge=1)
    truncation_side: Literal["right", "left", "input"] = "right"
    characters: bool = False
    prompt: str | None = Field(default=None, min_length=1)
    prompt_in_configuration: bool = False
    decoding: Decoding | None = None
    test_cap: int | None = Field(default=2000, ge=1)
    licence: str = "not stated"
    citation: str | None = None
    content: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    content_test_cap: int | None = Field(default=None, ge=1)
    backbone: str | None = Field(default=None, min_length=1)
    chosen_on: bool = False
    chooses: bool = False
    seen_by: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    notes: str | None = None
    kind_because: str | None = None
    strict: bool = False

    @model_validator(mode="after")
    def _words_for_every_label(self) -> TaskSpec:
        if self.label_words and len(self.label_words) != len(self.label_names):
            raise ValueError(
                f"label_words names {len(self.label_words)} classes and label_names {len(self.label_names)}; "
                "expected one each, in the same order"
            )
        if len(set(self.label_words)) != len(self.label_words):
            raise ValueError("label_words names two classes alike")
        return self

    @field_validator("label_names")
    @classmethod
    def _labels_are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(name for name, count in Counter(value).items() if count > 1)
        if twice:
            raise ValueError(f"'{twice[0]}' is named twice")
        if len(value) == 1:
            raise ValueError("expected at least two labels, or none to take them from the training rows")
        return value
