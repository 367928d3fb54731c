"""Compute the memory of training and of forward passes: weights, gradients, the optimiser's state, activations, logits.

The activations of a block are added up tensor by tensor, as torch's autograd saves them for transformers' modules.
Tests compare the sum with autograd's saved tensors and with all live tensors. The rule of thumb, `34 + 5 a s / h` bytes
per token and width (Korthikanti et al., 2022, arXiv:2205.05198), describes another implementation, in 16 bits
throughout. Here norms and the residual stream have 32 bits, and matrix products have 16 under autocast.
`storage.py` has the bytes of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

from harness.cost.shape import Shape
from harness.cost.storage import FLOAT_32, Storage
from harness.records import TRAINED_BYTES, TrainedBytes

_FLOAT: Final = 4
_PLAIN: Final = TRAINED_BYTES["adamw", "float32"]


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
        added: number of parameters that are added to the transformer; `parameters` includes them.
        resting: number of blocks that train in other steps only. Gradients pass through them.
        state_bytes: bytes of the optimiser's state; None for those of `parameters` equal numbers.
    """

    blocks: float
    blocks_through: float
    parameters: float
    additions: float = 0.0
    checkpoints: bool = False
    added: float = 0.0
    resting: float = 0.0
    state_bytes: float | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes that a cell needs at its peak, by part.

    Attributes:
        weights: weights of the cell's own: those that train, and frozen ones that no other cell shares.
        shared_weights: frozen weights that lie in memory for all cells of the backbone.
        gradients: gradients of the trained parameters; 0 if the peak comes before the first of them.
        optimiser: state of the optimiser.
        rounded_weights: copies of weights in the type of the products: of all trained matrices, of frozen ones that are
            stored in float32, or of one 4-bit matrix at a time.
        kept: activations that are saved for the backward pass.
        logits: logits over the vocabulary, with their gradients or log-probabilities.
        keys_and_values: keys and values of the tokens that a decoder has read.
        temporaries: activations of the block that is being computed.
        other: buffers of libraries.
        during: work at the peak: `training`, `encoding`, `predicting` or `nothing`.
    """

    weights: float = 0.0
    shared_weights: float = 0.0
    gradients: float = 0.0
    optimiser: float = 0.0
    rounded_weights: float = 0.0
    kept: float = 0.0
    logits: float = 0.0
    keys_and_values: float = 0.0
    temporaries: float = 0.0
    other: float = 0.0
    during: str = "training"

    @property
    def parts(self) -> dict[str, float]:
        """The bytes by part; they add up to `peak_bytes`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "during"}

    @property
    def peak_bytes(self) -> float:
        """All bytes at the peak."""
        return sum(self.parts.values())

    @property
    def fixed_bytes(self) -> float:
        """The part that does not depend on the number of rows at a time: weights, their gradients and states."""
        step = self.kept + self.logits + self.keys_and_values + self.temporaries
        return self.peak_bytes - step


NO_MEMORY: Final = Memory(during="nothing")
"""Memory of no work at all."""


def training_memory(
    shape: Shape,
    trained: Trained,
    how: Regime,
    *,
    n_rows: float,
    length: float,
    logit_bytes: float = 0.0,
    pieces: int = 1,
    storage: Storage = FLOAT_32,
    each: TrainedBytes = _PLAIN,
    language_model: bool = False,
) -> Memory:
    """Return the memory of a training step at the peak of its backward pass.

    At the start of the backward pass everything is kept and there are no gradients, unless an earlier piece left them;
    at its end nothing is kept.

    Args:
        shape: sizes of the transformer.
        trained: its trained parts.
        how: numerical regime.
        n_rows: texts that go through at once: those of a piece if a batch is split.
        length: tokens of each text, padding included.
        logit_bytes: bytes in float32 of the logits over the vocabulary that exist at a time.
        pieces: number of pieces of a batch.
        storage: how frozen weights are stored.
        each: bytes for each trained number.
        language_model: whether the model has a head over the vocabulary.
    """
    tokens = n_rows * length
    product = how.product_bytes
    full = tokens * kept_by_block(shape, how, length, trains=True)
    added = product + (float(_FLOAT) if how.mask_bytes > 1 else 1.0)  # the rounded input and its mask
    through = tokens * (kept_by_block(shape, how, length, trains=False) + trained.additions * added * shape.width)
    n_through = trained.blocks + trained.resting + trained.blocks_through
    own = trained.blocks + trained.resting
    kept = trained.blocks * full + (trained.resting + trained.blocks_through) * through
    if trained.checkpoints:
        kept = n_through * tokens * shape.width * _FLOAT + max(full if trained.blocks else 0.0, through)
    if own >= shape.n_blocks:  # the norm behind the embeddings, and its dropout
        kept += tokens * shape.width * (_FLOAT + (how.mask_bytes if shape.dropout > 0 else 0.0))
    passing = tokens * (2.0 * _FLOAT * shape.width + 2.0 * product * shape.inner)
    gradients = trained.parameters * each.gradient
    held = _held(storage, shape, own, each.master, trained.added, language_model=language_model)
    begins = replace(
        held,
        optimiser=trained.parameters * each.state if trained.state_bytes is None else trained.state_bytes,
        gradients=gradients if pieces > 1 else 0.0,
        rounded_weights=_rounded(shape, how, storage, each, own, trained.blocks_through),
        kept=kept,
        # With their log-probabilities; their gradients come before the temporaries of any block.
        logits=logit_bytes * (3.0 if logit_bytes > passing else 2.0),
        temporaries=0.0 if logit_bytes > passing else passing,
    )
    ends = replace(begins, gradients=gradients, rounded_weights=0.0, kept=0.0, logits=0.0, temporaries=passing / 2)
    return max(begins, ends, key=lambda memory: memory.peak_bytes)


