"""Every method on every architecture: it trains what it says and nothing else, or it is refused when planned.

What depends on a parameter is found by filling it with values that are not a number: all that is computed from it
changes. Nothing of the harness takes part in that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import Method, methods
from harness.methods._fine_tuning import FineTuning
from harness.methods.artifact import load_artifact, save_artifact
from harness.records.record import Budget
from harness.running import tuning
from harness.running.worker import Worker
from harness.tasks import Task
from tests.tiny_architectures import ARCHITECTURES
from tests.toys import make_bench, test_rows

STEPS = Budget(steps=8)
SETTINGS: dict[str, Any] = {"precision": "fp32", "n_frequencies": 100, "rank": 8, "n_virtual_tokens": 10}

CAUSAL = frozenset(
    (
        *("gpt2", "opt", "gpt_neox", "falcon", "bloom", "phi", "llama", "mistral"),
        *("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mamba"),
    )
)
TWO_STACKS = frozenset({"t5", "bart", "mbart"})
ENCODERS = frozenset(ARCHITECTURES) - CAUSAL - TWO_STACKS
WITHOUT_BIASES = frozenset(["modernbert", "llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3", "t5"])
WITHOUT_PROJECTIONS = frozenset({"xlnet", "mamba"})
WITHOUT_CACHE = frozenset(
    (
        *("distilbert", "deberta", "deberta-v2", "deberta-v2-conv", "modernbert", "mpnet", "albert"),
        *("xlnet", "xlm", "flaubert", "longformer", "esm", "mamba"),
    )
)
IN_CONTEXT = frozenset({"zero-shot", "few-shot", "calibrated-few-shot"})
LOW_RANK = frozenset(
    (
        *("lora", "dora", "rslora", "adalora", "vera", "loha", "lokr", "oft"),
        *("fourierft", "ia3", "bottleneck-adapter"),
        *("deft", "frod", "gralora", "hira", "pvera", "randlora", "tinylora", "unilora", "vblora", "waveft"),
    )
)
LINEAR_ONLY = frozenset(
    (
        *("loha", "lokr", "oft", "adamss", "beft", "boft", "c3a", "delora", "hra", "lily", "miss", "osf", "peanut"),
        *("psoft", "road", "shira", "supertuning"),
    )
)
"""Methods that adapt `torch.nn.Linear` only, and not GPT-2's layers."""

ONLY_LLAMA = frozenset({"llama", "mistral"})

REFUSED: dict[str, frozenset[str]] = {
    **dict.fromkeys(IN_CONTEXT, ENCODERS | {"mamba"}),
    **dict.fromkeys(LOW_RANK, WITHOUT_PROJECTIONS),
    **dict.fromkeys(LINEAR_ONLY, WITHOUT_PROJECTIONS | {"gpt2"}),
    "glora": WITHOUT_PROJECTIONS | {"gpt2", "falcon"},
    "adaption-prompt": frozenset(ARCHITECTURES) - ONLY_LLAMA,
    "cartridge": ENCODERS | TWO_STACKS | {"mamba"},
    "trainable-tokens": CAUSAL | TWO_STACKS,
    **dict.fromkeys(("last-layers", "gradual-unfreezing", "discriminative"), frozenset({"albert"})),
    "bitfit": WITHOUT_BIASES,
    "prefix-tuning": WITHOUT_CACHE | TWO_STACKS,
    "setfit": CAUSAL | TWO_STACKS,
    "qlora": frozenset({"gpt2", "albert", "mamba"}),
}
"""Architectures that a method does not serve; it serves all others."""

ALL = frozenset({"full", "discriminative", "gradual-unfreezing", "probe-then-full", "setfit"})

SAMPLE = [
    ("distilbert", "lora"),
    ("distilbert", "prompt-tuning"),
    ("bart", "last-layers"),
    ("xlm", "last-layers"),
    ("opt", "gradual-unfreezing"),
    ("modernbert", "bitfit"),
    ("mpnet", "ia3"),
    ("falcon", "prefix-tuning"),
    ("albert", "bottleneck-adapter"),
    ("albert", "p-tuning"),
    ("albert", "last-layers"),
    ("xlnet", "lora"),
    ("longformer", "last-layers"),
    ("deberta", "full"),
    ("mamba", "zero-shot"),
    ("qwen2", "ia3"),
    ("t5", "qlora"),
    ("gpt2", "deft"),
    ("gpt2", "lily"),
    ("bart", "glora"),
    ("gemma2", "cartridge"),
    ("modernbert", "trainable-tokens"),
    ("gpt2", "qlora"),
]

Find = Callable[[str], BackboneFiles]


@pytest.fixture(scope="module")
def worker(cpu: Device) -> Worker:
    return Worker(cpu, None)


@dataclass(frozen=True)
class Reach:
    """Names of the parameters on which the output, and the input of the last two blocks, depend."""

    output: frozenset[str]
    below_the_last_two: frozenset[str]


