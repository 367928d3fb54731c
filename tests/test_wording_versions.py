"""A change of the words of prompts changes answers: it needs another version of the methods that ask in these words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from harness.methods import methods
from harness.methods._in_context import InContextMethod
from harness.tasks import kinds

PINNED = "54d1c93cef282053"
"""Hash of all words, with the versions of the methods that use them."""

NAMES = (
    ("negative", "positive"),
    ("joy", "anger", "fear"),
    ("sports", "world", "business"),
    tuple(f"label {i}" for i in range(30)),
    ("entailment", "neutral", "contradiction"),
    ("one, two", "three"),
)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def words() -> dict[str, Any]:
    """Return all that the kinds of this package ask, for some labels."""
    found: dict[str, Any] = {}
    for name in kinds.names():
        kind = kinds.get(name)
        if not type(kind).__module__.startswith("harness."):
            continue
        for names in (TAGS,) if kind.form == "tags" else NAMES:
            for is_shown in (False, True):
                said = kind.question(names, is_shown=is_shown)
                found[f"{name}, {', '.join(names)}, {is_shown}"] = [
                    [asdict(one) for one in kind.wordings(names, is_shown=is_shown)],
                    None if said is None else [said[0], asdict(said[1])],
                ]
    return found


def test_other_words_need_another_version() -> None:
    asking = [cls for cls in methods if issubclass(cls, InContextMethod) and cls.__module__.startswith("harness.")]
    versions = {cls.name: cls.version for cls in asking}
    assert {"zero-shot", "few-shot", "calibrated-few-shot"} <= set(versions)
    text = json.dumps([versions, words()], sort_keys=True, default=str)
    found = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert found == PINNED, (
        "The words of prompts have changed, so that equal cells get other answers. If a release has asked in the old "
        f"words, raise `version` of {', '.join(versions)}. Then set PINNED to the hash that this test finds, {found!r}."
    )
