"""Several backbones in one grid: their cells, their order, their costs, and those that cannot be used."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.api.requests import read_backbones
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.cost import Estimate, Estimator
from harness.data.sampling import parse_size
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.planning.plan import PlannedCell, plan_cells
from harness.planning.suites import Suite, load_suite
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.schedule.find_backbones import find_backbones
from harness.schedule.pending import Pending
from harness.schedule.prepare import Request, prepare_plan
from harness.schedule.slot import best_slot
from harness.support.errors import HarnessError, MissingResourceError, UsageError
from harness.tasks import Task
from tests.commands import run_apart, run_cli
from tests.toy_kinds import toy_spec
from tests.toys import write_toy_table


def grid(task: Task, backbones: list[BackboneFiles], methods: str = "majority,head,full") -> list[PlannedCell]:
    return plan_cells(
        tasks=[task],
        backbones={task.name: backbones},
        methods=parse_methods(methods.split(",")),
        sizes=[parse_size("24"), parse_size("48")],
        seeds=[0, 1],
        budgets=[Budget()],
        device="cpu",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("several")
    write_toy_table(found / "tickets.csv")
    return found


@pytest.fixture(scope="module")
def request_of_one(tmp_path_factory: pytest.TempPathFactory) -> Request:
    spec = toy_spec("text-pair", tmp_path_factory.mktemp("pairs"))
    suite = Suite(name="one", tasks={spec.name: spec})
    return Request(suite=suite, methods=["majority", "head"], sizes=["32"], seeds=[0], device="cpu")


def asking(request: Request, *backbones: Path | str) -> Request:
    return dataclasses.replace(request, backbones=[str(one) for one in backbones])


# ---- the grid


def test_every_method_runs_on_every_backbone_and_those_without_one_run_once(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    cells = grid(toy, [tiny, tiny_llama, tiny])
    counts = {(p.cell.method, p.cell.weights): 0 for p in cells}
    for planned in cells:
        counts[planned.cell.method, planned.cell.weights] += 1
        assert (planned.files.fingerprint if planned.files else None) == planned.cell.weights
    assert counts == {
        ("majority", None): 4,
        **{(method, files.fingerprint): 4 for method in ("head", "full") for files in (tiny, tiny_llama)},
    }
    assert {p.cell.id for p in cells if p.files in (None, tiny)} == {p.cell.id for p in grid(toy, [tiny])}


def test_cells_are_grouped_by_backbone_and_small_sizes_come_first_within_each(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    cells = grid(toy, [tiny, tiny_llama])
    order = [p.files for p in cells if p.files is not None]
    assert order == [tiny] * 8 + [tiny_llama] * 8
    for files in (tiny, tiny_llama):
        assert [p.cell.n_train for p in cells if p.files == files] == [24] * 4 + [48] * 4
    assert [p.cell.method for p in cells[:3]] == ["majority", "head", "full"]  # a baseline early, not at the end


def test_labels_name_the_backbone_only_where_there_are_several(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    assert grid(toy, [tiny])[-1].label() == "toy · full · 48 · seed 1"
    several = grid(toy, [tiny, tiny_llama])
    assert several[0].label() == "toy · majority · 24 · seed 0"
    assert several[-1].label() == "toy · local:tiny-llama · full · 48 · seed 1"
    only_baselines = grid(toy, [tiny, tiny_llama], methods="majority")
    assert {p.backbone_label for p in only_baselines} == {None}


class Alike(Estimator):
    """Expects the same of every cell."""

    def estimate(self, planned: PlannedCell) -> Estimate:
        return Estimate(1.0, 0.0, 0.0, "records")


def test_with_a_deadline_backbones_can_be_compared_at_each_size_and_are_swapped_at_every_other_block(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    cells = grid(toy, [tiny, tiny_llama], methods="majority,head")
    pending = Pending(cells, Alike({toy.name: toy}, cpu), deadline=time.monotonic() + 1e6)
    taken = [pending.take() for _ in range(len(cells))]
    order = [(p.cell.n_train, p.cell.seed, p.files) for p in taken if p is not None and p.files is not None]
    assert order == [
        (24, 0, tiny), (24, 0, tiny_llama), (24, 1, tiny_llama), (24, 1, tiny),
        (48, 0, tiny), (48, 0, tiny_llama), (48, 1, tiny_llama), (48, 1, tiny),
    ]  # fmt: skip


def test_a_worker_gets_cells_of_the_backbone_that_it_has(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    class Free:
        def __init__(self, backbone: str | None) -> None:
            self.backbone = backbone

    free: Any = [Free(tiny.fingerprint), Free(tiny_llama.fingerprint)]
    jobs = {p.files: Job(p, p.files, "tests") for p in grid(toy, [tiny, tiny_llama])}
    assert best_slot(free, jobs[tiny_llama]) is free[1]
    assert best_slot(free, jobs[tiny]) is free[0]
    assert best_slot(free, jobs[None]) is free[0]


# ---- asking for several


def test_either_argument_names_backbones_and_both_are_refused() -> None:
    assert read_backbones(None, "a, b,a") == ["a", "b"]
    assert read_backbones(None, ["a", Path("b")]) == ["a", "b"]
    assert read_backbones(None, Path("a,b")) == ["a,b"]
    assert read_backbones("a,b", None) == ["a,b"]  # one folder, whose name has a comma
    assert read_backbones(None, None) is None
    for one, several in (("a", "b"), ("a", ["a"])):
        with pytest.raises(UsageError, match="--backbone and --backbones were both given"):
            read_backbones(one, several)
    with pytest.raises(UsageError, match="--backbones names none"):
        read_backbones(None, " ,")
    with pytest.raises(UsageError, match="backbones="):
        read_backbones(None, 3)  # type: ignore[arg-type]


def test_a_suite_lists_one_or_several_and_a_task_its_own(tmp_path: Path) -> None:
    def suite(lines: str) -> Suite:
        (tmp_path / "mine.yaml").write_text(
            f"{lines}\ntasks:\n"
            "  one: {data: {files: {train: a.csv}}, backbone: own/of-a-task, label_names: [x, y]}\n"
        )
        return load_suite(tmp_path / "mine.yaml")

    assert suite("backbones: [a/b, c/d]").backbones_of("one") == ("a/b", "c/d")
    assert suite("backbone: a/b").backbones_of("one") == ("a/b",)
    assert suite("").backbones_of("one") == ("own/of-a-task",)
    for wrong, says in (
        ("backbone: a/b\nbackbones: [c/d]", "backbone and backbones are both given"),
        ("backbones: [a/b, a/b]", "backbones: 'a/b' is named twice"),
        ("backbones: []", "backbones: "),
    ):
        with pytest.raises(UsageError, match=says):
            suite(wrong)


# ---- backbones that cannot be used


def test_what_is_missing_among_several_is_said_once_and_the_rest_is_planned(
    request_of_one: Request, tiny: BackboneFiles
) -> None:
    prepared = prepare_plan(asking(request_of_one, "nobody/nowhere", tiny.folder, "bert-base-like", "no/such@abc"))
    assert {p.cell.backbone for p in prepared.cells} == {None, tiny.name}
    assert {p.backbone_label for p in prepared.cells} == {None}
    nowhere, shape, gone = prepared.left_out
    assert "'nobody/nowhere' is not on this machine" in nowhere
    assert "'bert-base-like' is a shape without weights" in shape
    assert "'no/such' could not be fetched from the hub" in gone
    assert "Supply it by one of" in gone


def test_where_none_can_be_used_all_is_said_in_one_error(request_of_one: Request, tiny: BackboneFiles) -> None:
    with pytest.raises(MissingResourceError, match=r"(?s)nobody/nowhere.*nobody/either"):
        prepare_plan(asking(request_of_one, "nobody/nowhere", "nobody/either"))
    with pytest.raises(HarnessError, match=r"(?s)nobody/nowhere.*shape without weights"):
        prepare_plan(asking(request_of_one, "nobody/nowhere", "bert-base-like"))
    assert prepare_plan(asking(request_of_one, tiny.folder)).left_out == ()


def test_a_gated_backbone_is_left_out_with_the_hub_s_reason(
    request_of_one: Request, tiny: BackboneFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("Access to model meta/gated is restricted. You must have access to it.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    (why,) = prepare_plan(asking(request_of_one, tiny.folder, "meta/gated@0123abc")).left_out
    assert "Access to model meta/gated is restricted" in why


def test_a_folder_without_weights_among_several_is_left_out_of_a_run_and_planned_in_a_plan(
    request_of_one: Request, tiny: BackboneFiles, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny.folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    asked = asking(request_of_one, tiny.folder, bare)
    (why,) = prepare_plan(asked).left_out
    assert "'local:bare' (local folder) holds no .safetensors file" in why
    planned = prepare_plan(asked, weights=False)
    assert planned.left_out == ()
    assert {p.cell.backbone for p in planned.cells} == {None, tiny.name, "local:bare"}


def test_two_folders_with_one_name_are_told_apart_by_their_files(
    request_of_one: Request, tiny: BackboneFiles, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / tiny.folder.name
    shutil.copytree(tiny.folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-6}))
    second = locate_backbone(str(other))
    assert (second.name, second.fingerprint) != (tiny.name, tiny.fingerprint)
    assert second.name == tiny.name
    prepared = prepare_plan(asking(request_of_one, tiny.folder, other))
    labels = {p.cell.weights: p.backbone_label for p in prepared.cells if p.files is not None}
    assert labels == {files.fingerprint: f"{tiny.name} #{files.fingerprint[:4]}" for files in (tiny, second)}
    (note,) = prepared.notes
    assert note.startswith(f"different backbones are called '{tiny.name}'")
    assert f"{labels[second.fingerprint]} is {other}" in note


def test_the_same_files_under_two_names_run_once(request_of_one: Request, tiny: BackboneFiles, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "copy")
    prepared = prepare_plan(asking(request_of_one, tiny.folder, tmp_path / "copy"))
    assert {p.cell.backbone for p in prepared.cells} == {None, tiny.name}
    assert prepared.left_out == ()
    assert "are the same files; they run once, as the first" in prepared.notes[0]


def test_backbones_of_a_suite_that_are_missing_are_a_note(request_of_one: Request, tiny: BackboneFiles) -> None:
    suite = request_of_one.suite.model_copy(update={"backbones": (str(tiny.folder), "nobody/nowhere")})
    prepared = prepare_plan(dataclasses.replace(request_of_one, suite=suite))
    assert prepared.left_out == ()
    assert any("nobody/nowhere" in note for note in prepared.notes)
    assert {p.cell.backbone for p in prepared.cells} == {None, tiny.name}


def test_a_task_without_any_backbone_is_named_with_its_own(tmp_path: Path, tiny: BackboneFiles) -> None:
    found = find_backbones({"a": [str(tiny.folder), "x/y"], "b": ["z/w"]}, None, weights=True)
    assert found.backbones == {"a": (tiny,), "b": ()}
    assert found.missing[0].endswith("(Asked for by a.)")
    assert found.missing[1].endswith("(Asked for by b.)")


# ---- runs and plans


def test_a_run_on_an_encoder_and_a_causal_model_records_what_one_of_them_cannot_do(
    folder: Path, tiny: BackboneFiles, tiny_llama: BackboneFiles, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny.folder, damaged)
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))
    asked = ["run", "--data", "tickets.csv", "--methods", "majority,linear-probe,few-shot[k=2]", "--sizes", "24"]
    asked += ["--seeds", "0", "--backbones", f"{tiny.folder},{damaged},{tiny_llama.folder}", "--store", "s.sqlite"]
    said = run_cli(*asked, cwd=folder, code=1)
    assert "tickets · local:tiny-bert · linear-probe · 24 · seed 0" in said
    assert "tickets · local:tiny-llama · linear-probe · 24 · seed 0" in said
    assert "tickets · majority · 24 · seed 0" in said
    assert said.count("Left out:") == 1
    assert "'local:damaged'" in said
    assert "1 backbone was left out; the messages above say why." in said
    by_cell = {
        (record.cell.method, record.cell.backbone): record
        for record in harness.read_records(folder / "s.sqlite", with_predictions=False)
    }
    assert {key: record.status for key, record in by_cell.items()} == {
        ("majority", None): "ok",
        ("linear-probe", tiny.name): "ok",
        ("few-shot", tiny.name): "unsupported",
        ("linear-probe", tiny_llama.name): "ok",
        ("few-shot", tiny_llama.name): "ok",
    }
    assert "this one is encoder" in str(by_cell["few-shot", tiny.name].error)
    again = run_cli(*asked, cwd=folder, code=1)  # all but the damaged one is done: it is said again
    assert "All 5 cells are done already" in again


def test_a_plan_shows_the_cost_of_each_backbone(folder: Path, tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    asked = ["plan", "--data", "tickets.csv", "--methods", "majority,full,few-shot", "--sizes", "24", "--seeds", "0,1"]
    asked += ["--backbones", f"{tiny.folder},{tiny_llama.folder},bert-base-like", "--no-probe", "--store", "n.sqlite"]
    said = run_cli(*asked, "--memory", cwd=folder)
    assert "Predicted cost by method without a backbone" in said
    assert "Predicted cost by method on local:tiny-bert" in said
    assert "Memory as asked on local:tiny-llama" in said
    by_backbone = said.partition("Predicted cost by backbone")[2]
    assert all(name in by_backbone for name in ("local:tiny-bert", "local:tiny-llama", "local:bert-base-like"))
    assert "- local:tiny-bert: 'few-shot' adapts" in said
    code, out, _ = run_apart(*asked, "--json", cwd=folder)
    assert code == 0
    found = json.loads(out)
    groups = {one["name"]: one for one in found["backbones"]}
    assert {name: one["n_to_run"] for name, one in groups.items()} == {
        "local:tiny-bert": 2, "local:tiny-llama": 4, "local:bert-base-like": 2,
    }  # fmt: skip
    for name, one in groups.items():
        cells = [cell for cell in found["cells"] if cell["backbone"] == name and cell["seconds"] is not None]
        assert one["peak_bytes"] == max(cell["peak_bytes"] for cell in cells)
        assert one["total_seconds"] == pytest.approx(sum(cell["seconds"] for cell in cells))
    assert groups["local:bert-base-like"]["peak_bytes"] > 10 * groups["local:tiny-bert"]["peak_bytes"]
    assert {(one["name"], one["backbone"]) for one in found["methods"]} >= {
        ("majority", None), ("full", "local:tiny-bert"), ("full", "local:tiny-llama"),
    }  # fmt: skip
    weights = {cell["weights"] for cell in found["cells"] if cell["backbone"] == tiny.name}
    assert weights == {tiny.fingerprint}
    code, out, error = run_apart(*asked, "--backbones", f"{tiny.folder},no/where", "--json", cwd=folder)
    assert code == 1
    assert "no/where" in json.loads(out)["left_out"][0]
    assert "Left out:" in error


def test_a_time_too_short_for_the_second_backbone_is_said(
    folder: Path, tiny: BackboneFiles, tiny_llama: BackboneFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = Estimator.estimate

    def told(self: Estimator, planned: PlannedCell) -> Estimate:
        found = estimate(self, planned)
        is_dear = planned.cell.weights == tiny_llama.fingerprint
        return Estimate(1e6, 0.0, found.peak_bytes, "formula", found.least_bytes) if is_dear else found

    monkeypatch.setattr(Estimator, "estimate", told)
    asked = ["run", "--data", "tickets.csv", "--methods", "linear-probe", "--sizes", "24", "--seeds", "0,1"]
    asked += ["--backbones", f"{tiny.folder},{tiny_llama.folder}", "--store", "t.sqlite", "--within", "10m"]
    said = run_cli(*asked, cwd=folder)
    assert "2 cells did not fit into 10m, among them all on local:tiny-llama. The same command resumes" in said
