"""One training step before anything is measured, for what a process does once.

The first step reads tens of megabytes of torch's libraries into memory: the code of its backward passes, of the matrix
products for each type, of the optimiser. They stay, and belong to no cell. A small transformer is trained for a step
here, so that they are there when a cell's memory starts to count.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import nn

# What a fit imports, so that its libraries are in memory as well.
import harness.training.batches
import harness.training.blocks
import harness.training.inputs
import harness.training.model
import harness.training.vocabulary  # noqa: F401

_ROWS, _LENGTH, _CLASSES = 16, 32, 3


@functools.cache
def exercise_training(*, bf16: bool) -> None:
    """Count the operations of a small BERT's training step, and take the step; once a process.

    Args:
        bf16: whether the forward pass runs in bfloat16, as on hardware that has it.
    """
    from transformers import BertConfig, BertModel

    from harness.measure import FlopsModel, count_flops, counted
    from harness.training.dropout import quicken_dropout
    from harness.training.loop import ParameterGroup, optimiser_of

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

        counted(lambda: FlopsModel(0.0, 0.0, 0.0, count_flops(step)))
        step()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            model.eval()[0](input_ids=ids, attention_mask=mask)
