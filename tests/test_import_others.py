"""Results of other tools become records, in their old and new layouts, or are refused whole with file and field."""

from __future__ import annotations

import io
import json
import math
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from harness.records.facts import Facts
from harness.records.jsonl import write_jsonl
from harness.records.record import Record
from harness.store import pack
from harness.store.importing import locate_results, read_results
from harness.store.store import Store
from harness.support.errors import UsageError

OTHERS = Path(__file__).parent / "fixtures" / "others"
LM_EVAL = OTHERS / "lm-eval" / "org__small-1b" / "results_2026-01-31T12-00-00.123456.json"
SAMPLES = LM_EVAL.with_name("samples_hellaswag_2026-01-31T12-00-00.123456.jsonl")

ALL = [
    ("lm-eval", "lm-eval", 5),
    ("lm-eval", "lm-eval-0.3.json", 2),
    ("lm-eval", "open-llm-leaderboard.json", 2),
    ("inspect", "inspect.json", 1),
    ("inspect", "inspect-version-1.json", 1),
    ("setfit", "setfit", 3),
    ("setfit", "transformers", 2),
    ("mteb", "mteb-old", 2),
    ("peft", "peft-2025-06", 1),
    ("peft", "peft-image-gen", 1),
    ("eee", "eee-0.2.json", 1),
    ("eee", "eee-0.3.json", 2),
]


def by_task(records: list[Record]) -> dict[str, Record]:
    return {record.cell.task: record for record in records}


def changed(path: Path, folder: Path, **changes: Any) -> Path:
    """Copy a JSON file with other values at dotted names; None removes a name."""
    value = json.loads(path.read_text())
    for name, new in changes.items():
        *heads, last = name.split("__")
        inner = value
        for head in heads:
            inner = inner[int(head)] if head.isdigit() else inner[head]
        if new is None:
            del inner[last]
        else:
            inner[last] = new
    target = folder / path.name
    target.write_text(json.dumps(value))
    return target


@pytest.mark.parametrize(("form", "name", "n"), ALL)
def test_each_fixture_is_imported_once_and_marked_as_measured_by_others(
    tmp_path: Path, form: str, name: str, n: int
) -> None:
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        first = store.add_new(pack(locate_results([OTHERS / name], form)))
        again = store.add_new(pack(locate_results([OTHERS / name], form)))
        records = list(store.records(with_predictions=True))
    assert (first.n_added, first.n_known) == (n, 0)
    assert (again.n_added, again.n_known) == (0, n)
    for record in records:
        assert record.device.endswith(" (imported)")
        assert record.facts.imported_from
        assert record.facts.protocol
        assert form == "peft" or record.facts.measured_by
        assert record.status == "ok"
        assert Facts.from_json(json.loads(json.dumps(record.facts.to_json()))) == record.facts


def test_every_imported_record_may_be_sent_on(tmp_path: Path) -> None:
    records = [record for form, name, _ in ALL for record in read_results([OTHERS / name], form)]
    write_jsonl(records, tmp_path / "r.jsonl")
    back = read_results([tmp_path / "r.jsonl"])  # which checks every field, and that rows fit to scores
    assert [record.to_json() for record in back] == [record.to_json() for record in records]


@pytest.mark.parametrize("form", sorted({form for form, _, _ in ALL}))
def test_a_damaged_file_leaves_nothing_in_the_store(tmp_path: Path, form: str) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    name = next(name for one, name, _ in ALL if one == form)
    source = OTHERS / name
    for target in (good, bad):
        if source.is_dir():
            shutil.copytree(source, target / source.name)
        else:
            target.mkdir()
            shutil.copy(source, target)
    broken = max(bad.rglob("*.json"))
    broken.write_bytes(broken.read_bytes()[:-20])
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        folders = [good, bad] if form != "peft" else [good / source.name, bad / source.name]
        with pytest.raises(UsageError, match=broken.name):
            store.add_new(pack(locate_results(folders, form)))
        assert list(store.records()) == []


