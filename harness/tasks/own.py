"""Find the kind of task of a user's own data, and the columns of its roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.data import (
    FileRows,
    Files,
    MissingColumnError,
    TextColumns,
    file_rows,
    guess_kind,
    label_columns,
    text_columns,
)
from harness.support import DataError, UsageError, checked_text
from harness.support import text as wording
from harness.tasks._prepare import template_fields
from harness.tasks.base import Kind, kinds

LabelColumns: TypeAlias = str | Sequence[str]
"""The column of labels, or several columns of 0 and 1: `billing,post`, or a sequence of names."""

CLASS_KINDS = ("classification", "text-pair")
"""Kinds whose rows are a table of texts and classes (`data.table_task`)."""

_DEFAULT_TEXT, _DEFAULT_LABEL = "text", "label"


@dataclass(frozen=True)
class OwnColumns:
    """The columns of a user's own data.

    Attributes:
        kind: kind of the task.
        roles: column of each role, the inputs first; without the role of the answer if there are several `labels`.
        texts: columns of the inputs.
        labels: column of the answers, or several columns of 0 and 1.
        separator: text between joined labels; None if there is none.
        because: reason for which the kind was guessed, a clause; None if it was named, or is the usual one.
        rows: these columns of the training rows, if the guess has read them.
    """

    kind: Kind
    roles: dict[str, str]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str | None = None
    because: str | None = None
    rows: FileRows | None = None


def own_columns(
    files: Files,
    text: TextColumns | None = None,
    label: LabelColumns | None = None,
    kind: str | None = None,
    separator: str | None = None,
) -> OwnColumns:
    """Return the kind of task of a user's own data, and the columns of its roles.

    Args:
        files: the files or data frames.
        text: columns of the inputs, in the order of the kind's roles; None takes the kind's own names.
        label: column or columns of the answers; None takes the kind's own name.
        kind: name of the kind; None guesses it from the values of the columns.
        separator: text between joined labels; None if there is none.

    Raises:
        UsageError: an unknown kind, columns in another number than the kind reads, a column named twice, or a separator
            for a kind without label sets.
        DataError: the kind is to be guessed, and the file cannot be read or lacks a column.
    """
    texts = None if text is None else text_columns(text)
    if separator is not None and not checked_text("label_separator", separator):
        raise UsageError("--label-separator '' was given; expected the text between two labels, such as '|' or ';'.")
    if kind is not None:
        return _of_kind(files, kinds.get(checked_text("kind", kind)), texts, label, separator)
    names = texts or (_DEFAULT_TEXT,)
    try:
        labels = label_columns(files, names, _DEFAULT_LABEL if label is None else label)
        rows = file_rows(files, "train", [*names, *labels])
    except MissingColumnError:
        found = _by_names(files) if text is None and label is None else None
        if found is None:
            raise
        return found
    guess = guess_kind(rows.columns, names, labels, separator)
    found = _columns(kinds.get(guess.kind), names, labels, separator)
    return OwnColumns(found.kind, found.roles, names, labels, separator, guess.because, rows)


def own_prompt(prompt: str, own: OwnColumns) -> str:
    """Return a user's own wording of the question; a backslash with an n, as typed, is a line break.

    Args:
        prompt: template with the names of input columns in braces.
        own: columns of the data.

    Raises:
        UsageError: it names no column or an unknown one, leaves out one of two texts to compare, or words a question
            that no language model is asked.
    """
    template = checked_text("prompt", prompt).replace("\\n", "\n")
    kind = own.kind
    if kind.form in ("number", "labels") and kind.question(()) is None:
        raise UsageError(f"--prompt was given; no method asks a language model about a {kind.name} task. Leave it out.")
    names = {role: column for role, column in own.roles.items() if column in own.texts}
    if kind.form == "tags":
        names = {"text": "text"}
    accepted = ", ".join(f"{{{column}}}" for column in dict.fromkeys(names.values()))
    found = set(template_fields(template))
    unknown = sorted(found - {*names, *names.values()})
    if not found or unknown:
        what = f"names the unknown column {{{unknown[0]}}}" if unknown else "has no column in braces"
        raise UsageError(f"--prompt {prompt!r} {what}; expected {accepted}, where the text goes.")
    missing = [column for role, column in names.items() if not found & {role, column}]
    if missing and kind.form == "classes":
        raise UsageError(f"--prompt {prompt!r} leaves out {{{missing[0]}}}; expected each of {accepted}.")
    return template


def _of_kind(
    files: Files, kind: Kind, texts: tuple[str, ...] | None, label: LabelColumns | None, separator: str | None
) -> OwnColumns:
    """Return the columns of a kind that the user names."""
    *inputs, answer = kind.roles
    if texts is None:
        texts = tuple(str(kind.roles[role]) for role in inputs if kind.roles[role])
        if len(texts) < sum(kind.roles[role] is not None for role in inputs):
            needed = " and ".join(inputs)
            raise UsageError(
                f"--kind {kind.name} was given without --text; expected the columns of {needed}: --text a,b."
            )
    if label is None:
        labels: tuple[str, ...] = (kind.roles[answer] or _DEFAULT_LABEL,)
    else:
        labels = label_columns(files, texts, label)
    return _columns(kind, texts, labels, separator)


def _columns(kind: Kind, texts: tuple[str, ...], labels: tuple[str, ...], separator: str | None) -> OwnColumns:
    """Return columns by role, after checking their number."""
    *inputs, answer = kind.roles
    least = sum(kind.roles[role] is not None for role in inputs)
    if not least <= len(texts) <= len(inputs):
        reads = wording.counted(least, "column") if least == len(inputs) else f"{least} to {len(inputs)} columns"
        raise UsageError(
            f"--text '{','.join(texts)}' was given; a {kind.name} task reads {reads} ({', '.join(inputs)}), with "
            "commas between them."
        )
    if kind.form != "labels":
        if len(labels) > 1:
            raise UsageError(
                f"--label '{','.join(labels)}' was given; a {kind.name} task has one column of labels. Several columns "
                "of 0 and 1, one per label, are for --kind multi-label."
            )
        if separator is not None:
            raise UsageError(
                f"--label-separator '{separator}' was given; a {kind.name} task has one label a row. Several are for "
                "--kind multi-label."
            )
    elif len(labels) > 1 and separator is not None:
        raise UsageError(
            f"--label-separator '{separator}' was given with {len(labels)} columns of labels; expected one of the two."
        )
    if any(not name for name in labels) or len({*texts, *labels}) < len(texts) + len(labels):
        raise UsageError(
            f"--text '{','.join(texts)}' and --label '{','.join(labels)}' were given; expected different columns for "
            "texts and labels."
        )
    roles = dict(zip(inputs, texts, strict=False))
    if len(labels) == 1:
        roles[answer] = labels[0]
    return OwnColumns(kind, roles, texts, labels, separator)


def _by_names(files: Files) -> OwnColumns | None:
    """Return the columns of the one kind whose own names of columns the file has; None if it is not plain."""
    found = []
    for kind in kinds:
        roles = {role: str(name) for role, name in kind.roles.items() if name}
        if len(roles) < len(kind.roles):
            continue
        *texts, label = roles.values()
        try:
            rows = file_rows(files, "train", [*texts, label])
        except DataError:
            continue
        guess = guess_kind(rows.columns, texts, [label])
        if guess.kind == kind.name:
            listed = ", ".join(f"'{name}'" for name in texts)
            because = f"there are the columns {listed} and '{label}', and {guess.because}"
            found.append(OwnColumns(kind, roles, tuple(texts), (label,), because=because, rows=rows))
    return found[0] if len(found) == 1 else None
