"""Checks that a fitted method can be merged and converted if, and only if, it declares so."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.methods import (
    Bench,
    Fitted,
    FittedModel,
    Method,
    converted_to_lora,
    merged,
    why_not_lora,
    why_not_merged,
)
from harness.tasks import Answers, Rows, TextAnswers
from harness.testing.checks import expect

MERGED_WITHIN: Final = 1e-5
"""Largest difference of a probability between a fitted model and its merged form."""

CONVERTED_WITHIN: Final = 5e-3
"""Largest difference of a probability between a fitted model and its LoRA."""

_NOISE: Final = 0.05


def disturb(fitted: FittedModel) -> None:
    """Add noise to what was added to the transformer, so that a wrong merge shows; a short fit hardly moves it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in fitted.model.transformer.parameters():
            if value.requires_grad and value.is_floating_point():
                value.add_(_NOISE * torch.randn(value.shape, generator=generator).to(value))


def check_abilities(cls: type[Method], fitted: Fitted, rows: Rows, bench: Bench, *, may_refuse: bool) -> None:
    """Check both abilities of a fitted model against what its method declares.

    Args:
        cls: the method.
        fitted: its fitted model.
        rows: rows to predict.
        bench: bench of the cell.
        may_refuse: whether a reason not to merge suffices, since a layer of this architecture may lack what the method
            trains, such as a bias.
    """
    answers = fitted.predict(rows, bench)
    tensors = fitted.tensors()
    for name, why_not, change, tolerance in (
        ("merge", why_not_merged, merged, MERGED_WITHIN),
        ("convert-to-lora", why_not_lora, converted_to_lora, CONVERTED_WITHIN),
    ):
        reason = why_not(fitted)
        if name not in cls.can:
            expect(reason is not None, f"'{name}' in `can`, since peft allows it", f"only {sorted(cls.can)}")
            continue
        if may_refuse and reason is not None:
            continue
        expect(reason is None, f"a fit that can {name}, as `can` declares", reason)
        changed = change(fitted)
        far = difference(answers, changed.predict(rows, bench))
        expect(far <= tolerance, f"the same answers within {tolerance:g} after '{name}'", f"a difference of {far:.3g}")
    expect(difference(answers, fitted.predict(rows, bench)) == 0, "a fit that stays as it was", "other answers")
    expect(fitted.tensors().keys() == tensors.keys(), "the same tensors to save", sorted(fitted.tensors()))


def difference(first: Answers, second: Answers) -> float:
    """Return the largest difference between two answers; for texts, the share of rows that differ."""
    if isinstance(first, TextAnswers) and isinstance(second, TextAnswers):
        return float(np.mean([one != other for one, other in zip(first.texts, second.texts, strict=True)]))
    return float(np.abs(np.asarray(first) - np.asarray(second)).max(initial=0.0))