@pytest.mark.parametrize(("form", "name", "n"), ALL)
def test_no_format_takes_a_file_of_another(form: str, name: str, n: int) -> None:
    path = OTHERS / name
    file = path if path.is_file() else min(path.rglob("*.json"))
    for other in {one for one, _, _ in ALL} - {form}:
        with pytest.raises(UsageError, match=rf"{file.name}.*It looks like --format {form}\."):
            read_results([file], other)
    with pytest.raises(UsageError, match=f"looks like --format {form}"):
        read_results([file])


# ---- lm-evaluation-harness


def test_lm_eval_keeps_metrics_filters_and_standard_errors() -> None:
    found = by_task(read_results([OTHERS / "lm-eval"], "lm-eval"))
    assert found.keys() == {"hellaswag", "gsm8k", "wikitext", "mmlu_anatomy", "mmlu_virology"}  # no group twice
    hellaswag = found["hellaswag"]
    assert hellaswag.score is not None
    assert (hellaswag.score.metric, hellaswag.score.value, hellaswag.score.n_test) == ("accuracy", 0.75, 4)
    assert hellaswag.score.low == pytest.approx(0.75 - 1.959964 * 0.25)
    assert hellaswag.score.high == 1.0
    assert hellaswag.score.others["acc_norm"] == 0.5
    assert hellaswag.kind == "multiple-choice"
    assert (hellaswag.cell.n_train, hellaswag.cell.seed, hellaswag.cell.backbone) == (10, 1234, "org/small-1b")
    assert hellaswag.cell.weights == "revision 0123456789abcdef0123456789abcdef01234567"
    assert hellaswag.cell.config["peft"] == "org/small-1b-lora"
    assert hellaswag.cost.n_parameters == 1_100_048_384
    assert hellaswag.cost.train_seconds is None
    assert hellaswag.provenance.packages == {"lm_eval": "0.4.9.1", "transformers": "4.57.0", "torch": "2.9.0+cu128"}
    assert hellaswag.provenance.precision == "bfloat16"
    assert hellaswag.device == "lm-eval, NVIDIA A10G (imported)"
    gsm8k = found["gsm8k"].score
    assert gsm8k is not None
    assert (gsm8k.metric, gsm8k.value) == ("exact_match (strict-match)", 0.12)
    assert gsm8k.others["exact_match (flexible-extract)"] == 0.15
    wikitext = found["wikitext"].score
    assert wikitext is not None
    assert (wikitext.higher_is_better, wikitext.highest, wikitext.low) == (False, None, None)


def test_lm_evals_samples_give_the_scores_of_rows() -> None:
    record = by_task(read_results([LM_EVAL], "lm-eval"))["hellaswag"]
    assert record.predictions is not None
    rows = record.predictions.row_scores("accuracy")
    assert rows is not None
    assert rows.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"doc_id": 4, "filter": "none", "acc": 1.0}', "holds 5 rows, but .* states 4"),
        ("{", r"line 5 cannot be read as JSON"),
        ("[]", r"line 5 is no JSON object"),
    ],
)
def test_bad_samples_of_lm_eval_are_refused(tmp_path: Path, line: str, said: str) -> None:
    for file in (LM_EVAL, SAMPLES):
        shutil.copy(file, tmp_path)
    with (tmp_path / SAMPLES.name).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(UsageError, match=said):
        read_results([tmp_path], "lm-eval")


def test_samples_of_another_run_of_lm_eval_are_refused(tmp_path: Path) -> None:
    shutil.copy(LM_EVAL, tmp_path)
    (tmp_path / SAMPLES.name).write_text(SAMPLES.read_text().replace('"acc": 0.0', '"acc": 1.0'))
    with pytest.raises(UsageError, match=r"the mean of acc is 1, but .* states 0\.75"):
        read_results([tmp_path], "lm-eval")