def _held(
    storage: Storage, shape: Shape, blocks: float, master: float, added: float, *, language_model: bool
) -> Memory:
    own, shared = storage.weights(shape, blocks, master, added, language_model=language_model)
    return Memory(weights=own, shared_weights=shared)


def _rounded(
    shape: Shape, how: Regime, storage: Storage, each: TrainedBytes, blocks: float, blocks_through: float
) -> float:
    """Return the bytes of copies of weights in the type of the products."""
    if storage.is_quantised:  # one at a time, in the forward and in the backward pass
        return float(how.product_bytes * shape.largest_matrix)
    if not how.bits16:
        return 0.0
    n_blocks = (blocks if each.master == _FLOAT else 0.0) + (blocks_through if storage.matrix == _FLOAT else 0.0)
    return 2.0 * n_blocks * shape.block_parameters


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


def encoding_memory(shape: Shape, how: Regime, *, n_rows: float, length: float, rounds: bool = True) -> float:
    """Return the peak bytes of a forward pass without gradients, apart from the weights: in a block's inner layer.

    Args:
        shape: sizes of the transformer.
        how: numerical regime.
        n_rows: texts that go through at once.
        length: tokens of each text, padding included.
        rounds: whether matrices are stored in float32, and rounded one at a time for 16-bit products.
    """
    tokens, product = n_rows * length, how.product_bytes
    n_inner = 4.0 if shape.gated else 2.0
    # The residual stream; for an encoder also its embeddings, and the sums before norms.
    n_streams = 2.0 if shape.gated else 4.0
    held = n_streams * _FLOAT * shape.width + product * shape.width + n_inner * product * shape.inner
    return tokens * held + (2.0 * shape.width * shape.inner if how.bits16 and rounds else 0.0)


def forward_memory(
    shape: Shape,
    how: Regime,
    *,
    n_rows: float,
    length: float,
    during: str,
    blocks: float = 0.0,
    added: float = 0.0,
    n_kept_tokens: float = 0.0,
    logit_bytes: float = 0.0,
    storage: Storage = FLOAT_32,
    each: TrainedBytes = _PLAIN,
    language_model: bool = False,
) -> Memory:
    """Return the memory of forward passes without gradients.

    Args:
        shape: sizes of the transformer.
        how: numerical regime.
        n_rows: texts that go through at once.
        length: tokens of each text, padding included.
        during: work that the pass is for.
        blocks: number of blocks that were trained before; autocast keeps their rounded weights.
        added: number of parameters that were added to the transformer.
        n_kept_tokens: tokens whose keys and values are kept.
        logit_bytes: bytes in float32 of the logits over the vocabulary that exist at a time.
        storage: how frozen weights are stored.
        each: bytes for each trained number.
        language_model: whether the model has a head over the vocabulary.
    """
    held = _held(storage, shape, blocks, each.master, added, language_model=language_model)
    rounds = not storage.is_quantised and storage.matrix == _FLOAT and blocks < shape.n_blocks
    return replace(
        held,
        rounded_weights=_rounded(shape, how, storage, each, blocks, 0.0),
        temporaries=encoding_memory(shape, how, n_rows=n_rows, length=length, rounds=rounds),
        keys_and_values=n_kept_tokens * shape.n_blocks * 2.0 * how.product_bytes * shape.key_width,
        logits=logit_bytes * (2.5 if how.bits16 else 2.0),  # with log-probabilities, and rounded
        during=during,
    )
