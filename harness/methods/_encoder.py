"""The transformer as an encoder of single texts, which contrastive methods train throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.bench import Bench

if TYPE_CHECKING:
    from harness.measure import FlopsModel
    from harness.training import PooledModel


def encoder_of_texts(bench: Bench) -> PooledModel:
    """Return a model from token ids to pooled vectors: a copy of the pretrained weights, all of them trained."""
    from torch import nn

    from harness.training import PooledModel, quicken_dropout

    transformer = bench.fresh_transformer()
    with bench.clock.phase("load"):
        model = PooledModel(transformer, nn.Identity(), bench.some_backbone.files.pooling)
        model = model.to(bench.device.torch_device())
        if bench.device.kind == "cpu":
            quicken_dropout(model)
        bench.note_weights(model)
    return model


def encoder_flops(method: str, model: PooledModel, bench: Bench, *, backward: bool) -> FlopsModel:
    """Return the operations of a batch of texts by shape: forward, and backward too if asked for."""
    key = f"{method}/{bench.files.fingerprint}/{'both ways' if backward else 'forward'}"
    device = bench.device.torch_device()
    return bench.flops_model(key, lambda: model.count_flops(device, backward=backward))
