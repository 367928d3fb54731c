"""The command line as a user meets it: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from harness.backbones.locate import BackboneFiles
from harness.cli.catalogue import FAMILIES, setting_meanings, split_docstring
from harness.methods import methods
from harness.store.store import Store
from harness.support.errors import StoreError
from tests.commands import command, interrupts, run_cli
from tests.toys import write_toy_table

COLUMNS = [
    "id",
    "suite",
    "task",
    "kind",
    "backbone",
    "method",
    "family",
    "n_train",
    "budget",
    "seed",
    "status",
    "metric",
    "score",
    "score_low",
    "score_high",
    "n_test",
    "train_score",
    "load_seconds",
    "encode_seconds",
    "fit_seconds",
    "predict_seconds",
    "total_seconds",
    "train_flops",
    "train_tokens",
    "peak_device_bytes",
    "peak_rss_bytes",
    "peak_rss_above_baseline_bytes",
    "n_parameters",
    "n_trainable",
    "artifact_bytes",
    "stopped_by",
    "precision",
    "device",
    "error",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_toy_table(folder / "tickets.csv")
    return folder


@pytest.fixture(scope="module")
def first_run(folder: Path, tiny: BackboneFiles) -> str:
    return run_cli(
        *own_data(tiny),
        *("--sizes", "12,8/class", "--seeds", "0,1"),
        cwd=folder,
        HARNESS_CACHE=str(folder / "cache"),
    )


def own_data(tiny: BackboneFiles, methods: str = "majority,linear-probe,full[min_steps=4,epochs=1]") -> list[str]:
    options = ["--text", "text", "--label", "label", "--backbone", str(tiny.folder), "--methods", methods]
    return ["run", "--data", "tickets.csv", *options]


def test_your_own_data_end_to_end(first_run: str, folder: Path) -> None:
    assert "12 cells run. Records" in first_run
    assert "[12/12]" in first_run
    assert "linear-probe" in first_run
    assert "Report: reports/tickets/report.html" in first_run
    report = (folder / "reports" / "tickets" / "report.md").read_text(encoding="utf-8")
    assert "8/class" in report
    assert list((folder / "reports" / "tickets").rglob("*.png"))
    assert (folder / "reports" / "tickets" / "report.html").is_file()


def test_the_same_command_again_runs_nothing(first_run: str, folder: Path, tiny: BackboneFiles) -> None:
    again = run_cli(*own_data(tiny), "--sizes", "12,8/class", "--seeds", "0,1", cwd=folder)
    assert "0 cells run, 12 were there already" in again
    more = run_cli(*own_data(tiny, "majority"), "--sizes", "12,8/class", "--seeds", "0,1,2", cwd=folder)
    assert "2 cells run, 4 were there already" in more


def test_export_has_the_columns_it_promises(first_run: str, folder: Path) -> None:
    readers = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}
    for ending, read in readers.items():
        assert "rows written" in run_cli("export", f"out.{ending}", cwd=folder)
        frame = read(folder / f"out.{ending}")
        assert list(frame.columns) == COLUMNS
        assert len(frame) >= 12
        assert set(frame["status"]) == {"ok"}
    assert "Error" in run_cli("export", "out.xlsx", cwd=folder, code=2)


def test_status_and_report(first_run: str, folder: Path) -> None:
    status = run_cli("status", cwd=folder)
    assert "linear-probe" in status
    assert "Report:" in run_cli("report", "--out", "elsewhere", "--figures", "png,svg", cwd=folder)
    assert (folder / "elsewhere" / "report.html").is_file()
    assert {path.suffix for path in (folder / "elsewhere" / "figures").iterdir()} == {".png", ".svg"}
    assert "expected some of png, svg, pdf" in run_cli("report", "--figures", "gif", cwd=folder, code=2)


def test_advice_counts_the_users_own_records(first_run: str, folder: Path) -> None:
    own = run_cli("advise", "--n-train", "12", "--classes", "3", "--no-reference", cwd=folder)
    assert "Expected accuracy with 12 labels" in own
    assert "Only your own records count" in own
    told = run_cli("advise", "--data", "tickets.csv", "--json", cwd=folder)
    assert '"n_train": 400' in told
    assert "Give --n-train NUMBER" in run_cli("advise", cwd=folder, code=2)
    assert "No measured method fits" in run_cli(
        "advise", "--n-train", "12", "--classes", "3", "--trainable-parameters", "0.5", "--no-reference",
        "--min-score", "0.999", cwd=folder, code=1,
    )  # fmt: skip


def test_results_come_in_and_are_compared(first_run: str, folder: Path) -> None:
    store = "results/harness.sqlite"
    run_cli("export", "theirs.csv", cwd=folder)
    assert "records imported into other.sqlite" in run_cli(
        "import", "theirs.csv", "--store", "other.sqlite", cwd=folder
    )
    again = run_cli("import", "theirs.csv", "--store", "other.sqlite", cwd=folder)
    assert "0 records imported" in again
    assert "were there already" in again
    assert "0 worse, 0 better" in run_cli("compare", store, store, "--out", "compared.csv", cwd=folder)
    assert (folder / "compared.csv").is_file()
    assert "FIELD=COLUMN" in run_cli("import", "theirs.csv", "--format", "table", "--map", "x", cwd=folder, code=2)
    assert "no file absent.csv" in run_cli("import", "absent.csv", cwd=folder, code=2)


def test_failed_cells_exit_with_1_and_are_retried_on_request(folder: Path, tiny: BackboneFiles) -> None:
    failing = own_data(tiny, "full[learning_rate=1e30,max_grad_norm=none,min_steps=4,warmup=0,precision=fp32]")
    options = ["--sizes", "12", "--seeds", "0", "--store", "failing.sqlite"]
    output = run_cli(*failing, *options, cwd=folder, code=1)
    assert "try a learning rate below" in output
    assert "1 cell failed" in output
    assert "0 cells run, 1 was there already" in run_cli(*failing, *options, cwd=folder, code=1)
    assert "1 cell run" in run_cli(*failing, *options, "--retry-failed", cwd=folder, code=1)
    with Store.open(folder / "failing.sqlite", create=False) as store:
        assert [record.attempt for record in store.records(latest_only=False)] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "harness run quickstart"),
        (["run", "quickstrat"], "Did you mean 'quickstart'?"),
        (["run", "quickstart", "--methods", "lroa"], "Did you mean 'lora'?"),
        (["run", "quickstart", "--tasks", "docstring"], "Did you mean 'docstrings'?"),
        (["run", "quickstart", "--sizes", "many"], "8/class"),
        (["run", "quickstart", "--sizes", "4"], "ask for at least 12"),
        (["run", "quickstart", "--sizes", "1000000"], "ask for at most that"),
        (["run", "quickstart", "--seeds", "a"], "0,1,2"),
        (["run", "quickstart", "--seeds", "-1"], "from 0 to"),
        (["run", "quickstart", "--seeds", "9223372036854775808"], "from 0 to"),
        (["run", "quickstart", "--methods", "full[learning_rate=inf]"], "finite number"),
        (["run", "quickstart", "--methods", "linear-probe[c_grid=[]]"], "at least 1 item"),
        (["run", "quickstart", "--methods", "linear-probe[c_grid=[-1]]"], "greater than 0"),
        (["run", "tickets.csv"], "--data tickets.csv"),
        (["run", "--data", "tickets.csv", "--test", "tickets.csv"], "copies of test rows"),
        (["run", "quickstart", "--methods", "majority[tune=8]"], "no settings to search over"),
        (["run", "quickstart", "--methods", "lora[tune=1]"], "greater than or equal to 2"),
        (["run", "quickstart", "--tune", "1"], "at least 2"),
        (["run", "quickstart", "--budget", "epoch=3"], "epochs"),
        (["run", "quickstart", "--mirror", "nowhere"], "datasets/"),
        (["run", "quickstart", "--backbone", "some-lab/absent"], "--mirror"),
        (["run", "sentiment"], "HARNESS_MIRROR"),
        (["run", "--data", "absent.csv"], "there is no such file"),
        (["run", "--data", "tickets.csv", "--text", "txt"], "Did you mean 'text'?"),
        (["run", "quickstart", "--test", "x.csv"], "--data"),
        (["status"], "harness.sqlite"),
        (["status", "quickstrat"], "Did you mean 'quickstart'?"),
        (["methods", "lor"], "Did you mean 'lora'?"),
        (["suites", "sentimant"], "Did you mean 'sentiment'?"),
    ],
)
def test_wrong_usage_is_told_what_to_try(arguments: list[str], says: str, folder: Path, tmp_path: Path) -> None:
    write_toy_table(tmp_path / "tickets.csv")
    environment = {name: "" for name in ("HARNESS_MIRROR",) if name in os.environ}
    assert says in run_cli(*arguments, cwd=tmp_path, code=2, **environment)


def test_a_suite_without_a_store_is_all_missing(tmp_path: Path) -> None:
    assert "missing" in run_cli("status", "quickstart", cwd=tmp_path)


def test_a_damaged_backbone_is_one_refusal(tmp_path: Path, tiny: BackboneFiles) -> None:
    import shutil

    write_toy_table(tmp_path / "tickets.csv")
    for damaged, content in (("config.json", "{"), ("config.json", "[]"), ("tokenizer.json", "{}")):
        broken = tmp_path / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(tiny.folder, broken)
        (broken / damaged).write_text(content)
        output = run_cli("run", "--data", "tickets.csv", "--backbone", "./broken", cwd=tmp_path, code=2)
        assert "Backbone" in output
        assert "[1/" not in output


def test_interrupting_twice_stops_now_and_says_how_to_go_on(folder: Path, tiny: BackboneFiles) -> None:
    """Ctrl-C once lets the running cell finish: `test_kills.py`."""
    store = folder / "interrupted.sqlite"
    arguments = [*own_data(tiny, "majority,head[epochs=100000]"), "--sizes", "12", "--seeds", "0"]
    with interrupts(lambda: n_stored(store), times=2) as pressed:
        output = run_cli(*arguments, "--store", str(store), cwd=folder, code=130)
    assert len(pressed) == 2  # it went on after the first
    assert "Stopping after the running cell; Ctrl-C again stops now." in output
    assert "The same command resumes" in output
    assert len(stored(store)) == 1


def test_help_imports_nothing_heavy() -> None:
    """`harness --help` answers in 0.3 s because of this."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom harness.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'transformers', 'pydantic', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lists(folder: Path) -> None:
    listed = run_cli("methods", cwd=folder)
    for name in ("majority", "tfidf", "linear-probe", "head", "lora", "full"):
        assert name in listed
    assert "2106.09685" in run_cli("methods", "lora", cwd=folder)
    assert "sst2" in run_cli("suites", cwd=folder)
    assert "Socher" in run_cli("suites", "sentiment", cwd=folder)
    assert "weights verified" in run_cli("doctor", cwd=folder)


