"""Methods, kinds, metrics and suites from other packages: found by entry points, checked, run, and refused by name."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.methods import Method, methods
from harness.planning import suites
from harness.support import plugins
from harness.support.errors import UsageError
from harness.support.registry import Registry

EXAMPLE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed in."""
    folder = tmp_path_factory.mktemp("example") / "site"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(folder), str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


_SCRIPT = """
import sys
from tests.commands import run_cli
from pathlib import Path

from harness.methods import methods
from harness.metrics import metrics
from harness.store import Store
from harness.tasks import kinds
from harness.testing import check_metric, checks_of

def main():
    here = Path.cwd()
    for listing in ("methods", "kinds", "metrics", "suites"):
        print(f"== {listing}")
        print(run_cli(listing, cwd=here))
    print("== run")
    print(run_cli("run", "grades", "--methods", "majority,char-bayes", "--device", "cpu", cwd=here))
    print("== checks")
    check_metric(metrics.get("grade_error"))
    slow = sys.argv[1] == "slow"
    for subject in (methods.get("char-bayes"), kinds.get("grading")):
        for check in checks_of(subject):
            if slow or not check.name.startswith(("predicts the same in another", "overfits", "runs from")):
                check()
                print(check)
    print("== records")
    with Store.open("results/harness.sqlite") as store:
        for record in store.records():
            print(record.cell.method, record.score.metric, record.score.value, record.facts.packages)

if __name__ == "__main__":  # a worker process imports this module
    main()
"""


@pytest.mark.parametrize("which", ["quick", pytest.param("slow", marks=pytest.mark.slow)])
def test_a_package_adds_a_method_a_kind_a_metric_and_a_suite(which: str, example: Path, tmp_path: Path) -> None:
    """Nothing in the harness knows them; a worker process runs them, and the report shows them."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(script), which],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(example)])},
    )
    assert done.returncode == 0, done.stderr
    parts = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    for listing, name in (
        ("methods", "char-bayes"),
        ("kinds", "grading"),
        ("metrics", "grade_error"),
        ("suites", "grades"),
    ):
        assert name in parts[listing]
        assert "from harness-example 0.1.0" in parts[listing]
    assert "char-bayes" in parts["run"]
    assert "grade_error" in parts["run"]
    bayes = next(line for line in parts["records"].splitlines() if line.startswith("char-bayes grade_error"))
    assert float(bayes.split()[2]) < 0.5
    for member in ("method", "kind of task", "metric"):
        assert f"'{member}': 'harness-example 0.1.0'" in bayes
    assert "char-bayes on a tiny encoder backbone: learns" in parts["checks"]
    report = tmp_path / "reports" / "grades"
    text = (report / "report.md").read_text()
    assert "char-bayes" in text
    assert "grade_error" in text
    assert "harness-example 0.1.0" in text


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for packages with entry points; what is found in it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget() -> None:
    plugins._entry_points.cache_clear()
    suites._known_files.cache_clear()


def install(folder: Path, package: str, entries: dict[str, dict[str, str]], **modules: str) -> None:
    """Write a package's metadata, as an installer does, and its modules."""
    info = folder / f"{package}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    lines = [
        line for group, named in entries.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in named.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


def test_what_cannot_be_loaded_is_named_and_breaks_nothing_else(packages: Path) -> None:
    (packages / "animals").mkdir()
    (packages / "animals" / "__init__.py").touch()
    (packages / "animals" / "cats.py").write_text("import zoo\nzoo.animals.add('cat', 'meow')\n")
    zoo = "from harness.support.registry import Registry\n" + (
        "animals = Registry('animal', 'animals', group='zoo', expected='a noise',\n"
        "    why_not=lambda noise: None if isinstance(noise, str) else f'{noise!r} is no noise')\n"
    )
    named = {
        "dog": "good_dog:NOISE",
        "cow": "missing_module",
        "cat": "good_dog:NOISE",
        "fox": "good_dog:NUMBER",
        "owl": "good_dog",
    }
    install(packages, "farm", {"zoo": named}, zoo=zoo, good_dog="NOISE = 'woof'\nNUMBER = 7\n")
    zoo_module = importlib.import_module("zoo")
    animals: Registry[str] = zoo_module.animals
    with pytest.warns(UserWarning, match="Package") as said:
        assert animals.names() == ["cat", "dog"]
    assert animals.get("cat") == "meow"
    assert animals.get("dog") == "woof"
    assert (animals.origin("cat"), animals.origin("dog")) == (None, "farm 1.5")
    warned = "\n".join(str(one.message) for one in said)
    assert warned.count("Package farm 1.5 offers") == 4
    assert "'cat' (zoo: good_dog:NOISE), which cannot be loaded: Two animals are called 'cat'; the" in warned
    assert "'fox' (zoo: good_dog:NUMBER), which cannot be loaded: 7 is no noise; expected a noise" in warned
    assert "it registers no animal called 'owl', the name of its entry point" in warned
    with pytest.raises(UsageError, match=r"The animal 'cow' is not available. Package farm 1.5 .*No module named"):
        animals.get("cow")
    with pytest.raises(UsageError, match=r"Unknown animal 'dogg'. Did you mean 'dog'"):
        animals.get("dogg")


