"""Predictions of memory before anything runs: ours, fitscout's and canifinetune's, against all tensors alive.

A Llama of 33 million parameters in float32 throughout, which all three can be told of. What the others add for the CUDA
context and as a margin is taken off, and of fitscout its second copy of the weights: here are none. Both are
installed by hand (`pip install fitscout canifinetune`); skipped without them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.cost.memory import Regime, Trained, training_memory
from harness.cost.shape import read_shape
from tests.live_tensors import Live

WIDTH, INNER, BLOCKS, HEADS, KEYS, VOCABULARY, LENGTH, RANK = 512, 1536, 8, 8, 4, 8000, 128, 16
GIB = 2**30


def fitscouts(n_parameters: int, how: str, n_rows: int) -> float:
    fitscout = pytest.importorskip("fitscout.memory.estimator")
    profile = pytest.importorskip("fitscout.model.profile").ModelProfile(
        n_parameters, BLOCKS, WIDTH, HEADS, KEYS, INNER, VOCABULARY, tie_word_embeddings=False, dtype_bytes=4
    )
    found = fitscout.estimate_memory(
        profile, method=how, micro_batch=n_rows, seq_len=LENGTH, lora_rank=RANK, grad_dtype_bytes=4
    )
    copy = found.optimizer_gb / 3  # 4 of 12 bytes a parameter are a copy in float32 of weights in 16 bits
    return float((found.total_gb - found.overhead_gb - copy) * GIB)


def canifinetunes(n_parameters: int, how: str, n_rows: int) -> float:
    memory = pytest.importorskip("canifinetune.estimator.memory")
    found = memory.estimate(
        memory.EstimateRequest(
            model_id="local/llama",
            method=how,
            seq_len=LENGTH,
            micro_batch_size=n_rows,
            base_dtype="fp32",
            lora_rank=RANK,
            optimizer="adamw_torch",
            gradient_checkpointing=False,
            gpu_vram_gb=80.0,
            use_network=False,
            override={
                "family": "llama",
                "hidden_size": WIDTH,
                "num_hidden_layers": BLOCKS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": KEYS,
                "intermediate_size": INNER,
                "vocab_size": VOCABULARY,
                "total_params": n_parameters,
                "tie_word_embeddings": False,
            },
        )
    ).memory
    return float((found.total_estimated_gb - found.cuda_overhead_gb - found.safety_margin_gb) * GIB)


def alive(model: torch.nn.Module, n_rows: int) -> int:
    moved = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(moved)
    live = Live()
    live.watch(*model.parameters())
    ids = torch.randint(0, VOCABULARY, (n_rows, LENGTH))
    with live:
        for _ in range(2):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    return live.peak


@pytest.mark.parametrize("how", ["full", "lora"])
def test_predictions_of_memory(how: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=BLOCKS, num_attention_heads=HEADS,
        num_key_value_heads=KEYS, vocab_size=VOCABULARY, use_cache=False, tie_word_embeddings=False,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape is not None
    model = LlamaForCausalLM(config)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    if how == "lora":
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    n_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    rows = []
    for n_rows in (1, 4, 16):
        trained = Trained(*((BLOCKS, 0) if how == "full" else (0, BLOCKS)), n_trained, additions=2.0)
        predicted = training_memory(
            shape,
            trained,
            Regime(bits16=False, mask_bytes=0.0),
            n_rows=n_rows,
            length=LENGTH,
            logit_bytes=4.0 * n_rows * LENGTH * VOCABULARY,  # transformers' own loss is not in chunks
            language_model=True,
        )
        ours = predicted.peak_bytes
        seen = alive(model, n_rows)
        errors = [
            said / seen - 1
            for said in (ours, fitscouts(n_parameters, how, n_rows), canifinetunes(n_parameters, how, n_rows))
        ]
        rows.append((n_rows, seen, errors))
        print(f"{how}, {n_rows} rows: {seen / 1e6:.0f} MB; ours, fitscout, canifinetune: "
              + ", ".join(f"{error:+.0%}" for error in errors))  # fmt: skip
    assert all(abs(errors[0]) <= 0.10 for _, _, errors in rows)
