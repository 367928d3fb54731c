"""Memory of training by arithmetic: weights, gradients, the optimiser's state, and what the backward pass keeps.

What a block keeps is added up tensor by tensor, as torch's autograd keeps them of transformers' own modules: the tests
compare it with autograd's saved tensors and with all tensors alive. The rule of thumb, `34 + 5 a s / h` bytes a
token and width (Korthikanti et al., 2022, arXiv:2205.05198), is of another implementation, in 16 bits throughout; here
parameters, norms and the residual stream are in 32, and matrix products in 16 where autocast makes them so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.cost.shape import Shape

_FLOAT: Final = 4
_MOMENTS: Final = 2
"""AdamW's averages of gradients and of their squares."""


@dataclass(frozen=True)
class Regime:
    """How a step is computed.

    Attributes:
        bits16: whether matrix products are in bfloat16, under autocast.
        fused_attention: whether attention keeps no scores; torch's for the CPU keeps them where it drops some out.
        mask_bytes: of a dropout mask's element: 1 by torch's own dropout; those of a CPU are numbers.
    """

    bits16: bool
    fused_attention: bool = True
    mask_bytes: float = 1.0

    @property
    def product_bytes(self) -> int:
        """Bytes of an element that a matrix product reads or gives."""
        return 2 if self.bits16 else _FLOAT


def regime(shape: Shape, kind: str, *, bits16: bool) -> Regime:
    """Return the regime of the training loop on a `cpu` or `cuda` device."""
    on_cpu = kind == "cpu"
    return Regime(
        bits16,
        fused_attention=not (on_cpu and shape.attention_dropout > 0),
        mask_bytes=(2.0 if bits16 else 4.0) if on_cpu else 1.0,
    )


@dataclass(frozen=True)
class Trained:
    """Parts of a transformer that a step trains.

    Attributes:
        blocks: that are trained themselves, from the last on: they keep what enters their matrices.
        blocks_through: that are fixed, and that gradients pass through.
        parameters: numbers that have a gradient and an optimiser's state.
        additions: numbers a token and block that small additions keep of what enters them, in widths of the model.
        checkpoints: whether blocks are computed again in the backward pass.
    """

    blocks: float
    blocks_through: float
    parameters: float
    additions: float = 0.0
    checkpoints: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step, at the moment that most are held.

    Attributes:
        weights: all of the model's, in float32.
        gradients: of what is trained.
        optimiser: the state of AdamW.
        kept: what the backward pass needs, rounded copies of the weights among it.
        passing: what the top block's backward pass, or that of the logits, holds for a moment.
    """

    weights: float
    gradients: float
    optimiser: float
    kept: float
    passing: float
    in_pieces: bool = False

    @property
    def peak_bytes(self) -> float:
        """When the backward pass begins nothing has a gradient yet; when it ends nothing is kept any more."""
        begins = self.kept + self.passing + (self.gradients if self.in_pieces else 0.0)
        return self.weights + self.optimiser + max(begins, self.gradients + self.passing / 2)


def training_memory(
    shape: Shape, trained: Trained, how: Regime, *, n_rows: float, length: float, n_logits: float = 0.0, pieces: int = 1
) -> Memory:
    """Memory of a step.

    Args:
        shape: of the transformer.
        trained: what of it.
        how: it is computed.
        n_rows: texts that go through at once: of a piece, where a batch goes through in pieces.
        length: tokens of each, padding included.
        n_logits: places a text whose token is predicted over the whole vocabulary.
        pieces: that a batch goes through in.
    """
    tokens = n_rows * length
    product = how.product_bytes
    full = tokens * kept_by_block(shape, how, length, trains=True)
    added = product + (float(_FLOAT) if how.mask_bytes > 1 else 1.0)  # what enters, rounded, and its mask
    through = tokens * (kept_by_block(shape, how, length, trains=False) + trained.additions * added * shape.width)
    n_through = trained.blocks + trained.blocks_through
    kept = trained.blocks * full + trained.blocks_through * through
    if trained.checkpoints:
        kept = n_through * tokens * shape.width * _FLOAT + max(full if trained.blocks else 0.0, through)
    if how.bits16:
        kept += n_through * shape.block_parameters * 2.0
    if trained.blocks >= shape.n_blocks:  # the norm behind the embeddings, and its dropout
        kept += tokens * shape.width * (_FLOAT + (how.mask_bytes if shape.dropout > 0 else 0.0))
    passing = tokens * (2.0 * _FLOAT * shape.width + 2.0 * product * shape.inner)
    if n_logits:  # as they are, and their log-probabilities; then the gradients of both, before any block's
        each = n_rows * n_logits * shape.vocabulary
        kept += each * (product + _FLOAT)
        passing = max(passing, each * (_FLOAT + (product if how.bits16 else 0.0)))
    return Memory(
        weights=shape.n_parameters * float(_FLOAT),
        gradients=trained.parameters * _FLOAT,
        optimiser=trained.parameters * _MOMENTS * _FLOAT,
        kept=kept,
        passing=passing,
        in_pieces=pieces > 1,
    )


def kept_by_block(shape: Shape, how: Regime, length: float, *, trains: bool) -> float:
    """Bytes a token that one block's backward pass needs.

    Args:
        shape: of the transformer.
        how: it is computed.
        length: of sequences.
        trains: whether the block's matrices have gradients: then what enters each of them is kept.
    """
    width, inner, wide, product = shape.width, shape.inner, shape.attention_width, how.product_bytes
    # Queries, keys and values as attention reads them (keys and values once for each head), and what it gives.
    if how.fused_attention:
        kept = 4.0 * product * wide + _FLOAT * shape.n_heads
    else:  # in float32, with scores as they are, their mask, and the two multiplied
        kept = 3.0 * _FLOAT * wide + product * wide + 3.0 * _FLOAT * shape.n_heads * length
    kept += 2.0 * _FLOAT * width  # what enters the two norms
    if shape.dropout > 0:
        kept += 2.0 * how.mask_bytes * width
    if shape.gated:  # both inner layers and the activation of one, multiplied in the backward pass
        kept += 3.0 * product * inner
        if trains:  # the norms' outputs before their scales, and the product
            kept += 2.0 * _FLOAT * width + product * inner
    else:
        kept += product * inner
        if trains:
            kept += product * inner
    if trains:  # what enters queries, keys, values and the inner layers: autocast rounds it anew for each
        n_rounded = 3 + (2 if shape.gated else 1)
        kept += n_rounded * product * width if how.bits16 else 2.0 * _FLOAT * width
    return kept


def encoding_memory(shape: Shape, how: Regime, *, n_rows: float, length: float) -> float:
    """Bytes beside the weights that a forward pass without gradients holds at most: in a block's inner layer."""
    tokens, product = n_rows * length, how.product_bytes
    n_inner = 4.0 if shape.gated else 2.0
    # The residual stream; of an encoder also its embeddings, and sums ahead of norms.
    n_streams = 2.0 if shape.gated else 4.0
    held = n_streams * _FLOAT * shape.width + product * shape.width + n_inner * product * shape.inner
    return tokens * held + (2.0 * shape.width * shape.inner if how.bits16 else 0.0)
