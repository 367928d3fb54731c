"""Facts about a backbone that forecasts compare backbones by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Pretraining = Literal["sentence encoder", "instruct embedding", "masked LM", "causal", "static"]
"""Kind of pretraining of a backbone.

- `sentence encoder`: trained further so that similar texts have similar vectors.
- `instruct embedding`: the same, with an instruction before each text.
- `masked LM`: pretrained to fill in masked words, and no further.
- `causal`: pretrained to write the next word.
- `static`: one vector a word, and no transformer.
"""

PRETRAININGS: tuple[Pretraining, ...] = get_args(Pretraining)

_ANY_LENGTH = 1e6
"""Stated length of texts from which a model has no limit: it has no positions, so it is static."""


@dataclass(frozen=True)
class EncoderFacts:
    """Facts about a backbone; None is unknown.

    Attributes:
        n_parameters: number of parameters.
        width: width of its vectors.
        layers: number of transformer layers.
        max_tokens: tokens of the longest text that it reads.
        pretraining: kind of pretraining.
        released: date of its release.
        licence: licence of its weights.
        has_open_weights: whether its weights can be downloaded.
    """

    n_parameters: int | None = None
    width: int | None = None
    layers: int | None = None
    max_tokens: int | None = None
    pretraining: Pretraining | None = None
    released: str | None = None
    licence: str | None = None
    has_open_weights: bool | None = None


@dataclass(frozen=True)
class PublishedResult:
    """Accuracy of one encoder on one task, as others measured and published it.

    Attributes:
        task: name of the task at its source.
        accuracy: mean accuracy over draws, from 0 to 1.
        sd: standard deviation over draws; None is unknown.
        n_draws: number of draws; None is unknown.
        has_seen_task: whether the encoder's authors name the task's training data among theirs; None is unknown.
        revision: revision of the encoder's weights.
        data_revision: revision of the data.
        f1: mean macro F1; None is unknown.
        version: version of the software that measured it; None is unknown.
    """

    task: str
    accuracy: float
    sd: float | None = None
    n_draws: int | None = None
    has_seen_task: bool | None = None
    revision: str = ""
    data_revision: str = ""
    f1: float | None = None
    version: str | None = None


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder with its published results.

    Attributes:
        name: name of the encoder at its source.
        facts: facts about it.
        results: its results, one a task.
    """

    name: str
    facts: EncoderFacts
    results: tuple[PublishedResult, ...] = ()


def pretraining_of(*, takes_instructions: bool | None, max_tokens: float | None) -> Pretraining:
    """Return the kind of pretraining of a published encoder, as far as its metadata tell."""
    if max_tokens is not None and max_tokens >= _ANY_LENGTH:
        return "static"
    return "instruct embedding" if takes_instructions else "sentence encoder"


def finite_tokens(max_tokens: float | None) -> int | None:
    """Return a stated length of texts; None where it is unknown or has no limit."""
    if max_tokens is None or not math.isfinite(max_tokens) or max_tokens >= _ANY_LENGTH:
        return None
    return round(max_tokens)
