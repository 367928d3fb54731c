"""Suites: those that ship are right about their data; a user's own are read from anywhere, or refused by key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.data.classes import read_classes
from harness.data.docstrings import PACKAGES
from harness.data.sampling import class_counts, parse_size
from harness.data.source import load_splits
from harness.data.spec import DataSource, Files
from harness.planning.suites import load_suite, suite_names
from harness.records.record import Budget
from harness.support.errors import UsageError
from harness.tasks import kinds

MINIMAL = "tasks:\n  mine:\n    data: {hub: someone/mine}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_suite(write(tmp_path / "mine.yaml", text))
    message = str(caught.value)
    assert "mine.yaml: " in message
    return message


def test_the_shipped_suites():
    assert {"quickstart", "sentiment", "topics", "questions"} <= set(suite_names())
    tasks = {name: list(load_suite(name).tasks) for name in suite_names()}
    assert tasks["quickstart"] == ["docstrings"]
    assert tasks["sentiment"] == ["sst2", "imdb", "rotten_tomatoes"]
    assert tasks["topics"] == ["ag_news"]
    assert tasks["questions"] == ["trec"]
    assert load_suite("quickstart").task("docstrings").label_names == PACKAGES


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_states_what_a_report_needs(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    assert all(suite.backbones_of(task) for task in suite.tasks)
    for task in suite.tasks.values():
        assert task.description
        assert task.licence
        assert task.citation
        if kinds.get(task.kind).form == "classes":
            assert len(task.label_names) >= 2
        is_open = (task.notes or "").startswith("Not pinned: only the hub has these data.")
        assert task.data.embedded or task.content or is_open, "pin the content of the copy that was checked"


def test_the_tasks_of_the_defaults_read_the_mirror_as_pinned(mirror):
    suite = load_suite("defaults")  # those of the other suites: tests/test_every_suite.py
    for task in suite.tasks.values():
        ready = kinds.get(task.kind).prepare(task, mirror)
        assert ready.provenance["content"] == task.content
        counts = class_counts(ready.train_strata, ready.n_strata)
        assert all(parse_size(size).resolve(counts) for size in suite.sizes)


def test_label_names_say_what_the_sources_own_columns_say(mirror):
    names = load_suite("questions").task("trec").label_names
    found = set()
    for line in (mirror / "datasets/SetFit/TREC-QC/train.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        found.add((names[row["label_coarse"]], row["label_coarse_original"]))
    codes = {"description": "DESC", "entity": "ENTY", "abbreviation": "ABBR", "human": "HUM", "location": "LOC"}
    assert found == {*codes.items(), ("number", "NUM")}
    names = load_suite("sentiment").task("sst2").label_names
    for line in (mirror / "datasets/SetFit/sst2/train.jsonl").read_text("utf-8").splitlines()[:200]:
        row = json.loads(line)
        assert names[row["label"]] == row["label_text"]


def test_numbers_of_the_hub_name_the_same_tags_as_the_mirror(mirror, tmp_path):
    """The hub stores class numbers in the order of `label_names`, the mirror the tags themselves."""
    spec = load_suite("entities").task("cross_ner_ai")
    place = {tag: at for at, tag in enumerate(spec.label_names)}
    assert len(place) == 79
    for part in ("train", "test"):
        lines = (mirror / f"datasets/DFKI-SLT/cross_ner/ai/{part}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        numbered = [{**row, "ner_tags": [place[tag] for tag in row["ner_tags"]]} for row in rows]
        write(tmp_path / f"{part}.jsonl", "\n".join(map(json.dumps, numbered)))
    files = Files(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))
    numbered = spec.model_copy(update={"data": DataSource(files=files)})
    assert kinds.get(spec.kind).prepare(numbered, None).provenance["content"] == spec.content


def test_emotions_have_the_names_of_the_source(mirror):
    names = json.loads(
        (mirror / "datasets/google-research-datasets/go_emotions/simplified/label_names.json").read_text()
    )
    assert list(load_suite("emotions").task("go_emotions").label_names) == names


def test_topics_are_told_by_their_words(mirror):
    task = load_suite("topics").task("ag_news")
    rows = read_classes(task, load_splits(task, mirror))
    words = {"world": "Iraq", "sports": "coach", "business": "profit", "technology": "software"}
    for topic, word in words.items():
        among = [at for at, text in zip(rows.train_labels, rows.train_texts, strict=True) if word in text]
        assert rows.label_names[Counter(among).most_common(1)[0][0]] == topic


def test_wrong_names_get_the_nearest():
    with pytest.raises(UsageError, match=r"Unknown suite 'sentimnt'\. Did you mean 'sentiment'"):
        load_suite("sentimnt")
    with pytest.raises(UsageError, match=r"Unknown task 'sst' of suite 'sentiment'\. Did you mean 'sst2'"):
        load_suite("sentiment").task("sst")
    with pytest.raises(UsageError, match=r"no suite file .*nowhere.yaml. Shipped suites: .*quickstart"):
        load_suite("nowhere.yaml")


def test_a_users_own_suite_from_any_folder(tmp_path, monkeypatch):
    text = """
