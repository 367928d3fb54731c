"""Read a question about a user's own texts: their number, classes and lengths follow from the data."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.advice.question import Question
from harness.data import (
    BETWEEN,
    TaskSpec,
    TextColumns,
    UserData,
    as_list,
    column_name,
    file_rows,
    files_of,
    guess_kind,
    is_missing,
    kind_of_table,
    label_columns,
    read_table,
    text_columns,
)
from harness.records import parse_bytes
from harness.support import DataError, UsageError, parse_duration, real_number

_CUT = int(TaskSpec.model_fields["max_length"].default)
"""Tokens at which a text is cut by default."""

_TOKENS_A_WORD = 1.35
"""Mean number of tokens in an English word, under a vocabulary of 30,000 pieces."""

_CHARACTERS_A_TOKEN = 4.2
"""Mean number of characters in a token of English text, the space after a word included."""

_WORDS = re.compile(r"\b\w\w+\b")
"""Words as scikit-learn's vectorisers find them."""

_SEQUENCE = re.compile(r"[A-Za-z*-]{10,}")
"""A text that is one sequence of characters, such as the residues of a protein."""

_MOST_ARE_SEQUENCES = 0.95
"""Share of texts from which on all count as sequences of characters."""

_BY_THEMSELVES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Characters of scripts without spaces (Chinese, Japanese, Korean); most tokenizers make one token of each."""


def question_about(
    data: UserData | None = None,
    text: TextColumns | None = None,
    label: str | Sequence[str] | None = None,
    *,
    kind: str | None = None,
    label_separator: str | None = None,
    train_seconds: str | float | None = None,
    peak_memory: str | float | None = None,
    **asked: Any,
) -> Question:
    """Return a question; `data` answer what `asked` leaves open.

    Args:
        data: a file or data frame of labelled texts.
        text: its column of texts, or the two columns of pairs; None is `text`.
        label: its column of labels, or several of 0 and 1; None is `label`.
        kind: kind of task; None guesses it from the columns, and is `classification` without data.
        label_separator: text between joined labels.
        train_seconds: limit of the time of training: a number of seconds, or a duration such as `10m`.
        peak_memory: limit of the memory, such as `8GB`, or in bytes.
        asked: further fields of `Question`; None leaves a field open.

    Raises:
        UsageError: a value that cannot be read, or nothing gives the number of labelled texts.
        DataError: the data cannot be used.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if isinstance(train_seconds, str):
        train_seconds = parse_duration(train_seconds, "--train-seconds", bare=True)
    if peak_memory is not None:
        if isinstance(peak_memory, str):
            given["peak_memory_bytes"] = parse_bytes(peak_memory, "--peak-memory")
        else:
            given["peak_memory_bytes"] = real_number("peak_memory", peak_memory, "a size such as '8GB', or bytes")
    told: dict[str, Any] = {"kind": kind or "classification"}
    if data is not None:
        cut = given.get("max_length", _CUT)
        told = describe_texts(data, text or "text", label or "label", kind, label_separator, cut)
    if "n_train" in given:  # another number of texts has other terms
        told.pop("terms", None)
    if "task" not in given:  # a measured task has a cut of its own
        told["max_length"] = _CUT
    if "tokens" in given:  # the question is not about the lengths in the file
        told.pop("longest", None)
    told |= given
    if "n_train" not in told:
        raise UsageError("How many labelled examples are there? Give --n-train NUMBER, or --data FILE.")
    return Question(**told, train_seconds=train_seconds)


def describe_texts(
    data: UserData,
    text: TextColumns,
    label: str | Sequence[str],
    kind: str | None = None,
    label_separator: str | None = None,
    max_length: float = _CUT,
) -> dict[str, Any]:
    """Return fields of a `Question` about labelled texts: `tokens` and `longest` roughly, the others exactly.

    Raises:
        DataError: the data cannot be used; the message names the row or column.
    """
    files, columns = files_of(data), text_columns(text)
    labels = label_columns(files, columns, label)
    rows = file_rows(files, "train", [*columns, *labels])
    kind = kind or guess_kind(rows.columns, columns, labels, label_separator).kind
    of_labels: dict[str, Any] = {}
    if kind == kind_of_table(columns):
        table = read_table(files, columns, column_name("label", labels[0]), known=rows).train
        counted = Counter(table.labels)
        texts, of_labels = table.texts, {"classes": len(counted), "majority": max(counted.values()) / counted.total()}
    else:
        every = zip(*(rows.columns[name] for name in columns), strict=True)
        texts = [BETWEEN.join(map(_whole, row)) for row in every if not any(map(is_missing, row))]
        if not texts:
            raise DataError(f"{rows.origin.name}: no row has a text.")
    is_sequences = sum(bool(_SEQUENCE.fullmatch(one.strip())) for one in texts) >= _MOST_ARE_SEQUENCES * len(texts)
    count = _residues if is_sequences else about_tokens
    tokens = [min(count(one), float(max_length)) for one in texts]
    return {
        "kind": kind,
        "n_train": len(tokens),
        "tokens": sum(tokens) / len(tokens),
        "longest": max(tokens),
        "terms": float(_count_terms(texts)),
        **of_labels,
        **({"characters": True} if is_sequences else {}),
    }


def _whole(value: Any) -> str:
    """Return an input as one text: words of a list are joined by spaces."""
    words = as_list(value)
    return str(value) if words is None else " ".join(map(str, words))


def _count_terms(texts: Iterable[str]) -> int:
    """Count distinct words of two letters or more, and pairs of neighbours: the terms of TF-IDF by default."""
    found: set[str | tuple[str, str]] = set()
    for one in texts:
        words = _WORDS.findall(one.lower())
        found.update(words)
        found.update(itertools.pairwise(words))
    return max(1, len(found))


def _residues(text: str) -> float:
    """Return the tokens of a sequence of characters: one each, and two at the ends."""
    return 2.0 + len(text.strip())


def about_tokens(text: str) -> float:
    """Estimate the tokens of a text without a tokenizer, from its words, or its characters where it has few words."""
    alone = len(_BY_THEMSELVES.findall(text))
    by_words = _TOKENS_A_WORD * len(_BY_THEMSELVES.sub(" ", text).split())
    by_characters = (len(text) - alone) / _CHARACTERS_A_TOKEN
    return 2 + alone + max(by_words, by_characters)
