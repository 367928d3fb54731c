"""The outside texts: fixed public-domain prose, shipped with the package, on which forgetting is measured."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("outside_texts.json")


@dataclass(frozen=True)
class OutsideTexts:
    """Passages of several works, and the work of each.

    Attributes:
        name: name of the version, and the start of the hash of its content: `outside-1@0123456789ab`.
        texts: passages, those of one work one after another.
        works: label of the work of each passage.
        sources: author, title and year of each work, by label.
    """

    name: str
    texts: tuple[str, ...]
    works: tuple[str, ...]
    sources: dict[str, str]


@functools.cache
def outside_texts() -> OutsideTexts:
    """Return the outside texts of this version of the package."""
    value = json.loads(_FILE.read_text("utf-8"))
    pairs = [(work["label"], text) for work in value["works"] for text in work["passages"]]
    digest = hashlib.sha256(json.dumps(pairs, ensure_ascii=False).encode()).hexdigest()
    return OutsideTexts(
        name=f"{value['name']}@{digest[:12]}",
        texts=tuple(text for _, text in pairs),
        works=tuple(work for work, _ in pairs),
        sources={work["label"]: work["source"] for work in value["works"]},
    )