def test_older_layouts_of_lm_eval_are_read() -> None:
    found = by_task(read_results([OTHERS / "lm-eval-0.3.json"], "lm-eval"))
    arc = found["arc_challenge"]
    assert arc.score is not None
    assert (arc.score.value, arc.score.n_test, arc.cell.n_train) == (0.28, 0, 25)
    assert "limit 100" in arc.cell.data
    assert found["lambada_openai"].score is not None
    assert not found["lambada_openai"].score.higher_is_better
    board = by_task(read_results([OTHERS / "open-llm-leaderboard.json"], "lm-eval"))
    assert {name: record.cell.n_train for name, record in board.items()} == {"arc:challenge": 25, "truthfulqa:mc": 0}
    assert board["arc:challenge"].cell.backbone == "org/chat-7b"


def test_results_of_lighteval_are_called_so(tmp_path: Path) -> None:
    path = changed(
        OTHERS / "open-llm-leaderboard.json",
        tmp_path,
        results={"squad_v2|0": {"em": 0.25, "em_stderr": 0.1}, "leaderboard|mmlu:_average|5": {"acc": 0.3}},
        config_tasks={"squad_v2|0": {"hf_repo": "rajpurkar/squad_v2", "version": 1, "effective_num_docs": 20}},
    )
    (record,) = read_results([path], "lm-eval")
    assert (record.cell.method, record.facts.measured_by, record.cell.task) == ("lighteval", "lighteval", "squad_v2")
    assert record.score is not None
    assert (record.score.metric, record.score.n_test, record.cell.n_train) == ("em", 20, 0)
    assert record.provenance.dataset["hub"] == "rajpurkar/squad_v2"


def test_correlations_reach_below_zero(tmp_path: Path) -> None:
    path = changed(LM_EVAL, tmp_path, results={"cola": {"mcc,none": 0.01, "mcc_stderr,none": 0.03}})
    (record,) = read_results([path], "lm-eval")
    assert record.score is not None
    assert record.score.metric == "matthews"
    assert record.score.low == pytest.approx(0.01 - 1.959964 * 0.03)


def test_a_later_run_of_the_same_cell_is_kept_beside_the_first(tmp_path: Path) -> None:
    later = changed(LM_EVAL, tmp_path, date=1769960800.0, results__mmlu_anatomy={"acc,none": 0.26})
    with Store.open(str(tmp_path / "r.sqlite")) as store:
        store.add_new(pack(locate_results([LM_EVAL], "lm-eval")))
        added = store.add_new(pack(locate_results([later], "lm-eval")))
        again = store.add_new(pack(locate_results([LM_EVAL, later], "lm-eval")))
        (latest,) = [record for record in store.latest().values() if record.cell.task == "mmlu_anatomy"]
    assert (added.n_added, again.n_added) == (5, 0)
    assert latest.score is not None
    assert latest.score.value == 0.26


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config__model_args": None, "model_name": None, "config__model": None}, "config.model_args names no model"),
        ({"config__model_args": 5}, "config.model_args is int; expected a text or an object"),
        ({"results__gsm8k": [1]}, "results: gsm8k is list; expected an object"),
        ({"results__gsm8k": {"acc,none": 0.5, "acc_stderr,none": -1}}, r"gsm8k.acc_stderr,none is -1"),
        ({"results": {}}, "results has no task with a metric"),
        ({"n-samples__gsm8k": {"effective": 1.5}}, "effective is 1.5; expected a whole number"),
        ({"n-samples": [1]}, "n-samples is list; expected an object"),
    ],
)
def test_a_bad_field_of_lm_eval_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = changed(LM_EVAL, tmp_path, **changes)
    with pytest.raises(UsageError, match=said) as error:
        read_results([path], "lm-eval")
    assert str(path) in str(error.value)


def test_a_score_that_is_no_number_is_a_failed_record(tmp_path: Path) -> None:
    path = changed(LM_EVAL, tmp_path, results__gsm8k={"exact_match,none": math.nan})
    record = by_task(read_results([path], "lm-eval"))["gsm8k"]
    assert (record.status, record.score) == ("failed", None)
    assert "exact_match is nan" in (record.error or "")


# ---- Inspect


