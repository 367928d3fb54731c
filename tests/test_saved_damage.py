"""Damaged saved models: each predicts exactly what the intact one does, or is refused in one line."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import load_model
from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.support.errors import HarnessError
from harness.tasks.base import Task
from tests import damage
from tests.toys import save_one

QUICK = ("tfidf", "linear-probe", "full", "lora")
MORE = ("knn", "last-layers", "setfit", "random-forest-probe", "prototypes", "mlp-probe", "bitfit", "majority")
MODES = ("manifest", "format 1", "remade")
"""With the manifest that was written, without one, and with one that was made after the damage."""

Intact = dict[str, tuple[Path, np.ndarray]]


def save_all(names: tuple[str, ...], task: Task, files: BackboneFiles, device: Device, folder: Path) -> Intact:
    intact = {}
    for name in names:
        save_one(name, task, files, device, folder / name)
        intact[name] = (folder / name, load_model(folder / name, "cpu").probabilities(some_texts(task)))
    return intact


def some_texts(task: Task) -> list[str]:
    return list(task.test.texts[:6])


@pytest.fixture(scope="module")
def intact(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Intact:
    return save_all(QUICK, toy, tiny, cpu, tmp_path_factory.mktemp("intact"))


def too_long(*_: Any) -> None:
    raise AssertionError("loading a damaged model took more than a minute")


def outcome(folder: Path, expected: np.ndarray, texts: list[str]) -> str:
    """Say how a damaged model behaves; fails unless it is refused or predicts the same."""
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    found, said = expected, ""
    try:
        found = load_model(folder, "cpu").probabilities(texts)
    except HarnessError as error:
        said = str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(found, expected)
    assert "\n" not in said
    assert not said or 20 < len(said) < 1000
    return "refused" if said else "the same"


def try_many(intact: Intact, task: Task, mode: str, n: int, seed: int, folder: Path) -> Counter[tuple[str, str]]:
    """Damage models in `n` ways, one after the other, and count what came of it."""
    ways = damage.STRUCTURAL + (damage.OTHER if mode == "manifest" else ())
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(n):
        chance = random.Random(f"{seed}/{mode}/{number}")
        name, way = chance.choice(list(intact)), ways[number % len(ways)]
        source, expected = intact[name]
        copy = folder / str(number) / "model"
        shutil.copytree(source, copy)
        if mode == "format 1":
            damage.make_format_1(copy)
        other = intact[chance.choice([key for key in intact if key != name])][0]
        did = way(copy, chance, other)
        if mode == "remade":
            damage.remake_manifest(copy)
        try:
            what = outcome(copy, expected, some_texts(task))
        except BaseException as error:
            raise AssertionError(f"{mode}, {seed}/{number}, {name}: {did}: {type(error).__name__}: {error}") from error
        assert not (copy.parent / "executed").exists(), did
        counts[way.__name__, what] += 1
        shutil.rmtree(copy.parent)
    return counts


@pytest.mark.parametrize("mode", MODES)
def test_damage_is_refused_or_harmless(mode: str, intact: Intact, toy: Task, tmp_path: Path) -> None:
    counts = try_many(intact, toy, mode, 24 if mode == "manifest" else 20, 0, tmp_path)
    assert sum(n for (_, what), n in counts.items() if what == "refused") >= 15
    assert counts["edit_card", "the same"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_much_damage_is_refused_or_harmless(
    mode: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    models = save_all(QUICK + MORE, toy, tiny, cpu, tmp_path / "intact")
    counts = try_many(models, toy, mode, 240, 1, tmp_path)
    print(f"\n{mode}: {sum(counts.values())} models, {dict(counts)}")
