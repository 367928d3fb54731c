"""`harness plan` and the options of `harness run` that say how cells are run, as a user types them."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.backbones.locate import BackboneFiles
from harness.methods._bitsandbytes import why_no_bitsandbytes
from tests.commands import run_apart, run_cli
from tests.toys import write_toy_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("plan")
    write_toy_table(found / "tickets.csv")
    return found


def grid(backbone: Path | str) -> list[str]:
    methods = "majority,tfidf,linear-probe,full[min_steps=4,epochs=1],few-shot"
    return [
        "--data",
        "tickets.csv",
        "--backbone",
        str(backbone),
        "--methods",
        methods,
        "--sizes",
        "24",
        "--seeds",
        "0,1",
    ]


def test_a_plan_rests_on_probes_then_on_records_and_runs_nothing(folder: Path, tiny: BackboneFiles) -> None:
    probed = run_cli("plan", *grid(tiny.folder), "--store", "p.sqlite", cwd=folder)
    assert "10 cells, 0 done already" in probed
    assert "8 cells are predicted from a probe of a few steps" in probed
    assert "2 cells cannot run here" in probed
    assert "In total about" in probed
    assert not (folder / "p.sqlite").exists()
    run_cli("run", *grid(tiny.folder), "--store", "p.sqlite", "--seeds", "0", "--within", "10m", cwd=folder)
    known = run_cli("plan", *grid(tiny.folder), "--store", "p.sqlite", cwd=folder)
    assert "10 cells, 5 done already" in known
    assert "4 cells are predicted from records of this device" in known
    assert "a probe of" not in known


def test_a_plan_without_weights_and_without_probes(folder: Path, tiny: BackboneFiles, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny.folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    said = run_cli("plan", *grid(bare), "--no-probe", "--store", "none.sqlite", cwd=folder)
    assert "8 cells are predicted from arithmetic alone" in said
    assert "no .safetensors" in run_cli("run", *grid(bare), cwd=folder, code=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--within", "soon"], "--within 'soon' was given; expected a duration"),
        (["--on-oom", "cry"], "--on-oom 'cry' was given; expected record or halve"),
        (["--throughput", "0"], "--throughput 0 was given"),
        (["--executor", "slurm"], "--executor 'slurm' was given; expected local or ray"),
        (["--ray-address", "auto"], "--ray-address goes with --executor ray"),
        (["--executor", "ray", "--throughput", "2"], "--throughput goes with --executor local"),
    ],
)
def test_wrong_options_are_told_what_to_try(arguments: list[str], says: str, folder: Path, tiny: BackboneFiles) -> None:
    assert says in run_cli("run", *grid(tiny.folder), *arguments, cwd=folder, code=2)


def test_a_plan_for_a_device_that_is_not_here_says_what_fits_and_in_which_form(folder: Path) -> None:
    methods = "lora[batch_size=1],lora[batch_size=64],full"
    asked = ["--data", "tickets.csv", "--methods", methods, "--sizes", "64", "--seeds", "0", "--device", "cuda"]
    asked += ["--backbone", "llama-3.1-8b-like", "--device-memory", "20GB"]
    said = " ".join(run_cli("plan", *asked, "--memory", cwd=folder).split())
    assert "on a CUDA device with 20 GB of memory (assumed)" in said
    assert "shared weights" in said
    assert "keys and values" not in said  # parts that no method has are left out
    assert "GiB" not in said
    assert "full (no form of it fits)" in said
    code, printed, _ = run_apart("plan", *asked, "--json", cwd=folder)
    assert code == 0
    found = json.loads(printed)
    single, many, full = found["cells"]
    assert single["runs_as"] is None
    assert single["memory"]["shared_weights"] > 14e9
    assert sum(single["memory"].values()) == pytest.approx(single["peak_bytes"])
    assert single["during"] in ("training", "predicting")
    assert many["peak_bytes"] > found["memory_bytes"] == pytest.approx(0.94 * 20e9)
    assert many["runs_as"].startswith("lora[batch_size=64, accumulation=")
    assert full["runs_as"] is None
    assert {one["method"]: one["fits"] for one in found["too_large"]} == {
        "full": None,
        "lora[batch_size=64]": many["runs_as"],
    }
    refused = run_cli("plan", *asked[:-2], cwd=folder, code=2)
    assert "--device-memory 24GB" in " ".join(refused.split())


def test_a_plan_for_another_machine_does_not_ask_for_its_packages_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.metadata.version

    def missing(name: str) -> str:
        if name == "bitsandbytes":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    asked: dict[str, Any] = {"data": str(folder / "tickets.csv"), "methods": ["qlora"], "sizes": ["64"], "seeds": [0]}
    asked |= {"backbone": "llama-3.2-1b-like", "device": "cuda", "device_memory": "24GB"}
    there = harness.plan(**asked)
    assert there.n_unsupported == 0
    assert "needed there: 'qlora' needs the package bitsandbytes" in there.notes[0]
    here = why_no_bitsandbytes("'qlora'")
    assert here is not None
    assert "pip install" in here