def zipped(value: dict[str, Any], path: Path, *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a log as Inspect's `.eval`: a header, summaries of samples, and the samples themselves."""
    samples = value.pop("samples")
    with zipfile.ZipFile(path, "w", compression=compression) as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": value["eval"], "plan": {}}))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
        archive.writestr("summaries.json", json.dumps(samples))
        archive.writestr("header.json", json.dumps(value))
    return path


def inspect_log() -> dict[str, Any]:
    value = json.loads((OTHERS / "inspect.json").read_text())
    assert isinstance(value, dict)
    return value


def test_inspect_keeps_scorers_tokens_and_settings() -> None:
    (record,) = read_results([OTHERS / "inspect.json"], "inspect")
    assert record.score is not None
    assert (record.score.metric, record.score.value, record.score.n_test) == ("accuracy", 0.75, 4)
    assert record.score.n_test_available == 1319
    assert record.score.low == pytest.approx(0.75 - 1.959964 * 0.25)
    assert record.score.others == {"stderr (match)": 0.25, "mean (model_graded_qa)": 7.5}
    assert (record.cell.task, record.cell.backbone) == ("inspect_evals/gsm8k", "openai/gpt-4o-mini")
    assert (record.cell.n_train, record.cell.seed) == (10, 7)
    assert record.provenance.wall_seconds == 90
    served = record.facts.served
    assert served is not None
    assert (served.prompt_tokens, served.cached_prompt_tokens, served.completion_tokens) == (5000, 1000, 800)
    assert record.predictions is not None
    assert record.predictions.statistics["accuracy"].tolist() == [1, 0, 1, 1]
    assert "not-to-be-kept" not in json.dumps(record.to_json())


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_eval_file_holds_the_same_record_as_its_json(tmp_path: Path, compression: int) -> None:
    (one,) = read_results([OTHERS / "inspect.json"], "inspect")
    (other,) = read_results([zipped(inspect_log(), tmp_path / "log.eval", compression=compression)], "inspect")
    assert other.to_json() == {**one.to_json(), "facts": {**one.facts.to_json(), "imported_from": "log.eval"}}


def test_an_eval_file_with_zstandard_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    # What Inspect writes: members with compression 93, of one or several frames.
    value = inspect_log()
    value.pop("samples")
    raw = json.dumps(value).encode()
    half = len(raw) // 2
    packed = b"".join(pyarrow.compress(part, codec="zstd", asbytes=True) for part in (raw[:half], raw[half:]))
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
        archive.writestr("header.json", packed)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    for header, method, size in ((0, 8, 22), (central, 10, 24)):
        data[header + method : header + method + 2] = (93).to_bytes(2, "little")
        data[header + size : header + size + 4] = len(raw).to_bytes(4, "little")
    path.write_bytes(data)
    (record,) = read_results([path], "inspect")
    assert record.score is not None
    assert record.score.value == 0.75


def test_the_first_version_of_inspects_format_is_read() -> None:
    (record,) = read_results([OTHERS / "inspect-version-1.json"], "inspect")
    assert record.score is not None
    assert (record.score.metric, record.score.value) == ("accuracy", 0.6)
    assert record.score.high == pytest.approx(0.6 + 1.959964 * 0.05)  # its bootstrap_std is a standard error
    assert not record.facts.is_evidence  # the number of examples is not stated
    assert record.facts.missing["n_train"]


def test_a_run_of_inspect_that_ended_in_an_error_is_a_failed_record(tmp_path: Path) -> None:
    path = changed(OTHERS / "inspect.json", tmp_path, status="error", error={"message": "the server is gone"})
    (record,) = read_results([path], "inspect")
    assert (record.status, record.score, record.predictions) == ("failed", None, None)
    assert "the server is gone" in (record.error or "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "started"}, "status is 'started': the run has not ended"),
        ({"eval__model": None}, "eval.model is missing"),
        ({"results__scores": []}, "results.scores has no metric with a number"),
        ({"results__scores__0__metrics": {"accuracy": {"value": "x"}}}, r"metrics.accuracy.value is 'x'"),
        ({"results__scores__0__metrics": {"accuracy": 0.5}}, r"metrics.accuracy is no object"),
        ({"results": 5}, "results is int; expected an object"),
    ],
)
def test_a_bad_field_of_inspect_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = changed(OTHERS / "inspect.json", tmp_path, **changes)
    with pytest.raises(UsageError, match=said) as error:
        read_results([path], "inspect")
    assert str(path) in str(error.value)


