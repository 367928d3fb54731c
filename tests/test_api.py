"""The package's Python functions: data frames in, typed results out, the command line's errors under Python's names."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import harness
from harness.api.display import Display, NotebookDisplay, TerminalDisplay, make_display
from harness.api.plans import Plan, PlanGroup, PlanRow
from harness.api.requests import own_task, read_request, read_seconds
from harness.api.results import Results
from harness.cli.completion import METRICS, kind_names, method_names, suites_to_complete
from harness.cli.main import app
from harness.methods import methods
from harness.planning.suites import suite_names
from harness.report.observations import observe
from harness.schedule.prepare import prepare_plan
from harness.support.errors import DataError, DataWarning, UsageError
from harness.support.spelling import as_python
from harness.tasks import kinds
from tests.record_factory import make_record
from tests.toys import write_toy_table

README = Path(__file__).parent.parent / "README.md"


def toy_frame(folder: Path, **changes: Any) -> pd.DataFrame:
    write_toy_table(folder / "toy.csv", 80)
    return pd.read_csv(folder / "toy.csv").assign(**changes)


def readme_frame(folder: Path) -> pd.DataFrame:
    """300 messages under the names of the README: real ones where the mirror is, made-up ones elsewhere."""
    path = Path(os.environ.get("HARNESS_MIRROR", "")) / "datasets/ucirvine/sms_spam/train.jsonl"
    if not path.is_file():
        write_toy_table(folder / "toy.csv", 300)
        return pd.read_csv(folder / "toy.csv").rename(columns={"text": "body", "label": "queue"})
    messages = pd.read_json(path, lines=True).head(300)
    return messages.rename(columns={"sms": "body", "label": "queue"}).replace({"queue": {0: "normal", 1: "spam"}})


def test_the_readme_s_lines_run_report_and_choose_on_a_data_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script without a guard: a worker process that imported it would run it again."""
    blocks = README.read_text(encoding="utf-8").split("```python\n")[1:]
    lines = next(block for block in (one.split("```")[0] for one in blocks) if "harness.run(" in block)
    assert len(lines.strip().splitlines()) <= 12
    frame = readme_frame(tmp_path)
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    script = tmp_path / "script.py"
    script.write_text(lines, encoding="utf-8")
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, str(script), "exec"), vars(main))
    result, chosen, tickets = vars(main)["result"], vars(main)["chosen"], vars(main)["tickets"]
    assert (result.n_cells, result.n_run, result.n_failed, result.n_before) == (3, 3, 0, 0)
    assert result.report == Path("reports/data/report.html")
    assert "linear-probe" in result.report.read_text(encoding="utf-8")
    assert sorted(result.to_frame()["method"]) == ["linear-probe", "majority", "tfidf"]
    assert {"majority", "tfidf", "linear-probe"} == {record.cell.method for record in result.records}
    assert "tfidf" in result._repr_html_()
    assert chosen.method in ("tfidf", "majority")
    assert chosen.method in set(chosen.to_frame()["method"])
    assert chosen.score.n_test == result.records[0].score.n_test
    assert set(tickets["predicted"]) <= set(frame["queue"])
    assert (tickets["predicted"] == tickets["queue"]).mean() > 0.85
    printed, shown = capsys.readouterr()
    assert "fit_seconds" in printed
    assert "[3/3]" not in printed
    assert "[3/3] data · linear-probe · 64" in shown
    assert sys.modules["__main__"] is main


def ids_of(**data: Any) -> list[str]:
    request = read_request(**data, methods=["majority", "tfidf"], sizes=[8, "all"], seeds=[0, 1])
    return [planned.cell.id for planned in prepare_plan(request).cells]


def test_the_same_rows_are_the_same_cells_as_a_file_and_as_a_frame(tmp_path: Path) -> None:
    frame = toy_frame(tmp_path)
    from_file = ids_of(data=tmp_path / "toy.csv")
    assert ids_of(data=frame, name="toy") == from_file
    assert ids_of(data=frame.iloc[::-1].set_index("label", drop=False), name="toy") == from_file
    assert ids_of(data=frame.astype({"label": "category", "text": "string"}), name="toy") == from_file
    assert set(ids_of(data=frame, name="other")).isdisjoint(from_file)
    assert set(ids_of(data=frame.iloc[1:], name="toy")).isdisjoint(from_file)
    test = frame.iloc[::4]
    test.to_csv(tmp_path / "test.csv", index=False)
    with_test = ids_of(data=tmp_path / "toy.csv", test=tmp_path / "test.csv")
    assert ids_of(data=frame, test=test, name="toy") == with_test != from_file


