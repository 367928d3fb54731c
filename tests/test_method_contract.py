"""The contract of every method, over the registry: a new method is tested the moment it exists.

The checks are those that authors of plug-ins run (`harness.testing`). What no plug-in has is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import linear_probe, majority, methods
from harness.methods._fine_tuning import FineTuning
from harness.methods._peft import PeftMethod
from harness.methods._peft_types import FromTable
from harness.records.workload import Workload
from harness.support.errors import UsageError
from harness.tasks import Rows, Task, kinds
from harness.testing import Check, CheckError, check_method, checks_of, lab
from harness.testing.laboratory import state_hash
from harness.testing.method_checks import BRIEF, check_elsewhere, configured
from tests.toys import make_bench, run_one

ELSEWHERE = "predicts the same in another process"
"""A process takes seconds to start: all methods share one below."""

SKIPPED = {
    "majority": {"learns", "draws by its seed"},
    "from-scratch": {"starts from the pretrained function"},
    "bottleneck-adapter": {"starts from the pretrained function"},  # nearly: see below
    "qlora": {"starts from the pretrained function"},  # from its quantised weights: see test_quantised.py
    "glora": {"trains what it says and nothing else"},  # the tiny models' biases are 0: see test_peft_table.py
    "adaption-prompt": {"learns"},  # random weights give its prompts nothing to say
    # Its first token is read from training rows after the model is built, and random weights read nothing useful.
    "cartridge": {"trains what it says and nothing else", "learns"},
    **{
        cls.name: {"starts from the pretrained function"}
        for cls in methods
        if issubclass(cls, FromTable) and cls.added.starts_elsewhere
    },
    **{cls.name: {"learns"} for cls in methods if cls.family == "in context"},  # random weights know no language
}

CASES = [
    (cls.name, architecture) for cls in methods for architecture in sorted((cls.serves or {"encoder"}) - {"served"})
]


KINDS_OF_CODE = {(cls.family, cls.__mro__[1]): cls.name for cls in reversed(list(methods))}
"""First method of each family and base class; the default suite checks these on every architecture."""

DIFFER = frozenset(
    (
        *("trains what it says and nothing else", "starts from the pretrained function"),
        *("predicts the same when restored", "repeats itself", "describes the method"),
        "merges and converts as it declares",
    )
)
"""Checks that the default suite makes of every row of the table of peft's types; the others pass the same code."""


