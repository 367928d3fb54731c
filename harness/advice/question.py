"""A question to the advice: a kind of task, so many labels, and limits; checked before anything is looked up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from harness.support import UsageError

LIMITS = ("train_seconds", "peak_memory_bytes", "trainable_parameters", "predict_milliseconds")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task as far as it is known, and what may be spent on it. None is not known, or no limit.

    Attributes:
        kind: of task (`classification`, `text-pair`, ...).
        n_train: labelled examples that there are.
        classes: how many classes they have.
        tokens: of a text, on average.
        longest: tokens of the longest training text: memory goes by it.
        longest_to_predict: tokens of the longest text that will be predicted, where there are longer ones.
        terms: different words, and pairs of words that follow each other, in the training texts: the memory of TF-IDF
            goes by them.
        train_seconds: that training may take, encoding the training rows included.
        peak_memory_bytes: above what the process holds before.
        trainable_parameters: that may be trained.
        predict_milliseconds: that predicting one text may take.
        min_score: that has to be reached, in the metric's own numbers (0.85; 30 of BLEU): then the cheapest that reach
            it come first.
        backbone: only what was measured on it.
        device: whose seconds and memory are asked for.
        task: one that was measured: its own records count as those of a task that is known.
    """

    kind: str = "classification"
    n_train: int
    classes: int | None = None
    tokens: float | None = None
    longest: float | None = None
    longest_to_predict: float | None = None
    terms: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: float | None = None
    trainable_parameters: float | None = None
    predict_milliseconds: float | None = None
    min_score: float | None = None
    backbone: str | None = None
    device: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
                raise UsageError(f"{item.name} is {value}; expected a number.")
        if self.n_train < 1 or self.n_train != int(self.n_train):
            raise UsageError(f"n_train is {self.n_train}; expected a whole number of labelled examples, 1 or more.")
        if self.classes is not None and not 2 <= self.classes <= self.n_train:
            raise UsageError(
                f"classes is {self.classes} and n_train {self.n_train}; expected 2 classes or more, and at least a "
                "label of each."
            )
        for name in ("tokens", "longest", "longest_to_predict", "terms", *LIMITS):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(
                    f"{name} is {value:g}; expected a number above 0. Leave it out where there is no limit."
                )
        if self.min_score is not None and not self.min_score > 0:
            raise UsageError(f"min_score is {self.min_score:g}; expected a score above 0.")
