"""Planned bytes of models of billions of parameters, against the models' own parameters and saved tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.shapes import BACKBONE_SHAPES, write_shape
from harness.cost.closed_form import PREDICT_ROWS, amount
from harness.cost.memory import Memory
from harness.cost.shape import read_shape
from harness.cost.storage import storage_of
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.records.workload import bytes_in_4_bits
from harness.tasks import Source, Task
from harness.training import model as training_model
from tests.toys import plan_one

GPU = Device("cuda", "a GPU", threads=4, native_bf16=True)
LENGTH = 352
NARROW = {
    "llama-3.2-3b-like": {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64},
    "llama-3.1-8b-like": {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64},
}


@pytest.fixture(scope="module")
def long_texts(toy: Task) -> Task:
    """The toy task with texts of 352 tokens, as the arithmetic guesses them, and one row to predict."""
    text = "x" * round((LENGTH - 2) * 4.2)
    train, test = (Source(f"{part}-long", [text] * len(of)) for part, of in (("a", toy.train), ("b", toy.test)))
    spec = toy.spec.model_copy(update={"max_length": 512})
    short = {"test": test.first(1), "test_labels": toy.test_labels[:1]}
    return dataclasses.replace(toy, spec=spec, train=train, **short)


def planned_memory(task: Task, files: BackboneFiles, method: str) -> Memory:
    planned = plan_one(task, files, parse_methods([method])[0], size="96")
    return amount(planned, task, files, GPU).memory


def narrow(name: str, **more: Any) -> tuple[Any, int]:
    """The same shape 16 or so times narrower, as a configuration; and how many times."""
    from transformers import AutoConfig

    sizes = {**BACKBONE_SHAPES[name], **NARROW[name], "vocab_size": 100, "use_cache": False, **more}
    times = BACKBONE_SHAPES[name]["hidden_size"] // sizes["hidden_size"]
    sizes["intermediate_size"] //= times
    return AutoConfig.for_model(**sizes), times


def saved_a_token(name: str, targets: list[str]) -> float:
    """Bytes that autograd saves for a token in one block of the shape with LoRA, counted on a narrow model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    def saved(model: Any, n_rows: int) -> int:
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def look(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            states = model(input_ids=torch.ones(n_rows, 16, dtype=torch.long)).last_hidden_state
        del states
        return sum(size for at, size in kept.items() if at not in own)

    slopes = []
    for n_blocks in (1, 2):
        config, times = narrow(name, num_hidden_layers=n_blocks)
        model = get_peft_model(AutoModel.from_config(config), LoraConfig(r=4, target_modules=targets)).train()
        slopes.append((saved(model, 6) - saved(model, 2)) / (4 * 16))
    return (slopes[1] - slopes[0]) * times


@pytest.mark.parametrize(
    ("name", "method", "most_gib"),
    [
        ("llama-3.2-3b-like", "lora[batch_size=1]", 9.0),
        ("llama-3.1-8b-like", "lora[batch_size=1]", 20.0),
        ("llama-3.1-8b-like", "qlora[batch_size=1]", 10.0),
    ],
)
def test_planned_bytes_of_single_rows(
    name: str, method: str, most_gib: float, long_texts: Task, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModel

    files = write_shape(name, tmp_path)
    planned = planned_memory(long_texts, files, method)
    is_4bit = method.startswith("qlora")
    targets = ["q_proj", "v_proj", *(["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] if is_4bit else [])]
    with torch.device("meta"):
        model = get_peft_model(
            AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)), LoraConfig(r=8, target_modules=targets)
        )
    by_kind = dict.fromkeys(("added", "embedding", "matrices", "vectors"), 0)
    for where, parameter in model.named_parameters():
        kind = "added" if "lora_" in where else "embedding" if "embed" in where else "matrices"
        by_kind["vectors" if parameter.ndim == 1 else kind] += parameter.numel()
    each = 0.5 + 1 / 64 + 4 / (64 * 256) if is_4bit else 2.0  # a byte for 64 scales, and 4 bytes for 256 of these
    weights = each * by_kind["matrices"] + 2 * by_kind["embedding"] + 4 * by_kind["vectors"] + 4 * by_kind["added"]
    states = (4 + 8) * by_kind["added"]
    n_blocks = BACKBONE_SHAPES[name]["num_hidden_layers"]
    width, inner = BACKBONE_SHAPES[name]["hidden_size"], BACKBONE_SHAPES[name]["intermediate_size"]
    masks = (6 * width + inner) if is_4bit else 2 * width  # of dropout, a byte for each input of an addition on a GPU
    kept = (saved_a_token(name, targets) + masks) * LENGTH * n_blocks
    expected = weights + states + kept
    print(f"{name} {method}: planned {planned.peak_bytes / 2**30:.2f} GiB, counted {expected / 2**30:.2f} GiB", planned)
    assert planned.during == "training"
    assert planned.weights + planned.shared_weights == pytest.approx(weights, rel=0.01)
    assert planned.kept == pytest.approx(kept, rel=0.08)
    assert planned.peak_bytes == pytest.approx(expected, rel=0.06)
    assert planned.peak_bytes <= most_gib * 2**30
    assert sum(planned.parts.values()) == planned.peak_bytes


def test_what_trains_has_float32_masters_and_is_not_shared(long_texts: Task, tmp_path: Path) -> None:
    files = write_shape("llama-3.2-1b-like", tmp_path)
    shape = read_shape(files.folder)
    assert shape is not None
    full = planned_memory(long_texts, files, "full[batch_size=1]")
    assert full.shared_weights == 0
    assert full.weights == pytest.approx(4 * shape.n_parameters, rel=0.001)
    lora, probe = (planned_memory(long_texts, files, name) for name in ("lora[batch_size=1]", "linear-probe"))
    assert probe.weights == 0
    assert lora.shared_weights == probe.shared_weights == pytest.approx(2 * shape.n_parameters, rel=0.001)
    assert lora.weights < 0.02 * lora.shared_weights
    some = planned_memory(long_texts, files, "last-layers[batch_size=1, k=4]")
    assert some.weights == pytest.approx(4 * 4 * shape.block_parameters, rel=0.001)
    assert some.shared_weights == pytest.approx(probe.shared_weights - some.weights / 2, rel=0.001)
    assert full.fixed_bytes > 14 * shape.block_parameters * shape.n_blocks


def test_how_frozen_weights_are_stored(tmp_path: Path) -> None:
    shape = read_shape(write_shape("llama-3.1-8b-like", tmp_path).folder)
    assert shape is not None
    assert shape.is_bfloat16
    assert not shape.is_tied
    of_float32 = dataclasses.replace(shape, is_bfloat16=False)

    def stored(of: Any, **settings: Any) -> tuple[float, float, float]:
        found = storage_of(of, **settings)
        return found.matrix, found.embedding, found.head

    assert stored(shape, bits16=True) == (2, 2, 2)
    assert stored(of_float32, bits16=True) == (2, 4, 2)
    assert stored(of_float32, bits16=True, weights="bfloat16") == (2, 2, 2)
    assert stored(shape, bits16=True, weights="float32") == (4, 4, 4)
    assert stored(shape, bits16=False) == (4, 4, 4)
    assert stored(shape, bits16=True, matrix_bytes=0.5) == (0.5, 2, 2)
    assert bytes_in_4_bits(double_quantisation=True) == pytest.approx(0.5 + 0.127 / 8, abs=1e-4)
    assert bytes_in_4_bits(double_quantisation=False) == 0.5625
    head = shape.vocabulary * shape.width
    with_head, without = (
        storage_of(shape, bits16=True).weights(shape, 0, 4, 0, language_model=b) for b in (True, False)
    )
    assert with_head[1] - without[1] == 2 * head


def test_matrices_that_are_used_otherwise_than_in_products_stay_float32(toy: Task, tiny: BackboneFiles) -> None:
    shape = read_shape(tiny.folder)
    assert shape is not None
    lora, dora, shira, asked = (
        planned_memory(toy, tiny, name).shared_weights for name in ("lora", "dora", "shira", "lora[weights=float32]")
    )
    assert dora == shira == asked
    assert asked - lora == pytest.approx(2 * shape.n_blocks * shape.block_parameters)


def test_rows_of_prediction_are_those_of_training() -> None:
    assert PREDICT_ROWS == training_model.PREDICT_ROWS
