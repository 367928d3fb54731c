"""Regression: predict a number for a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.backbones import Backbone
from harness.data import Origin, TaskSpec, check_texts
from harness.tasks._numbers import NumberKind
from harness.tasks._prepare import columns_of, resolve_common
from harness.tasks._tokenize import tokenize_texts
from harness.tasks.base import Sequences, Source, Task, kinds
from harness.tasks.toys import TOPIC_WORDS, Toys

if TYPE_CHECKING:
    from datasets import Dataset


class Regression(NumberKind):
    """A task to predict a number for a text, such as a price, a rating or a measurement."""

    name = "regression"
    roles: ClassVar[Mapping[str, str | None]] = {"text": "text", "label": "label"}
    main_metric = "rmse"
    asks = "Predict the number that belongs to the text. Write the number alone.\nText: {text}\nNumber:"

    def resolve(self, spec: TaskSpec) -> TaskSpec:
        """Fill in the metric."""
        return resolve_common(self, spec)

    def prepare(self, spec: TaskSpec, mirror: Path | None) -> Task:
        """Load, check, drop copies of test texts from training, cap the test rows."""
        spec = self.resolve(spec)
        column = columns_of(self, spec)["text"]

        def read(data: Dataset, origin: Origin) -> tuple[list[str], Mapping[str, Any]]:
            texts = check_texts(data.data.column(column).to_pylist(), column, origin)
            return texts, {"text": texts}

        return self.prepare_numbers(spec, mirror, read)

    def example(self, toys: Toys) -> dict[str, Any]:
        """Return a text and how many of its words are about billing, in euros."""
        n = toys.draw.randint(0, 4)
        words = [toys.draw.choice(TOPIC_WORDS["billing"]) for _ in range(n)]
        return {"text": toys.sentence(toys.draw.randint(3, 8), *words), "label": 2.5 * n + 10.0}

    def tokenize(self, source: Source, backbone: Backbone, max_length: int) -> Sequences:
        """Tokenize the texts, cut on the task's side."""
        return tokenize_texts(source, backbone, max_length)


kinds.add(Regression.name, Regression())
