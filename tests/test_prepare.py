"""From a request to a grid: what is left out for want of a backbone, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.backbones.locate import BackboneFiles
from harness.data.spec import DataSource
from harness.methods.qlora import QLora
from harness.planning.suites import Suite
from harness.schedule.prepare import Request, prepare_plan
from harness.support.errors import MissingResourceError
from tests.toy_kinds import toy_spec


@pytest.fixture
def request_of_two(tmp_path: Path, tiny: BackboneFiles) -> Request:
    """Pairs with a backbone that is there, translation with one that is not."""
    pairs = toy_spec("text-pair", tmp_path).model_copy(update={"backbone": str(tiny.folder)})
    translation = toy_spec("translation", tmp_path).model_copy(update={"backbone": "nobody/nowhere"})
    suite = Suite(name="two", tasks={spec.name: spec for spec in (pairs, translation)})
    return Request(suite=suite, methods=["majority", "full"], sizes=["32"], seeds=[0], device="cpu")


def test_tasks_without_a_backbone_are_left_out_and_named(request_of_two: Request) -> None:
    prepared = prepare_plan(request_of_two)
    assert list(prepared.tasks) == ["toy-text-pair"]
    assert {planned.cell.task for planned in prepared.cells} == {"toy-text-pair"}
    assert prepared.notes[0] == "left out, for want of a backbone: toy-translation."
    assert "nobody/nowhere" in prepared.notes[1]


def test_what_was_named_is_not_left_out(request_of_two: Request) -> None:
    asked = dataclasses.replace(request_of_two, tasks=["toy-text-pair", "toy-translation"])
    with pytest.raises(MissingResourceError, match="nobody/nowhere"):
        prepare_plan(asked)
    with pytest.raises(MissingResourceError, match="nobody/elsewhere"):
        prepare_plan(dataclasses.replace(request_of_two, backbones=["nobody/elsewhere"]))


def test_tasks_without_data_are_left_out_unless_they_were_named(request_of_two: Request) -> None:
    pairs = request_of_two.suite.tasks["toy-text-pair"]
    absent = pairs.model_copy(update={"name": "absent", "data": DataSource(hub="nobody/nothing")})
    suite = Suite(name="two", tasks={spec.name: spec for spec in (pairs, absent)})
    asked = dataclasses.replace(request_of_two, suite=suite, methods=["majority"])
    prepared = prepare_plan(asked)
    assert list(prepared.tasks) == ["toy-text-pair"]
    assert prepared.notes[0] == "left out, for want of data: absent."
    assert "nobody/nothing" in prepared.notes[1]
    with pytest.raises(MissingResourceError, match="nobody/nothing"):
        prepare_plan(dataclasses.replace(asked, tasks=["toy-text-pair", "absent"]))
    with pytest.raises(MissingResourceError, match="nobody/nothing"):
        prepare_plan(dataclasses.replace(asked, suite=Suite(name="one", tasks={"absent": absent})))


def test_an_experimental_method_is_marked_in_the_notes(request_of_two: Request) -> None:
    experimental = dataclasses.replace(request_of_two, tasks=["toy-text-pair"], methods=["qlora", "full"])
    assert prepare_plan(experimental).notes == (f"qlora is experimental: {QLora.experimental.replace('T', 't', 1)}",)


def test_methods_that_need_no_backbone_run_without_one(request_of_two: Request) -> None:
    prepared = prepare_plan(dataclasses.replace(request_of_two, methods=["majority"]))
    assert set(prepared.tasks) == {"toy-text-pair", "toy-translation"}
