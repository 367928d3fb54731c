"""Fixtures that the whole suite shares: a tiny backbone and task made here, real ones where they can be had."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

# Before anything imports the hub's client: no test may reach for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes whose threads wait for each other are slower than one
    os.environ["OMP_NUM_THREADS"] = "1"
# Processes that tests start compile the package once, not each anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest

from harness.backbones.locate import DEFAULT_BACKBONE, BackboneFiles, locate_backbone
from harness.data.spec import TaskSpec
from harness.measure.device import Device, find_device
from harness.measure.rate import matrix_rate
from harness.tasks import Task, kinds
from tests.slower import REAL_DATA, read_slower
from tests.snapshot_files import Snapshot, compare_with_file
from tests.tiny_architectures import save_tiny
from tests.tiny_backbones import save_tiny_llama, save_tiny_t5
from tests.toy_kinds import TOYS, toy_task
from tests.toys import save_tiny_bert, write_toy_table
from tests.warm_workers import use_warm_workers

LONGEST_FIRST = (
    *("kills", "method_contract", "ray", "cli", "simulated_gpu", "kinds", "real_data", "costs", "quickstart"),
    *("language_models", "within"),
)
"""Files that take longest. They come first, so that processes that share the files end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark fast tests, and put the longest files first."""
    slower = read_slower()
    for item in items:
        name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
        if not (
            name in slower
            or item.get_closest_marker("slow")
            or item.get_closest_marker("cold_workers")
            or REAL_DATA & set(getattr(item, "fixturenames", ()))
        ):
            item.add_marker(pytest.mark.fast)
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session")
def _rates(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The calibration of this machine, made once: each test's cache starts with it, or each would take its second."""
    folder = tmp_path_factory.mktemp("rates")
    for precision in ("fp32", "bf16"):
        matrix_rate(find_device("cpu"), precision, folder)
    return (folder / "matrix-rates.json").read_bytes()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _rates: bytes) -> None:
    """No test reads or writes the user's cache or store."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "matrix-rates.json").write_bytes(_rates)
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    monkeypatch.delenv("HARNESS_STORE", raising=False)


@pytest.fixture(autouse=True)
def _warm_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked, not started anew, unless the test is marked `cold_workers`."""
    if request.node.get_closest_marker("cold_workers") is None:
        use_warm_workers(monkeypatch)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The mirror of real data that HARNESS_MIRROR names."""
    named = os.environ.get("HARNESS_MIRROR")
    if not named:
        pytest.skip("real data: HARNESS_MIRROR names no mirror (a folder with datasets/ and models/)")
    folder = Path(named)
    if not (folder / "datasets").is_dir():
        pytest.skip(f"real data: HARNESS_MIRROR is {named}, which has no datasets/")
    return folder.resolve()


@pytest.fixture(scope="session")
def evidence() -> Path:
    """PEFT's own results, where they lie beside the project."""
    found = Path(__file__).resolve().parents[2] / "shared" / "evidence" / "peft-metamathqa"
    if not found.is_dir():
        pytest.skip("PEFT's results do not lie beside this checkout")
    return found


@pytest.fixture(scope="session")
def minilm() -> BackboneFiles:
    """The embedded backbone, from the installed package."""
    return locate_backbone(DEFAULT_BACKBONE)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """A two-layer BERT with random weights and a vocabulary of toy words, as a local folder."""
    return locate_backbone(str(save_tiny_bert(tmp_path_factory.mktemp("backbones") / "tiny-bert")))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """A two-layer Llama with random weights and its language-modelling head, as a local folder."""
    return locate_backbone(str(save_tiny_llama(tmp_path_factory.mktemp("backbones") / "tiny-llama")))


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """A T5 of two and two layers with random weights, as a local folder."""
    return locate_backbone(str(save_tiny_t5(tmp_path_factory.mktemp("backbones") / "tiny-t5")))


@pytest.fixture(scope="session")
def toy_spec(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """A user's table with three classes that words tell apart."""
    return write_toy_table(tmp_path_factory.mktemp("toy") / "toy.csv")


@pytest.fixture(scope="session")
def toy(toy_spec: TaskSpec) -> Task:
    """The toy task, prepared."""
    return kinds.get("classification").prepare(toy_spec, None)


@pytest.fixture(scope="session")
def cpu() -> Device:
    """This machine's processor."""
    return find_device("cpu")


@pytest.fixture(scope="session")
def sst2(mirror: Path) -> Task:
    """SST-2 from the mirror."""
    from harness.planning.suites import load_suite

    return kinds.get("classification").prepare(load_suite("sentiment").task("sst2"), mirror)


@pytest.fixture(scope="session")
def tiny_backbones(tiny: BackboneFiles, tiny_llama: BackboneFiles, tiny_t5: BackboneFiles) -> dict[str, BackboneFiles]:
    """The tiny ones by architecture."""
    return {"encoder": tiny, "causal": tiny_llama, "sequence-to-sequence": tiny_t5}


@pytest.fixture(scope="session")
def toy_kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """A toy task of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    return {name: toy_task(name, folder) for name in TOYS}


@pytest.fixture(scope="session")
def find(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BackboneFiles]:
    """Finds a tiny backbone of `tiny_architectures` by its name; each is made once."""

    @functools.cache
    def made(name: str) -> BackboneFiles:
        return locate_backbone(str(save_tiny(name, tmp_path_factory.mktemp("architectures") / name)))

    return made


@pytest.fixture
def snapshot(pytestconfig: pytest.Config) -> Snapshot:
    """Compares a text with the file of a name, or writes the file with --update-snapshots."""
    update = bool(pytestconfig.getoption("--update-snapshots"))
    return functools.partial(compare_with_file, update=update)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that accepts changed renderings and messages (tests/test_snapshots.py, tests/test_messages.py)."""
    parser.addoption("--update-snapshots", action="store_true", help="write tests/snapshots/ anew")