def test_damaged_eval_files_are_named(tmp_path: Path) -> None:
    whole = zipped(inspect_log(), tmp_path / "log.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"cut\.eval is no complete zip file"):
        read_results([tmp_path / "cut.eval"], "inspect")
    with zipfile.ZipFile(tmp_path / "running.eval", "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(UsageError, match=r"running\.eval has no header\.json: the run has not ended"):
        read_results([tmp_path / "running.eval"], "inspect")
    changed_bytes = bytearray(whole)
    at = changed_bytes.rindex(b"header.json", 0, changed_bytes.index(b"PK\x01\x02")) + 40
    changed_bytes[at : at + 8] = bytes(8)
    (tmp_path / "bits.eval").write_bytes(changed_bytes)
    with pytest.raises(UsageError, match=r"bits\.eval: header\.json is damaged"):
        read_results([tmp_path / "bits.eval"], "inspect")


# ---- SetFit


def test_setfits_folders_say_model_data_size_and_seed() -> None:
    records = read_results([OTHERS / "setfit"], "setfit")
    emotion = [record for record in records if record.cell.task == "emotion"]
    assert [(record.cell.n_train, record.cell.seed) for record in emotion] == [(48, 0), (48, 1)]
    assert [record.score.value for record in emotion if record.score] == [0.488, 0.4615]
    assert emotion[0].cell.backbone == "paraphrase-mpnet-base-v2"
    assert emotion[0].cell.config["iterations"] == 20
    (counterfactual,) = [record for record in records if record.cell.task == "amazon_counterfactual_en"]
    assert counterfactual.score is not None
    assert (counterfactual.score.metric, counterfactual.score.value) == ("matthews", 0.619)
    others = by_task(read_results([OTHERS / "transformers"], "setfit"))
    assert others["sst5"].cell.method == "full"
    assert not others["sst5"].facts.is_evidence  # the size of the whole split is not known here
    german = others["amazon_reviews_multi_de"].score
    assert german is not None
    assert (german.metric, german.value, german.higher_is_better, german.highest) == ("mae", 1.182, False, None)


@pytest.mark.parametrize(
    ("folders", "text", "expected"),
    [
        ("adapet/albert-xxlarge-v2/sst5/train-8-0", {"measure": "acc", "score": 40.5}, ("adapet", "accuracy", 0.405)),
        ("adapet/x/amazon_reviews_multi_de/train-8-0", {"measure": "mean_absolute_error", "score": 120.5}, None),
        ("tfew/t03b/emotion/train-8-0", {"measure": "accuracy", "score": 50.0, "iqr": 4.0}, ("t-few", "accuracy", 0.5)),
        ("m/SetFit/emotion/train-8-0", {"measure": "accuracy", "score": 50.0}, ("setfit", "accuracy", 0.5)),
        ("m/emotion/zeroshot", {"measure": "accuracy", "score": 50.0}, ("setfit", "accuracy", 0.5)),
    ],
)
def test_other_scripts_of_setfits_authors(tmp_path: Path, folders: str, text: Any, expected: Any) -> None:
    path = tmp_path / folders / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(text))
    (record,) = read_results([path], "setfit")
    score = record.score
    assert score is not None
    if expected is None:
        assert (score.metric, score.value, score.higher_is_better) == ("mae", 1.205, False)
    else:
        assert (record.cell.method, score.metric, score.value) == expected
    assert record.cell.n_train == {"zeroshot": 0}.get(path.parent.name, 48 if record.cell.task == "emotion" else 40)
    assert score.others == ({"iqr_over_seeds": 0.04} if "iqr" in text else {})


def test_setfits_published_archives_are_read_without_unpacking(tmp_path: Path) -> None:
    folder = tmp_path / "transformers"
    folder.mkdir()
    with tarfile.open(folder / "roberta-large.tar.gz", "w:gz") as archive:
        for name, text in (
            ("roberta-large/sst5/train-8-0/results.json", '{"score": 43.1, "measure": "accuracy"}'),
            ("roberta-large/summary_table.csv", "dataset,measure\n"),
            ("roberta-large/sst5/train-8-0/._results.json", "binary"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    (record,) = read_results([folder / "roberta-large.tar.gz"], "setfit")
    assert (record.cell.method, record.cell.backbone, record.cell.n_train) == ("full", "roberta-large", 40)
    assert record.score is not None
    assert record.score.value == 0.431
    whole = (folder / "roberta-large.tar.gz").read_bytes()
    (folder / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"cut\.tar\.gz is a damaged archive"):
        read_results([folder / "cut.tar.gz"], "setfit")


@pytest.mark.parametrize(
    ("folders", "text", "said"),
    [
        ("m/emotion/train-8-0", '{"measure": "accuracy"}', "expected an object with score and measure"),
        ("m/emotion/train-8-0", '{"measure": "accuracy", "score": "x"}', "score is 'x'; expected a number"),
        ("m/emotion/train-8-0", '{"measure": "accuracy", "score": 101}', "score is 101; expected a percentage"),
        ("m/emotion/other", '{"measure": "accuracy", "score": 50}', "the folders name no model, data set and split"),
    ],
)
def test_a_bad_result_of_setfit_is_named(tmp_path: Path, folders: str, text: str, said: str) -> None:
    path = tmp_path / folders / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as error:
        read_results([tmp_path], "setfit")
    assert "results.json" in str(error.value)


# ---- MTEB, PEFT


def test_older_files_of_mteb_are_named_by_their_folder_and_keep_the_spread() -> None:
    found = by_task(read_results([OTHERS / "mteb-old"], "mteb"))
    assert found.keys() == {"Banking77Classification", "MassiveIntentClassification"}
    banking, intents = found["Banking77Classification"], found["MassiveIntentClassification"]
    assert banking.cell.backbone == "all-MiniLM-L6-v2"
    assert banking.score is not None
    assert (banking.score.value, banking.score.others["sd_over_draws"]) == (0.79, 0.0056)
    assert intents.score is not None
    assert intents.score.value == 0.67  # of the English texts


def test_older_files_of_peft_are_read() -> None:
    (record,) = read_results([OTHERS / "peft-2025-06"], "peft")
    assert (record.cost.peak_device_bytes, record.cost.fit_seconds) == (22_273_855_488, 82.0)
    assert (record.cost.n_parameters, record.device) == (None, "NVIDIA L40S (imported)")


def test_pefts_comparison_on_images_is_a_kind_and_a_metric_of_its_own() -> None:
    text, image = read_results([OTHERS / "peft-2025-06", OTHERS / "peft-image-gen"], "peft")
    assert (image.kind, image.cell.task) == ("image-generation", "dreambooth-image-gen")
    assert image.score is not None
    assert text.score is not None
    assert (image.score.metric, image.score.others) == ("dino_similarity", {"drift": 0.262})
    assert image.score.metric != text.score.metric
    assert image.kind != text.kind


# ---- what records of others do not do


def test_results_of_others_never_join_own_costs_or_advice(tmp_path: Path) -> None:
    from harness.forecast.evidence import gather, published_in
    from harness.report.page import page_html
    from harness.report.tables import comparison
    from tests.record_factory import make_grid

    own = make_grid(methods=("full", "lora"), sizes=(32,))
    others = [record for form, name, _ in ALL for record in read_results([OTHERS / name], form)]
    assert {point.method for point in gather([*own, *others]).points} >= {"full", "lora"}
    assert gather(own).devices == {name: n for name, n in gather([*own, *others]).devices.items() if "L40S" not in name}
    assert {encoder.name for encoder in published_in(others)} == {"all-MiniLM-L6-v2"}  # MTEB's alone are probes
    assert len(comparison([*own, *others])) == len(comparison(own)) + len(comparison(others))
    page = page_html([*own, *others])
    assert "imported" in page
