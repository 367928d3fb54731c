"""Lines of JSON that are no records: imported whole or refused with a file, a line and a field, never anything else."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import random
import resource
import sys
import typing
import zlib
from pathlib import Path
from typing import Any

import pytest

from harness.advice.asking import answer_from
from harness.advice.question import Question
from harness.analysis.frame import tidy_frame
from harness.records.jsonl import MAX_LINE_BYTES, dump, payload_of, read_jsonl
from harness.records.record import MAX_ERROR, Cell, Cost, CurvePoint, Provenance, Record, Score
from harness.records.validation import check_record
from harness.store.importing import locate_results
from harness.store.rows import pack
from harness.store.store import Store
from harness.support.errors import HarnessError, StoreError, UsageError
from harness.support.resources import shipped
from tests.record_factory import make_grid, make_record

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 10**20, -(10**20), 2**63, 1e308, -1e308, 5e-324, 0.5, "", "x", "0", "nan"),
    *("[/b]", "\ud800", "\0", "x" * 5000, "ok", "failed", "\x1b[2J", [], [1], ["x"], {}, {"x": 1}, {"": {"": []}}),
    *([[[[[[[[[[[[1]]]]]]]]]]]], [None], {"n": 10**9}, float("nan"), float("inf"), list(range(50))),
]


def a_line() -> dict[str, Any]:
    """A record as JSON that uses as many fields as possible."""
    record = make_record("full", 32, n_test=20)
    score = dataclasses.replace(record.score, others={"macro_f1": 0.5})
    dataset = {
        "name": "docs",
        "hub": "a/b",
        "n_classes": 12,
        "seen_by": ["m"],
        "overlaps": ["sst2"],
        "n_rows": {"x": 1},
    }
    provenance = dataclasses.replace(record.provenance, dataset=dataset, wall_seconds=3.0, price_per_hour=1.0)
    provenance = dataclasses.replace(provenance, matrix_flops_per_second=1e9)
    record = dataclasses.replace(record, score=score, provenance=provenance)
    return json.loads(dump(payload_of(record)))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for name, item in value.items():
            found += places(item, (*path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            found += places(item, (*path, position))
    return found


def mutated(rng: random.Random, line: dict[str, Any]) -> str:
    """A line in which one to three places hold something else, are missing, or are new; or a text that is cut."""
    value = copy.deepcopy(line)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(places(value))
        inside = value
        for step in path[:-1]:
            inside = inside[step]
        match rng.choice(["set", "set", "set", "set", "delete", "rename"]):
            case "set":
                inside[path[-1]] = copy.deepcopy(rng.choice(JUNK))
            case "delete":
                del inside[path[-1]]
            case "rename" if isinstance(inside, dict):
                inside[rng.choice(["x", "id", "score", "fit_seconds", "\ud800"])] = inside.pop(path[-1])
    if rng.random() < 0.7 and isinstance(value.get("cell"), dict):
        value.pop("id", None)  # or most would be refused for their identity alone
        try:
            value["id"] = Cell.from_json(value["cell"]).id
        except Exception:  # noqa: BLE001 - the cell is spoilt
            value["id"] = line["id"]
    text = json.dumps(value)
    if rng.random() < 0.05:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", "{", '"', "\x00", "9" * 5000, "[" * 100_000]) + text[at + 1 :]
    return text


def check_mutations(n: int, seed: int, folder: Path) -> tuple[int, int]:
    """Import each mutated line after a whole one; return how many were taken and how many refused."""
    rng, line = random.Random(seed), a_line()
    whole = dump(payload_of(make_record("lora", 64)))
    taken = refused = 0
    kept: list[Record] = []
    for number in range(n):
        file = folder / "r.jsonl"
        file.write_text(f"{whole}\n{mutated(rng, line)}\n", encoding="utf-8", errors="surrogatepass")
        try:
            packed = pack(locate_results([file]))
        except HarnessError as error:
            refused += 1
            message = str(error)
            assert "r.jsonl, line 2" in message, message
            assert "Error:" not in message, message  # a KeyError or TypeError is no answer
            assert len(message) < 2000
            continue
        taken += 1
        if number % 10 == 0 or taken <= 20:
            with Store.open(folder / f"{number}.sqlite") as store:
                store.add_new(packed)
                kept += [record for record in store.records(with_predictions=True) if record.cell.method != "lora"]
    read_by_everybody(kept)
    return taken, refused


def read_by_everybody(kept: list[Record]) -> None:
    """The data frame of reports, and advice."""
    for one in kept:  # alone, so that no other hides it
        assert len(tidy_frame([one])) == 1
    known = make_grid(sizes=(32, 128), seeds=(0,))
    for record in kept:
        question = Question(kind=record.kind or "classification", n_train=64, classes=3)
        try:
            answer_from(question, [*known, record], reference=False)
        except UsageError:  # nothing to answer from, said in words
            continue


def test_mutated_lines_are_taken_whole_or_refused_with_their_line(tmp_path: Path) -> None:
    taken, refused = check_mutations(150, 1, tmp_path)
    assert taken + refused == 150
    assert refused > 50
    assert taken > 5


@pytest.mark.slow
def test_two_thousand_mutated_lines(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken, refused = check_mutations(2000, 2, tmp_path)
    assert taken + refused == 2000
    scale = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale < 2**30
    print(f"{taken} taken, {refused} refused")


def change(path: str, item: Any) -> str:
    value = a_line()
    inside = value
    *steps, last = path.split(".")
    for step in steps:
        inside = inside[step]
    inside[last] = item
    if path.startswith("cell.") and path not in ("cell.config", "cell.budget"):
        value.pop("id")
        value["id"] = "0" * 32
    return json.dumps(value)


@pytest.mark.parametrize(
    ("path", "item", "message"),
    [
        ("cost.fit_seconds", "7", "cost.fit_seconds is '7'; expected a number from 0"),
        ("cost.fit_seconds", -1.0, "cost.fit_seconds is -1.0; expected a number from 0"),
        ("cost.fit_seconds", float("nan"), "NaN"),
        ("cost.train_tokens", 1.5, "cost.train_tokens is 1.5; expected a whole number"),
        ("cost.reused", [1], r"cost.reused\[0\] is 1; expected a text"),
        ("cost.speed", 1, "cost.speed is no field of a record"),
        ("cell.n_train", True, "cell.n_train is true; expected a whole number"),
        ("cell.seed", 2**32, "cell.seed is 4294967296; expected a whole number from 0 to 4294967295"),
        ("cell.draw", "random", "cell.draw is 'random'; expected one of stratified, balanced"),
        ("cell.budget", {"epochs": 0}, "cell.budget.epochs is 0; expected a number above 0"),
        ("cell.config", {"batch_size": "16"}, "cell.config.batch_size is '16'; expected a whole number"),
        ("cell.config", {"a": [[[[[[[[1]]]]]]]]}, "cell.config is nested more than 8 deep"),
        ("cell.weights", None, "cell has one of backbone and weights"),
        ("curve", [{"step": 1}], r"curve\[0\].seconds is missing"),
        ("status", "fine", "status is 'fine'; expected one of ok"),
        ("status", "failed", "status is 'failed', but there is a score or predictions"),
        ("score", None, "status is 'ok', but score is null"),
        ("error", "x", "status is 'ok', but error is a text"),
        ("score.low", 0.99, "score.low is 0.99 and score.high is"),
        ("score.value", 0.5, "score.value is 0.5; expected the accuracy of predictions"),
        ("score.n_test", 21, "predictions.predicted has 20 rows; expected score.n_test = 21"),
        ("score.others", {"f1": "x"}, "score.others.f1 is 'x'; expected a number"),
        ("provenance.packages", {"torch": 2}, "provenance.packages.torch is 2; expected a text"),
        ("provenance.dataset", {"overlaps": 5}, "provenance.dataset.overlaps is 5; expected a list"),
        ("provenance.cells_at_a_time", 0, "provenance.cells_at_a_time is 0; expected a whole number from 1"),
        ("predictions", {"rows": "r", "predicted": 7}, "predictions.predicted is not an object with packed data"),
        ("id", "../x", "id is '../x'; expected 32 hexadecimal digits"),
        ("attempt", 0, "attempt is 0; expected a whole number from 1"),
    ],
)
def test_the_field_that_is_wrong_is_named(tmp_path: Path, path: str, item: Any, message: str) -> None:
    (tmp_path / "r.jsonl").write_text(change(path, item))
    with pytest.raises(StoreError, match=rf"r\.jsonl, line 1 is not a record: .*{message}"):
        list(read_jsonl(tmp_path / "r.jsonl"))


def test_a_few_bytes_do_not_ask_for_gigabytes(tmp_path: Path) -> None:
    zeros = base64.b64encode(zlib.compress(bytes(2**27), 9)).decode()
    bombs = [
        {"dtype": "|u1", "n": 20, "data": zeros},
        {"dtype": "|u1", "n": 2**40, "data": zeros},
        {"dtype": "<f8", "n": 2**26, "data": zeros},
        {"dtype": "O", "n": 20, "data": zeros},
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in bombs:
        value = a_line()
        value["predictions"]["predicted"] = bomb
        value["predictions"]["statistics"] = {"x": {**bomb, "shape": [bomb["n"]]}}
        (tmp_path / "r.jsonl").write_text(json.dumps(value))
        with pytest.raises(StoreError, match=r"line 1 is not a record: .*(redictions|whole number)"):
            list(read_jsonl(tmp_path / "r.jsonl"))
    value = a_line()
    value["predictions"]["texts"] = {"n": 20, "data": zeros}
    (tmp_path / "r.jsonl").write_text(json.dumps(value))
    with pytest.raises(StoreError, match="texts"):
        list(read_jsonl(tmp_path / "r.jsonl"))
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.truncate(2**33)  # one line of 8 GB, which takes no room on most disks
    with pytest.raises(StoreError, match=f"line 1 is not a record: it is longer than {MAX_LINE_BYTES:,} bytes"):
        pack(locate_results([tmp_path / "long.jsonl"]))
    scale = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale < 2**29


def test_a_file_is_imported_whole_or_not_at_all(tmp_path: Path) -> None:
    lines = [dump(payload_of(make_record(seed=seed))) for seed in range(3)]
    (tmp_path / "r.jsonl").write_text("\n".join([*lines, change("cost.fit_seconds", "7")]))
    with pytest.raises(StoreError, match="line 4"):
        pack(locate_results([tmp_path / "r.jsonl"]))
    (tmp_path / "r.jsonl").write_text("\n".join([*lines, lines[1]]))
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.add_new(pack(locate_results([tmp_path / "r.jsonl"]))) == (3, 0, 1)
        assert store.add_new(pack(locate_results([tmp_path / "r.jsonl"]))) == (0, 3, 1)
        assert store.count() == 3
    other = dump(payload_of(dataclasses.replace(make_record(seed=1), train_score=0.123)))
    (tmp_path / "r.jsonl").write_text("\n".join([*lines, other]))
    with pytest.raises(StoreError, match=r"r\.jsonl, line 4 and .*r\.jsonl, line 2 hold different results"):
        pack(locate_results([tmp_path / "r.jsonl"]))


def test_every_field_of_a_record_has_a_check() -> None:
    """A record with another type in any one field is refused, so that a new field is checked too."""
    line = a_line()
    check_record(line)
    parts: list[tuple[type, tuple[str, ...]]] = [
        (Record, ()),
        (Cell, ("cell",)),
        (Score, ("score",)),
        (Cost, ("cost",)),
    ]
    parts += [(Provenance, ("provenance",))]
    for of, where in parts:
        for name in typing.get_type_hints(of):
            if name == "predictions":  # checked where they are unpacked
                continue
            spoilt = copy.deepcopy(line)
            inside = spoilt
            for step in where:
                inside = inside[step]
            inside[name] = [{"nested": float("inf")}]
            with pytest.raises(StoreError, match=name):
                check_record(spoilt)
    for name in typing.get_type_hints(CurvePoint):
        spoilt = copy.deepcopy(line)
        spoilt["curve"][0][name] = "x"
        with pytest.raises(StoreError, match=rf"curve\[0\]\.{name}"):
            check_record(spoilt)


def test_all_reference_results_pass_the_checks() -> None:
    folders = [entry for name in ("reference", "earlier") for entry in shipped(f"results/{name}").iterdir()]
    files = [file for entry in folders if entry.is_dir() for file in entry.iterdir()]
    n_read = sum(1 for file in files if file.name.endswith(".jsonl") for _ in read_jsonl(file))
    assert n_read >= 1301


def test_an_error_is_bounded_when_its_record_is_made() -> None:
    record = make_record(status="failed", error="first line\n" + "x" * 10**6 + "\nlast line")
    assert len(record.error) <= MAX_ERROR
    assert record.error.startswith("first line\n")
    assert record.error.endswith("\nlast line")
    assert "characters left out" in record.error
    assert make_record(status="failed", error="short").error == "short"
