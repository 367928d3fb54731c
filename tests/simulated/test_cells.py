"""Every method on every kind of task: nothing is misplaced, no step waits, no byte is hidden or left behind."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.measure.device import find_device
from harness.methods import methods
from harness.methods._peft_types import FromTable
from harness.running.worker import Worker
from tests.simulated import cells

PLACES = sorted({case.rpartition("/")[0] for case in cells.all_cases()})
"""Every kind of task with every architecture that serves it, as kind/architecture."""


WAIT_IN_PEFT = frozenset({"boft", "psoft", "trainable-tokens", "vblora", "waveft"})
"""Methods whose steps wait for the device in peft's own code, on each adapted layer."""


NOT_SIMULATED = frozenset({"frod", "shira"})
"""Methods with sparse tensors, which the simulated device does not have."""


@functools.cache
def laboratory() -> dict[str, Any]:
    """Return the tasks and tiny backbones, made once, and one worker for each pair of them."""
    cells.prepare()
    folder = Path(tempfile.mkdtemp())
    return {"tasks": dict(cells.tasks(folder)), "backbones": cells.tiny_backbones(folder)}


@functools.lru_cache(maxsize=1)  # as a run does: the cells of a task and a backbone follow each other
def worker(kind: str, architecture: str) -> Worker:
    return Worker(find_device("cuda"), None)


def first_served(name: str) -> str | None:
    """Return a place that a method serves; the methods begin their search at different places, so that all get some."""
    # Types of peft that came later are checked on classification, so that they move no other method to another place.
    later = [cls.name for cls in methods if issubclass(cls, FromTable) or cls.name == "cartridge"]
    is_later = name in later
    at = (sorted(later) if is_later else [known for known in methods.names() if known not in later]).index(name)
    places = [place for place in PLACES if place.startswith("classification/")] if is_later else PLACES
    lab = laboratory()
    for place in (*places[at % len(places) :], *places[: at % len(places)]):
        kind, _, architecture = place.partition("/")
        if cells.serves(lab["tasks"][kind], lab["backbones"][architecture], name):
            return place
    return None


def check(case: str) -> bool:
    """Run a cell and check what it does; return whether its method serves it."""
    kind, architecture, name = case.split("/")
    lab = laboratory()
    found = cells.run_cell(worker(kind, architecture), lab["tasks"][kind], lab["backbones"][architecture], name)
    if found is None:
        return False  # planned as unsupported
    seen = cells.summary(*found, cells.most_left(lab["backbones"][architecture], name))
    found = None  # a failure keeps this frame, and with it the model's memory
    assert seen["status"] == "ok", seen["error"]
    assert not seen["missing"], seen["missing"]
    assert name in WAIT_IN_PEFT or not seen["waits"], f"{seen['n_steps']} steps wait for the device: {seen['waits']}"
    assert not seen["hidden_bytes"], f"{case}: the record lacks {seen['hidden_bytes']:,} bytes of the true peak"
    assert not seen["left_bytes"], f"{case}: {seen['left_bytes']:,} bytes are left above one backbone"
    return True


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in NOT_SIMULATED])
def test_a_method_on_the_device(name: str) -> None:
    place = first_served(name)
    assert place is not None
    assert check(f"{place}/{name}")


@pytest.mark.slow
@pytest.mark.parametrize("case", cells.all_cases())
def test_a_cell_on_the_device(case: str) -> None:
    check(case)
