"""Parts of a suite: their order, what a request selects from them, and sizes that a task cannot serve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.backbones.locate import BackboneFiles
from harness.data.spec import TaskSpec
from harness.planning.parts import resolve_parts
from harness.planning.suites import Part, Suite, load_suite
from harness.schedule.prepare import Request, prepare_plan
from harness.support.errors import UsageError
from harness.tasks import kinds


@pytest.fixture
def suite(toy_spec: TaskSpec, tiny: BackboneFiles) -> Suite:
    spec = toy_spec
    parts = (
        Part(methods=("linear-probe",), seeds=(0, 1)),
        Part(methods=("majority", "linear-probe"), sizes=("32", "16")),
    )
    return Suite(
        name="parted", tasks={spec.name: spec}, backbones=(str(tiny.folder),), sizes=("16",), seeds=(0,), parts=parts
    )


def cells_of(request: Request) -> list[tuple[str, int, int, int]]:
    return [(p.cell.method, p.cell.n_train, p.cell.seed, p.part) for p in prepare_plan(request).cells]


def test_parts_keep_their_order_and_count_a_cell_once(suite: Suite) -> None:
    assert cells_of(Request(suite=suite, device="cpu")) == [
        ("linear-probe", 16, 0, 0),
        ("linear-probe", 16, 1, 0),
        ("majority", 16, 0, 1),
        ("majority", 32, 0, 1),
        ("linear-probe", 32, 0, 1),
    ]


def test_options_select_from_the_parts(suite: Suite) -> None:
    asked = Request(suite=suite, device="cpu", methods=["linear-probe"], seeds=[1])
    assert cells_of(asked) == [("linear-probe", 16, 1, 0)]
    with pytest.raises(UsageError, match=r"methods tfidf was asked for, but no part of suite 'parted' has it"):
        prepare_plan(dataclasses.replace(asked, methods=["tfidf"]))
    with pytest.raises(UsageError, match="No part of suite 'parted' has all"):
        prepare_plan(dataclasses.replace(asked, methods=["majority"]))


def test_a_size_that_a_task_lacks_is_left_out_of_defaults_and_refused_when_asked_for(suite: Suite) -> None:
    larger = suite.model_copy(update={"parts": (), "sizes": ("16", "100000")})
    prepared = prepare_plan(Request(suite=larger, device="cpu", methods=["majority"]))
    assert {planned.cell.n_train for planned in prepared.cells} == {16}
    assert any("100000" in note and note.startswith("left out") for note in prepared.notes)
    with pytest.raises(UsageError, match="100000"):
        prepare_plan(Request(suite=larger, device="cpu", methods=["majority"], sizes=["16", "100000"]))
    with pytest.raises(UsageError, match="100000"):
        prepare_plan(Request(suite=larger.model_copy(update={"sizes": ("100000",)}), device="cpu"))


def test_a_size_that_is_selected_from_parts_is_left_out_where_a_task_lacks_it(suite: Suite) -> None:
    larger = suite.model_copy(update={"sizes": ("16", "100000")})
    asked = Request(suite=larger, device="cpu", methods=["linear-probe"], seeds=[1], sizes=["16", "100000"])
    assert cells_of(asked) == [("linear-probe", 16, 1, 0)]


def test_a_cap_of_test_rows_lowers_that_of_every_task(suite: Suite, tmp_path: Path) -> None:
    path = tmp_path / "capped.yaml"
    path.write_text("include: [sentiment]\ntest_cap: 100\n")
    capped = load_suite(path)
    assert {task.test_cap for task in capped.tasks.values()} == {100}
    assert {task.test_cap for task in load_suite("sentiment").tasks.values()} == {2000}


def test_a_capped_task_is_still_compared_with_the_pinned_content(mirror: Path) -> None:
    spec = load_suite("reference").task("sms_spam")
    task = kinds.get(spec.kind).prepare(spec, mirror)
    assert task.provenance["content_as_pinned"] is True
    changed = spec.model_copy(update={"content": "0" * 64})
    assert kinds.get(spec.kind).prepare(changed, mirror).provenance["content_as_pinned"] is False


def test_a_part_names_tasks_of_its_suite(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("include: [sentiment]\nparts: [{tasks: [sst3]}]\n")
    with pytest.raises(UsageError, match=r"parts\.0\.tasks: Unknown task 'sst3'.*Did you mean 'sst2'"):
        load_suite(path)


def test_the_reference_has_parts_in_the_order_of_their_value() -> None:
    parts = resolve_parts(load_suite("reference"))
    assert "linear-probe" in parts[0].methods
    assert parts[0].seeds == (0, 1, 2)
    assert len({name for part in parts for name in part.tasks}) >= 12
