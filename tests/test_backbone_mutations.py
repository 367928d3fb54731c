"""A damaged backbone is refused in one line, or gives exactly the weights of its files."""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from harness.backbones.headers import bare_name, weight_files
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.support.errors import MissingResourceError, UsageError
from tests.backbone_mutations import mutated

TIED = {"embed_tokens.weight": "shared.weight"}
"""Names in T5's encoder, and in its files."""


def stored(files: BackboneFiles) -> dict[str, torch.Tensor]:
    """Return the tensors of a folder as float32, without torch's wrappers in their names."""
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(files.folder, files.name):
        with safe_open(path, framework="pt") as opened:
            found |= {bare_name(name): opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    return found


def check(folder: Path) -> str:
    """Locate and load a folder; return the message of a refusal, or nothing if every weight is the files'."""
    try:
        files = locate_backbone(str(folder))
        backbone = load_backbone(files)
        if files.architecture != "encoder":
            backbone.language_model(torch.device("cpu"))
    except (UsageError, MissingResourceError) as error:
        return str(error)
    finally:
        load_backbone.cache_clear()
    there = stored(files)
    for name, value in backbone.pristine.state_dict().items():
        names = (name, TIED.get(name, name))
        known = [tensor for key, tensor in there.items() if key.endswith(tuple(f".{n}" for n in names)) or key in names]
        assert any(torch.equal(value, tensor) for tensor in known), f"{name} is not the files'"
        assert bool(torch.isfinite(value).all()), name
    assert np.isfinite(backbone.max_length)
    return ""


def try_seeds(source: Path, folder: Path, seeds: range, seconds: float) -> int:
    """Check a mutation for each seed; return how many were refused."""
    refused = 0
    for seed in seeds:
        target = folder / str(seed)
        told = mutated(source, target, seed)
        started = time.process_time()  # a busy machine does not count
        try:
            message = check(target)
        except BaseException as error:  # noqa: BLE001 - whatever is raised, its seed is wanted
            pytest.fail(f"seed {seed} ({told}): {type(error).__name__}: {error}")
        assert "\n" not in message
        assert len(message) < 1500
        refused += bool(message)
        assert time.process_time() - started < seconds, f"seed {seed} ({told}) is slow"
        shutil.rmtree(target)
    return refused


def test_damaged_backbones_are_refused_or_read_exactly(tiny: BackboneFiles, tmp_path: Path) -> None:
    assert try_seeds(tiny.folder, tmp_path, range(39), 10) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "causal", "sequence-to-sequence"])
def test_many_damaged_backbones(tiny_backbones: dict[str, BackboneFiles], name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert try_seeds(tiny_backbones[name].folder, tmp_path, range(100, 300), 20) > 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # 1 GiB, in KiB
