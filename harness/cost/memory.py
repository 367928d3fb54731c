"""Compute the memory of training: weights, gradients, the optimiser's state and saved activations.

The activations of a block are added up tensor by tensor, as torch's autograd saves them for transformers' modules.
Tests compare the sum with autograd's saved tensors and with all live tensors. The rule of thumb, `34 + 5 a s / h` bytes
per token and width (Korthikanti et al., 2022, arXiv:2205.05198), describes another implementation, in 16 bits
throughout. Here parameters, norms and the residual stream have 32 bits, and matrix products have 16 under autocast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.cost.shape import Shape

_FLOAT: Final = 4
_MOMENTS: Final = 2
"""Number of AdamW's moments: averages of gradients and of their squares."""


@dataclass(frozen=True)
class Regime:
    """Numerical regime of a step.

    Attributes:
        bits16: whether matrix products are in bfloat16, under autocast.
        fused_attention: whether attention keeps no scores; on the CPU, torch keeps them if it uses dropout.
        mask_bytes: bytes of an element of a dropout mask: 1 in torch's own dropout; floats on a CPU.
    """

    bits16: bool
    fused_attention: bool = True
    mask_bytes: float = 1.0

    @property
    def product_bytes(self) -> int:
        """Bytes of an element that a matrix product reads or writes."""
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
        blocks: number of trained blocks, counted from the last; they keep the inputs of their matrices.
        blocks_through: number of fixed blocks that gradients pass through.
        parameters: number of parameters with a gradient and an optimiser's state.
        additions: inputs that small added modules keep, per token and block, in widths of the model.
        checkpoints: whether blocks are recomputed in the backward pass.
    """

    blocks: float
    blocks_through: float
    parameters: float
    additions: float = 0.0
    checkpoints: bool = False


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a training step.

    Attributes:
        weights: all weights of the model, in float32.
        gradients: gradients of the trained parameters.
        optimiser: state of AdamW.
        kept: saved for the backward pass, including rounded copies of the weights.
        passing: temporaries of the top block's backward pass, or of the logits'.
        in_pieces: whether a batch goes through in several pieces.
    """

    weights: float
    gradients: float
    optimiser: float
    kept: float
    passing: float
    in_pieces: bool = False

    @property
    def peak_bytes(self) -> float:
        """Peak of both ends of the backward pass: at its start there are no gradients, at its end nothing is kept."""
        begins = self.kept + self.passing + (self.gradients if self.in_pieces else 0.0)
        return self.weights + self.optimiser + max(begins, self.gradients + self.passing / 2)


def training_memory(
    shape: Shape, trained: Trained, how: Regime, *, n_rows: float, length: float, n_logits: float = 0.0, pieces: int = 1
) -> Memory:
    """Return the memory of a training step.

    Args:
        shape: sizes of the transformer.
        trained: its trained parts.
        how: numerical regime.
        n_rows: texts that go through at once: those of a piece if a batch is split.
        length: tokens of each text, padding included.
        n_logits: tokens per text that are predicted over the whole vocabulary.
        pieces: number of pieces of a batch.
    """
    tokens = n_rows * length
    product = how.product_bytes
    full = tokens * kept_by_block(shape, how, length, trains=True)
    added = product + (float(_FLOAT) if how.mask_bytes > 1 else 1.0)  # the rounded input and its mask
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
    if n_logits:  # logits and log-probabilities; then the gradients of both, before any block's
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
    """Return the bytes per token that one block's backward pass needs.

    Args:
        shape: sizes of the transformer.
        how: numerical regime.
        length: tokens of a sequence.
        trains: whether the block's matrices have gradients; their inputs are then kept.
    """
    width, inner, wide, product = shape.width, shape.inner, shape.attention_width, how.product_bytes
    # Queries, keys and values as attention reads them (keys and values once for each head), and its output.
    if how.fused_attention:
        kept = 4.0 * product * wide + _FLOAT * shape.n_heads
    else:  # in float32, with scores, their mask, and the masked scores
        kept = 3.0 * _FLOAT * wide + product * wide + 3.0 * _FLOAT * shape.n_heads * length
    kept += 2.0 * _FLOAT * width  # inputs of the two norms
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
    if trains:  # inputs of queries, keys, values and inner layers: autocast rounds them for each
        n_rounded = 3 + (2 if shape.gated else 1)
        kept += n_rounded * product * width if how.bits16 else 2.0 * _FLOAT * width
    return kept


def encoding_memory(shape: Shape, how: Regime, *, n_rows: float, length: float) -> float:
    """Return the peak bytes of a forward pass without gradients, apart from the weights: in a block's inner layer."""
    tokens, product = n_rows * length, how.product_bytes
    n_inner = 4.0 if shape.gated else 2.0
    # The residual stream; for an encoder also its embeddings, and the sums before norms.
    n_streams = 2.0 if shape.gated else 4.0
    held = n_streams * _FLOAT * shape.width + product * shape.width + n_inner * product * shape.inner
    return tokens * held + (2.0 * shape.width * shape.inner if how.bits16 else 0.0)
