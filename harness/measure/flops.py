"""Floating-point operations by count, not by rule of thumb.

torch's FlopCounterMode counts matrix products as they are dispatched, forward and backward, so what a method does not
compute (gradients of frozen layers) is not counted. Two things are added: formulas for the fused attention of the CPU,
which torch counts as nothing, and a fit over batch and length, since a transformer's count is exactly
``a * tokens + b * tokens * length + c * rows + d`` for padded batches: four counted shapes give the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

SHAPES = ((2, 8), (2, 16), (4, 8), (3, 24), (2, 40))
"""(rows, length) of the batches counted: one more than there are coefficients, and four lengths, so that a count that
is not quadratic in the length shows."""


LANGUAGE_SHAPES = ((2, 8, 4), (2, 16, 4), (4, 8, 4), (3, 24, 6), (2, 40, 16), (2, 16, 12), (3, 12, 9), (2, 32, 24))
"""(rows, length, places predicted) likewise, of language models."""


@dataclass(frozen=True)
class FlopsModel:
    """FLOPs of one batch as a function of its padded shape."""

    per_token: float
    per_token_length: float
    per_row: float
    constant: float
    per_output: float = 0.0
    per_output_squared: float = 0.0
    per_output_token: float = 0.0

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
        if n_outputs == 0:
            return plain
        each = self.per_output + self.per_output_squared * n_outputs + self.per_output_token * length
        return plain + each * n_rows * n_outputs

    def rows(self, lengths: Iterable[int], rows_per_batch: int) -> float:
        """FLOPs of rows that are each run at their own length, so many to a batch."""
        each = [self.batch(1, int(length)) - self.constant for length in lengths]
        return sum(each) + self.constant * -(-len(each) // rows_per_batch)


UNCOUNTED = FlopsModel(0.0, 0.0, 0.0, 0.0)
"""Stands for the operations of a batch where nobody asks for them."""


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
    coefficients, *_ = np.linalg.lstsq(design, counts, rcond=None)
    if not np.allclose(design @ coefficients, counts, rtol=1e-3, atol=1.0):
        raise ValueError(f"FLOPs counted at {SHAPES} are {counts.tolist()}, which no quadratic in length explains.")
    return FlopsModel(*(float(value) for value in coefficients))


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
    coefficients, *_ = np.linalg.lstsq(design, counts, rcond=None)
    if not np.allclose(design @ coefficients, counts, rtol=1e-3, atol=1.0):
        raise ValueError(f"FLOPs counted at {LANGUAGE_SHAPES} are {counts.tolist()}, which the form does not explain.")
    return FlopsModel(*(float(value) for value in coefficients))


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
