"""Whatever stands in a suite's file or on the command line: a suite or a plan, or an error that is meant for the user.

Never another exception, never a wait, and nothing is trained.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import harness.schedule as schedule_room
from harness.backbones.locate import BackboneFiles
from harness.cli.main import app
from harness.data.spec import TaskSpec
from harness.methods import methods
from harness.planning.suites import Suite, load_suite
from harness.records.record import Budget
from harness.schedule.local import LocalWorkers
from harness.schedule.prepare import Prepared
from harness.support.errors import HarnessError
from tests.toys import write_toy_table

SECONDS = 3.0
"""What any of it may take on a busy machine; a document that is multiplied by aliases would take minutes, or the memory
of the host."""

FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=10 * SECONDS),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


# ---- suites


class Raw(str):
    """YAML as it stands; every other text is quoted."""

    __slots__ = ()


RAW = [
    Raw(text)
    for text in (
        *("~", ".nan", "-.inf", "1e999", "0b_", "0x_", "0o9", "1:60:60", "1_000", "yes", "<<", "=", "- 1", "?", ":"),
        *("2024-02-30", "2024-01-01", "2024-01-01T25:00:00Z", "9" * 400, "9" * 5000, "-" + "9" * 30, "0x" + "f" * 5000),
        *("&a [*a]", "&b {x: *b}", "*nobody", "{<<: [*c, *c]}", "&c {x: 1}", "!!bool maybe", "!!int ''", "!!float x"),
        *("!!timestamp x", "!!binary '%%'", "!!python/name:os.system", "!mine 3", "!!set {a, b}", "!!omap [a: 1]"),
        *('"\\ud800"', '"\\0"', "'unfinished", "{unfinished", "]", "\t", "\0", "\ufeff", "\x85", "\u2028", "#"),
        *("---", "...", "|", ">", "%YAML 1.2", "@", "`"),
    )
]

words = ["", "a/b", "../x", "~nobody/x.yaml", "x" * 300, "./mine.yaml", "8/class", "all", "epochs=3", "sst2"]
scalars = st.one_of(
    st.sampled_from(RAW),
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(words),
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)


def some_of(**good: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    return st.fixed_dictionaries({}, optional=good)


def few(values: Sequence[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique_by=str)


names = st.sampled_from(["mine", "other", "a.b-c_d", "1"])
budgets = st.one_of(
    st.dictionaries(st.sampled_from(["train_seconds", "epochs", "steps"]), st.integers(1, 90), min_size=1),
    st.sampled_from(["epochs=3", "train_seconds=60,peak_memory_bytes=8GB", "steps=4"]),
)
TASK_OF_KIND = {
    "classification": {"text": "body", "label": "queue"},
    "text-pair": {"first": "a", "second": "b"},
    "translation": {"source": "de", "target": "en"},
}
tasks = st.sampled_from(list(TASK_OF_KIND)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {"data": st.sampled_from([{"hub": "someone/mine"}, {"files": {"train": "a.csv", "test": "b.csv"}}])},
        optional={
            "kind": st.just(kind),
            "columns": st.just(TASK_OF_KIND[kind]),
            "max_length": st.integers(1, 512),
            "test_cap": st.integers(1, 5000) | st.none(),
            "description": st.text(max_size=8),
            "licence": st.just("CC0"),
            "seen_by": few(["someone/model", "other/model"]),
            "chosen_on": st.booleans(),
        },
    )
)
suites = st.builds(
    lambda tasks, more: {"tasks": tasks, **more},
    st.dictionaries(names, tasks, min_size=1, max_size=2),
    some_of(
        name=names,
        description=st.text(max_size=20),
        include=few(["questions", "sentiment"]),
        backbone=st.just("someone/model"),
        methods=few(["lora", "lora[rank=4]", "full"], least=1),
        sizes=few(["32", "8/class", "all", 64], least=1),
        seeds=few([0, 1, 2**32 - 1], least=1),
        budget=budgets,
        budgets=st.dictionaries(st.sampled_from(["small", "two"]), budgets | st.lists(budgets, max_size=2), max_size=2),
    ),
)
OTHER_KEYS = ["hub", "config", "revision", "files", "embedded", "train", "test", "text", "sise"]
keys = st.sampled_from([*Suite.model_fields, *TaskSpec.model_fields, *Budget.__dataclass_fields__, *OTHER_KEYS])


@st.composite
def spoilt(draw: st.DrawFn, good: st.SearchStrategy[Any]) -> Any:
    """A value in which up to three places hold something else, or have a key that belongs elsewhere or is another."""
    value = draw(good)
    for _ in range(draw(st.integers(0, 3))):
        value = _spoil(draw, value)
    return value


def _spoil(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 4)) == 0:
        return draw(junk)
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _spoil(draw, value[at]), *value[at + 1 :]]
    at = draw(st.sampled_from(list(value)))
    match draw(st.sampled_from(["inside", "inside", "inside", "name", "more", "less"])):
        case "name":
            return {(draw(keys | scalars) if name == at else name): item for name, item in value.items()}
        case "more":
            return {**value, draw(keys | scalars): draw(junk)}
        case "less":
            return {name: item for name, item in value.items() if name != at}
    return {**value, at: _spoil(draw, value[at])}


def as_yaml(value: Any) -> str:
    """A value in the flow style, `Raw` texts as they stand."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(name)}: {as_yaml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), str(value))
    return json.dumps(value, ensure_ascii=False)


