"""Floating-point operations by count, not by rule of thumb.

torch's FlopCounterMode counts matrix products as they are dispatched, forward and backward, so what a method does not
compute (gradients of frozen layers) is not counted. Two things are added: formulas for the fused attention of the CPU,
which torch counts as nothing, and a fit over batch and length, since a transformer's count is exactly
``a * tokens + b * tokens * length + c * rows + d`` for padded batches: four counted shapes give the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.measure.exhausted import is_out_of_memory

SHAPES = ((2, 8), (2, 16), (4, 8), (3, 24), (2, 40))
"""(rows, length) of the batches counted: one more than there are coefficients, and four lengths, so that a count that
is not quadratic in the length shows."""


MORE_SHAPES = ((5, 12), (1, 32))
"""Shapes counted besides where those of `SHAPES` are not explained."""

LANGUAGE_SHAPES = ((2, 8, 4), (2, 16, 4), (4, 8, 4), (3, 24, 6), (2, 40, 16), (2, 16, 12), (3, 12, 9), (2, 32, 24))
"""(rows, length, places predicted) likewise, of language models."""


@dataclass(frozen=True)
class FlopsModel:
    """FLOPs of one batch as a function of its padded shape.

    `per_length` counts what all rows of a batch share and what grows with the length: DeBERTa's relative positions.
    `error` is None, or the reason why nothing could be counted; all figures are not a number then.
    """

    per_token: float
    per_token_length: float
    per_row: float
    constant: float
    per_output: float = 0.0
    per_output_squared: float = 0.0
    per_output_token: float = 0.0
    per_length: float = 0.0
    error: str | None = field(default=None, kw_only=True)

    def batch(self, n_rows: int, length: int, n_outputs: int = 0) -> float:
        """FLOPs of a batch of `n_rows` padded to `length` tokens.

        Args:
            n_rows: texts.
            length: tokens of each, as padded.
            n_outputs: places of each whose token a language model predicts: rows of the vocabulary that are computed,
                and of a sequence-to-sequence model the decoder's length.
        """
        tokens = n_rows * length
        quadratic = self.per_token_length * tokens * length
        plain = self.per_token * tokens + quadratic + self.per_row * n_rows + self.constant
        plain += self.per_length * length
        if n_outputs == 0:
            return plain
        each = self.per_output + self.per_output_squared * n_outputs + self.per_output_token * length
        return plain + each * n_rows * n_outputs

    def rows(self, lengths: Iterable[int], rows_per_batch: int) -> float:
        """FLOPs of rows that are each run at their own length, so many to a batch."""
        each = [self.share(int(length), rows_per_batch) - self.constant for length in lengths]
        return sum(each) + self.constant * -(-len(each) // rows_per_batch)

    def share(self, length: int, rows_per_batch: int) -> float:
        """FLOPs of one row, which shares what grows with the length alone with the other rows of its batch."""
        return self.batch(1, length) - self.per_length * length * (1.0 - 1.0 / rows_per_batch)


UNCOUNTED = FlopsModel(0.0, 0.0, 0.0, 0.0)
"""Stands for the operations of a batch where nobody asks for them."""


def known_flops(flops: float) -> float | None:
    """Return a number of operations, or None for one that is not a number: it could not be counted."""
    return flops if math.isfinite(flops) else None


def counted(count: Callable[[], FlopsModel]) -> FlopsModel:
    """Return what `count` finds; where that fails, figures that are not a number, and the `error`.

    A measurement that fails must not cost a cell its score. Out-of-memory errors are raised.
    """
    try:
        return count()
    except Exception as error:  # any architecture may break torch's counter
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        return FlopsModel(math.nan, math.nan, math.nan, math.nan, error=why)


def count_flops(run: Callable[[], object]) -> float:
    """FLOPs of the matrix products that `run` dispatches, forward and backward (a multiply-add is two)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # What is compiled is counted as it is written.
    with (
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False, custom_mapping=_attention_formulas()) as counter,
    ):
        run()
    return float(counter.get_total_flops())


def fit_flops(run: Callable[[int, int], object]) -> FlopsModel:
    """Count `run(rows, length)` at a few shapes and fit the coefficients.

    Raises:
        ValueError: the counts are not of the form that is fitted (a bug, or an architecture that needs another form).
    """
    counts = np.array([count_flops(lambda shape=shape: run(*shape)) for shape in SHAPES])  # type: ignore[misc]
    design = np.array([[rows * length, rows * length**2, rows, 1.0] for rows, length in SHAPES], dtype=float)
    coefficients = _fitted(design, counts)
    if coefficients is not None:
        return FlopsModel(*coefficients)
    # Relative positions that all rows share grow with the length alone; one more coefficient needs one more shape.
    shapes = (*SHAPES, *MORE_SHAPES)
    more = [count_flops(lambda shape=shape: run(*shape)) for shape in MORE_SHAPES]  # type: ignore[misc]
    counts = np.concatenate([counts, more])
    design = np.array([[rows * length, rows * length**2, rows, 1.0, length] for rows, length in shapes], dtype=float)
    coefficients = _fitted(design, counts)
    if coefficients is None:
        raise ValueError(f"FLOPs counted at {shapes} are {counts.tolist()}, which no quadratic in length explains.")
    per_token, per_token_length, per_row, constant, per_length = coefficients
    return FlopsModel(per_token, per_token_length, per_row, constant, per_length=per_length)


def _fitted(design: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> list[float] | None:
    """Return the least-squares coefficients; None if they do not explain the counts."""
    coefficients, *_ = np.linalg.lstsq(design, counts, rcond=None)
    if not np.allclose(design @ coefficients, counts, rtol=1e-3, atol=1.0):
        return None
    return [float(value) for value in coefficients]


def fit_language_flops(run: Callable[[int, int, int], object]) -> FlopsModel:
    """Count `run(rows, length, places)` at a few shapes and fit the coefficients of a language model.

    Raises:
        ValueError: the counts are not of the form that is fitted.
    """
    counts = np.array([count_flops(lambda shape=shape: run(*shape)) for shape in LANGUAGE_SHAPES])  # type: ignore[misc]
    design = np.array(
        [
            [rows * length, rows * length**2, rows, 1.0, rows * n, rows * n**2, rows * n * length]
            for rows, length, n in LANGUAGE_SHAPES
        ],
        dtype=float,
    )
    coefficients = _fitted(design, counts)
    if coefficients is None:
        raise ValueError(f"FLOPs counted at {LANGUAGE_SHAPES} are {counts.tolist()}, which the form does not explain.")
    return FlopsModel(*coefficients)


def _attention_formulas() -> dict[Any, Any]:
    """FLOPs of torch's fused attention on the CPU: the same products as the formulas of torch's CUDA kernels."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    return {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
