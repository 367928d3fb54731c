"""Where rows come from: mirror, hub (absent here, or cached), files, and what is said when they are nowhere."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from harness.data import loading
from harness.data.classes import read_classes
from harness.data.source import load_splits
from harness.data.spec import Columns, DataSource, Splits, TaskSpec
from harness.support.errors import DataError, MissingResourceError

RECORDS = [{"sms": f"text {at}", "label": at % 2} for at in range(40)]
SPEC = TaskSpec(
    name="sms",
    data=DataSource(hub="someone/sms", config="plain"),
    columns=Columns(text="sms"),
    splits=Splits(validation="validation"),
    label_names=("ham", "spam"),
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """The hub cannot be reached, whatever this machine has: its name is not found."""

    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # so that the attempt is made
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def mirrored(root: Path, ending: str, split: str, records: list[dict]) -> None:
    folder = root / "datasets" / "someone" / "sms" / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    data = datasets.Dataset.from_list(records)
    match ending:
        case "jsonl":
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        case "csv":
            data.to_csv(folder / f"{split}.csv", index=False)
        case "parquet":
            data.to_parquet(folder / f"{split}.parquet")
        case "arrow":
            data.save_to_disk(str(folder / split))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "arrow"])
def test_a_mirror_serves_every_format(tmp_path, ending):
    root = tmp_path / "mirror [1]"
    mirrored(root, ending, "train", RECORDS[:30])
    mirrored(root, ending, "test", RECORDS[30:])
    splits = load_splits(SPEC, root, validation=True)
    assert splits.train.to_list() == RECORDS[:30]
    assert splits.test.to_list() == RECORDS[30:]
    assert splits.validation is None
    assert splits.provenance["from"] == "mirror"
    assert splits.provenance["revision"] is None
    assert splits.provenance["n_rows"] == {"train": 30, "test": 10}
    json.dumps(dict(splits.provenance))
    assert read_classes(SPEC, splits).test_labels.tolist() == [0, 1] * 5


def test_validation_is_loaded_only_where_it_is_asked_for(tmp_path):
    for split, records in (("train", RECORDS[:20]), ("validation", RECORDS[20:30]), ("test", RECORDS[30:])):
        mirrored(tmp_path, "jsonl", split, records)
    assert load_splits(SPEC, tmp_path).validation is None
    assert load_splits(SPEC, tmp_path, validation=True).validation.to_list() == RECORDS[20:30]


def test_texts_that_look_missing_stay_texts_in_a_mirrored_csv(tmp_path):
    records = [{"sms": text, "label": at % 2} for at, text in enumerate(["NA", "None", "null", "nan"])]
    for split in ("train", "test"):
        mirrored(tmp_path, "csv", split, records)
    assert load_splits(SPEC, tmp_path).train["sms"][:] == ["NA", "None", "null", "nan"]


def test_an_edited_file_gives_new_rows_and_another_fingerprint(tmp_path):
    for split in ("train", "test"):
        mirrored(tmp_path, "jsonl", split, RECORDS)
    first, same = load_splits(SPEC, tmp_path), load_splits(SPEC, tmp_path)
    assert first.provenance == same.provenance
    mirrored(tmp_path, "jsonl", "train", [*RECORDS[1:], {"sms": "new", "label": 1}])
    edited = load_splits(SPEC, tmp_path)
    assert edited.train[-1]["sms"] == "new"
    prints = [splits.provenance["datasets_fingerprints"] for splits in (first, edited)]
    assert prints[0]["test"] == prints[1]["test"]
    assert prints[0]["train"] != prints[1]["train"]


def test_a_split_without_a_test_is_divided_by_hash(tmp_path):
    mirrored(tmp_path, "jsonl", "train", RECORDS)
    spec = SPEC.model_copy(update={"splits": Splits(test=None)})
    splits = load_splits(spec, tmp_path)
    assert len(splits.train) == 30
    assert Counter(splits.test["label"]) == {0: 5, 1: 5}
    assert sorted([*splits.train["sms"], *splits.test["sms"]]) == sorted(record["sms"] for record in RECORDS)
    assert splits.provenance["held_out"]
    mirrored(tmp_path, "jsonl", "train", RECORDS[::-1])
    assert set(load_splits(spec, tmp_path).test["sms"]) == set(splits.test["sms"])
    # A message about a held-out row points at its line in the one file that there is.
    row = splits.origins["test"].at(0)
    assert RECORDS[int(row.removeprefix("line ")) - 1]["sms"] == splits.test["sms"][0]


def test_a_broken_mirror_names_its_file(tmp_path):
    mirrored(tmp_path, "jsonl", "train", RECORDS)
    mirrored(tmp_path, "jsonl", "test", [{"body": "x", "label": 1}])
    with pytest.raises(DataError, match=r"test\.jsonl: there is no column 'sms'.* Columns: 'body', 'label'"):
        load_splits(SPEC, tmp_path)
    (tmp_path / "datasets/someone/sms/plain/test.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"test\.jsonl: the file cannot be read"):
        load_splits(SPEC, tmp_path)


def test_what_is_nowhere_is_named_with_the_ways_to_supply_it(tmp_path):
    mirrored(tmp_path, "jsonl", "train", RECORDS)
    started = time.perf_counter()
    with pytest.raises(MissingResourceError) as caught:
        load_splits(SPEC, tmp_path)
    assert time.perf_counter() - started < 15  # the library on its own tries for 23 s
    message = str(caught.value)
    assert str(tmp_path / "datasets/someone/sms/plain/test.jsonl") in message
    assert "plain/train.jsonl and datasets" in message
    for part in (
        "someone/sms (plain)",
        "cannot be reached",
        "--mirror DIR",
        "HARNESS_MIRROR",
        "--data FILE",
        "network",
    ):
        assert part in message
    with pytest.raises(MissingResourceError, match="no mirror was named"):
        load_splits(SPEC)
    assert not constants.HF_HUB_OFFLINE


def test_offline_mode_is_respected_and_said(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingResourceError, match="HF_HUB_OFFLINE is set"):
        load_splits(SPEC)


def test_a_hub_that_never_answers_is_given_up_on(monkeypatch):
    monkeypatch.setattr(loading, "HUB_ANSWER_SECONDS", 0.2)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60))
    started = time.perf_counter()
    with pytest.raises(MissingResourceError, match="cannot be reached"):
        load_splits(SPEC)
    over.set()
    assert time.perf_counter() - started < 30


def test_a_copy_that_the_library_cached_is_used_offline_if_its_revision_is_right(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        mirrored(tmp_path, "jsonl", split, RECORDS)
    files = {split: str(tmp_path / f"datasets/someone/sms/plain/{split}.jsonl") for split in ("train", "test")}
    with loading.quiet():
        built = datasets.load_dataset_builder("json", data_files=files, cache_dir=str(tmp_path / "cache"))
        built.download_and_prepare()
    # As an earlier load from the hub would have left it.
    kept = tmp_path / "cache" / "someone___sms" / "default" / "0.0.0" / commit
    kept.parent.mkdir(parents=True)
    Path(built.cache_dir).rename(kept)
    info = json.loads((kept / "dataset_info.json").read_text())
    (kept / "dataset_info.json").write_text(json.dumps({**info, "config_name": "default", "dataset_name": "sms"}))
    for file in kept.glob("json-*.arrow"):
        file.rename(kept / file.name.replace("json-", "sms-"))

    def of(revision):
        return SPEC.model_copy(update={"data": DataSource(hub="someone/sms", revision=revision)})

    splits = load_splits(of(commit))
    assert splits.train.to_list() == RECORDS
    assert (splits.provenance["from"], splits.provenance["revision"]) == ("hub", commit)
    assert load_splits(of(None)).provenance["revision"] == commit
    with pytest.raises(MissingResourceError, match="not known to be of revision"):
        load_splits(of("f" * 40))


def test_a_folder_of_the_same_name_is_not_taken_for_the_hub(tmp_path, monkeypatch):
    (tmp_path / "someone" / "sms").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="hides the hub data set"):
        load_splits(SPEC)


def test_bars_and_loggers_are_as_they_were():
    datasets.enable_progress_bars()
    before = logging.getLogger("datasets").level
    with loading.quiet():
        assert not datasets.is_progress_bar_enabled()
    assert datasets.is_progress_bar_enabled()
    assert logging.getLogger("datasets").level == before


def test_importing_is_light():
    code = (
        "import sys, harness.data.source, harness.data.table, harness.data.docstrings, harness.planning.suites;"
        "print([name for name in ('torch', 'datasets', 'pandas', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"hub": "a/b", "embedded": "docstrings"},
        {"embedded": "docstrings", "revision": "x"},
        {"hub": "../etc"},
        {"hub": "a/../b"},
        {"hub": "a/b/c"},
        {"hub": "a/b", "config": "../c"},
        {"hub": "a/b", "trust_remote_code": True},
    ],
)
def test_sources_that_make_no_sense_are_refused(source):
    with pytest.raises(ValueError, match="DataSource"):
        DataSource(**source)


def test_every_line_of_a_real_mirror_is_read(mirror, capfd):
    spec = TaskSpec(name="sst2", data=DataSource(hub="SetFit/sst2"), label_names=("negative", "positive"))
    load_splits(spec, mirror)
    started = time.process_time()
    splits = load_splits(spec, mirror)
    assert time.process_time() - started < 3  # 0.2 s on a usual processor
    lines = [
        json.loads(line)
        for line in (mirror / "datasets/SetFit/sst2/train.jsonl").read_text("utf-8").split("\n")
        if line
    ]
    assert splits.train.to_list() == lines
    assert len(splits.test) == 1821
    assert capfd.readouterr() == ("", "")