def as_document(suite: Any) -> str:
    """One line a key."""
    if not isinstance(suite, dict):
        return as_yaml(suite)
    keys = {name: name if isinstance(name, str) else as_yaml(name) for name in suite}
    return "".join(f"{keys[name]}: {as_yaml(item)}\n" for name, item in suite.items())


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A suite as a file, here and there spoilt as text too: something put in, left out or repeated."""
    text = as_document(draw(spoilt(suites)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 5)))
        text = text[:at] + draw(st.sampled_from(["", text[at:until] * 2, *RAW])) + text[until:]
    return text


def read(text: str, folder: Path) -> Suite | str:
    """The suite of a file, or what is said against it, which has to name the file; in a moment."""
    path = folder / "mine.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    began = time.process_time()
    found: Suite | str
    try:
        found = load_suite(path)
    except HarnessError as error:
        found = str(error)
        assert "mine.yaml" in found
    assert time.process_time() - began < SECONDS
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_toy_table(folder / "tickets.csv", n_rows=60)
    return folder


@settings(FUZZ, max_examples=300)
@given(text=documents())
def test_a_suite_or_an_error_that_names_the_file(text: str, folder: Path) -> None:
    read(text, folder)


@settings(FUZZ, max_examples=100)
@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_at_all(raw: bytes, folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(raw)
    with pytest.raises(HarnessError, match=r"mine\.yaml"):
        load_suite(folder / "mine.yaml")


TASK = "tasks:\n  mine:\n    data: {hub: someone/mine}\n"
DOUBLING = "a0: &a0 [1, 2]\n" + "".join(f"a{at + 1}: &a{at + 1} [*a{at}, *a{at}]\n" for at in range(30))
MERGING = "a0: &a0 {k: v}\n" + "".join(f"a{at + 1}: &a{at + 1}\n  <<: [*a{at}, *a{at}]\n" for at in range(30))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(DOUBLING + "tasks: *a30\n", "more than 100,000 values", id="a thousand million laughs"),
        pytest.param(MERGING + TASK, "more than 100,000 values", id="a thousand million merges"),
        pytest.param(TASK + "description: &a [*a]\n", "line 4: a value that holds itself", id="a list in itself"),
        pytest.param("tasks: &a\n  x: *a\n", "a value that holds itself", id="a mapping in itself"),
        pytest.param("sizes: " + "[" * 5000 + "]" * 5000, "nested more than 50 deep", id="deep lists"),
        pytest.param("sizes: " + "{a: " * 5000, "nested more than 50 deep", id="deep mappings"),
        pytest.param("- " * 5000, "nested more than 50 deep", id="deep blocks"),
        pytest.param(TASK + "description: 2024-02-30\n", "line 4: '2024-02-30' cannot be read as", id="no such day"),
        pytest.param(TASK + f"seeds: [{'9' * 5000}]\n", "line 4: '999", id="a number of 5000 digits"),
        pytest.param(TASK + f"seeds: [0x{'f' * 5000}]\n", "is too large a number", id="a number that is not printed"),
        pytest.param(TASK + f"budget: {{steps: 1{'0' * 400}}}\n", "too large a number", id="more steps than a float"),
        pytest.param(TASK + "seeds: [0b_]\n", "line 4: '0b_' cannot be read as 'int'", id="digits without digits"),
        pytest.param(TASK + "seeds: [!!bool maybe]\n", "'maybe' cannot be read as 'bool'", id="neither yes nor no"),
        pytest.param(TASK + "seeds: [!!timestamp x]\n", "'x' cannot be read as 'timestamp'", id="no time"),
        pytest.param(TASK + 'description: "\\ud800"\n', "line 4: half a character", id="half a character"),
        pytest.param(TASK + "description: a\0\n", "not YAML", id="a NUL"),
        pytest.param(TASK + "\tseeds: [3]", "line 4", id="a tab"),
        pytest.param(TASK + "include: ['~nobody-of-this-name/x.yaml']\n", "include.0: ", id="nobody's folder"),
        pytest.param(TASK + f"include: [{'x' * 5000}.yaml]\n", "include.0: ", id="a path that is too long"),
        pytest.param(
            "tasks: {a: {data: {files: {train: ~nobody-of-this-name/x}}}}\n", "tasks.a.data.files", id="files"
        ),
        pytest.param(
            "tasks: {1: {data: {hub: a}}, '1': {data: {hub: b}}}\n", "tasks.1: two tasks", id="one name twice"
        ),
        pytest.param(TASK + f"seeds: [{', '.join(['x'] * 5000)}]\n", "more problems of this", id="too many problems"),
        pytest.param(TASK + f"name: {'x' * 300}\n", "name: 'xxx", id="a name no folder can bear"),
    ],
)
def test_what_no_parser_likes_is_named_by_line_or_key(text: str, says: str, tmp_path: Path) -> None:
    message = read(text, tmp_path)
    assert isinstance(message, str)
    assert says in message
    assert len(message) < 10_000


def test_long_lists_are_read_in_a_moment(tmp_path: Path) -> None:
    suite = read(TASK + f"    label_names: {list(range(5000))}\nseeds: {list(range(5000))}\n", tmp_path)
    assert isinstance(suite, Suite)
    assert len(suite.seeds) == len(suite.task("mine").label_names) == 5000


# ---- command lines


class Planned(Exception):  # noqa: N818 - no error: where the test stops
    """What would be run."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self.prepared = prepared


