"""Count floating-point operations.

torch's FlopCounterMode counts matrix products as they are dispatched, forward and backward, so it leaves out products
that a method skips (gradients of frozen layers). This module adds formulas for the fused attention of the CPU, which
torch counts as zero. It also fits a model over batch and length: a transformer's count is exactly
``a * tokens + b * tokens * length + c * rows + d`` for padded batches, so a few counted shapes give all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.measure.failures import is_out_of_memory

_SHAPES = ((2, 8), (2, 16), (4, 8), (3, 24), (2, 40))
"""(rows, length) of the counted batches: one more than there are coefficients, with four lengths, so that a count that
is not quadratic in the length is detected."""

_MORE_SHAPES = ((5, 12), (1, 32))
"""Further shapes, counted if the fit to `_SHAPES` fails."""

_LANGUAGE_SHAPES = ((2, 8, 4), (2, 16, 4), (4, 8, 4), (3, 24, 6), (2, 40, 16), (2, 16, 12), (3, 12, 9), (2, 32, 24))
"""(rows, length, predicted tokens) of the counted batches of language models."""


@dataclass(frozen=True)
class FlopsModel:
    """FLOPs of one batch as a function of its padded shape.

    `per_length` counts work that all rows of a batch share and that grows with the length: DeBERTa's relative
    positions. `error` is the reason for a failed count, in which case all figures are NaN; otherwise None.
    """

    per_token: float = 0.0
    per_token_length: float = 0.0
    per_row: float = 0.0
    constant: float = 0.0
    per_output: float = 0.0
    per_output_squared: float = 0.0
    per_output_token: float = 0.0
    per_length: float = 0.0
    error: str | None = field(default=None, kw_only=True)

    def batch(self, n_rows: int, length: int, n_outputs: int = 0) -> float:
        """Return the FLOPs of a batch of `n_rows` padded to `length` tokens.

        Args:
            n_rows: number of texts.
            length: tokens per text, with padding.
            n_outputs: tokens per text that a language model predicts; for a sequence-to-sequence model, the decoder's
                length.
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
        """Return the FLOPs of rows that run at their own lengths in batches of `rows_per_batch`."""
        each = [self.share(int(length), rows_per_batch) - self.constant for length in lengths]
        return sum(each) + self.constant * -(-len(each) // rows_per_batch)

    def share(self, length: int, rows_per_batch: int) -> float:
        """Return the FLOPs of one row, with its share of the work that its batch has in common."""
        return self.batch(1, length) - self.per_length * length * (1.0 - 1.0 / rows_per_batch)


def known_flops(flops: float) -> float | None:
    """Return a number of operations; None for NaN, which marks a failed count."""
    return flops if math.isfinite(flops) else None


def counted(count: Callable[[], FlopsModel]) -> FlopsModel:
    """Return the result of `count`; if it fails, return NaN and the `error`.

    A failed measurement must not cost a cell its score. Out-of-memory errors are raised.
    """
    try:
        return count()
    except Exception as error:  # any architecture may break torch's counter
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        return FlopsModel(math.nan, math.nan, math.nan, math.nan, error=why)


def count_flops(run: Callable[[], object]) -> float:
    """Return the FLOPs of the matrix products that `run` dispatches, forward and backward (a multiply-add is two)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # Compiled code is counted in its eager form.
    with (
        torch.compiler.set_stance("force_eager"),
        FlopCounterMode(display=False, custom_mapping=_attention_formulas()) as counter,
    ):
        run()
    return float(counter.get_total_flops())


def fit_flops(run: Callable[[int, int], object]) -> FlopsModel:
    """Count `run(rows, length)` at a few shapes and fit the coefficients.

    Raises:
        ValueError: the counts do not have the fitted form (a bug, or an architecture that needs another form).
    """
    counts = np.array([count_flops(lambda shape=shape: run(*shape)) for shape in _SHAPES])  # type: ignore[misc]
    design = np.array([[rows * length, rows * length**2, rows, 1.0] for rows, length in _SHAPES], dtype=float)
    coefficients = _fitted(design, counts)
    if coefficients is not None:
        return FlopsModel(*coefficients)
    # Work on relative positions that all rows share grows only with the length: one more coefficient.
    shapes = (*_SHAPES, *_MORE_SHAPES)
    more = [count_flops(lambda shape=shape: run(*shape)) for shape in _MORE_SHAPES]  # type: ignore[misc]
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
    """Count `run(rows, length, n_outputs)` at a few shapes and fit the coefficients of a language model.

    Raises:
        ValueError: the counts do not have the fitted form.
    """
    shapes = _LANGUAGE_SHAPES
    counts = np.array([count_flops(lambda shape=shape: run(*shape)) for shape in shapes])  # type: ignore[misc]
    design = np.array(
        [
            [rows * length, rows * length**2, rows, 1.0, rows * n, rows * n**2, rows * n * length]
            for rows, length, n in shapes
        ],
        dtype=float,
    )
    coefficients = _fitted(design, counts)
    if coefficients is None:
        raise ValueError(f"FLOPs counted at {shapes} are {counts.tolist()}, which the form does not explain.")
    return FlopsModel(*coefficients)


def _attention_formulas() -> dict[Any, Any]:
    """Return the formulas of torch's fused attention on the CPU, which has the same products as the CUDA kernels."""
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
