"""Read a CoNLL column file: one token a line, its tag in the last column, a blank line between sentences."""

from __future__ import annotations

import re
from pathlib import Path

from harness.data.encodings import read_text
from harness.support import DataError
from harness.support import text as wording

ENDINGS = (".conll", ".iob", ".iob2", ".bio", ".txt")
"""Endings of column files."""

COLUMNS = ("tokens", "tags")
"""Names that the first and the last column get."""

_DOCUMENT = "-DOCSTART-"
_SPACES = re.compile(r"[ \t]+")
_COMMENT = re.compile(r"#\s*(id\b|[\w.]+\s*=)")
"""Comment before a sentence, as CoNLL-U and MultiCoNER write it; any other line that begins with # is a token."""


def read_conll(path: Path, *, with_tags: bool | None = True) -> tuple[dict[str, list[list[str]]], list[int]]:
    """Return the tokens and tags of each sentence, by column, and the line that each sentence begins at.

    Columns are separated by tabs where the file has any, otherwise by spaces. Lines that begin with `-DOCSTART-` are
    skipped, and so are comments (`# id ...`, `# name = ...`) before a sentence.

    Args:
        path: the file.
        with_tags: whether the last column holds tags. Otherwise the lines may hold a token alone, and only `tokens`
            is returned. None returns tags where the lines have several columns.

    Raises:
        DataError: a line has another number of columns than the first, or a single one; or the file has no sentence.
            The message names the line.
    """
    text = read_text(path)
    by_tab = "\t" in text
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    lines: list[int] = []
    n_columns = first_line = 0
    is_open = False
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not line.strip():
            is_open = False
            continue
        fields = line.split("\t") if by_tab else _SPACES.split(line.strip(" "))
        if line.startswith(_DOCUMENT) or (not is_open and _COMMENT.match(line)):
            continue
        if n_columns == 0:
            n_columns, first_line = len(fields), number
            with_tags = n_columns > 1 if with_tags is None else with_tags
            if with_tags and n_columns == 1:
                raise DataError(
                    f"{path}: line {number} has a single column; expected a token, then its tag in the last column, "
                    "separated by a tab or a space."
                )
        if len(fields) != n_columns:
            raise DataError(
                f"{path}: line {number} has {wording.counted(len(fields), 'column')}, line {first_line} has "
                f"{n_columns}; expected as many on every line, and a blank line between sentences."
            )
        empty = next((name for name, at in (("token", 0), ("tag", -1)) if not fields[at].strip()), None)
        if empty == "token" or (empty and with_tags):
            raise DataError(f"{path}: line {number} has no {empty}; expected a token first and its tag last.")
        if not is_open:
            is_open = True
            lines.append(number)
            tokens.append([])
            tags.append([])
        tokens[-1].append(fields[0].strip())
        tags[-1].append(fields[-1].strip())
    if not tokens:
        raise DataError(f"{path}: the file has no sentences.")
    return {COLUMNS[0]: tokens, **({COLUMNS[1]: tags} if with_tags else {})}, lines