def test_methods_are_listed_by_family_within_a_hundred_columns(folder: Path) -> None:
    listed = run_cli("methods", cwd=folder, COLUMNS="100")
    lines = listed.splitlines()
    assert max(map(len, lines)) <= 100
    headings = [line.strip() for line in lines if line.strip() in FAMILIES]
    assert headings == [family for family in FAMILIES if family in {cls.family for cls in methods}]
    for cls in methods:
        at = next(number for number, line in enumerate(lines) if line.startswith(f"  {cls.name} "))
        own_heading = [line.strip() for line in lines[:at] if line.strip() in FAMILIES]
        assert own_heading[-1] == cls.family
    assert listed.index("\n  majority ") < listed.index("\n  tfidf ") < listed.index("\n  linear-probe ")
    about_lora = listed[listed.index("\n  lora ") :][:400]
    assert "encoder / causal / seq2seq" in about_lora
    assert "rank=8" in about_lora
    assert "learning_rate=0.003" in about_lora
    assert "2106.09685" in about_lora
    assert "needs none" in listed[listed.index("\n  majority ") :][:200]


def test_a_method_is_explained_setting_by_setting(folder: Path) -> None:
    explained = run_cli("methods", "lora", cwd=folder)
    defaults = methods.get("lora")().model_dump(mode="json")
    for setting in defaults:
        assert any(line.split()[:1] == [setting] for line in explained.splitlines()), setting
    assert "rows per optimiser step" in explained  # a base's docstring
    assert "0.0003 to 0.1 (log)" in explained
    assert "Attributes:" not in explained
    assert "Search space: none" in run_cli("methods", "majority", cwd=folder)


