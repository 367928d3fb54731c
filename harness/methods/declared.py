"""Compare what a method declares of its fits with what a fit does: part of the contract that every method keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.methods.base import Bench, Method
from harness.records import TRAINS_INSIDE
from harness.tasks import Rows

if TYPE_CHECKING:
    import torch
    from torch import nn

SHARE_TOLERANCE = 0.1
"""Largest difference between the declared share of trained parameters and the share that moved."""

_TEXTS_TOLERANCE = 0.05


@dataclass
class ObservedFit:
    """Work of one fit, counted by hooks while it runs.

    Attributes:
        steps: optimiser steps.
        texts_in_steps: texts that went through the transformer with gradients, in passes through all of its blocks.
        texts_outside: the same without gradients.
        moved: parameters that an optimiser changed.
        blocks: blocks of the transformer that ran with gradients.
    """

    steps: int = 0
    texts_in_steps: float = 0.0
    texts_outside: float = 0.0
    moved: dict[int, torch.Tensor] = field(default_factory=dict)
    blocks: dict[int, nn.Module] = field(default_factory=dict)

    def share_moved(self, pristine: list[nn.Module]) -> float:
        """Return the share of the blocks' own parameters that moved; what a method adds to them is left out."""
        shapes = {parameter.shape for block in pristine for parameter in block.parameters()}
        whole = sum(parameter.numel() for block in pristine for parameter in block.parameters())
        own = {id(p): p for block in self.blocks.values() for p in block.parameters() if p.shape in shapes}
        return sum(p.numel() for key, p in own.items() if key in self.moved) / whole


@contextmanager
def observed_fit(pristine: list[nn.Module]) -> Iterator[ObservedFit]:
    """Count the texts and steps of the fit that runs inside the context.

    Args:
        pristine: the blocks of the backbone; blocks of the same types are counted wherever they run.
    """
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    found, types = ObservedFit(), tuple({type(block) for block in pristine})
    before: dict[int, torch.Tensor] = {}

    def runs(module: nn.Module, given: tuple[Any, ...]) -> None:
        # Counting operations runs the model under a dispatch mode, and is no part of the fit.
        if not isinstance(module, types) or not given or _get_current_dispatch_mode() is not None:
            return
        states = given[0]
        if states.is_meta:
            return
        if torch.is_grad_enabled() and module.training:
            found.texts_in_steps += len(states) / len(pristine)
            found.blocks[id(module)] = module
        else:
            found.texts_outside += len(states) / len(pristine)

    def of_optimiser(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
        return [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def before_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        before.update((id(p), p.detach().clone()) for p in of_optimiser(optimiser) if id(p) not in found.moved)

    def after_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        found.steps += 1
        for parameter in of_optimiser(optimiser):
            start = before.pop(id(parameter), None)
            if start is not None and not torch.equal(start, parameter.detach()):
                found.moved[id(parameter)] = parameter

    hooks = [
        register_module_forward_pre_hook(runs),
        register_optimizer_step_pre_hook(before_step),
        register_optimizer_step_post_hook(after_step),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def check_workload(method: Method, rows: Rows, bench: Bench) -> ObservedFit:
    """Fit a method and compare its declared workload with what the fit did.

    Args:
        method: configured; the fit is short if its settings are.
        rows: training rows, more than a batch.
        bench: cold, and without a budget: nothing encoded before.

    Returns:
        What the fit did.

    Raises:
        AssertionError: steps, texts or trained parameters are not as declared; the message has both figures.
    """
    from harness.training import all_blocks, transformers_model

    n, length = len(rows), method.fit_length()
    pristine = all_blocks(transformers_model(bench.some_backbone.pristine))
    declared = method.workload(n, bench.budget, len(pristine))
    with observed_fit(pristine) as found:
        method.fit(rows, bench)
    name = f"Method '{method.name}'"
    if found.steps != declared.steps:
        raise AssertionError(
            f"{name} declares {declared.steps} optimiser steps for {n} labels; its fit took {found.steps}."
        )
    if length is not None and length.steps(n) != found.steps:
        raise AssertionError(f"{name} declares {length.steps(n)} steps by fit_length(); its fit took {found.steps}.")
    most = declared.steps * declared.texts_per_step
    least = most * _fullness(length.items_per_label * n, length.batch_size) if length is not None else most
    _check_texts(f"{name} declares {most:g} texts in steps", found.texts_in_steps, least, most)
    if method.role in TRAINS_INSIDE:
        assert length is not None
        if length.texts_per_step(n) != declared.texts_per_step:
            raise AssertionError(
                f"{name} declares {length.texts_per_step(n)} texts a step by fit_length(), and "
                f"{declared.texts_per_step} by workload()."
            )
    _check_texts(f"{name} declares {declared.encoded:g} texts read once", found.texts_outside, *[declared.encoded] * 2)
    share = found.share_moved(pristine)
    if abs(share - declared.share_trained) > SHARE_TOLERANCE:
        raise AssertionError(
            f"{name} declares share_trained = {declared.share_trained:g}; its fit moved {share:.3f} of the parameters "
            "of the transformer's blocks."
        )
    return found


def _fullness(n_items: int, batch_size: int) -> float:
    """Return how full batches are on average: the last of an epoch may be a short one."""
    return n_items / (-(-n_items // batch_size) * batch_size)


def _check_texts(declared: str, found: float, least: float, most: float) -> None:
    if not least * (1 - _TEXTS_TOLERANCE) <= found <= most * (1 + _TEXTS_TOLERANCE):
        raise AssertionError(f"{declared}; {found:g} went through the transformer.")
