"""Forgetting: how far a fit has moved the transformer, measured on the outside texts after the predictions.

The reference is the pretrained model itself: its own weights, the same tokens, the same precision. It is read once for
a backbone in a process. An adapted model without its adapters would be no reference: some methods do not start from
the pretrained function, and others change weights outside of their adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.data import OutsideTexts, outside_texts
from harness.features import TokenIds, debiased_cka
from harness.measure import Device, Failures, Precision
from harness.methods import Fitted, Method
from harness.records import Forgetting, Role
from harness.support import UnsupportedError

if TYPE_CHECKING:
    from harness.backbones import Backbone, Weights
    from harness.training import LanguageHead, OutsideReading

MAX_TOKENS: Final = 32
"""Tokens of each outside text that are read; every passage has more, so that no batch is padded."""

_MIN_TOKENS: Final = 4
_DECIMALS: Final = 6
"""Decimals of the figures: what two computations of the same model differ by lies behind them."""

_N_FOLDS: Final = 4
_MOST_UNKNOWN: Final = 0.5
"""Share of unknown tokens from which the texts say nothing about the backbone."""

_UNTRAINED: Final[frozenset[Role]] = frozenset({"frozen features", "prompting"})
"""Roles that use the pretrained transformer and train nothing inside it."""

_NOTHING_TO_FORGET: Final = "the transformer starts from random weights, so that it has nothing to forget"


class ForgettingMeter:
    """Measures forgetting, and keeps what the pretrained models make of the outside texts.

    Args:
        device: where the models are.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pretrained: dict[tuple[Any, ...], tuple[OutsideReading, float]] = {}

    def measure(
        self, method: Method, fitted: Fitted, backbone: Backbone | None, failures: Failures
    ) -> Forgetting | None:
        """Return how far a fit has moved the transformer; None where there is none, or where it is unknown.

        Args:
            method: the method.
            fitted: its fit.
            backbone: its backbone; None for methods that use none.
            failures: takes the reason why it is unknown.
        """

        def measured() -> Forgetting | None:
            try:
                return self._measured(method, fitted, backbone)
            except UnsupportedError as error:
                failures.note("forgetting", str(error))
                return None

        return failures.guard("forgetting", measured)

    def _measured(self, method: Method, fitted: Fitted, backbone: Backbone | None) -> Forgetting | None:
        if backbone is None or method.role in ("floor", "baseline"):
            return None
        is_causal = backbone.files.architecture == "causal"
        if method.role in _UNTRAINED:
            return Forgetting(rise_of_loss_nats=0.0 if is_causal else None, feature_change=0.0)
        if method.role == "from scratch":
            raise UnsupportedError(_NOTHING_TO_FORGET)
        model = fitted.adapted_model()
        if model is None:
            raise UnsupportedError(f"a fit of '{method.name}' does not give its adapted model")
        from harness.training import read_outside

        outside = outside_texts()
        reserved = getattr(method, "reserved_tokens", lambda: 0)()
        tokens = outside_tokens(outside, backbone, min(MAX_TOKENS, backbone.max_length - reserved))
        precision = self._device.precision(getattr(method, "precision", "fp32"))
        weights: Weights = getattr(method, "weights", "auto")
        head = self._head(backbone, tokens, precision, weights) if is_causal else None
        before, probe_before = self._before(backbone, tokens, precision, weights, head)
        after = read_outside(model, tokens, head=head, **self._how(backbone, precision))
        return compared(before, probe_before, after, outside)

    def _how(self, backbone: Backbone, precision: Precision) -> dict[str, Any]:
        return {
            "pooling": backbone.files.pooling,
            "pad_id": backbone.pad_id,
            "device": self._device,
            "precision": precision,
        }

    def _head(
        self, backbone: Backbone, tokens: Sequence[TokenIds], precision: Precision, weights: Weights
    ) -> LanguageHead:
        from harness.training import LanguageHead

        there = self._device.torch_device()
        language_model = backbone.shared_language_model(there, precision, weights)
        return LanguageHead(language_model, tokens[0], self._device, precision)

    def _before(
        self,
        backbone: Backbone,
        tokens: Sequence[TokenIds],
        precision: Precision,
        weights: Weights,
        head: LanguageHead | None,
    ) -> tuple[OutsideReading, float]:
        """Return the pretrained model's reading and its probe's accuracy, once for a backbone and a precision."""
        from torch import nn

        from harness.training import PooledModel, read_outside

        key = (backbone.files.fingerprint, precision, weights, max(map(len, tokens)))
        if key not in self._pretrained:
            transformer = backbone.resident(self._device.torch_device(), precision, weights)
            model = PooledModel(transformer, nn.Identity(), backbone.files.pooling)
            reading = read_outside(model, tokens, head=head, **self._how(backbone, precision))
            self._pretrained[key] = reading, probe_accuracy(reading.features, outside_texts().works)
        return self._pretrained[key]


def outside_tokens(outside: OutsideTexts, backbone: Backbone, max_length: int) -> list[TokenIds]:
    """Return the token ids of the outside texts, special tokens included, each cut to `max_length`.

    Raises:
        UnsupportedError: the backbone reads too few tokens, or does not know the words.
    """
    if max_length < _MIN_TOKENS:
        raise UnsupportedError(f"the backbone has room for {max_length} tokens of outside text; {_MIN_TOKENS} needed")
    encoded = backbone.tokenizer(list(outside.texts), truncation=True, max_length=max_length, padding=False)
    tokens = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
    unknown = backbone.tokenizer.unk_token_id
    share = float(np.mean(np.concatenate(tokens) == unknown)) if unknown is not None else 0.0
    if share > _MOST_UNKNOWN:
        raise UnsupportedError(f"the tokenizer does not know {share:.0%} of the tokens of the outside texts")
    return tokens


def compared(before: OutsideReading, probe_before: float, after: OutsideReading, outside: OutsideTexts) -> Forgetting:
    """Return the difference between what two models make of the outside texts.

    Args:
        before: reading of the pretrained model.
        probe_before: accuracy of the probe on its features.
        after: reading of the adapted model.
        outside: the texts.
    """
    rise = None
    if before.loss_nats is not None and after.loss_nats is not None:
        rise = _rounded(after.loss_nats - before.loss_nats)
    return Forgetting(
        rise_of_loss_nats=rise,
        feature_change=_rounded(1.0 - debiased_cka(before.features, after.features)),
        probe_before=probe_before,
        probe_after=probe_accuracy(after.features, outside.works),
        n_texts=len(outside.texts),
        outside_text=outside.name,
    )


def probe_accuracy(features: Any, labels: Sequence[str]) -> float:
    """Return the accuracy of a ridge classifier on standardised features, over fixed folds.

    A row's fold is its position modulo four, so that each fold has as many passages of every work.

    Args:
        features: shape (rows, width).
        labels: label of each row.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.asarray(features, dtype=np.float64)
    probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=float(values.shape[1])))
    folds = PredefinedSplit(np.arange(len(values)) % _N_FOLDS)
    found = cross_val_predict(probe, values, np.asarray(labels), cv=folds)
    return float(np.mean(found == np.asarray(labels)))


def _rounded(value: float) -> float:
    """Return a difference to six decimals, without a negative zero.

    Raises:
        FloatingPointError: it is not a finite number.
    """
    if not np.isfinite(value):
        raise FloatingPointError(f"the difference on outside texts is {value}; the adapted model may have diverged")
    return round(value, _DECIMALS) + 0.0
