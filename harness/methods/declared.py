"""Compare what a method declares of its fits with what a fit does: part of the contract that every method keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.features import ENCODE_ROWS
from harness.methods._modules import count_parameter
from harness.methods.base import Method
from harness.methods.bench import Bench
from harness.records import TRAINS_INSIDE, FitLength
from harness.tasks import Rows

if TYPE_CHECKING:
    import torch
    from torch import nn

SHARE_TOLERANCE = 0.1
"""Largest difference between the declared share of trained parameters and the share that moved."""

_MOST_PASSES = 1.2
"""Times the declared passes that a fit makes at most: added parameters weigh much in a tiny model."""

_MOST_READ = 1.5
_LEAST_PASSES = 0.7
"""Share of the declared passes that a fit makes at least: less where blocks are let in as training goes on."""


@dataclass
class ObservedFit:
    """Work of one fit, counted by hooks while it runs.

    Attributes:
        pristine: blocks of the backbone, which the fit may copy and must not touch.
        steps: optimiser steps.
        texts_read: texts that went through the transformer without gradients, in passes through all of its blocks.
        passes: cost of the texts that went through it with gradients, in forward passes: one for the pass, one for
            gradients of what is inside, and one for those of all weights.
        started: parameters that an optimiser holds, as they were before its first step.
        moved: those that it changed.
        blocks: blocks that ran with gradients.
    """

    pristine: list[nn.Module]
    steps: int = 0
    texts_read: float = 0.0
    passes: float = 0.0
    started: dict[int, torch.Tensor] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)
    blocks: dict[int, nn.Module] = field(default_factory=dict)

    def share_moved(self, *, from_random: bool = False) -> float:
        """Return the share of the blocks' own parameters that moved; what a method adds to them is left out.

        Args:
            from_random: whether the fit starts from random weights, so that only shapes tell which are the blocks' own.
        """
        import torch

        own = [parameter for block in self.pristine for parameter in block.parameters()]
        moved = {id(p): p for block in self.blocks.values() for p in block.parameters() if id(p) in self.moved}
        n_moved = sum(
            parameter.numel()
            for key, parameter in moved.items()
            if any(
                parameter.shape == other.shape and (from_random or torch.equal(self.started[key], other))
                for other in own
            )
        )
        return n_moved / sum(parameter.numel() for parameter in own)


@contextmanager
def _observed_fit(pristine: list[nn.Module]) -> Iterator[ObservedFit]:
    """Count the texts and steps of the fit that runs inside the context.

    Args:
        pristine: the blocks of the backbone; blocks of the same types are counted wherever they run.
    """
    import torch
    from torch.nn.modules.module import register_module_forward_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    found, types = ObservedFit(pristine), tuple({type(block) for block in pristine})

    def ran(module: nn.Module, given: tuple[Any, ...], _: object) -> None:
        # Counting operations runs the model under a dispatch mode or without data, and is no part of the fit.
        if not isinstance(module, types) or not given or _get_current_dispatch_mode() is not None or given[0].is_meta:
            return
        share = len(given[0]) / len(pristine)
        if not torch.is_grad_enabled() or not module.training:
            found.texts_read += share
            return
        sizes = [(count_parameter(parameter), parameter.requires_grad) for parameter in module.parameters()]
        found.passes += share * (2 + sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes))
        found.blocks[id(module)] = module

    def of_optimiser(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
        return [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def before_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        for parameter in of_optimiser(optimiser):
            found.started.setdefault(id(parameter), parameter.detach().clone())

    def after_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        found.steps += 1
        found.moved |= {id(p) for p in of_optimiser(optimiser) if not torch.equal(found.started[id(p)], p.detach())}

    hooks = [
        register_module_forward_hook(ran),
        register_optimizer_step_pre_hook(before_step),
        register_optimizer_step_post_hook(after_step),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def check_workload(method: Method, rows: Rows, bench: Bench) -> ObservedFit:
    """Fit a method and compare its declared workload with what the fit did, and what its answers read.

    Not compared: `pieces` and `additions`, which concern memory; and `texts_per_answer` of methods that
    prompt, whose prompts hold several texts.

    Args:
        method: configured; the fit is short if its settings are.
        rows: training rows, all of their split: encoding fills its batches with other rows of it.
        bench: cold, so that nothing was encoded before, and without a budget.

    Returns:
        The observed work of the fit.

    Raises:
        AssertionError: steps, texts, trained parameters or texts per answer are not as declared; the message has both
            figures.
    """
    from harness.training import Stack

    n, length = len(rows), method.fit_length()
    pristine = Stack(bench.some_backbone.pristine).all_blocks
    declared = method.workload(n, bench.budget, len(pristine))
    if declared.encoded or not declared.texts_per_step:  # a length's first batch runs twice
        method.fit(rows, bench)
        rows = replace(rows, source=replace(rows.source, key=f"again/{rows.source.key}"))
    with _observed_fit(pristine) as found:
        fitted = method.fit(rows, bench)
    says = f"Method '{method.name}' declares"
    if found.steps != declared.steps:
        raise AssertionError(f"{says} {declared.steps} optimiser steps for {n} labels; its fit took {found.steps}.")
    if length is not None and length.steps(n) != found.steps:
        raise AssertionError(f"{says} {length.steps(n)} steps in fit_length(); its fit took {found.steps}.")
    if length is not None and method.role in TRAINS_INSIDE and length.texts_per_step(n) != declared.texts_per_step:
        raise AssertionError(
            f"{says} {length.texts_per_step(n)} texts a step in fit_length(), and {declared.texts_per_step} in "
            "workload()."
        )
    passes = declared.steps * declared.texts_per_step * declared.passes_per_text
    fullness = 1.0 if length is None else _fullness(length, n)
    if not _LEAST_PASSES * fullness * passes <= found.passes <= _MOST_PASSES * passes:
        raise AssertionError(f"{says} {passes:g} forward passes of texts in its steps; its fit took {found.passes:g}.")
    # Encoding fills the last batch of each length, and a method may run one to look at the model.
    n_scored = declared.n_scored(len(bench.kind.wordings_beside(bench.prompt, bench.label_words)))
    # An answer passes the prompt and the words of each class, or reads each text of the prompt apart.
    most = _MOST_READ * (declared.encoded + n_scored * max(declared.texts_per_answer, 1.0 + bench.n_outputs))
    if not declared.encoded + n_scored <= found.texts_read <= most + ENCODE_ROWS[bench.device.kind]:
        scored = f", and answers to {n_scored} training rows," if n_scored else ""
        raise AssertionError(
            f"{says} that {declared.encoded:g} texts are read once{scored}; its fit read {found.texts_read:g}."
        )
    share = found.share_moved(from_random=method.role == "from scratch")
    if abs(share - declared.share_trained) > SHARE_TOLERANCE:
        raise AssertionError(
            f"{says} share_trained = {declared.share_trained:g}; its fit moved {share:.3f} of the parameters of the "
            "transformer's blocks."
        )
    if method.role != "prompting":
        asked = replace(rows, source=replace(rows.source, key=f"answers/{rows.source.key}"))
        with _observed_fit(pristine) as answering:
            fitted.predict(asked, bench)
        expected = declared.texts_per_answer * n
        if not expected <= answering.texts_read <= _MOST_READ * expected + ENCODE_ROWS[bench.device.kind]:
            raise AssertionError(
                f"{says} {declared.texts_per_answer:g} texts_per_answer, {expected:g} texts for {n} answers; these "
                f"read {answering.texts_read:g}."
            )
    return found


def _fullness(length: FitLength, n_train: int) -> float:
    """Return how full batches are on average: the last of an epoch may be a short one."""
    n_items = length.items_per_label * n_train
    return n_items / (-(-n_items // length.batch_size) * length.batch_size)
