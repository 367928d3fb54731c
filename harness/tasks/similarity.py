"""Similarity: predict how alike two texts are, as a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.backbones import Backbone
from harness.data import BETWEEN, Origin, TaskSpec, check_texts
from harness.tasks._numbers import NumberKind
from harness.tasks._prepare import columns_of, resolve_common
from harness.tasks._tokenize import tokenize_pairs, tokenize_texts
from harness.tasks.base import Rows, Sequences, Source, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

if TYPE_CHECKING:
    from datasets import Dataset


class Similarity(NumberKind):
    """A task to say how alike two texts are, or to give any other number for a pair.

    Methods that train inside the transformer read both texts in one sequence, but for `contrastive-cosine`. Methods on
    frozen features encode each text by itself.
    """

    name = "similarity"
    reads_pairs = True
    compares_apart = True
    roles: ClassVar[Mapping[str, str | None]] = {"first": "", "second": "", "label": "score"}
    main_metric = "spearman"
    asks = "How alike in meaning are these two texts? Write one number{scale} alone.\n{text}\nNumber:"
    scale = (0.0, 5.0)

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test pairs from training, cap the test rows."""
        spec = self.resolve(spec)
        columns = columns_of(self, spec)

        def read(data: Dataset, origin: Origin) -> tuple[list[str], Mapping[str, Any]]:
            first, second = (
                check_texts(data.data.column(columns[role]).to_pylist(), columns[role], origin)
                for role in ("first", "second")
            )
            whole = [BETWEEN.join(pair) for pair in zip(first, second, strict=True)]
            return whole, {"first": first, "second": second}

        return self.prepare_numbers(spec, mirror, read)

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return two texts and how many of their four topic words they share."""
        first = [toys.word(toys.topic()) for _ in range(4)]
        n_shared = toys.draw.randint(0, 4)
        every = [word for words in TOPIC_WORDS.values() for word in words if word not in first]
        second = [*first[:n_shared], *toys.draw.sample(every, 4 - n_shared)]
        return {
            "first": toys.sentence(2, *first),
            "second": toys.sentence(2, *second),
            "label": 1.25 * len(set(first) & set(second)),
        }

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize both texts as one sequence, the longer cut first; or one of them, where they are apart (`sides`)."""
        if "second" not in source.fields:
            return tokenize_texts(source, backbone, max_length)
        ids, cut = tokenize_pairs(source.fields["first"], source.fields["second"], source, backbone, max_length)
        return Sequences(ids, sum(cut))

    def sides(self, rows: Rows) -> tuple[Rows, ...]:
        """Return the first and the second texts, each as rows of their own."""
        return tuple(dataclasses.replace(rows, source=_side(rows.source, role)) for role in ("first", "second"))


def _side(source: Source, role: str) -> Source:
    before, _, part = source.key.rpartition("/")
    texts = source.fields[role]
    return dataclasses.replace(source, key=f"{before}/{role}/{part}", texts=texts, fields={"text": texts}, prompts=None)


kinds.add(Similarity.name, Similarity())
