"""Compute the bytes of a model's weights as stored: frozen ones in 16, 32 or 4 bits, trained ones with their masters.

A frozen matrix that takes part in bfloat16 products is stored in bfloat16. Vectors stay in float32, and an embedding is
in bfloat16 only where its file is. See docs/explanation/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from harness.cost.shape import Shape

_FLOAT: Final = 4
_HALF: Final = 2

StoredAs = Literal["auto", "float32", "bfloat16"]
"""Values of the setting `weights` of methods with a frozen backbone."""


@dataclass(frozen=True)
class Storage:
    """Bytes of a number of a frozen model.

    Attributes:
        matrix: in a matrix of a block.
        embedding: in the embedding of the vocabulary.
        head: in a head over the vocabulary that is not the embedding.
        is_shared: whether all cells of the backbone share the frozen weights.
        is_quantised: whether matrices are read back to the type of the products, one at a time.
    """

    matrix: float = float(_FLOAT)
    embedding: float = float(_FLOAT)
    head: float = float(_FLOAT)
    is_shared: bool = False
    is_quantised: bool = False

    def weights(
        self, shape: Shape, blocks: float, master: float, added: float, *, language_model: bool = False
    ) -> tuple[float, float]:
        """Return the bytes of the weights of a cell's own, and of those that cells share.

        Args:
            shape: sizes of the transformer.
            blocks: number of trained blocks; the embedding trains with the last of them.
            master: bytes of a trained number.
            added: number of parameters that are added to the transformer.
            language_model: whether the model has a head over the vocabulary.
        """
        trains_all = blocks >= shape.n_blocks
        own = blocks * (shape.block_parameters * master + shape.vector_parameters * _FLOAT) + added * master
        frozen = (shape.n_blocks - blocks) * (shape.block_parameters * self.matrix + shape.vector_parameters * _FLOAT)
        vocabulary = shape.embedding_parameters * (master if trains_all else self.embedding)
        if language_model and not shape.is_tied:
            vocabulary += shape.embedding_parameters * (master if trains_all else self.head)
        own += vocabulary if trains_all else 0.0
        frozen += 0.0 if trains_all else vocabulary
        return (own, frozen) if self.is_shared else (own + frozen, 0.0)


FLOAT_32: Final = Storage()
"""Everything in float32, as torch loads a model, and nothing shared."""


def storage_of(shape: Shape, *, bits16: bool, weights: StoredAs = "auto", matrix_bytes: float | None = None) -> Storage:
    """Return how a cell's frozen weights are stored.

    Args:
        shape: sizes of the transformer.
        bits16: whether matrix products are in bfloat16. If not, everything is raised to float32.
        weights: the method's setting: `float32` rounds nothing, `bfloat16` rounds the embedding too.
        matrix_bytes: bytes of a number where a method quantises the blocks' matrices; such weights are not shared.
    """
    rounds = bits16 and weights != "float32"
    embedding = _HALF if rounds and (shape.is_bfloat16 or weights == "bfloat16") else _FLOAT
    head = float(_HALF if rounds else _FLOAT)
    if matrix_bytes is not None:
        return Storage(matrix_bytes, float(embedding), head, is_quantised=True)
    return Storage(float(_HALF if rounds else _FLOAT), float(embedding), head, is_shared=True)
