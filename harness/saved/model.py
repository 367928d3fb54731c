"""A saved model, loaded to predict with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UsageError
from harness.saved.layout import IN_MODEL, TRANSFORMER, WEIGHTS, Description, read_description
from harness.tasks.base import Floats, Rows, Source

if TYPE_CHECKING:
    from harness.methods.base import Bench, Fitted

_ROWS = 8192
"""Texts that are predicted at a time: what is kept of them does not grow with the data."""


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A fitted method that predicts.

    Attributes:
        description: what it was fitted to.
    """

    description: Description
    _fitted: Fitted
    _bench: Bench

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of `probabilities`."""
        return self.description.labels

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Of each class, shape (texts, classes), float32.

        Raises:
            UsageError: something among them is no text.
        """
        if isinstance(texts, str):
            raise UsageError("predict was given one text; expected a list of texts.")
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UsageError(f"Text {wrong} is a {type(texts[wrong]).__name__}; expected a string.")
        parts = [self._some(texts[at : at + _ROWS]) for at in range(0, len(texts), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), dtype=np.float32)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable class of each text."""
        return [self.labels[at] for at in self.probabilities(texts).argmax(axis=1)]

    def _some(self, texts: Sequence[str]) -> Floats:
        described = self.description
        key = hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        source = Source(
            key=f"{key}/predict",
            texts=list(texts),
            fields={"text": list(texts)},
            cut=described.truncation_side,
            characters=described.characters,
        )
        bench = _fresh(self._bench)
        with _threads(bench):
            answers = self._fitted.predict(Rows(source, np.arange(len(texts), dtype=np.int64)), bench)
        assert isinstance(answers, np.ndarray)
        return answers


def load_model(folder: str | Path, device: str = "auto") -> SavedModel:
    """Load what `harness choose --save FOLDER` has written.

    Args:
        folder: the folder.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: there is no saved model in it, or it was saved by another version of its method.
    """
    from harness.backbones.locate import locate_backbone
    from harness.backbones.model import load_backbone
    from harness.libraries import quiet_libraries
    from harness.methods import artifact

    folder = Path(folder).expanduser()
    described = read_description(folder)
    quiet_libraries()
    backbone = None
    if described.backbone is not None:
        backbone = load_backbone(locate_backbone(str((folder / TRANSFORMER).absolute())))
    bench = _bench(described, backbone, device)
    merged = _merged(folder, described) if described.merged else {}
    _, fitted = artifact.load(folder, bench, besides=merged)
    return SavedModel(described, fitted, bench)


def _merged(folder: Path, described: Description) -> dict[str, Any]:
    """The transformer's parameters, under their names in an adapted model."""
    from safetensors.numpy import load_file

    weights = load_file(folder / TRANSFORMER / WEIGHTS)
    prefix = described.prefix
    return {IN_MODEL + name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _bench(described: Description, backbone: Any, device_name: str) -> Bench:
    import torch

    from harness.features.encode import FeatureStore
    from harness.features.tokens import TokenStore
    from harness.measure.clock import PhaseClock
    from harness.measure.device import find_device
    from harness.measure.memory import MemoryMeter
    from harness.methods.base import Bench, Ledger
    from harness.records import Budget
    from harness.tasks.base import kinds

    device = find_device(device_name)
    torch.set_num_threads(device.threads)
    limits = [described.max_length, *([backbone.max_length] if backbone is not None else [])]
    return Bench(
        kind=kinds.get(described.kind),
        n_outputs=len(described.labels),
        n_strata=len(described.labels),
        max_length=min(limits),
        label_words=described.label_words,
        prompt=None,
        reply=None,
        measure=lambda *_: 0.0,
        backbone=backbone,
        tokens=TokenStore(),
        features=FeatureStore(device, None),
        flops_models={},
        clock=PhaseClock(),
        memory=MemoryMeter(),
        ledger=Ledger(),
        budget=Budget(),
        seed=described.seed,
        device=device,
        report=lambda *_: None,
    )


def _fresh(bench: Bench) -> Bench:
    """The bench without what was made for other texts."""
    from harness.features.encode import FeatureStore
    from harness.features.tokens import TokenStore

    return dataclasses.replace(bench, tokens=TokenStore(), features=FeatureStore(bench.device, None))


def _threads(bench: Bench) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(bench.device.threads)
