"""The table of peft's types: completeness, equations, independence of rows, and what is saved."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._peft_types import FromTable
from harness.methods.configure import parse_method
from harness.methods.peft_table import NOT_COMPARABLE
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Rows, Task
from tests.toys import make_bench, save_tiny_bert

ROWS = [cls for cls in methods if issubclass(cls, FromTable)]

OWN_FILES = frozenset(
    (
        *("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "VERA", "FOURIERFT"),
        *("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"),
    )
)
"""Types of peft whose methods have a file of their own."""


def test_each_type_of_peft_has_a_method_or_a_reason() -> None:
    from peft import PeftType

    ours = {cls.added.peft_type for cls in ROWS} | OWN_FILES
    assert not ours & set(NOT_COMPARABLE)
    assert ours | set(NOT_COMPARABLE) == {kind.value for kind in PeftType} | {"aLoRA"}


def stirred(method: FromTable, toy: Task, files: BackboneFiles, cpu: Device) -> Any:
    """Build a model in evaluation mode, with random values where it trains."""
    model = method.build(make_bench(toy, files, cpu)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("cls", ROWS, ids=lambda cls: cls.name)
def test_a_row_does_not_depend_on_the_texts_beside_it(
    cls: type[FromTable], toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    """The answers for a text are the same alone and in a batch with longer texts, so with padding."""
    files = tiny_backbones["encoder" if "encoder" in cls.serves else "causal"]
    model = stirred(cls(precision="fp32"), toy, files, cpu)
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    with torch.no_grad():
        together = model(ids, mask)
        alone = model(ids[:1, :5], mask[:1, :5])
        moved = model.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        with model.transformer.disable_adapter():
            pristine = model.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)
    if cls.name != "trainable-tokens":  # the ids above hold no special token
        assert float((moved - pristine).abs().max()) > 1e-3, "the added parameters must have an effect"


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("cls", [cls for cls in ROWS if cls.added.n_held is not None], ids=lambda cls: cls.name)
def test_a_plan_counts_the_matrices_that_a_step_holds(
    cls: type[FromTable], targets: str, wide: BackboneFiles, toy: Task, cpu: Device
) -> None:
    """Counted are tensors that the backward pass keeps and no parameter holds, and fixed ones that peft adds."""
    method: Any = cls.model_validate({"precision": "fp32", "targets": targets})
    own = make_bench(toy, wide, cpu)
    model = method.build(own).train()
    backbone = sum(value.numel() for value in own.some_backbone.fresh(torch.device("cpu")).parameters())
    held = {of.data_ptr(): of.numel() for of in (*model.transformer.parameters(), *model.transformer.buffers())}
    trained = sum(value.numel() for value in model.transformer.parameters() if value.requires_grad)
    kept: dict[int, int] = {}

    def note(value: torch.Tensor) -> torch.Tensor:
        if not value.is_sparse and value.data_ptr() not in held and value.numel() >= 128 * 128:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() // 4
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        states = model.transformer(input_ids=torch.tensor([[5, 6, 7, 8]])).last_hidden_state
    counted = sum(held.values()) - backbone - trained + sum(kept.values())
    planned = method.n_added(128, 4) - trained
    print(cls.name, targets, f"counted {counted:,}, planned {4 * planned:,.0f}", states.shape)
    assert 4 * planned == pytest.approx(counted, rel=0.35)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """A BERT of width 128 whose feed-forward networks are four times as wide, as the arithmetic takes them."""
    from transformers import BertConfig, BertModel

    folder = save_tiny_bert(tmp_path_factory.mktemp("wide") / "bert", layers=4, width=128)
    BertModel(BertConfig.from_pretrained(folder, intermediate_size=512)).save_pretrained(folder)
    return locate_backbone(str(folder))


def groups_of(x: torch.Tensor, size: int) -> torch.Tensor:
    return x.unflatten(-1, (-1, size)).sum(-2)


def circulant(kernel: torch.Tensor) -> torch.Tensor:
    """Return the matrix whose product is the circular correlation with a vector, by its definition."""
    return torch.stack([torch.roll(kernel, shift) for shift in range(len(kernel))])


def c3a(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    kernels = layer.c3a_kernel["default"]  # (out blocks, in blocks, size)
    blocks = [torch.cat([circulant(kernel) for kernel in row], dim=1) for row in kernels]
    matrix = torch.cat(blocks) / x.shape[-1]
    return x @ w.T + x @ matrix.T


def adamss(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    inner = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) @ layer.adamss_newB["default"].T
    pairs = zip(layer.adamss_A["default"], layer.adamss_B["default"], strict=True)
    addition = torch.zeros(*x.shape[:-1], len(w))
    addition[..., layer.scatter_index["default"]] = torch.cat([inner @ a.T @ b.T for a, b in pairs], dim=-1)
    return x @ w.T + addition


def gralora(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    a, b, k = layer.gralora_A["default"], layer.gralora_B["default"], layer.gralora_k["default"]
    n_in, n_out = w.shape[1] // k, w.shape[0] // k
    addition = torch.zeros_like(w)
    per = a.shape[-1] // k
    for i in range(k):  # block of inputs
        for j in range(k):  # block of outputs
            part = a[i][:, j * per : (j + 1) * per] @ b[j][i * per : (i + 1) * per]
            addition[j * n_out : (j + 1) * n_out, i * n_in : (i + 1) * n_in] = part.T
    return x @ (w + layer.scaling["default"] * addition).T


def delora(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    a, b = layer.delora_A["default"], layer.delora_B["default"]
    inverse = torch.diag(1 / (a.norm(dim=1) * b.norm(dim=0)))
    return x @ w.T + layer.delora_lambda["default"] / len(a) * (x * w.norm(dim=0)) @ (b @ inverse @ a).T


def deft(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    p, r = layer.deft_P["default"], layer.deft_R["default"]
    return x @ ((torch.eye(len(w)) - p @ p.relu().T) @ w + p @ r).T


def glora(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    a, b, c = (getattr(layer, f"glora_{letter}")["default"]() for letter in "ABC")
    d, e = (getattr(layer, f"glora_{letter}")["default"].X for letter in "DE")
    bias = layer.get_base_layer().bias
    return x @ (w + w * a + b).T + d * bias + e + (w @ c).flatten()


def hra(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    for u in layer.hra_u["default"].T.flip(0):
        x = x - 2 * (x @ u).unsqueeze(-1) * u / u.dot(u)
    return x @ w.T


def lily(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    inner = layer.lily_A["default"](x)
    shared = layer.lily_B["default"].weight.view(2, inner.shape[-1], -1)
    p = layer.lily_router["default"](inner).softmax(-1)
    return x @ w.T + 2.0 * sum(p[..., j : j + 1] * (inner @ shared[j]) for j in range(2))


def peanut(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    inner = (w.T @ layer.peanut_A["default"].weight.T).relu()
    return x @ w.T + 2.0 * x @ (inner @ layer.peanut_B["default"].weight.T)


def pvera(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    a = layer.pvera_A["default"][:, : x.shape[-1]]
    a, d = a[: len(a) // 2], layer.pvera_lambda_d["default"][: len(a) // 2]
    b = layer.pvera_B["default"][: len(w)]
    return x @ w.T + layer.pvera_lambda_b["default"] * (d * (x @ a.T) @ b.T)


def road(layer: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x @ w.T + layer.get_base_layer().bias
    size = layer.group_size["default"]
    angle, scale = (getattr(layer, f"road_{name}")["default"].view(-1, size // 2) for name in ("theta", "alpha"))
    first, second = y.unflatten(-1, (-1, size)).chunk(2, dim=-1)
    turned = (
        scale * (angle.cos() * first - angle.sin() * second),
        scale * (angle.sin() * first + angle.cos() * second),
    )
    return torch.cat(turned, dim=-1).flatten(-2) - layer.get_base_layer().bias


EQUATIONS: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "adamss": adamss,
    "beft": lambda layer, x, w: x @ w.T + layer.beft_bias["default"],
    "c3a": c3a,
    "deft": deft,
    "delora": delora,
    "frod": lambda layer, x, _: x @ _frod_weight(layer).T,
    "glora": glora,
    "gralora": gralora,
    "hira": lambda layer, x, w: x @ (w + w * (layer.hira_B["default"] @ layer.hira_A["default"])).T,
    "hra": hra,
    "lily": lily,
    "miss": lambda layer, x, w: x @ w.T + groups_of(x, len(layer.miss_block["default"])) @ layer.miss_block["default"],
    "peanut": peanut,
    "pvera": pvera,
    "road": road,
    "shira": lambda layer, x, w: x @ (w + _sparse(layer, w)).T,
}


def _frod_weight(layer: Any) -> torch.Tensor:
    indices, values = layer.frod_s_indices["default"].long(), layer.frod_lambda_s_values["default"]
    sparse = torch.diag(layer.frod_lambda_l["default"])
    sparse[indices[0], indices[1]] += values
    return layer.frod_U["default"] @ sparse @ layer.frod_V["default"].T


def _sparse(layer: Any, w: torch.Tensor) -> torch.Tensor:
    addition = torch.zeros_like(w)
    addition[*layer.shira_indices["default"].long()] = layer.shira_weight["default"]
    return addition


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_layer_computes_the_equation_of_its_documentation(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    method: Any = methods.get(name)(precision="fp32")
    model = stirred(method, toy, tiny, cpu)
    layer: Any = next(module for module in model.transformer.modules() if isinstance(module, BaseTunerLayer))
    base: nn.Linear = layer.get_base_layer()
    with torch.no_grad():
        base.bias = nn.Parameter(torch.linspace(-1, 1, len(base.bias)))
        x = torch.randn(3, 7, base.in_features, generator=torch.Generator().manual_seed(2))
        expected = EQUATIONS[name](layer, x, base.weight) + base.bias
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


BRIEF_FIT: dict[str, Any] = {"precision": "fp32", "min_steps": 6, "epochs": 1}


@contextlib.contextmanager
def restored_the_same(method: Any, toy: Task, tiny: BackboneFiles, cpu: Device) -> Iterator[None]:
    """Fit, let the caller change the machine, and check that what was saved predicts the same there."""
    bench = make_bench(toy, tiny, cpu)
    fitted = method.fit(Rows(toy.train, np.arange(32), toy.train_labels[:32]), bench)
    tensors, state = fitted.tensors(), fitted.state()
    answers = fitted.predict(toy.test_rows_to_predict, bench)
    yield
    again = method.restore(tensors, state, make_bench(toy, tiny, cpu))
    np.testing.assert_allclose(again.predict(toy.test_rows_to_predict, bench), answers, atol=1e-6)


@pytest.mark.parametrize("name", ["adamss", "frod", "osf", "psoft", "tinylora"])
def test_a_saved_model_survives_other_signs_of_singular_vectors(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may find singular vectors of the opposite sign, as far as a decomposition can tell."""
    method = methods.get(name)(**BRIEF_FIT)
    svd = torch.linalg.svd

    def mirrored(*arguments: Any, **options: Any) -> Any:
        u, s, v = svd(*arguments, **options)
        signs = torch.ones_like(s)
        signs[..., ::2] = -1  # every other pair of vectors
        u, v = u.clone(), v.clone()
        u[..., : s.shape[-1]] *= signs.unsqueeze(-2)
        v[..., : s.shape[-1], :] *= signs.unsqueeze(-1)
        return u, s, v

    with restored_the_same(method, toy, tiny, cpu):
        monkeypatch.setattr(torch.linalg, "svd", mirrored)