@pytest.fixture(scope="module")
def ask(folder: Path, tiny: BackboneFiles) -> Iterator[Callable[..., Prepared | str]]:
    """Runs `harness run` on the toy table up to where cells would run; no worker is started."""
    planned = schedule_room.prepare_plan

    def plan_only(request: Any, *_: object, **__: object) -> Prepared:
        raise Planned(planned(request))

    def ask(*options: str) -> Prepared | str:
        table = ["run", "--data", "tickets.csv", "--store", str(folder / "never.sqlite")]
        result = CliRunner().invoke(app, [*table, "--backbone", str(tiny.folder), *options], prog_name="harness")
        assert not (folder / "never.sqlite").exists()
        if isinstance(result.exception, Planned):
            return result.exception.prepared
        if isinstance(result.exception, SystemExit):
            assert result.exit_code == 2, result.output
            return str(result.output)
        if isinstance(result.exception, HarnessError):  # `main` prints it and exits with 2
            return str(result.exception)
        raise AssertionError(options) from result.exception

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(schedule_room, "prepare_plan", plan_only)
        patch.setattr(LocalWorkers, "warm_up", lambda _: None)
        yield ask


texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=6)
numbers = st.one_of(
    st.integers(-2, 100).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1e400", "-1e400", "9" * 400, "1_0", "0x10", "1:30", "³", "٣", ".", "1e", "NaN", "+1", "", " 1 "]),
)
values = st.one_of(
    numbers,
    texts,
    st.sampled_from(
        ["none", "None", "true", "[]", "[1, 2]", "[[1]]", "{a: 1}", "fp32", "bf16", "&a [*a]", "'", "- x", "*x"]
    ),
)


