"""Load a language model for prompting, and run it as part of a fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.measure import PrecisionPolicy, long_step
from harness.methods._label_likelihood import LabelLikelihood
from harness.methods._weights import FrozenWeights
from harness.methods.bench import Bench
from harness.support import UnsupportedError, UsageError, put_aside
from harness.tasks import Floats

if TYPE_CHECKING:
    from harness.backbones import Backbone, LanguageModel


def load_language_model(method: FrozenWeights, precision: PrecisionPolicy, bench: Bench) -> LanguageModel:
    """Return the backbone with its language-modelling head, charged to "load" at the cost of its first load."""
    backbone = bench.some_backbone
    with bench.clock.paused(), long_step(), put_aside():  # it stays for later cells
        try:
            loaded = backbone.language_model(bench.device.torch_device(), bench.precision(precision), method.weights)
        except UsageError as error:  # the files hold no language-modelling head: unsupported, not failed
            raise UnsupportedError(str(error)) from None
    bench.clock.charge("load", loaded.load_seconds)
    bench.note_weights(loaded.model, resident=True)
    if backbone in _LOADED:  # by an earlier cell
        bench.ledger.reused.add("language model")
    _LOADED.add(backbone)
    return loaded


_LOADED: weakref.WeakSet[Backbone] = weakref.WeakSet()
"""Backbones whose language model an earlier fit has loaded."""


def run_in_fit(run: Callable[[], Floats], likelihood: LabelLikelihood, bench: Bench) -> Floats:
    """Run the language model as part of a fit: once timed, and once untimed to count its operations."""
    before = likelihood.n_tokens
    with bench.working("fit"):
        result = run()
    bench.ledger.train_tokens += likelihood.n_tokens - before
    bench.count_train_flops(run)
    return result