_CLASS = """
from harness.methods import Method

class Plain(Method):
    'A method.'
    name, family, trains, source, role, serves = 'plain', 'f', 't', 's', 'baseline', frozenset()
    def fit(self, rows, bench): ...
    def restore(self, tensors, state, bench): ...

class NoRole(Method):
    name, family, trains, source = 'no-role', 'f', 't', 's'
    fit, restore = Plain.fit, Plain.restore

class Wizard(Plain):
    name, role = 'wizard', 'wizard'
"""


def test_classes_without_decorator_are_checked_and_keep_the_name_of_their_entry_point(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"other": "crew:Plain", "plain": "crew:Plain", "no-role": "crew:NoRole", "wizard": "crew:Wizard"}
    (packages / "empty").mkdir()
    (packages / "empty" / "__init__.py").touch()
    install(packages, "pack", {"empty": named}, crew=_CLASS)
    found: Registry[type[Method]] = Registry("method", "empty", expected="a method", why_not=methods._why_not)
    with pytest.warns(UserWarning, match="Package") as said:
        assert found.names() == ["plain"]
    assert found.origin("plain") == "pack 1.5"
    warned = "\n".join(str(one.message) for one in said)
    assert warned.count("Package pack 1.5 offers") == 3
    assert "'other' (empty: crew:Plain), which cannot be loaded: the method is called 'plain'" in warned
    assert "'NoRole' declares no role" in warned
    assert "declares the role 'wizard'. Set `role` to one of 'floor', 'baseline', 'frozen features', " in warned
    # A class that its module has registered, whichever entry point was loaded first.
    plain = found.get("plain")
    again: Registry[type[Method]] = Registry("method", "empty", expected="a method")
    monkeypatch.setattr(plugins.PlugIn, "load", lambda _: again.add("plain", plain) or plain)
    with pytest.warns(UserWarning, match="the method is called 'plain'") as said:
        assert again.names() == ["plain"]
    assert len(said) == 3


def test_suites_of_other_packages_are_found_and_do_not_replace_shipped_ones(packages: Path) -> None:
    (packages / "more_suites").mkdir()
    (packages / "more_suites" / "mine.yaml").write_text(
        "tasks: {rows: {data: {files: {train: rows.csv}}, label_names: [a, b], licence: mine}}"
    )
    (packages / "clash").mkdir()
    (packages / "clash" / "sentiment.yaml").write_text("tasks: {}")
    install(packages, "pack", {"harness.suites": {"mine": "more_suites", "theirs": "clash", "gone": "no_such_package"}})
    with pytest.warns(UserWarning, match="Package") as said:
        assert "mine" in suites.suite_names()
    warned = "\n".join(str(one.message) for one in said)
    assert "the harness has a suite called 'sentiment' already" in warned
    assert "No module named 'no_such_package'" in warned
    assert suites.load_suite("sentiment").task("sst2")
    assert suites.suite_origin("mine") == "pack 1.5"
    assert suites.suite_origin("sentiment") is None
    files = suites.load_suite("mine").task("rows").data.files
    assert files is not None
    assert files.train == str(packages / "more_suites" / "rows.csv")


def test_importing_the_harness_reads_no_entry_points() -> None:
    script = (
        "import importlib.metadata, json, sys; import harness, harness.cli.main; "
        "from harness.support import plugins; print(json.dumps(plugins._entry_points.cache_info().misses))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == 0
