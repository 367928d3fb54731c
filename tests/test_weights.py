"""Storage of frozen weights apart from arithmetic: the same bits, shared memory, and nothing written to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import harness.backbones.language as language_module
from harness.backbones import BackboneFiles, load_backbone, locate_backbone
from harness.backbones.residency import _RESIDENT, drop_resident, make_masters
from harness.backbones.weights import is_shared, store_bfloat16, structural_copy, types_in, weights_bytes
from harness.measure import Device, MemoryMeter
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.support import HarnessError, UnsupportedError, put_aside
from harness.running.worker import Worker
from harness.tasks import Task
from harness.testing.laboratory import make_bench, state_hash
from tests.tiny_architectures import ARCHITECTURES, save_tiny
from tests.toys import run_one

CPU = torch.device("cpu")

FAILS_UNDER_AUTOCAST = {"deberta"}
"""Architectures that transformers cannot run under autocast, whatever the weights."""


def rounded_copy(files: BackboneFiles, folder: Path) -> BackboneFiles:
    """A copy whose weights are bfloat16."""
    shutil.copytree(files.folder, folder)
    path = folder / "model.safetensors"
    tensors = {name: value.bfloat16() for name, value in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    return locate_backbone(str(folder))


def outputs(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more)
    several = [value if isinstance(value, tuple) else (value,) for value in found.values()]
    return [tensor for values in several for tensor in values if isinstance(tensor, torch.Tensor)]


def copied(model: nn.Module, types: dict[int, torch.dtype] | None = None) -> nn.Module:
    def take(value: nn.Parameter) -> nn.Parameter:
        dtype = value.dtype if types is None else types[id(value)]
        return nn.Parameter(value.detach().to(dtype, copy=True), requires_grad=False)

    return structural_copy(model, take, CPU)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - FAILS_UNDER_AUTOCAST))
def test_bfloat16_storage_gives_the_bits_of_autocast_on_float32(name: str, tmp_path: Path) -> None:
    """Hidden states and logits, without and with padding; the weights of a float32 file, and of a bfloat16 file."""
    import transformers

    model_class = getattr(transformers, ARCHITECTURES[name][1])
    reference: nn.Module = model_class.from_pretrained(save_tiny(name, tmp_path), dtype=torch.float32).eval()
    rounded = copied(reference)
    with torch.no_grad():
        for value in rounded.parameters():
            value.copy_(value.bfloat16())
    cases = [
        (copied(reference, types_in(reference, "bfloat16")), reference),
        (store_bfloat16(copied(rounded)), rounded),
    ]
    ids = torch.randint(5, 30, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    padded = mask.clone()
    padded[0, 12:] = padded[1, 17:] = 0
    for compact, exact in cases:
        assert any(value.dtype == torch.bfloat16 for value in compact.parameters())
        assert all(value.dtype == torch.float32 for value in compact.parameters() if value.ndim == 1)
        for given in (mask, padded):
            found, expected = outputs(compact, ids, given), outputs(exact, ids, given)
            assert [value.dtype for value in found] == [value.dtype for value in expected]
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.fixture
def halves(tiny_backbones: dict[str, BackboneFiles], tmp_path: Path) -> dict[str, BackboneFiles]:
    """The tiny backbones with bfloat16 weights."""
    return {name: rounded_copy(files, tmp_path / name) for name, files in tiny_backbones.items()}


def test_a_bfloat16_file_is_kept_in_bfloat16_and_computes_as_in_float32(halves: dict[str, BackboneFiles]) -> None:
    for files in halves.values():
        backbone = load_backbone(files)
        assert backbone.is_bfloat16
        assert backbone.resident(CPU, "bf16") is backbone.pristine
        raised = backbone.resident(CPU, "fp32")
        assert {value.dtype for value in raised.parameters()} == {torch.float32}
        ids = torch.randint(5, 20, (2, 9), generator=torch.Generator().manual_seed(0))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            expected = backbone.fresh(CPU).eval()(**given).last_hidden_state
            assert torch.equal(raised(**given).last_hidden_state, expected)
        n_bytes = sum(value.numel() * value.element_size() for value in backbone.pristine.parameters())
        assert backbone.frozen_bytes("bf16") == n_bytes
        assert backbone.frozen_bytes("fp32") == sum(4 * value.numel() for value in backbone.pristine.parameters())
        assert weights_bytes(raised, resident=True) == (backbone.frozen_bytes("fp32"),) * 2


def test_one_backbone_is_resident_and_gives_way_to_another(tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    drop_resident(CPU)
    first, second = load_backbone(tiny), load_backbone(tiny_llama)
    assert first.resident(CPU, "fp32") is first.pristine
    assert CPU not in _RESIDENT
    half = first.resident(CPU, "bf16")
    assert half is first.resident(CPU, "bf16")
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16, torch.float32}
    whole = second.language_model(CPU, "bf16").model
    assert _RESIDENT[CPU].backbone is second
    inner = {id(value) for value in second.resident(CPU, "bf16").parameters()}
    assert inner < {id(value) for value in whole.parameters()}
    drop_resident(CPU)


def test_weights_that_are_not_of_the_device_are_refused(tiny: BackboneFiles) -> None:
    with pytest.raises(UnsupportedError, match="weights=auto"):
        load_backbone(tiny).form("fp32", "bfloat16")
    with pytest.raises(ValueError, match="weights=auto or precision=bf16"):
        methods.get("lora").model_validate({"weights": "bfloat16", "precision": "fp32"})
    assert "weights" not in methods.get("lora")().config()
    assert methods.get("lora").model_validate({"weights": "float32"}).config()["weights"] == "float32"


ADAPTING = sorted(
    name for name in methods.names() if issubclass(methods.get(name), FineTuning) and name != "from-scratch"
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ADAPTING)
def test_what_is_frozen_is_shared_and_what_trains_is_float32(
    name: str, precision: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    method: Any = methods.get(name).model_validate({"precision": precision})
    if method.why_not(toy, tiny, "cpu") is not None:
        pytest.skip("it does not serve this backbone")
    bench = make_bench(toy, tiny, cpu)
    backbone = load_backbone(tiny)
    before = state_hash(backbone.pristine)
    model = method.build(bench)
    trained = [value for value in model.parameters() if value.requires_grad]
    assert all(value.dtype == torch.float32 for value in trained)
    assert not any(is_shared(value) for value in trained)
    own = {value.untyped_storage().data_ptr() for value in trained}
    resident = backbone.resident(CPU, "fp32" if method.rounds_nothing else precision)  # type: ignore[arg-type]
    theirs = {value.untyped_storage().data_ptr() for value in (*resident.parameters(), *backbone.pristine.parameters())}
    assert not own & theirs
    known = {value.numel() for value in backbone.pristine.parameters() if value.ndim > 1}
    frozen = [value for value in model.transformer.parameters() if not value.requires_grad]
    if name not in ("vera", "qlora"):  # its random matrices are its own; four bits are too
        assert all(is_shared(value) for value in frozen if value.numel() in known)
    total = sum(value.numel() * value.element_size() for value in model.parameters())
    if name != "qlora":
        assert bench.ledger.weights_bytes == total
        assert bench.ledger.shared_weights_bytes == sum(
            value.numel() * value.element_size() for value in frozen if is_shared(value)
        )
    with torch.no_grad():
        for value in trained:
            value.add_(1.0)
    backbone.check_untouched()
    assert state_hash(backbone.pristine) == before


def test_writing_to_shared_weights_is_noticed(tiny: BackboneFiles, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "b")
    backbone = load_backbone(locate_backbone(str(tmp_path / "b")))
    backbone.check_untouched()
    copy = backbone.shared(CPU, "fp32")
    first = next(copy.parameters())
    make_masters(copy, [first])
    with torch.no_grad():
        first.add_(1.0)
    backbone.check_untouched()
    with torch.no_grad():
        next(value for value in copy.parameters() if is_shared(value)).add_(1.0)
    with pytest.raises(HarnessError, match="wrote to the shared weights"):
        backbone.check_untouched()


def test_random_weights_may_become_resident(tmp_path: Path) -> None:
    """Drawing them counts as writing to them, which happened before they were shared."""
    (tmp_path / "b").mkdir()
    save_tiny("llama", tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").unlink()
    backbone = load_backbone(locate_backbone(str(tmp_path / "b"), weights=False))
    backbone.check_untouched()
    backbone.resident(CPU, "bf16")
    backbone.check_untouched()
    drop_resident(CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "phi"])
def test_only_the_head_is_read_beside_the_transformer(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    folder = save_tiny(name, tmp_path / "b")
    path = folder / "model.safetensors"
    save_file({key: value.to(dtype) for key, value in load_file(path).items()}, path, {"format": "pt"})
    backbone = load_backbone(locate_backbone(str(folder)))
    monkeypatch.setattr(language_module, "load_weights", lambda *_: pytest.fail("the whole model was read again"))
    model: Any = backbone.language_model(CPU, "bf16").model
    expected = getattr(transformers, ARCHITECTURES[name][1]).from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(5, 30, (2, 9), generator=torch.Generator().manual_seed(0))
    found, wanted = (outputs(one, ids, torch.ones_like(ids))[0] for one in (model, expected))
    assert torch.equal(found, wanted)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (expected.get_output_embeddings().weight is expected.get_input_embeddings().weight)
    drop_resident(CPU)


def test_memory_that_is_put_aside_is_in_no_peak() -> None:
    n = 64 * 2**20
    kept: list[torch.Tensor] = []
    with MemoryMeter() as meter:
        with put_aside():
            kept.append(torch.ones(n // 4))
            passing = torch.ones(n // 2)
            del passing
        used = torch.ones(n // 16)
        del used
    assert meter.peak_rss_above_baseline_bytes is not None
    assert n / 5 < meter.peak_rss_above_baseline_bytes < n / 2
    with MemoryMeter() as meter:
        before = torch.ones(n // 8)
        del before
        with put_aside():
            kept.clear()
        after = torch.ones(n // 16)
        del after
    assert meter.peak_rss_above_baseline_bytes is not None
    assert n / 3 < meter.peak_rss_above_baseline_bytes < n * 0.8


@pytest.mark.parametrize("how", ["in place", "through data", "of the head"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_worker_whose_first_cell_writes_to_shared_weights_runs_no_other(
    how: str, precision: str, toy: Task, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the cell fails for another reason, or writes in a way that torch does not count."""
    backbone = load_backbone(locate_backbone(str(save_tiny("llama", tmp_path / "b"))))

    def fit(*_: object) -> None:
        if how == "of the head":
            model: Any = backbone.shared_language_model(CPU, precision)  # type: ignore[arg-type]
            weight = model.get_output_embeddings().weight
        else:
            weight = next(value for value in backbone.shared(CPU, precision).parameters() if value.ndim > 1)  # type: ignore[arg-type]
        assert is_shared(weight)
        if how == "through data":
            weight.data.add_(1.0)
        else:
            weight.add_(1.0)
        raise RuntimeError("another reason")

    monkeypatch.setattr(methods.get("linear-probe"), "fit", fit)
    worker = Worker(cpu, None)
    backbone.language_model(CPU, precision)  # type: ignore[arg-type]
    record = run_one(toy, backbone.files, methods.get("linear-probe")(c=1.0), cpu, worker=worker)
    drop_resident(CPU)
    assert record.status == "failed"
    assert "another reason" in str(record.error)
    assert worker.is_spoilt


def test_weights_that_are_not_numbers_count_as_untouched(tmp_path: Path) -> None:
    backbone = load_backbone(locate_backbone(str(save_tiny("bert", tmp_path / "b"))))
    backbone.pristine.get_parameter("embeddings.word_embeddings.weight").data.fill_(torch.nan)
    for _ in range(2):
        backbone.resident(CPU, "bf16")
        backbone.check_untouched()
    drop_resident(CPU)
