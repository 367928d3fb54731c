"""First steps of training, taken before a cell is measured: libraries load, kernels are chosen, memory is taken.

The first step of a process reads tens of megabytes of torch's libraries into memory: the code of its backward passes,
of the matrix products for each type, of the optimiser. They stay in memory and are not charged to a cell.
"""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

import harness.training.pairs  # noqa: F401 - a fit imports it: its libraries should be in memory as well
from harness.measure import Device, FlopsModel, Precision, count_flops, counted
from harness.training.batches import WINDOW_BATCHES, Batch, Batches
from harness.training.dropout import quicken_dropout
from harness.training.loop import ParameterGroup
from harness.training.optimisers import optimiser_of

_ROWS, _LENGTH, _CLASSES = 16, 32, 3


def warm_up_steps(
    model: nn.Module,
    batches: Batches,
    forward: Callable[[Batch], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    accumulation: int,
    device: Device,
    precision: Precision,
) -> int:
    """Run the largest batch, the first and the one of fewest rows forward and backward, as the loop would.

    On an accelerator this chooses kernels and takes memory. Parameters, gradients and the random state stay as they
    were.

    Args:
        model: the model to train, in training mode, without gradients.
        batches: batches of the fit.
        forward: as in `train`.
        loss: as in `train`.
        accumulation: pieces of a batch.
        device: where the model is.
        precision: precision of the forward pass.

    Returns:
        Number of batches that ran.
    """
    there = device.torch_device()
    first, largest, fewest = _kinds_of(itertools.islice(batches.epoch(0), WINDOW_BATCHES))
    with torch.random.fork_rng(devices=[there] if there.type == "cuda" else []):
        chosen = {id(batch): batch for batch in (largest, first, fewest)}
        for batch in chosen.values():
            for part in batch.parts(accumulation):
                with torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                    outputs = forward(part)
                loss(outputs.float(), part.targets, 0.0).backward()
            model.zero_grad(set_to_none=True)
        parameter = nn.Parameter(torch.zeros(8, 8, device=there))
        (parameter * parameter).sum().backward()
        nn.utils.clip_grad_norm_([parameter], 1.0)
        torch.optim.AdamW([parameter], fused=True).step()
    device.synchronise()
    return len(chosen)


def seconds_of_step(warm_up: Callable[[], int]) -> float:
    """Return the seconds of a step, without the optimiser's, after kernels have been chosen.

    Args:
        warm_up: runs a few batches and returns their number (`warm_up_steps`).
    """
    warm_up()
    began = time.perf_counter()
    n_steps = warm_up()
    return (time.perf_counter() - began) / n_steps


def _kinds_of(batches: Iterator[Batch]) -> tuple[Batch, Batch, Batch]:
    """Return the first batch, the largest and the one of fewest rows; no others are held: they may be hidden states."""
    first = largest = fewest = next(batches)
    for batch in batches:
        largest = max(largest, batch, key=lambda one: one.size)
        fewest = min(fewest, batch, key=lambda one: one.n_rows)
    return first, largest, fewest


@functools.cache
def exercise_training(*, bf16: bool) -> None:
    """Count the operations of a small BERT's training step, and take the step; once a process.

    Args:
        bf16: whether the forward pass runs in bfloat16, as on hardware that has it.
    """
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=64, hidden_size=384, num_hidden_layers=2, num_attention_heads=12)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(BertModel(config, add_pooling_layer=False), nn.Linear(384, _CLASSES)).train()
        quicken_dropout(model)
        optimiser = optimiser_of([ParameterGroup(list(model.parameters()), 1e-4, 0.01)])
        ids = torch.randint(1, 64, (_ROWS, _LENGTH))
        mask = torch.ones_like(ids)
        mask[::2, _LENGTH // 2 :] = 0
        targets = torch.arange(_ROWS) % _CLASSES

        def step() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                states = model[0](input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = (states.float() * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            nn.functional.cross_entropy(model[1](pooled), targets).backward()

        counted(lambda: FlopsModel(constant=count_flops(step)))
        step()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            model.eval()[0](input_ids=ids, attention_mask=mask)