def test_every_setting_of_every_method_says_what_it_means() -> None:
    missing = {cls.name: sorted(set(cls.model_fields) - set(setting_meanings(cls))) for cls in methods}
    assert {name: settings for name, settings in missing.items() if settings} == {}


def test_meanings_are_read_from_docstrings() -> None:
    prose, meanings = split_docstring(
        """One line.

        More of it: with a colon.

        Attributes:
            rank, alpha: size of it,
                or so: more or less.
            plain: of the loss.

                A second paragraph of it.

        Raises:
            ValueError: never.
        """
    )
    assert prose == "One line.\n\nMore of it: with a colon."
    assert meanings == {
        "rank": "size of it, or so: more or less.",
        "alpha": "size of it, or so: more or less.",
        "plain": "of the loss. A second paragraph of it.",
    }
    assert split_docstring("Only this.") == ("Only this.", {})
    assert split_docstring("") == ("", {})
    assert split_docstring("Class.\n\nClass attributes:\n    name: x.")[1] == {}


def test_tuning_from_the_command_line(folder: Path, tiny: BackboneFiles) -> None:
    arguments = [*own_data(tiny, "majority,knn,prototypes[tune=2]"), "--sizes", "60", "--seeds", "0"]
    output = run_cli(*arguments, "--tune", "3", "--store", "tuned.sqlite", cwd=folder)
    assert "Note: nothing to tune in majority" in output
    assert "knn[tune=3]" in output
    assert "prototypes[tune=2]" in output
    with Store.open(folder / "tuned.sqlite", create=False) as store:
        by_method = {record.cell.method: record for record in store.records()}
    assert {name: record.cell.config.get("tune") for name, record in by_method.items()} == {
        "majority": None,
        "knn": 3,
        "prototypes": 2,
    }
    assert by_method["knn"].cost.tune_seconds
    assert by_method["majority"].cost.tune_seconds is None
    report = (folder / "reports" / "tickets" / "report.md").read_text(encoding="utf-8")
    assert "2 of 3 cells chose settings" in report
    assert "tuned_settings" not in report