def test_whole_numbers_are_labels_however_pandas_holds_them(tmp_path: Path) -> None:
    frame = toy_frame(tmp_path)
    numbered = frame.assign(label=pd.factorize(frame["label"])[0])
    with_a_gap = pd.concat([numbered, pd.DataFrame({"text": ["nobody knows", None], "label": [np.nan, 1]})])
    assert with_a_gap["label"].dtype == float
    assert ids_of(data=with_a_gap) == ids_of(data=numbered) == ids_of(data=numbered.astype({"label": str}))
    task = kinds.get("classification").prepare(own_task(with_a_gap, "text", "label"), None)
    assert task.provenance["left_out"] == {"no label": 1, "no text": 1}
    assert task.provenance["from"] == "DataFrame"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "body"}, r"the DataFrame: there is no column 'body'. Columns: 'text', 'label'"),
        ({"label": "lable"}, r"Did you mean 'label'\?"),
        ({"data": pd.DataFrame({"text": [], "label": []})}, "the DataFrame: there are no rows"),
        ({"data": pd.DataFrame([["a", "b", "c"]], columns=["text", "label", "label"])}, "there are 2 columns 'label'"),
        ({"data": pd.DataFrame({"text": ["a", 1.5], "label": ["x", "y"]})}, "position 1: column 'text'.*astype"),
        ({"data": ["a list"]}, "data is of type list; expected a pandas DataFrame, or the path of a file"),
        ({"test": Path("test.csv")}, "data and test are a DataFrame and a path"),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"data": toy_frame(tmp_path), "text": "text", "label": "label", **change}
    with pytest.raises((DataError, UsageError), match=message):
        own_task(**arguments)


def test_what_looks_wrong_with_a_frame_is_a_warning_at_the_caller_s_line(tmp_path: Path) -> None:
    frame = toy_frame(tmp_path)
    frame.loc[0, "label"] = frame.loc[0, "label"].upper()
    frame.loc[4, "label"] = frame.loc[4, "label"].upper()
    task = kinds.get("classification").prepare(own_task(frame, "text", "label"), None)
    with pytest.warns(DataWarning, match="the DataFrame: ") as found:
        Display().data(task, None)
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--within was '5x'; expected a duration.", "within was '5x'; expected a duration."),
        ("Give the unit too: --within 5m or --within 5s.", "Give the unit too: within='5m' or within='5s'."),
        ("--on-oom 'half' was given; expected record.", "on_oom='half' was given; expected record."),
        ("--metric rouge was given.", "metric='rouge' was given."),
        ("--ray-workers 0 was given.", "ray_workers=0 was given."),
        ("--price-per-hour -1 was given.", "price_per_hour=-1 was given."),
        ("--figures '' was given.", "formats='' was given."),
        ("--metric  was given.", "metric='' was given."),
        ("--throughput goes with --executor local.", "throughput goes with executor local."),
        ("--budget was '8GB'; say --budget steps=5.", "budgets was '8GB'; say budgets='steps=5'."),
        ("Name a file (`harness run --data FILE`).", "Name a file (`harness run --data FILE`)."),
    ],
)
def test_messages_name_arguments_as_python_spells_them(message: str, expected: str) -> None:
    assert as_python(message) == expected


def test_errors_are_those_of_the_command_line_under_python_s_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ({"within": "5x"}, {"cell_limit": "-1"}, {"on_oom": "half"}, {"throughput": 0}):
        [(name, value)] = arguments.items()
        with pytest.raises(UsageError, match=f"^{name}\\b") as refused:
            harness.run("quickstart", **arguments)  # type: ignore[arg-type]
        assert "--" not in str(refused.value)
        option = f"--{name.replace('_', '-')}"
        said = CliRunner().invoke(app, ["run", "quickstart", f"{option}={value}"]).exception
        assert isinstance(said, UsageError)
        assert str(said).startswith(option)
    with pytest.raises(UsageError, match="Unknown suite"):
        harness.plan("quickstrat", progress=False)
    with pytest.raises(UsageError, match="Give n_train=NUMBER, or data=FILE"):
        harness.advise(train_seconds="10m")
    (tmp_path / "full").mkdir()
    frame = toy_frame(tmp_path / "full")
    with pytest.raises(UsageError, match=r"^save='full' was given, which exists and is not empty"):
        harness.choose(data=frame, within=60, save="full")