name: ours
description: Two of ours and two of theirs.
include: [questions, ./parts/more.yaml]
backbone: someone/model
methods: [majority, "lora[rank=4]"]
sizes: [16, 8/class, all]
seeds: [3]
budget: {train_seconds: 60, epochs: 3}
tasks:
  tickets:
    data: {files: {train: data/tickets.csv}}
    columns: {text: body, label: queue}
    label_names: [0, 1]
"""
    write(tmp_path / "suites" / "ours.yaml", text)
    write(tmp_path / "suites" / "parts" / "more.yaml", MINIMAL)
    monkeypatch.chdir(tmp_path)
    suite = load_suite("./suites/ours.yaml")
    assert list(suite.tasks) == ["trec", "mine", "tickets"]
    assert suite.task("trec") == load_suite("questions").task("trec")
    assert suite.budget == Budget(train_seconds=60, epochs=3)
    assert (suite.sizes, suite.seeds, suite.methods[1]) == (("16", "8/class", "all"), (3,), "lora[rank=4]")
    tickets = suite.task("tickets")
    assert tickets.data.files.train == str(tmp_path / "suites" / "data" / "tickets.csv")  # from the suite's folder
    assert tickets.splits.test is None
    assert tickets.label_names == ("0", "1")
    assert load_suite(tmp_path / "suites" / "ours.yaml") == suite
    assert suite.model_dump(mode="json")["budget"] == {"train_seconds": 60.0, "epochs": 3.0}


def test_defaults(tmp_path):
    suite = load_suite(write(tmp_path / "mine.yaml", MINIMAL))
    assert suite.name == "mine"
    assert suite.sizes == ("32", "128", "512", "2048")
    assert (suite.seeds, suite.budget) == ((0, 1, 2), None)
    task = suite.task("mine")
    assert (task.kind, task.metric, task.max_length, task.test_cap) == ("classification", "accuracy", 128, 2000)


def test_sets_of_budgets(tmp_path):
    text = MINIMAL + "budgets:\n  small: {epochs: 1}\n  both: ['train_seconds=5,peak_memory_bytes=2GB', null]\n"
    suite = load_suite(write(tmp_path / "mine.yaml", text))
    assert suite.budget_set("small") == [Budget(epochs=1)]
    assert suite.budget_set("both") == [Budget(train_seconds=5, peak_memory_bytes=2 * 10**9), Budget()]
    assert suite.budget_set("large") == [Budget(train_seconds=600), Budget(train_seconds=3600)]
    with pytest.raises(UsageError, match=r"Unknown set of budgets 'smal' of suite 'mine'\. Did you mean 'small'"):
        suite.budget_set("smal")
    assert "budgets.both.0: 'hours' is not a budget" in refused(tmp_path, MINIMAL + "budgets: {both: [{hours: 1}]}\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            MINIMAL + "    columns: {txet: text}\n",
            ["tasks.mine.columns.txet: unknown key; Did you mean 'text'? accepted: text, label"],
        ),
        (MINIMAL + "    max_lenght: 3\n", ["tasks.mine.max_lenght: unknown key; Did you mean 'max_length'?"]),
        (MINIMAL + "size: [3]\n", ["size: unknown key; Did you mean 'sizes'?", "accepted: name, description, tasks"]),
        (MINIMAL + "sizes: [8/clas]\n", ["sizes.0: ", "'8/clas'", "'8/class' or 'all'"]),
        (MINIMAL + "sizes: [1.5]\n", ["sizes.0: 1.5"]),
        (MINIMAL + "sizes: [32, 32]\n", ["sizes: '32' is named twice"]),
        (MINIMAL + "seeds: [-1]\n", ["seeds.0: -1 was given; expected greater than or equal to 0"]),
        (MINIMAL + "seeds: 3\n", ["seeds: 3 was given; expected"]),
        (MINIMAL + "budget: {seconds: 3}\n", ["budget: 'seconds' is not a budget; accepted: train_seconds"]),
        (MINIMAL + "budget: {epochs: -3}\n", ["budget: Budget 'epochs' was -3; expected a number above 0"]),
        (MINIMAL + "    label_names: [no, yes]\n", ["tasks.mine.label_names.0: False", "put it in quotes"]),
        (MINIMAL + "    label_names: [a, a]\n", ["tasks.mine.label_names: 'a' is named twice"]),
        (MINIMAL + "    content: abc\n", ["tasks.mine.content: 'abc' was given"]),
        (MINIMAL + "    name: other\n", ["tasks.mine.name: a task is named by its key"]),
        ("tasks:\n  mine: {}\n", ["tasks.mine.data: missing"]),
        ("tasks:\n  mine: 3\n", ["tasks.mine: 3 was given; expected a mapping of kind"]),
        ("tasks:\n  a b:\n    data: {hub: x}\n", ["tasks.a b: 'a b' is not a name; accepted: letters"]),
        (
            "tasks:\n  mine:\n    data: {}\n",
            ["tasks.mine.data: expected exactly one of hub, files, embedded; got none"],
        ),
        ("tasks:\n  mine:\n    data: {embedded: words}\n", ["tasks.mine.data.embedded: 'words'", "'docstrings'"]),
        (
            "tasks:\n  mine:\n    data: {hub: x, script: y}\n",
            ["tasks.mine.data.script: unknown key; accepted: hub, config"],
        ),
        ("tasks: {}\n", ["tasks: there is none"]),
        ("", ["expected a mapping; accepted keys: name"]),
        ("- a\n", ["expected a mapping"]),
        ("tasks: {a\n", ["line "]),
        (MINIMAL + "seeds: [1]\nseeds: [2]\n", ["line 5: the key 'seeds' is there twice"]),
        ("tasks: !!python/object/apply:os.getcwd []\n", ["line 1: could not determine a constructor"]),
        (MINIMAL + "include: [quickstrat]\n", ["include.0: Unknown suite 'quickstrat'. Did you mean 'quickstart'"]),
        (MINIMAL + "include: [./mine.yaml]\n", ["include.0: ", "a suite includes itself"]),
        ("include: [sentiment]\n" + MINIMAL.replace("mine:", "sst2:"), ["task 'sst2' is defined in another way"]),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path, monkeypatch, text, parts):
    monkeypatch.chdir(tmp_path)
    message = refused(tmp_path, text)
    for part in parts:
        assert part in message


def test_all_problems_are_told_at_once(tmp_path):
    message = refused(tmp_path, MINIMAL + "size: 3\nseeds: [x]\n")
    assert "size: unknown key" in message
    assert "seeds.0: 'x' was given" in message


def test_anchors_are_read(tmp_path):
    text = "tasks:\n  a: &a\n    data: {hub: x}\n    max_length: 7\n  b:\n    <<: *a\n    test_cap: 5\n"
    suite = load_suite(write(tmp_path / "anchors.yaml", text))
    assert (suite.task("b").max_length, suite.task("b").test_cap) == (7, 5)


def test_suites_and_backbones_are_found_without_heavy_imports():
    code = (
        "import sys; from harness.planning.suites import load_suite, suite_names;"
        "[load_suite(n) for n in suite_names()];"
        "from harness.backbones.locate import DEFAULT_BACKBONE, locate_backbone; locate_backbone(DEFAULT_BACKBONE);"
        "print([n for n in ('torch', 'datasets', 'pandas', 'transformers', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