def joined(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(part, max_size=3).map(",".join)


SETTINGS = ["tune=3", "precision=fp32", "batch_size=8", "learning_rate=1e-3", "epochs=2", "min_steps=none"]


@st.composite
def good_methods(draw: st.DrawFn) -> str:
    """A method, with settings that many of them have."""
    cls = draw(st.sampled_from(list(methods)))
    known = [text for text in SETTINGS if text.partition("=")[0] in cls.model_fields]
    chosen = draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
    return cls.name + (f"[{','.join(chosen)}]" if chosen else "")


@st.composite
def method_texts(draw: st.DrawFn) -> str:
    cls = draw(st.sampled_from(list(methods)))
    name = draw(st.sampled_from([cls.name] * 6 + [cls.name.upper(), cls.name[1:], ""]))
    known = st.sampled_from([*cls.model_fields, "tune", "name", "rank", "learning_rat"])
    pairs = draw(st.lists(st.tuples(known | texts, values), max_size=2))
    inside = ",".join(f"{setting}={value}" for setting, value in pairs)
    return name + draw(st.sampled_from([f"[{inside}]"] * 6 + ["", f"[{inside}", f"{inside}]", f"[[{inside}]]"]))


cap_texts = st.builds(
    lambda name, equals, number, unit: f"{name}{equals}{number}{unit}",
    st.sampled_from([*Budget.__dataclass_fields__, "epoch", ""]),
    st.sampled_from(["=", "=", "=", " = ", "", "=="]),
    numbers,
    st.sampled_from(["", "", "", "GB", "MiB", "kb", "s", "µ"]),
)
durations = st.builds(lambda number, unit: number + unit, numbers, st.sampled_from(["", "s", "m", "h", "d", "1h", "x"]))
good_options = some_of(
    **{
        "--methods": joined(good_methods()),
        "--sizes": few(["12", "8/class", "all", " 20 "], least=1).map(",".join),
        "--seeds": few(["0", "1", "7", str(2**32 - 1)], least=1).map(",".join),
        "--budget": st.sampled_from(["small", "steps=3", "epochs=0.5,train_seconds=1e3", "peak_memory_bytes=2.5 GiB"]),
        "--tune": st.sampled_from(["2", "8"]),
        "--cell-limit": st.sampled_from(["90", "1h30m", "0.5 s"]),
        "--device": st.sampled_from(["auto", "cpu"]),
        "--tasks": st.just("tickets"),
    }
)
odd_options = {
    "--methods": joined(method_texts()),
    "--sizes": joined(numbers | texts | st.sampled_from(["0", "8 / CLASS", "99999/class", "1e3"])),
    "--seeds": joined(numbers | texts),
    "--budget": joined(cap_texts) | st.sampled_from(["smal", "medium,large"]),
    "--tune": numbers,
    "--cell-limit": durations | texts,
    "--device": st.sampled_from(["cuda:0", "gpu", "CPU", ""]) | texts,
    "--tasks": st.sampled_from(["tickets,tickets", "ticket", ","]) | texts,
    "--text": st.sampled_from(["label", "txt", ""]) | texts,
}
odd_option = st.sampled_from(list(odd_options)).flatmap(lambda name: st.tuples(st.just(name), odd_options[name]))
options = st.builds(lambda good, odd: {**good, **dict(odd)}, good_options, st.lists(odd_option, max_size=2))
backbones = st.one_of(
    texts,
    st.builds(lambda *parts: "".join(parts), texts, st.sampled_from(["/", "@", "/../", "~"]), texts),
    st.sampled_from(
        ["", ".", "/", "..", "~", "./tickets.csv", "tickets.csv", "a@b@c", "a/b/c", "a" * 90 + "/x", "a\n"]
    ),
)


@settings(FUZZ, max_examples=120)
@given(given_options=options)
def test_a_plan_or_an_error(given_options: dict[str, str], ask: Callable[..., Prepared | str]) -> None:
    answer = ask(*(part for option in given_options.items() for part in option))
    assert answer
    if isinstance(answer, Prepared):
        assert len({planned.cell.id for planned in answer.cells}) == len(answer.cells) > 0


@settings(FUZZ, max_examples=40)
@given(name=backbones)
def test_backbones_of_any_name(name: str, ask: Callable[..., Prepared | str]) -> None:
    answer = ask("--methods", "head", "--sizes", "12", "--backbone", name)
    assert isinstance(answer, str) or name == ""  # which is as if it were left out


NASTY: dict[str, list[str]] = {
    "a budget of infinitely many bytes": ["--budget", "peak_memory_bytes=1e999GB"],
    "no such day": ["--methods", "lora[rank=2024-02-30]"],
    "digits without digits": ["--methods", "lora[rank=0x_]"],
    "neither yes nor no": ["--methods", "lora[rank=!!bool maybe]"],
    "deep lists": ["--methods", f"lora[rank={'[' * 2000}{']' * 2000}]"],
    "a number of 5000 digits": ["--methods", f"lora[rank={'9' * 5000}]"],
    "a number that is not printed": ["--methods", f"lora[rank=0x{'f' * 5000}]"],
    "a backbone's name that is too long": ["--methods", "head", "--backbone", "a" * 300],
    "a backbone's folder that is too long": ["--methods", "head", "--backbone", "./" + "a" * 300],
    "a size of 5000 digits": ["--sizes", "9" * 5000],
    "a seed of 5000 digits": ["--seeds", "9" * 5000],
    "a file's name that is too long": ["--data", "x" * 300 + ".csv"],
    "a folder of nobody": ["--data", "~nobody-of-this-name/x.csv"],
    "test rows of nobody": ["--test", "~nobody-of-this-name/x.csv"],
}


@pytest.mark.parametrize("arguments", [pytest.param(arguments, id=name) for name, arguments in NASTY.items()])
def test_what_no_parser_likes_is_refused(arguments: list[str], ask: Callable[..., Prepared | str]) -> None:
    assert isinstance(ask(*arguments), str)