def contract() -> Iterator[ParameterSet]:
    """Yield the checks of every method. On architectures after its first, those of similar methods are slow."""
    for cls in methods:
        first = "encoder" if "encoder" in cls.serves else min(cls.serves, default="encoder")
        for check in checks_of(cls, skip={ELSEWHERE, *SKIPPED.get(cls.name, ())}):
            is_another = " on a tiny " in check.subject and f" on a tiny {first} " not in check.subject
            is_row = issubclass(cls, FromTable) and check.name not in DIFFER
            is_slow = (is_another or is_row) and cls.name not in KINDS_OF_CODE.values()
            yield pytest.param(check, id=str(check), marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("check", list(contract()))
def test_every_method_keeps_its_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    ("name", "architecture"), [case for case in CASES if issubclass(methods.get(case[0]), PeftMethod)]
)
def test_counts_what_peft_counts(
    name: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    method: Any = configured(methods.get(name), **BRIEF)
    if method.why_not(toy, tiny_backbones[architecture], "cpu") is not None:
        return
    model = method.build(make_bench(toy, tiny_backbones[architecture], cpu))
    counts = [sum(value.numel() for value in part.parameters() if value.requires_grad) for part in (model, model.head)]
    wrapped: Any = model.transformer
    assert counts[0] - counts[1] == wrapped.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("architecture", sorted(methods.get("bottleneck-adapter").serves))
def test_a_bottleneck_adapter_starts_near_the_pretrained_function(
    architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    files = tiny_backbones[architecture]
    method = methods.get("bottleneck-adapter").model_validate({"precision": "fp32"})
    assert isinstance(method, FineTuning)
    model = method.build(make_bench(toy, files, cpu)).eval()
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        pristine = load_backbone(files).pristine(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(found, pristine, rtol=1e-4, atol=1e-2)


def test_full_leaves_nothing_frozen_and_head_trains_one_linear_layer(
    toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    width, n_classes = 32, 3
    full = run_one(toy, tiny, configured(methods.get("full"), **BRIEF), cpu).cost
    assert full.n_trainable == full.n_parameters
    frozen = sum(value.numel() for value in load_backbone(tiny).pristine.parameters())
    for name in ("head", "linear-probe"):
        cost = run_one(toy, tiny, configured(methods.get(name)), cpu).cost
        assert cost.n_trainable == width * n_classes + n_classes
        assert cost.n_parameters == frozen + cost.n_trainable


FIRST_OF_FAMILY = {cls.family: cls.name for cls in reversed(list(methods)) if "CUDA" not in cls.needs}


@pytest.mark.parametrize("which", ["one a family", pytest.param("all", marks=pytest.mark.slow)])
def test_another_process_gives_the_same(which: str) -> None:
    """Same identity, same predictions with a cold and a warm cache, and the same from what was saved."""
    # Whatever makes a family depend on the process is likely to do so in each of its methods, on any architecture.
    kind = kinds.get("classification")
    task = lab().task(kind)
    cases = [
        case for case in CASES if configured(methods.get(case[0])).why_not(task, lab().backbone(case[1]), "cpu") is None
    ]
    if which != "all":
        first = {name: architecture for name, architecture in reversed(cases) if name in FIRST_OF_FAMILY.values()}
        cases = [case for case in cases if case[0] == "full" or case in first.items()]
    check_elsewhere([(methods.get(name), architecture) for name, architecture in cases], kind)


def nothing(*arguments: Any) -> Any:
    return None


def random_answers(fitted: Any, rows: Rows, bench: Any) -> Any:
    return np.random.default_rng().dirichlet([1, 1, 1], len(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predict": nothing}, "expected a cell that ends well; found failed.*NoneType"),
        (
            {"predict": random_answers},
            "repeats itself: expected the same predictions again",
        ),
        ({"tensors": lambda *_: {}}, "lacks the tensor 'frequencies'"),
        ({"n_trainable": property(lambda *_: 4, nothing)}, "n_trainable within n_parameters"),
    ],
)
def test_a_method_that_breaks_its_contract_is_found_out(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attribute, value in change.items():
        monkeypatch.setattr(majority._Frequencies, attribute, value, raising=False)
    with pytest.raises((CheckError, UsageError), match=f"(?s){message}"):
        check_method(majority.Majority, skip=SKIPPED["majority"])


def change_weights(self: Any, rows: Rows, bench: Any) -> Any:
    with torch.no_grad():
        next(bench.some_backbone.pristine.parameters()).add_(1e-4)
    return linear_probe.LinearProbe.fit(self, rows, bench)


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("linear-probe", {"role": "wizard"}, "describes the method: .*role 'wizard'. Set `role` to one of 'floor', "),
        (
            "linear-probe",
            {"role": "baseline", "workload": lambda *_: Workload()},
            "Liar on a tiny encoder backbone: does what it declares: .* 0 texts are read once; its fit read 128",
        ),
        (
            "linear-probe",
            {"workload": lambda _, n, *__: Workload(encoded=n, texts_per_answer=50)},
            "does what it declares: .* 50 texts_per_answer, 4800 texts for 96 answers; these read 128",
        ),
        ("full", {"role": "prompting", "workload": lambda *_: Workload()}, "declares 0 optimiser steps for 96 labels"),
        ("linear-probe", {"fit": change_weights}, "repeats itself: expected untouched weights of the backbone"),
        ("majority", {"__module__": "__main__"}, "move the class Liar to a module .*'Liar' defined in the script"),
    ],
)
def test_a_class_that_declares_what_it_does_not_do_is_found_out(
    name: str, own: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = methods.get(name)
    liar: Any = type("Liar", (base,), {"__doc__": "Lies.", "name": "Liar", "__module__": __name__, **own})
    monkeypatch.setitem(methods._members, "Liar", liar)
    files = lab().backbone("encoder")
    weights = state_hash(load_backbone(files).pristine)
    told = ("describes the method", "does what it declares", "repeats itself", ELSEWHERE)
    skipped = {check.name for check in checks_of(liar)} - set(told)
    with pytest.raises(CheckError, match=f"(?s){message}"):
        check_method(liar, skip=skipped)
    assert state_hash(load_backbone(files).pristine) == weights
