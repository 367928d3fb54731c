"""Schemes of tags (IOB2, IOBES and others): recognise them, repair tags that break them, list the tags of a task.

The rules of a span are those of seqeval's strict mode (https://github.com/chakki-works/seqeval). Tags that belong to
no span are replaced by `O`, which leaves the spans as strict mode reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.data.raw import Origin
from harness.support import DataError

OUTSIDE = "O"
"""Tag of a word that belongs to no entity."""

Scheme = Literal["IO", "IOB2", "IOBES"]
"""Scheme of a task's tags. `IO` has no tag for the start of an entity: neighbours of one type are one entity."""

PREFIXES: dict[Scheme, str] = {"IO": "I", "IOB2": "BI", "IOBES": "BIES"}
"""Prefixes of each scheme."""

_PREFIXED = re.compile(r"([BIESLU])-(.+)")
_AS_IOBES = {"L": "E", "U": "S"}
"""BILOU's prefixes, in the letters of IOBES."""


@dataclass(frozen=True)
class Tagged:
    """The tags of a task's splits after they have been brought into one scheme.

    Attributes:
        scheme: their scheme.
        written: scheme that the data are written in, in a word, for the record: IOB2, IOBES, BILOU, IOB1, IO, plain.
        parts: tags of each sentence, for each split.
        n_repaired: number of tags that were replaced by `O`, in all splits together.
    """

    scheme: Scheme
    written: str
    parts: list[list[tuple[str, ...]]]
    n_repaired: int


def unify(parts: Sequence[Sequence[Sequence[str]]], column: str, origins: Sequence[Origin]) -> Tagged:
    """Bring the tags of all splits of a task into one scheme, and repair those that break it.

    - Plain tags (`PER`) become `I-PER`; so are tags of which none begins an entity.
    - IOB2 and IOBES stay. BILOU is IOBES in other letters, and is written as that.
    - IOB1 has `B-` only between neighbours of one type; its spans are written as IOB2.

    Args:
        parts: tags of each sentence, for each split.
        column: name of their column, for messages.
        origins: positions of each split's rows, for messages.

    Raises:
        DataError: some tags have a prefix and some have none.
    """
    written = _scheme_of(parts, column, origins)
    if written == "plain":
        plain = [[tuple(tag if tag == OUTSIDE else f"I-{tag}" for tag in tags) for tags in part] for part in parts]
        return Tagged("IO", written, plain, 0)
    if written == "IO":
        return Tagged("IO", written, [[tuple(tags) for tags in part] for part in parts], 0)
    if written == "IOB1":
        return Tagged("IOB2", written, [[_from_iob1(tags) for tags in part] for part in parts], 0)
    if written == "BILOU":
        parts = [[[_AS_IOBES.get(tag[0], tag[0]) + tag[1:] for tag in tags] for tags in part] for part in parts]
    scheme: Scheme = "IOB2" if written == "IOB2" else "IOBES"
    n_repaired = 0
    repaired: list[list[tuple[str, ...]]] = []
    for part in parts:
        own = [repair(tags, scheme) for tags in part]
        n_repaired += sum(a != b for tags, new in zip(part, own, strict=True) for a, b in zip(tags, new, strict=True))
        repaired.append(own)
    return Tagged(scheme, written, repaired, n_repaired)


def _scheme_of(parts: Sequence[Sequence[Sequence[str]]], column: str, origins: Sequence[Origin]) -> str:
    used = {tag for part in parts for tags in part for tag in tags} - {OUTSIDE}
    matches = {tag: _PREFIXED.fullmatch(tag) for tag in used}
    prefixes = {found.group(1) for found in matches.values() if found}
    if not prefixes & {"B", "I"}:
        return "plain" if not all(matches.values()) or not prefixes else _of_prefixes(prefixes)
    odd = sorted(tag for tag, found in matches.items() if found is None)
    if odd:
        part, row = next((at, row) for at, part in enumerate(parts) for row, tags in enumerate(part) if odd[0] in tags)
        raise DataError(
            f"{origins[part].name}: {origins[part].at(row)}: column '{column}' has the tag '{odd[0]}', and others have "
            f"a prefix ('{next(tag for tag in sorted(used) if matches[tag])}'); expected '{OUTSIDE}', or a prefix for "
            "every tag, or for none."
        )
    if prefixes <= {"B", "I"} and "I" in prefixes and _is_iob1(parts):
        return "IOB1" if "B" in prefixes else "IO"
    return _of_prefixes(prefixes)


def _of_prefixes(prefixes: set[str]) -> str:
    if prefixes & set("LU"):
        return "BILOU"
    return "IOBES" if prefixes & set("ES") else "IOB2"


def _is_iob1(parts: Sequence[Sequence[Sequence[str]]]) -> bool:
    """Return whether every `B-` follows a tag of the same type, so that `I-` begins the other entities."""
    for part in parts:
        for tags in part:
            before = OUTSIDE
            for tag in tags:
                if tag[0] == "B" and before[2:] != tag[2:]:
                    return False
                before = tag
    return True


def _from_iob1(tags: Sequence[str]) -> tuple[str, ...]:
    found, before = [], OUTSIDE
    for tag in tags:
        begins = tag != OUTSIDE and (tag[0] == "B" or before[2:] != tag[2:])
        found.append(f"B{tag[1:]}" if begins else tag)
        before = tag
    return tuple(found)


def repair(tags: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """Return the tags with `O` for every tag that belongs to no span of seqeval's strict mode.

    Args:
        tags: tags of one sentence.
        scheme: `IOB2` or `IOBES`.
    """
    found = [OUTSIDE] * len(tags)
    for start, end, _ in spans_of(tags, scheme):
        found[start:end] = tags[start:end]
    return tuple(found)


def spans_of(tags: Sequence[str], scheme: Scheme) -> list[tuple[int, int, str]]:
    """Return the spans of a sentence as (first word, word behind the last, type), as seqeval's strict mode reads them.

    For `IO`, which strict mode does not know, neighbours of one type are one span.
    """
    spans: list[tuple[int, int, str]] = []
    at = 0
    while at < len(tags):
        tag = tags[at]
        start, at = at, at + 1
        if tag == OUTSIDE or (scheme != "IO" and tag[0] not in "BS"):
            continue
        if tag[0] == "S":
            spans.append((start, at, tag[2:]))
            continue
        inside = (f"I-{tag[2:]}",) if scheme != "IOBES" else (f"I-{tag[2:]}", f"E-{tag[2:]}")
        last = tag
        while at < len(tags) and tags[at] in inside and last[0] != "E":
            last = tags[at]
            at += 1
        if scheme != "IOBES" or last[0] == "E":
            spans.append((start, at, tag[2:]))
    return spans


def types_of(tags: Iterable[Sequence[str]]) -> list[str]:
    """Return the types of entities that occur, sorted."""
    return sorted({tag[2:] for sentence in tags for tag in sentence} - {""})


def tags_of(types: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Return every tag that a scheme has for these types: `O` first, then sorted."""
    return (OUTSIDE, *sorted(f"{prefix}-{one}" for one in types for prefix in PREFIXES[scheme]))
