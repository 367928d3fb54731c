"""Make optimisers; and AdamW for matrices that are kept in bfloat16.

bfloat16 has 8 significant bits, so that rounding to the nearest number loses most updates of fine-tuning. Two remedies
are known (Zamirai et al., 2020, arXiv:2010.06192): stochastic rounding keeps them on average, and Kahan summation keeps
what rounding lost in a second number of 16 bits. torch has neither. torchao has the first one, in compiled code only.
torch-optimi has the second one; its second number is bfloat16 too, which loses a tenth of updates of 1e-5 of a weight,
and its second moment is rounded to the nearest number, which freezes it. Here the second number is the rest of a
float32 number, as a whole number, so that nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import nn

from harness.backbones import fit_classes, narrow_parameters
from harness.records import Masters, Optimiser
from harness.training.by_matrix import Together, matrix_optimiser

if TYPE_CHECKING:
    from harness.training.loop import ParameterGroup

Rounding = Literal["bfloat16-stochastic", "bfloat16-kahan"]

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8

PIECE_NUMBERS: Final = {"cpu": 2**17, "cuda": 2**24}
"""Numbers that `NarrowAdamW` updates at a time, in 5 buffers of 4 bytes each."""


def optimiser_of(
    groups: Sequence[ParameterGroup],
    optimiser: Optimiser = "adamw",
    masters: Masters = "float32",
    seed: int = 0,
    rank: int = 1,
) -> torch.optim.Optimizer | Together:
    """Return an optimiser over the groups; only matrices are decayed.

    Args:
        groups: the parameters to train; those of matrices alone are updated by `optimiser` where it is for matrices.
        optimiser: how weights are updated, and how moments of float32 parameters are kept.
        masters: how bfloat16 parameters are rounded, if there are any.
        seed: of stochastic rounding and random projections.
        rank: dimensions that gradients are projected to, where they are.
    """
    split: list[dict[str, Any]] = []
    matrices: list[dict[str, Any]] = []
    for group in groups:
        for decayed in (True, False):
            chosen = [parameter for parameter in group.parameters if is_matrix(parameter) == decayed]
            if chosen:
                decay = group.weight_decay if decayed else 0.0
                apart = matrices if group.is_of_matrices else split
                apart.append({"params": chosen, "peak": group.learning_rate, "weight_decay": decay})
    rate = groups[0].learning_rate
    if masters != "float32":
        return NarrowAdamW(split, masters, seed, lr=rate)
    if optimiser == "adamw-8bit":
        from harness.training.quantised import EightBitAdamW

        return EightBitAdamW(split, lr=rate, betas=BETAS, eps=EPSILON)  # type: ignore[no-any-return, unused-ignore]
    if optimiser == "lisa":
        return SampledAdamW(split, lr=rate, fused=True)
    plain = torch.optim.AdamW(split, lr=rate, fused=True) if split else None
    if not matrices:
        assert plain is not None
        return plain
    special, flops = matrix_optimiser(matrices, optimiser, rank, seed, rate)
    return Together([special, *([plain] if plain is not None else [])], flops)


def is_matrix(parameter: torch.Tensor) -> bool:
    """Return whether a parameter is decayed: a vector that is stored as one row or column is still a vector."""
    return sum(size > 1 for size in parameter.shape) > 1


def state_bytes(optimiser: torch.optim.Optimizer | Together) -> int:
    """Return the bytes of an optimiser's state, without tables that all parameters share."""
    held = {
        id(value): value.numel() * value.element_size()
        for state in optimiser.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and not name.startswith("qmap")
    }
    return sum(held.values())


def narrow_trained(transformer: nn.Module) -> None:
    """Round those trained matrices of a transformer to bfloat16 that only products and look-ups read; in place."""
    narrow = narrow_parameters(transformer, embeddings=True)
    for parameter in transformer.parameters():
        if parameter.requires_grad and id(parameter) in narrow:
            parameter.data = parameter.data.to(torch.bfloat16)
    fit_classes(transformer)


class SampledAdamW(torch.optim.AdamW):
    """AdamW that forgets the state of parameters without a gradient (LISA, `sampling`)."""

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        for parameter in [one for one in self.state if one.grad is None]:
            del self.state[parameter]
        return super().step(closure)


class NarrowAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) for parameters in bfloat16, and others in float32.

    Each step computes in float32, one piece of the parameters after another. The two moments of a bfloat16 parameter
    are bfloat16 as well, and always rounded stochastically: the second one changes by 0.1 % a step, which rounding to
    the nearest of 8 bits would lose.

    Args:
        groups: torch's parameter groups, with a `weight_decay` each.
        rounding: how weights in bfloat16 are rounded.
        seed: of the stochastic rounding; dropout and others draw from another generator.
        lr: learning rate of groups that state none.
        piece_numbers: numbers to update at a time; None takes those of the device.
    """

    def __init__(
        self, groups: Any, rounding: Rounding, seed: int, *, lr: float, piece_numbers: int | None = None
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        device = self.param_groups[0]["params"][0].device
        self._rounding = rounding
        self._numbers = piece_numbers or PIECE_NUMBERS.get(device.type, 2**24)
        self._generator = torch.Generator(device).manual_seed(seed)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for piece in self._pieces(group["params"]):
                self._update(piece, float(group["lr"]), float(group["weight_decay"]))

    def _pieces(self, parameters: Sequence[nn.Parameter]) -> Iterator[_Piece]:
        """Yield slices of parameters that have been updated as often and have the same type."""
        open_pieces: dict[tuple[int, torch.dtype], _Piece] = {}
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self._state_of(parameter)
            state["step"] += 1
            key = (state["step"], parameter.dtype)
            whole = [parameter.detach(), parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
            whole += [state["lost"]] if "lost" in state else []
            flat = [value.reshape(-1) for value in whole]
            at = 0
            while at < parameter.numel():
                piece = open_pieces.setdefault(key, _Piece(*key))
                n = min(parameter.numel() - at, self._numbers - piece.n)
                piece.parts.append([value[at : at + n] for value in flat])
                piece.n += n
                at += n
                if piece.n == self._numbers:
                    yield open_pieces.pop(key)
        yield from open_pieces.values()

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            parameter.data = parameter.data.contiguous()
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            if parameter.dtype is torch.bfloat16 and self._rounding == "bfloat16-kahan":
                state["lost"] = torch.zeros_like(state["exp_avg"], dtype=torch.int16)
            state["step"] = 0
        return state

    def _update(self, piece: _Piece, rate: float, decay: float) -> None:
        narrow = piece.dtype is torch.bfloat16
        weights, gradients, average, squares = (piece.gather(which) for which in range(4))
        compensated = narrow and self._rounding == "bfloat16-kahan"
        if compensated:
            weights.view(torch.int32).add_(piece.gather(4, torch.int32))
        average.lerp_(gradients, 1 - BETAS[0])
        squares.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        weights.mul_(1 - rate * decay)
        spread = torch.sqrt(squares, out=gradients).div_(math.sqrt(1 - BETAS[1] ** piece.step)).add_(EPSILON)
        weights.addcdiv_(average, spread, value=-rate / (1 - BETAS[0] ** piece.step))
        if narrow:
            spare = spread.view(torch.int32)  # its numbers have been read
            self._round(average, spare)
            self._round(squares, spare)
            if compensated:
                piece.scatter(4, split_off(weights, spare))
            else:
                self._round(weights, spare)
        piece.scatter(2, average)
        piece.scatter(3, squares)
        piece.scatter(0, weights)

    def _round(self, values: torch.Tensor, noise: torch.Tensor) -> None:
        noise.random_(0, 2**16, generator=self._generator)
        round_to_bfloat16(values, noise)


@dataclass
class _Piece:
    """Slices of parameters, with those of their gradients, moments and lost parts, which are updated together."""

    step: int
    dtype: torch.dtype
    n: int = 0
    parts: list[list[torch.Tensor]] = field(default_factory=list)

    def gather(self, which: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return one kind of slices in a new vector."""
        slices = [part[which] for part in self.parts]
        values = torch.empty(self.n, dtype=dtype, device=slices[0].device)
        torch._foreach_copy_(values.split([len(one) for one in slices]), slices)
        return values

    def scatter(self, which: int, values: torch.Tensor) -> None:
        """Write a vector back into one kind of slices."""
        slices = [part[which] for part in self.parts]
        torch._foreach_copy_(slices, values.split([len(one) for one in slices]))


def round_to_bfloat16(values: torch.Tensor, noise: torch.Tensor) -> None:
    """Round float32 numbers up or down to bfloat16's, each with a probability such that the mean is exact; in place.

    A bfloat16 number is the upper half of a float32 number. The noise carries into it as often as the lower half says.

    Args:
        values: float32, of any shape; they keep their type.
        noise: int32 of the same shape, uniform from 0 to 65535.
    """
    values.view(torch.int32).add_(noise).bitwise_and_(-(2**16))


def split_off(values: torch.Tensor, spare: torch.Tensor) -> torch.Tensor:
    """Round float32 numbers to the nearest of bfloat16, and return what was lost; in place.

    Args:
        values: float32, of any shape; they keep their type.
        spare: int32 of the same shape, overwritten.

    Returns:
        `spare`, from -32768 to 32767: added to the rounded numbers' bits, it gives the original ones.
    """
    bits = values.view(torch.int32)
    spare.copy_(bits)
    bits.add_(2**15).bitwise_and_(-(2**16))
    return spare.sub_(bits)
