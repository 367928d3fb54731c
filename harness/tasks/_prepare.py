"""Assemble a task from raw splits: the steps that all kinds share after their rows are read and checked."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data import (
    Origin,
    RawSplits,
    Reading,
    TaskSpec,
    cap_test_rows,
    content_fingerprint,
    drop_overlap,
    hold_out_label_sets,
    hold_out_numbers,
    load_splits,
    n_repeated,
    order_fingerprint,
    overlap_key,
    row_digests,
)
from harness.support import DataError, UsageError
from harness.tasks._wordings import ending_of
from harness.tasks.base import Ints, Kind, Labels, Reply, Source, Task, kinds

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Split:
    """One split after its kind has read and checked every row.

    Attributes:
        texts: whole input of each row; identifies the row and its duplicates.
        labels: labels, shape (rows,).
        label_texts: labels as texts; part of a row's identity.
        fields: inputs by role.
        prompts: prompts for a language model; None where the kind has none.
    """

    texts: list[str]
    labels: Labels
    label_texts: list[str]
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    prompts: Sequence[str] | None = None


_LONGEST_NAME, _MOST_OF_NAMES = 1_000, 4_000
"""Maximum number of characters of a class name, and of all of them, in a record. Reports show them."""


def assemble(
    kind: Kind,
    spec: TaskSpec,
    splits: RawSplits,
    train: Split,
    test: Split,
    *,
    label_names: Sequence[str] = (),
    n_outputs: int = 0,
    prompt: str | None = None,
    reply: Reply | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Task:
    """Give rows their identity, drop copies of test rows from training, order the pool, cap the test.

    Args:
        kind: kind of the task.
        spec: resolved spec.
        splits: raw splits that the rows come from.
        train: rows to train on.
        test: rows to score on.
        label_names: the classes, labels or tags, in order; empty for other answers.
        n_outputs: number of scores to predict for a row; 0 if answers are texts.
        prompt: template of the prompts.
        reply: settings of generation, if a language model answers.
        provenance: further notes of the kind.
    """
    from harness.metrics import metrics

    assert spec.metric is not None
    train_digests, test_digests = (row_digests(part.texts, part.label_texts) for part in (train, test))
    of_content = functools.partial(
        content_fingerprint,
        kind=spec.kind,
        label_names=label_names,
        metric=spec.metric,
        max_length=spec.max_length,
        train=train_digests,
        test=test_digests,
    )
    content = of_content(test_cap=spec.test_cap)
    is_pinned = spec.content is not None and (
        spec.content == content
        or (spec.content_test_cap is not None and spec.content == of_content(test_cap=spec.content_test_cap))
    )
    class_rows = np.zeros(0, dtype=np.int64)
    unscored: list[int] = []
    has_classes = bool(label_names) and kind.form not in ("labels", "tags")
    if has_classes:
        in_test = np.bincount(test.labels, minlength=len(label_names))
        class_rows = np.bincount(train.labels, minlength=len(label_names)) + in_test
        if spec.data.files is not None and not spec.strict:
            unscored = [int(label) for label in np.flatnonzero(in_test == 0)]
    # Version 0.1 averaged F1 over predicted classes that no test row has; its records must not be reused.
    scored_alone = bool(unscored) and metrics.get(spec.metric).combine_over is not None
    data = _with_what_is_read(content, spec, **({"averaged": "classes with test rows"} if scored_alone else {}))
    keep, n_dropped = drop_overlap(train.texts, test.texts)
    # Sorted by content, so that a re-ordered file gives the same draws, batches and caches.
    pool = np.array(sorted(np.flatnonzero(keep), key=lambda row: train_digests[row]), dtype=np.int64)
    if len(pool) == 0:
        raise DataError(
            f"{spec.data.label()}: all {len(keep)} training rows are copies of test rows, which are never trained on. "
            "Name a test file with other rows."
        )
    strata = train.labels[pool] if has_classes else kind.strata(train.labels[pool], label_names)
    if has_classes:
        _check_classes_left(strata, label_names, n_dropped, spec)
        if spec.metric == "f1" and len(label_names) != 2:
            raise UsageError(
                f"metric: 'f1' is of two classes; this task has {len(label_names)}. Take macro_f1 or accuracy."
            )
    capped = cap_test_rows(test_digests, spec.test_cap)
    return Task(
        spec=spec,
        kind=kind,
        data=data,
        label_names=tuple(label_names),
        n_outputs=n_outputs,
        train=_source(f"{data}/train", train, pool, spec, prompt),
        train_labels=train.labels[pool],
        train_strata=strata,
        train_digests=[train_digests[row] for row in pool],
        test=_source(f"{data}/test", test, capped, spec, prompt),
        test_labels=test.labels[capped],
        test_rows=order_fingerprint(test_digests[row] for row in capped),
        n_test_available=len(test.texts),
        prompt=None if train.prompts is None else prompt,
        reply=reply,
        class_rows=tuple(int(count) for count in class_rows),
        unscored=tuple(unscored),
        provenance={
            **splits.provenance,
            "n_pool": len(pool),
            "n_dropped_from_training": n_dropped,
            "n_repeated_texts": n_repeated(train.texts) + n_repeated(test.texts),
            **({"n_classes_not_scored": len(unscored)} if unscored else {}),
            **({"n_classes": len(label_names)} if has_classes else {}),
            **({"class_names": list(label_names)} if has_classes and can_be_kept(label_names) else {}),
            "content": content,
            "content_as_pinned": None if spec.content is None else is_pinned,
            "defaults_chosen_here": spec.chosen_on,
            **({"seen_by": list(spec.seen_by)} if spec.seen_by else {}),
            **({"overlaps": list(spec.overlaps)} if spec.overlaps else {}),
            **(provenance or {}),
        },
    )


def can_be_kept(names: Sequence[str]) -> bool:
    """Return whether names are few and short enough for a record."""
    return bool(names) and max(map(len, names)) <= _LONGEST_NAME and sum(map(len, names)) <= _MOST_OF_NAMES


def _source(key: str, split: Split, rows: Ints, spec: TaskSpec, prompt: str | None) -> Source:
    inside = spec.truncation_side == "input"
    return Source(
        key,
        [split.texts[row] for row in rows],
        {role: [values[row] for row in rows] for role, values in split.fields.items()},
        None if split.prompts is None else [split.prompts[row] for row in rows],
        cut="left" if spec.truncation_side == "left" else "right",
        characters=spec.characters,
        ending=ending_of(prompt) if inside and prompt is not None else None,
    )


def _with_what_is_read(content: str, spec: TaskSpec, **further: str) -> str:
    """Return the fingerprint of the rows and of other task settings that methods read; defaults do not change it.

    Args:
        content: fingerprint of the rows.
        spec: spec of the task.
        further: other settings that distinguish this task's scores from those of a task with the same rows.
    """
    data = content
    if spec.label_words:
        data = hashlib.sha256("\n".join([content, *spec.label_words]).encode()).hexdigest()
    plain = TaskSpec.model_fields
    read = {
        name: value
        for name in ("prompt", "decoding", "characters", "truncation_side")
        if (value := getattr(spec, name)) != plain[name].default
        and not (name == "prompt" and spec.prompt_in_configuration)
    } | further
    if read:
        if spec.decoding is not None:
            read["decoding"] = spec.decoding.model_dump(mode="json")
        data = hashlib.sha256(f"{data}\n{json.dumps(read, sort_keys=True)}".encode()).hexdigest()
    return data


def _check_classes_left(strata: Labels, label_names: Sequence[str], n_dropped: int, spec: TaskSpec) -> None:
    """Refuse a class without training rows after copies of test rows were dropped."""
    left = np.bincount(strata, minlength=len(label_names))
    gone = [name for name, count in zip(label_names, left, strict=True) if count == 0]
    if gone:
        raise DataError(
            f"{spec.data.label()}: all training rows of the class '{gone[0]}' are copies of test rows, which are never "
            f"trained on ({n_dropped} rows were dropped in all). Name a test file with other texts."
        )


def resolve_common(kind: Kind, spec: TaskSpec) -> TaskSpec:
    """Check the settings that all kinds share, and fill in the metric.

    Raises:
        UsageError: an unknown role or metric, or a missing required role.
    """
    from harness.metrics import metrics

    given = spec.columns.given
    unknown = sorted(set(given) - set(kind.roles))
    if unknown:
        near = difflib.get_close_matches(unknown[0], kind.roles, n=1, cutoff=0.6)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"columns.{unknown[0]}: unknown key;{guess} accepted: {', '.join(kind.roles)}")
    missing = [role for role, default in kind.roles.items() if default == "" and role not in given]
    if missing:
        raise UsageError(f"columns.{missing[0]}: missing; a {kind.name} task needs {', '.join(kind.roles)}")
    metric = spec.metric or kind.main_metric
    metrics.get(metric)
    if metric not in kind.metrics:
        raise UsageError(f"metric: '{metric}' does not score a {kind.name} task; accepted: {', '.join(kind.metrics)}")
    if spec.prompt is not None:
        template_fields(spec.prompt)
    if spec.prompt_in_configuration and kind.form == "text":
        raise UsageError(
            f"prompt_in_configuration: every method reads the prompt of a {kind.name} task, so it belongs to the data"
        )
    if spec.truncation_side == "input" and kind.form != "text":
        raise UsageError(f"truncation_side: 'input' is for written answers; a {kind.name} task takes right or left")
    return spec.model_copy(update={"metric": metric})


def read_parts(
    spec: TaskSpec, mirror: Path | None, columns: Iterable[str], read: Callable[[Dataset, Origin], Split]
) -> tuple[RawSplits, Split, Split]:
    """Load and read the training and the test rows of a task whose rows have no class.

    Args:
        spec: resolved spec.
        mirror: folder in which hub ids are looked up first.
        columns: required columns.
        read: function that checks and reads every row of a split.

    Returns:
        The raw splits, the training rows and the test rows. Without a test split, a part is held out by the rows'
        texts.
    """
    kind = kinds.get(spec.kind)
    rule, held_out = _HOLD_OUT.get(kind.form, (None, "a quarter of each class, by a hash of the text"))

    def keys(data: Dataset, origin: Origin) -> tuple[list[str], Any]:
        part = read(data, origin)
        if len(set(map(overlap_key, part.texts))) < 2:
            raise DataError(f"{origin.name}: a held-out test needs two different rows at least; name a test file.")
        if rule is None:
            return part.texts, [""] * len(part.texts)
        return part.texts, part.labels

    answer = columns_of(kind, spec).get(list(kind.roles)[-1])
    labels = spec.label_columns or ((answer,) if answer else ())
    reading = Reading(list(columns), keys, labels=labels, form=kind.form, hold_out=rule, held_out=held_out)
    splits = load_splits(spec, mirror, reading=reading)
    train, test = (
        read(data, splits.origins.get(part, Origin(part)))
        for part, data in (("train", splits.train), ("test", splits.test))
    )
    return splits, train, test


_HOLD_OUT: Mapping[str, tuple[Callable[[Sequence[str], Sequence[Any]], Any], str]] = {
    "number": (hold_out_numbers, "a quarter of the texts of each fifth by the target, by a hash of the text"),
    "labels": (hold_out_label_sets, "a quarter of the texts of each label, by iterative stratification"),
}
"""Rules for holding out a test where the data have none, by the form of the answers."""


def reply_of(spec: TaskSpec, default: Reply) -> Reply:
    """Return the settings of generation: the task's, or the kind's default."""
    said = spec.decoding
    if said is None:
        return default
    return replace(default, max_new_tokens=said.max_new_tokens, num_beams=said.num_beams, stop=said.stop)


def prompt_by_roles(kind: Kind, spec: TaskSpec, template: str) -> str:
    """Return a task's template with the roles of its columns in place of their names, as `prompts_of` reads it."""
    roles = {column: role for role, column in columns_of(kind, spec).items()}
    parts = []
    for text, name, _, _ in string.Formatter().parse(template):
        field = "" if name is None else f"{{{roles.get(name, name)}}}"
        parts.append(text.replace("{", "{{").replace("}", "}}") + field)
    return "".join(parts)


