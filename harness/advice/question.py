"""A question to the advice: a kind of task, so many labels, and limits; checked before anything is looked up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from harness.forecast import TaskTexts
from harness.support import UsageError, checked_text, real_number, text

LIMITS = ("train_seconds", "peak_memory_bytes", "trainable_parameters", "predict_milliseconds")
_TERMS_A_SEQUENCE = 2
"""Terms of TF-IDF for each sequence of characters, such as a protein: it is one word, unlike all others."""

_TEXTS = ("kind", "backbone", "device", "task")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task as far as it is known, and limits on its costs. None is not known, or no limit.

    Attributes:
        kind: kind of task (`classification`, `text-pair`, ...).
        n_train: number of labelled examples; 0 leaves the methods that need none.
        classes: number of classes.
        majority: share of the most frequent class; it tells what guessing reaches.
        characters: whether the texts are sequences of characters, such as proteins, and not of words; None is words.
        max_length: tokens at which texts are cut; no length counts as longer. None is no cut.
        tokens: mean number of tokens of a text.
        longest: tokens of the longest training text; memory grows with it.
        longest_to_predict: tokens of the longest text to predict, where that is longer.
        terms: number of different words, and pairs of neighbouring words, in the training texts; the memory of TF-IDF
            grows with it.
        train_seconds: limit of the training time, encoding the training rows included.
        peak_memory_bytes: limit of the memory above the process's own.
        trainable_parameters: limit of the number of trained parameters.
        predict_milliseconds: limit of the time to predict one text.
        min_score: score to reach, in the metric's own numbers (0.85; 30 of BLEU); the cheapest methods come first then.
        backbone: the one backbone to answer for.
        backbones: several backbones to answer for, also ones that others measured; `("all known",)` is each of them.
        device: the device whose seconds and memory are given.
        task: a measured task that the question is about: its own records speak for it.
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
    backbones: tuple[str, ...] | None = None
    majority: float | None = None
    characters: bool | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "characters":
                continue
            if item.name == "backbones":
                if value is not None and self.backbone is not None:
                    raise UsageError("--backbone and --backbones were given; give one of them.")
            elif item.name in _TEXTS:
                if value is not None:
                    checked_text(item.name, value)
            elif value is not None or item.name == "n_train":
                number = real_number(item.name, value)
                if not math.isfinite(number):
                    raise UsageError(f"{item.name} is {value}; expected a number.")
                object.__setattr__(self, item.name, number)
        if self.n_train < 0 or self.n_train != int(self.n_train):
            raise UsageError(f"--n-train {self.n_train} was given; expected a whole number of labels, 0 or more.")
        if self.classes is not None and not 2 <= self.classes <= (self.n_train or math.inf):
            raise UsageError(
                f"--classes {self.classes} was given with {text.counted(self.n_train, 'label')}; expected at least "
                "2 classes, and at least one label for each."
            )
        for name in ("tokens", "longest", "longest_to_predict", "terms", "max_length", *LIMITS):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(
                    f"{name} is {value:g}; expected a number above 0. Leave it out where there is no limit."
                )
        for name in ("tokens", "longest", "longest_to_predict"):
            value = getattr(self, name)
            if self.max_length is not None and value is not None:
                object.__setattr__(self, name, min(value, self.max_length))
        if self.majority is not None and not 0 < self.majority <= 1:
            raise UsageError(f"majority is {self.majority:g}; expected a share above 0 and at most 1.")
        if self.min_score is not None and not self.min_score > 0:
            raise UsageError(f"min_score is {self.min_score:g}; expected a score above 0.")

    @property
    def texts(self) -> TaskTexts:
        """The task, its labels and its texts, without the limits."""
        return TaskTexts(
            task=self.task,
            n_train=self.n_train,
            tokens=self.tokens,
            longest=self.longest,
            longest_read=self.longest_to_predict,
            terms=self.terms or (_TERMS_A_SEQUENCE * self.n_train if self.characters else None),
            classes=self.classes,
            majority=self.majority,
        )