@pytest.mark.slow  # `test_kills.py` kills at two moments by default
def test_kill_9_in_the_middle_loses_nothing_and_repeats_nothing(folder: Path, tiny: BackboneFiles) -> None:
    arguments = [*own_data(tiny, "majority,linear-probe,head[epochs=40]"), "--sizes", "12,48", "--seeds", "0,1,2,3,4"]
    store = folder / "killed.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "HARNESS_STORE": str(store)}
    running = subprocess.Popen(
        command(*arguments), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    recorded: dict[str, dict[str, object]] = {}
    until = time.monotonic() + 120
    while time.monotonic() < until and len(recorded) < 4:
        time.sleep(0.05)
        if store.exists():
            recorded = stored(store)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = stored(store)
    assert 4 <= len(before) < 30
    output = run_cli(*arguments, cwd=folder, HARNESS_STORE=str(store))
    after = stored(store)
    assert f"{30 - len(before)} cells run, {len(before)} were there already" in output
    assert len(after) == 30
    assert {key: after[key] for key in before} == before
    with Store.open(store, create=False) as opened:
        assert opened.count() == 30


def test_two_runs_on_one_store_share_the_cells(folder: Path, tiny: BackboneFiles) -> None:
    arguments = [*own_data(tiny, "majority,linear-probe,head[epochs=40]"), "--sizes", "12,48", "--seeds", "0,1,2,3,4"]
    store = folder / "shared.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "HARNESS_STORE": str(store)}
    with subprocess.Popen(
        [*command(*arguments), "--reports", str(folder / "reports-1")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        until = time.monotonic() + 120
        while time.monotonic() < until and not n_stored(store):
            time.sleep(0.05)
        own_output = run_cli(*arguments, "--reports", str(folder / "reports-2"), cwd=folder, HARNESS_STORE=str(store))
        outputs = [own_output, other.communicate(timeout=200)[0]]
    assert other.returncode == 0
    n_run = [int(re.search(r"(\d+) cells run", output)[1]) for output in outputs]  # type: ignore[index]
    assert sum(n_run) == 30
    assert min(n_run) > 0
    with Store.open(store, create=False) as opened:
        assert opened.count() == 30
        assert opened.claimed() == set()


def n_stored(store: Path) -> int:
    """Return how many records there are; 0 before there is a store. Reads no record: tests ask often."""
    with suppress(StoreError), Store.open(store, create=False) as opened:
        return opened.count()
    return 0


def stored(store: Path) -> dict[str, dict[str, object]]:
    try:
        with Store.open(store, create=False) as opened:
            return {record.id: json.loads(json.dumps(record.to_json())) for record in opened.records()}
    except Exception:  # noqa: BLE001 - the other process is just making it
        return {}


def test_python_m_harness_version(folder: Path) -> None:
    import harness as package

    assert package.__version__ in run_cli("--version", cwd=folder, own_process=True)