@functools.cache
def reach(files: BackboneFiles) -> Reach:
    model: Any = load_backbone(files).fresh(torch.device("cpu")).eval()
    ids = torch.arange(2, 9).unsqueeze(0)
    output, below = set(), set()

    # A Mamba's states begin behind its first block, others' behind the embeddings.
    at = -4 if files.model_type == "mamba" else -3

    def states() -> tuple[torch.Tensor, torch.Tensor]:
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        return found.last_hidden_state, found.hidden_states[at]

    with torch.no_grad():
        last, lower = states()
        for name, parameter in model.named_parameters():
            kept = parameter.detach().clone()
            parameter.fill_(torch.nan)
            # Fused attention turns scores that are not a number into numbers, so any difference counts.
            last_then, lower_then = states()
            if not torch.equal(last_then, last):
                output.add(name)
            if not torch.equal(lower_then, lower):
                below.add(name)
            parameter.copy_(kept)
    return Reach(frozenset(output), frozenset(below))


def expected_to_move(method: str, files: BackboneFiles) -> frozenset[str]:
    """Names of the backbone's own parameters that a method trains, by what it says."""
    used = reach(files)
    modules = load_backbone(files).pristine.named_modules()
    norms = {f"{name}.{own}" for name, module in modules if type(module).__name__.endswith("Norm")
             for own, _ in module.named_parameters(recurse=False)}  # fmt: skip
    if method in ALL:
        return used.output
    if method == "last-layers":
        return used.output - used.below_the_last_two
    if method == "bitfit":
        return frozenset(name for name in used.output if name.endswith("bias"))
    return used.output & norms if method in ("layer-norm", "ln-tuning", "bottleneck-adapter") else frozenset()


def own_name(name: str, known: frozenset[str]) -> str | None:
    """The name that a parameter has in the backbone; None for one that was added."""
    plain = re.sub(r"^base_model\.(model\.)?", "", name).replace(".base_layer.", ".")
    candidates = [plain, *(plain[: at.start()] + plain[at.end() - 1 :] for at in re.finditer(r"\.layer\.", plain))]
    return next((candidate for candidate in candidates if candidate in known), None)


def is_scale_of_zeros(name: str, transformer: Any) -> bool:
    """Whether a parameter is D of GLoRA, which scales a bias, where that bias is 0."""
    place, found, _ = name.partition(".glora_D")
    return bool(found) and not transformer.get_submodule(place).bias.any()


def check_cell(
    architecture: str, name: str, find: Find, toy: Task, cpu: Device, worker: Worker, tmp_path: Path
) -> None:
    files = find(architecture)
    cls = methods.get(name)
    method: Method = cls(**{key: value for key, value in SETTINGS.items() if key in cls.model_fields})
    reason = method.why_unsupported("classification", files, "cpu")
    assert (reason is not None) == (architecture in REFUSED.get(name, ())), reason
    if reason is not None:
        assert re.search(r"\b(Use|Name|Try|needs) ", reason), f"no way out: {reason}"
        return
    backbone = load_backbone(files)
    pristine = {key: value.clone() for key, value in backbone.pristine.state_dict().items()}
    rows = worker.training_rows(toy, 24 if method.uses_labels else 0, 0, "stratified")

    def bench() -> Any:
        return make_bench(toy, files, cpu, budget=STEPS, like=worker)

    tuning.seed_everything(0)
    of_fit = bench()
    fitted: Any = method.fit(rows, of_fit)
    assert of_fit.ledger.counted_flops is not None, of_fit.ledger.facts
    if hasattr(fitted, "model") and hasattr(fitted.model, "transformer") and name != "from-scratch":
        known = frozenset(key for key, _ in backbone.pristine.named_parameters())
        after = dict(fitted.model.transformer.named_parameters())
        own = {key: own_name(key, known) for key in after}
        packed = {key for key, value in after.items() if hasattr(value, "quant_state")}
        moved = {
            at
            for key, at in own.items()
            if at is not None and key not in packed and not torch.equal(after[key].to(pristine[at].dtype), pristine[at])
        }
        assert moved == expected_to_move(name, files)
        added = [key for key, at in own.items() if at is None]
        if isinstance(method, FineTuning) and name not in (*ALL, "last-layers", "bitfit", "layer-norm"):
            assert added
            before = dict(method.build(bench()).transformer.named_parameters())
            for key in added:
                if ".frozen_embedding" in key or is_scale_of_zeros(key, fitted.model.transformer):
                    continue  # read from training rows, or without an effect
                assert torch.equal(after[key], before[key]) == (not before[key].requires_grad), key
    together = fitted.predict(test_rows(toy), bench())
    if isinstance(method, FineTuning):
        save_artifact(fitted, method, tmp_path / name, bench())
        restored = load_artifact(tmp_path / name, bench())[1]
        np.testing.assert_array_equal(restored.predict(test_rows(toy), bench()), together)
        assert restored.n_trainable == fitted.n_trainable
    assert np.isfinite(together).all()
    few = test_rows(toy).take(np.arange(6))
    alone = np.concatenate([fitted.predict(few.take(np.array([row])), bench()) for row in range(len(few))])
    np.testing.assert_allclose(together[:6], alone, atol=1e-4)
    assert all(torch.equal(pristine[key], value) for key, value in backbone.pristine.state_dict().items())


@pytest.mark.parametrize(("architecture", "name"), SAMPLE)
def test_a_sample_of_cells(
    architecture: str, name: str, find: Find, toy: Task, cpu: Device, worker: Worker, tmp_path: Path
) -> None:
    check_cell(architecture, name, find, toy, cpu, worker, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_method(
    architecture: str, find: Find, toy: Task, cpu: Device, worker: Worker, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name in methods.names():
        with subtests.test(name):
            check_cell(architecture, name, find, toy, cpu, worker, tmp_path)
