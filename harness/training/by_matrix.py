"""Optimisers for the matrices inside blocks, with AdamW for everything else.

Adafactor, Muon, GaLore and APOLLO save memory where most weights are, in the matrices of the blocks. Vectors,
embeddings and the output layer train by AdamW. Muon and GaLore are defined so, and an embedding of which only some rows
have gradients then trains as it would with all rows (`vocabulary`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from harness.backbones import narrow_parameters
from harness.records import OF_MATRICES, Optimiser, step_flops
from harness.support import UnsupportedError
from harness.training.low_rank import LowRankAdamW

if TYPE_CHECKING:
    from harness.training.loop import ParameterGroup

RATES: Final[Mapping[Optimiser, float]] = {"adafactor": 10.0}
"""Learning rate of matrices as a multiple of AdamW's, where it is another.

Adafactor's rate is a share of the root mean square of a matrix. T5 was fine-tuned with 0.001 (Raffel et al., 2019,
arXiv:1910.10683, section 3.1.2), ten times the default of `full`. Muon's update is given the size of AdamW's, so that
it takes AdamW's rate and decay (Liu et al., 2025, arXiv:2502.16982). GaLore and APOLLO scale their updates likewise.
"""

WIDTH_EXPONENTS: Final[Mapping[Optimiser, float]] = {"adafactor": 0.5, "muon": 0.5, "galore": 0.5}
"""Power of 1 / width by which the default rate of matrices falls, where it is not AdamW's power of 1.

Adafactor's step is relative to the weights, which are the smaller the wider a layer is (Everett et al., 2024,
arXiv:2407.05872). Updates of Muon and GaLore change a state by no more than the square root of the width, where those
of AdamW may add up to the width itself.
"""


class Together:
    """Several optimisers that step together. It has those parts of torch's interface that the training loop needs.

    Args:
        parts: the optimisers; no two hold the same parameter.
        step_flops: operations of a step that are worth counting.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer], step_flops: float = 0.0) -> None:
        self._parts = parts
        self.step_flops = step_flops

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all."""
        return [group for part in self._parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:
        """The states of all."""
        return {key: value for part in self._parts for key, value in part.state.items()}

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for part in self._parts:
            part.step()

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)


def block_matrices(transformer: nn.Module) -> set[int]:
    """Return the ids of matrices that only products read, without a head over the vocabulary."""
    try:
        head = transformer.get_output_embeddings()  # type: ignore[operator]
    except (NotImplementedError, AttributeError):
        head = None
    return narrow_parameters(transformer, embeddings=False) - {id(getattr(head, "weight", None))}


def set_matrices_apart(groups: Sequence[ParameterGroup], transformer: nn.Module) -> list[ParameterGroup]:
    """Return the groups without the matrices of blocks, in the same order, and then those matrices in further groups.

    Raises:
        UnsupportedError: there are no such matrices to train.
    """
    check_matrices(transformer)
    known = block_matrices(transformer)
    others, matrices = [], []
    for group in groups:
        apart = [id(one) in known and min(one.shape) > 1 for one in group.parameters]
        found = [parameter for parameter, is_apart in zip(group.parameters, apart, strict=True) if is_apart]
        rest = [parameter for parameter, is_apart in zip(group.parameters, apart, strict=True) if not is_apart]
        others.append(dataclasses.replace(group, parameters=rest))
        if found:
            matrices.append(dataclasses.replace(group, parameters=found, is_of_matrices=True))
    return [*others, *matrices]


def check_matrices(transformer: nn.Module) -> None:
    """Refuse a transformer without matrices that an optimiser for matrices could update.

    Raises:
        UnsupportedError: there are none.
    """
    if not block_matrices(transformer):
        raise UnsupportedError(
            f"No matrices were found inside the blocks of a {type(transformer).__name__}. The optimisers "
            f"{', '.join(sorted(OF_MATRICES))} are for matrices. Use optimiser=adamw."
        )


def matrix_optimiser(
    groups: list[dict[str, Any]], optimiser: Optimiser, rank: int, seed: int, rate: float
) -> tuple[torch.optim.Optimizer, float]:
    """Return an optimiser for groups of matrices, and the operations of its step.

    Args:
        groups: torch's parameter groups, with the `peak` and the `weight_decay` of AdamW; changed in place.
        optimiser: one of `OF_MATRICES`.
        rank: dimensions that GaLore and APOLLO project to.
        seed: of random projections.
        rate: learning rate of groups before the first step.
    """
    more = RATES.get(optimiser, 1.0)
    for group in groups:
        group["peak"] *= more
        group["weight_decay"] /= more  # a step decays by rate * decay, whatever the optimiser
    made: dict[Optimiser, Callable[[], torch.optim.Optimizer]] = {
        "adafactor": lambda: torch.optim.Adafactor(groups, lr=rate, weight_decay=0.0),
        "muon": lambda: torch.optim.Muon(groups, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        "galore": lambda: LowRankAdamW(groups, "galore", rank, seed, lr=rate),
        "apollo": lambda: LowRankAdamW(groups, "apollo", rank, seed, lr=rate),
    }
    matrices = [parameter for group in groups for parameter in group["params"]]
    return made[optimiser](), sum(step_flops(optimiser, len(matrix), matrix.shape[1], rank) for matrix in matrices)