NUMBERED = pd.DataFrame({0: [f"day {at} was good" for at in range(40)], 1: ["x", "y"] * 20})
"""A frame whose columns are named by numbers, texts and labels of two classes."""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *(
            (lambda name=name: harness.run(data=NUMBERED, text=0, label=1, name=name), "name")
            for name in ("a b", "../../x", 5)
        ),  # type: ignore[arg-type, misc]
        *((lambda text=text: own_task(NUMBERED, text, 1), "text") for text in ([None], [[]])),  # type: ignore[misc]
        *(
            (lambda name=name, value=value: harness.run("quickstart", **{name: value}), name)  # type: ignore[misc]
            for name, values in {
                "sizes": (4.0, True, [0.5], [None]),
                "seeds": ([0.5], [None], 1.0, b"1"),
                "budgets": (5, [5]),
                "methods": ([5], 5),
                "tasks": (5,),
                "tune": ("2", 2.0),
                "throughput": ("2", None, 1.5, True),
                "price_per_hour": ("x", [1], -1),
                "within": ([1], True, -1, float("nan")),
                "store": (5,),
                "reports": (5,),
                "ray_workers": ("2",),
            }.items()
            for value in values
        ),
        *(
            (lambda value=value: own_task(NUMBERED, 0, 1, max_length=value), "max_length")  # type: ignore[arg-type, misc]
            for value in ("128", 128.5, True)
        ),
        (lambda: harness.run(NUMBERED), "suite"),  # type: ignore[arg-type]
        (lambda: harness.choose(data=NUMBERED, within=None, save="m"), "within"),  # type: ignore[arg-type]
        (lambda: harness.choose(data=NUMBERED, within=60, save=None), "save"),  # type: ignore[arg-type]
        (lambda: harness.choose(data=NUMBERED, within=60, save="m", methods=[5]), "methods"),  # type: ignore[list-item]
        (lambda: harness.load_model(5), "folder"),  # type: ignore[arg-type]
        (lambda: harness.advise(n_train="500"), "n_train"),  # type: ignore[arg-type]
        (lambda: harness.advise(n_train=500, peak_memory=[1]), "peak_memory"),  # type: ignore[arg-type]
        (lambda: harness.advise(5, n_train=500), "store"),  # type: ignore[arg-type]
        (lambda: harness.report(5), "source"),  # type: ignore[arg-type]
        (lambda: harness.report([5]), "source"),  # type: ignore[list-item]
        (lambda: harness.report("x.jsonl", formats=[]), "formats"),
        (lambda: harness.compare(None, None), "a"),  # type: ignore[arg-type]
        (lambda: harness.read_records(5), "source"),  # type: ignore[arg-type]
        (lambda: harness.read_records(NUMBERED), "source"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_of_a_wrong_type_is_refused_by_its_name(
    call: Callable[[], Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{name}(=| is of type ).*expected") as refused:
        call()
    assert "--" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_and_numbered_columns_are_read() -> None:
    one = read_request("quickstart", sizes=np.int64(32), seeds=np.int64(1), tune=np.int32(4))  # type: ignore[arg-type]
    assert one == read_request("quickstart", sizes="32", seeds="1", tune=4)
    assert read_request("quickstart", seeds=np.arange(2)) == read_request("quickstart", seeds=pd.Series([0, 1]))  # type: ignore[arg-type]
    assert read_seconds(np.float32(60), "--within") == 60
    named = NUMBERED.set_axis(["0", "1"], axis=1)
    assert ids_of(data=NUMBERED, text=0, label=1, max_length=np.int64(64)) == ids_of(
        data=named, text="0", label="1", max_length=64
    )
    with pytest.raises(DataError, match="there are 2 columns '0'"):
        own_task(NUMBERED.assign(**{"0": "z"}), 0, 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"give it as data, .* \(`harness run --data x.csv --text COLUMN"):
        harness.run("x.csv")


def test_advice_without_a_store_reads_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    monkeypatch.setattr("harness.advice.asking.own_records", lambda store: asked.append(store) or [])
    harness.advise(n_train=500, classes=6)
    monkeypatch.setenv("HARNESS_STORE", "mine.sqlite")
    harness.advise(n_train=500, classes=6)
    assert asked == ["results/harness.sqlite", "mine.sqlite"]


def test_arguments_are_lists_or_texts_with_commas() -> None:
    lists = read_request(
        "quickstart", methods=["tfidf", "lora[rank=4]"], sizes=[32, "8/class"], seeds=[0, 1], budgets="epochs=3"
    )
    texts = read_request(
        "quickstart", methods="tfidf,lora[rank=4]", sizes="32, 8/class", seeds="0,1", budgets=["epochs=3"]
    )
    assert lists == texts
    assert read_request("quickstart", sizes=32, seeds=1) == read_request("quickstart", sizes="32", seeds="1")
    assert read_seconds("10m", "--within") == read_seconds(600, "--within") == 600


def test_a_method_of_the_script_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.get("majority"), "__module__", "__main__")
    with pytest.raises(UsageError, match="'majority' is defined in the script that runs"):
        prepare_plan(read_request("quickstart", methods="majority"))


def test_results_show_themselves_as_frame_table_and_html(tmp_path: Path) -> None:
    records = [make_record(seed=seed) for seed in range(2)]
    results = Results(observe(records), None)
    assert results.to_frame()["seed"].tolist() == [0, 1]
    console = Console(file=io.StringIO(), width=100)
    console.print(results.table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert records[0].cell.method in shown
    assert records[0].cell.method in results._repr_html_()
    assert Results(None, None).to_frame().empty
    compared = harness.compare(records, results)
    assert compared.rows["verdict"].tolist() == ["no difference shown"] or len(compared.rows) == 1
    row = PlanRow("t", "full", None, 8, "none", 0, None, None, 2.0, 1.0, 5e6, "formula")
    plan = Plan("cpu", (row,), (PlanGroup("full", (row,), 2.0),), (), 2.0, 1e9)
    assert plan.to_frame().loc[0, "peak_bytes"] == 5e6
    assert "full" in plan._repr_html_()


def test_progress_in_a_notebook_is_one_area_that_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    handle = SimpleNamespace(update=drawn.append)
    fake = ModuleType("IPython.display")
    fake.HTML = lambda text: text  # type: ignore[attr-defined]
    fake.display = lambda text, **_: drawn.append(text) or handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr("harness.api.display.Console", lambda **_: Console(force_jupyter=True))
    display = make_display(True)
    assert isinstance(display, NotebookDisplay)
    prepared: Any = SimpleNamespace(device=SimpleNamespace(name="a CPU"), cells=())
    planned: Any = SimpleNamespace(label=lambda **_: "toy · lora[rank=4] · <b>")
    with display.running(prepared):
        display.begin(3, 1)
        display.cell_begins(planned)
        display.time_left(200)
        display._drawn_at = 0.0
        display.cell_goes_on("training", 0.5, 0.25)
        assert "<i>toy · lora[rank=4] · &lt;b&gt; · training 50% · loss 0.250</i>" in drawn[-1]
        [bar] = ElementTree.fromstring(f"<div>{drawn[-1]}</div>").iter("progress")
        assert (bar.get("value"), bar.get("max")) == ("1", "3")
        assert bar.get("aria-valuetext") == bar.text == "1 of 3 cells done; 0 s, about 3 min 30 s left"
        display.cell_ends(make_record(), None)
        assert 'value="2" max="3"' in drawn[-1]
    assert "1 of 3 cells is done already; 2 to run on a CPU." in drawn[-1]
    assert "[2/3] toy · lora[rank=4]" in drawn[-1]
    assert "<i>" not in drawn[-1]
    assert "<progress" not in drawn[-1]


def test_progress_elsewhere_is_a_terminal_s_or_none() -> None:
    assert isinstance(make_display(True), TerminalDisplay)
    assert type(make_display(False)) is Display
    own = Display()
    assert make_display(own) is own


def completed(*words: str) -> list[str]:
    environment = {
        "_HARNESS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return CliRunner().invoke(app, [], prog_name="harness", env=environment).output.split()


def test_the_shell_completes_commands_options_and_names() -> None:
    assert completed("harness", "ch") == ["choose"]
    assert completed("harness", "run", "--retry") == ["--retry-failed"]
    assert completed("harness", "run", "quick") == ["quickstart"]
    assert completed("harness", "run", "--methods", "majority,linear") == ["majority,linear-probe"]
    assert completed("harness", "advise", "--kind", "text-") == ["text-pair"]
    assert completed("harness", "choose", "--metric", "matt") == ["matthews"]
    assert completed("harness", "methods", "lo") == ["loha", "lokr", "lora"]
    zsh = {"_HARNESS_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "harness run quick"}
    assert "quickstart" in CliRunner().invoke(app, [], prog_name="harness", env=zsh).output
    installed = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    assert {"--install-completion", "--show-completion"} <= installed


def test_completed_names_are_all_there_are() -> None:
    assert method_names() == methods.names()
    assert kind_names() == kinds.names()
    assert suites_to_complete() == suite_names()
    assert list(METRICS) == sorted({metric for kind in kinds for metric in kind.metrics})


def test_functions_outlive_the_import_of_rooms_of_their_names_and_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, harness, harness.cli.completion as completion\n"
        "assert completion.complete_methods('lora,lin') == ['lora,linear-probe']\n"
        "assert completion.complete_kind('gen') and completion.complete_suite('senti')\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'pydantic', 'rich') if m in sys.modules])\n"
        "import harness.report, harness.choose, harness.advice\n"
        "assert harness.advise is harness.advice.advise\n"
        "print(harness.report.__module__, harness.choose.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "harness.api.results harness.api.choosing"]