def prompts_of(template: str, texts: Sequence[str], fields: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the prompts of rows that come without columns, one a row.

    Args:
        template: template as `prompt_by_roles` returns it.
        texts: whole input of each row.
        fields: inputs by role; choices are listed as in a task's own prompts.
    """
    values = {"text": texts} | {
        role: [one if isinstance(one, str) else "\n".join(f"- {text}" for text in one) for one in column]
        for role, column in fields.items()
        if role != "tokens"
    }
    return fill(template, values, len(texts), list(values))


def columns_of(kind: Kind, spec: TaskSpec) -> dict[str, str]:
    """Return the column of each role that the task has."""
    given = spec.columns.given
    return {role: column for role, default in kind.roles.items() if (column := given.get(role, default))}


def template_fields(template: str) -> list[str]:
    """Return the fields that a template names, once each.

    Raises:
        UsageError: it is not a template of plain fields; indices, attributes, conversions and formats are refused.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"prompt: {template!r} is not a template ({error}); write a brace itself as two") from None
    names = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not name or form or conversion or any(mark in name for mark in ".[]"):
            raise UsageError(f"prompt: the field {{{name}}} is not plain; accepted: the name of a column in braces")
        names.append(name)
    return list(dict.fromkeys(names))


def fill(template: str, values: Mapping[str, Sequence[Any]], n_rows: int, accepted: Sequence[str]) -> list[str]:
    """Return the template filled in for each row.

    Args:
        template: checked template.
        values: texts by field, one per row.
        n_rows: number of rows.
        accepted: fields that a user may name, for the message.

    Raises:
        UsageError: the template names an unknown field.
    """
    names = template_fields(template)
    unknown = [name for name in names if name not in values]
    if unknown:
        raise UsageError(f"prompt: {{{unknown[0]}}} names no input column; accepted: {', '.join(accepted)}")
    return [template.format_map({name: values[name][row] for name in names}) for row in range(n_rows)]
