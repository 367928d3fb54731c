"""What a task is: the data, the columns, the splits and the metric, as validated and frozen types.

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
"""Data that every machine with Python has; `harness.data.docstrings` builds them."""


def _text_of_label(value: object) -> object:
    """A label may be written as a number in YAML (`[0, 1]`); its name is then its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


LabelName = Annotated[str, BeforeValidator(_text_of_label), Field(min_length=1)]


class _Frozen(BaseModel):
    """An immutable model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Files(_Frozen):
    """Local files, CSV, JSONL or Parquet by their endings.

    Attributes:
        train: path of the rows to train on; relative to the suite's file where a suite names it.
        test: path of the test rows; None holds out a part of `train`.
    """

    train: str = Field(min_length=1)
    test: str | None = Field(default=None, min_length=1)


class DataSource(_Frozen):
    """Where a task's rows come from: exactly one of `hub`, `files` and `embedded`.

    Attributes:
        hub: id of a data set on the Hugging Face hub ("SetFit/sst2"), looked up in the mirror first.
        config: configuration of the hub's data set; None for its only one.
        revision: commit of the hub's repository. None where it could not be verified: never invented.
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
        # The id becomes a path below the mirror, so it must not be able to leave it.
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
        """A short text for messages: `SetFit/sst2`, `nyu-mll/glue (mrpc)`, `tickets.csv`, `docstrings`."""
        if self.files is not None:
            return self.files.train
        if self.embedded is not None:
            return self.embedded
        return f"{self.hub} ({self.config})" if self.config else str(self.hub)


class Columns(BaseModel):
    """Which column of the data set holds what, by the roles that the kind of task has (`Kind.roles`).

    Roles beside the two below are for other kinds (`first`, `question`, `choices`, ...); the kind refuses one that it
    does not know.

    Attributes:
        text: the text to classify.
        label: its label: a name out of `label_names`, or an index into them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[str, Field(min_length=1)]]

    text: str = Field(default="text", min_length=1)
    label: str = Field(default="label", min_length=1)

    @property
    def given(self) -> dict[str, str]:
        """Column by role, of the roles that were named."""
        return {role: getattr(self, role) for role in self.model_fields_set}


class Decoding(_Frozen):
    """How a text is generated. Greedy, unless more than one beam is asked for; part of the task's fingerprint.

    Attributes:
        max_new_tokens: longest answer.
        num_beams: of a beam search; 1 is greedy.
        stop: generation ends where one of these texts appears, which is cut off: a language model that was not
            trained on the task goes on and on.
    """

    max_new_tokens: int = Field(default=64, ge=1)
    num_beams: int = Field(default=1, ge=1)
    stop: tuple[str, ...] = ()


class Splits(_Frozen):
    """Which split of the data set plays which part.

    Attributes:
        train: the pool that training rows are drawn from.
        validation: the data set's own validation split. For choosing the project's defaults, never for a cell.
        test: the rows to score on; None holds out a part of `train` by a fixed hash.
    """

    train: str = Field(default="train", min_length=1)
    validation: str | None = Field(default=None, min_length=1)
    test: str | None = Field(default="test", min_length=1)


class TaskSpec(_Frozen):
    """One task: a data set with a kind and one main metric. A published task never changes its meaning.

    Attributes:
        name: the task's name; part of a cell's identity.
        kind: name of the kind of task ("classification").
        description: one line on what is to be predicted.
        data: where the rows come from.
        columns: which column holds what.
        splits: which split plays which part.
        label_names: the classes, in the order of their indices; empty means those of the training rows, sorted.
        label_words: each class in words that a person would use ("a number"), in the order of `label_names`, for
            methods that read them; empty where the names serve. Where they are given, they are part of the data's
            fingerprint.
        metric: name of the main metric; None takes the kind's first.
        max_length: tokens of a text that a method reads; what is beyond is cut off, or read in windows.
        truncation_side: at which end a text is cut.
        characters: whether a backbone reads the text character by character (the residues of a protein), as words
            of one character.
        prompt: template by which a row becomes what a language model reads; fields in braces name input columns
            (`"Question: {question} Answer:"`). None takes the kind's own. It is part of the data's fingerprint.
        decoding: how a language model's answer is generated, for kinds whose answers are texts.
        test_cap: test rows to score at most, chosen by a fixed hash; None scores all.
        licence: of the data, as found; "not stated" where nothing was.
        citation: the publication to cite.
        content: fingerprint (`rows.content_fingerprint`) of the copy that the task was checked on. Another copy is
            noted and not refused, since mirrors may hold subsets.
        backbone: the pretrained transformer that a run takes where nobody names one; None takes the kind's. No part of
            the task's identity.
        chosen_on: whether the project's default settings were chosen on this data set's training and validation rows;
            reports mark such tasks.
        chooses: whether the task's scores choose among settings: they are then no evidence of what methods reach.
        seen_by: backbones that are known to have been trained on this data set; reports say so.
        overlaps: data sets that are known to share texts with this one, with a word on how; reports say so.
        notes: what a reader of the results should know about the data.
        strict: whether rows of the user's own files without a text or a label, and classes that cannot be scored, are
            refused. Otherwise such rows are left out, and such classes are trained on and not scored. No part of the
            task's identity: both ways of reading a file that has neither are the same.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    kind: str = Field(default="classification", min_length=1)
    description: str = ""
    data: DataSource
    columns: Columns = Columns()
    splits: Splits = Splits()
    label_names: tuple[LabelName, ...] = ()
    label_words: tuple[str, ...] = ()
    metric: str | None = Field(default=None, min_length=1)
    max_length: int = Field(default=128, ge=1)
    truncation_side: Literal["right", "left"] = "right"
    characters: bool = False
    prompt: str | None = Field(default=None, min_length=1)
    decoding: Decoding | None = None
    test_cap: int | None = Field(default=2000, ge=1)
    licence: str = "not stated"
    citation: str | None = None
    content: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    backbone: str | None = Field(default=None, min_length=1)
    chosen_on: bool = False
    chooses: bool = False
    seen_by: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()
    notes: str | None = None
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