def test_a_bias_trains_where_the_backbone_has_one(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """D of GLoRA scales the bias, so that it stays where the bias is 0, as in tiny models with random weights."""
    method: Any = methods.get("glora")(precision="fp32")
    model: Any = method.build(make_bench(toy, tiny, cpu))
    layer = next(module for module in model.transformer.modules() if hasattr(module, "glora_D"))
    layer.get_base_layer().bias = nn.Parameter(torch.ones(layer.out_features), requires_grad=False)
    layer(torch.ones(1, layer.in_features)).sum().backward()
    assert layer.glora_D["default"].X.grad.item() == pytest.approx(layer.out_features)


def test_a_cartridge_starts_from_the_keys_and_values_of_training_texts(
    toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    bench = make_bench(toy, tiny_backbones["causal"], cpu)
    method: Any = methods.get("cartridge")(precision="fp32", n_virtual_tokens=4)
    rows = Rows(toy.train, np.arange(8), toy.train_labels[:8])
    model: Any = method.build(bench)
    method.initialise(model, rows, bench)
    ids = [token for row in bench.token_rows(rows, "encode") for token in row][:4]
    with torch.no_grad():
        cache = model.transformer.get_base_model()(input_ids=torch.tensor([ids]), use_cache=True).past_key_values
        found = model.transformer.get_prompt(1)
    for ours, theirs in zip(found.layers, cache.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)
    with pytest.raises(UnsupportedError, match="starts from 4 tokens of the training texts, which have 0"):
        method.initialise(method.build(bench), rows.take(np.array([], dtype=np.int64)), bench)


def test_a_cartridge_starts_without_dropout(find: Callable[[str], BackboneFiles], toy: Task, cpu: Device) -> None:
    """GPT-2 drops out embeddings in training, so that the start would be another for each state of the generator."""
    method: Any = methods.get("cartridge")(precision="fp32", n_virtual_tokens=4)
    rows = Rows(toy.train, np.arange(8), toy.train_labels[:8])
    starts = []
    for seed in (0, 1):
        model: Any = method.build(make_bench(toy, find("gpt2"), cpu))
        assert model.transformer.get_base_model().config.embd_pdrop > 0
        torch.manual_seed(seed)
        method.initialise(model, rows, make_bench(toy, find("gpt2"), cpu))
        starts.append(model.transformer.get_prompt(1).layers)
    for one, two in zip(*starts, strict=True):
        torch.testing.assert_close(one.keys, two.keys, rtol=0.0, atol=0.0)


def test_a_saved_supertuning_has_the_places_of_its_fit(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many values of a matrix stored in 16 bits have equal magnitudes; which of them come first is the machine's."""
    method = methods.get("supertuning")(**BRIEF_FIT, sparsity=0.9)
    topk = torch.topk

    def reversed_order(*arguments: Any, **options: Any) -> Any:
        values, indices = topk(*arguments, **options)
        return values.flip(0), indices.flip(0)

    with restored_the_same(method, toy, tiny, cpu):
        monkeypatch.setattr(torch, "topk", reversed_order)


def test_a_saved_adamss_has_the_clusters_of_its_fit(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.adamss import layer

    method = methods.get("adamss")(**BRIEF_FIT, n_subspaces=2)
    found = layer.clustering_Z

    def permuted(*arguments: Any) -> Any:
        clusters, n = found(*arguments)
        return clusters.roll(3), n  # as many outputs in each cluster, but others

    with restored_the_same(method, toy, tiny, cpu):
        monkeypatch.setattr(layer, "clustering_Z", permuted)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pissa", r"it is a setting here\. Use lora\[init=pissa\]"),
        ("LoftQ", r"Use qlora\[init=loftq\]"),
        ("muon", r"Use full\[optimiser=muon\]"),
        ("xlora", "cannot be compared: it mixes several trained LoRA adapters"),
        ("multitask_prompt_tuning", "cannot be compared: it learns a prompt on several tasks first"),
    ],
)
def test_names_of_settings_and_of_types_without_a_method_are_explained(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_method(name)


def test_no_model_outlives_its_cell(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """A cache of peft would keep each layer of Super-Tuning for ever."""
    model = stirred(methods.get("supertuning")(precision="fp32"), toy, tiny, cpu)
    with torch.no_grad():
        model(torch.full((1, 4), 7), torch.ones(1, 4, dtype=torch.long))
    kept = weakref.ref(model.transformer)
    del model
    gc.collect()
    assert kept() is None
