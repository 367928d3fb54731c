"""The password in a store's URL: no command, file, record or exception shows it."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.advice import advise
from harness.cli.main import app
from harness.cli.streams import print_masked_traceback
from harness.store.database import parse_url
from harness.store.reading import read_source
from harness.store.store import Store
from harness.support.errors import HarnessError
from harness.support.text import mask_store, mask_text
from tests.commands import everything_said
from tests.record_factory import make_record
from tests.toys import write_toy_table

SECRET = "S3CRET"
URLS = [
    f"postgresql://user:{SECRET}@localhost:1/db",
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://user@127.0.0.1:1/db?password={SECRET}",
    f"postgresql+psycopg://user@127.0.0.1:1/db?sslpassword={SECRET}&connect_timeout=1",
    f"postgresql+psycopg://user:{SECRET}%40x%2F@127.0.0.1:1/db",
    f"postgresql://user:{SECRET}@x@localhost:1/db",  # not escaped
    f"postgresql://user:{SECRET}/y@localhost:1/db",
    f"postgresql:/user:{SECRET}@localhost:1/db",  # one slash: a path
    f"postgresql://user:{SECRET}@localhost:port/db",
    f"nodb://user:{SECRET}@localhost/db",
    f"host=localhost user=me password={SECRET}",
]


def commands() -> dict[str, typer.models.CommandInfo]:
    """All commands by name, so that a new one is tested as soon as it exists."""
    found = {}
    for info in app.registered_commands:
        assert info.callback is not None
        found[info.name or info.callback.__name__.rstrip("_").replace("_", "-")] = info
    return found


def arguments_of(name: str, url: str, folder: Path) -> list[str]:
    """The shortest arguments that have a command open a store, or that hand it the URL where it takes any text."""
    table = str(folder / "toy.csv")
    wanted = {
        "run": ["--data", table, "--methods", "majority", "--sizes", "12", "--seeds", "0"],
        "plan": ["--data", table, "--methods", "majority", "--sizes", "12", "--seeds", "0", "--no-probe"],
        "export": [str(folder / "out.csv")],
        "import": [str(folder / "records.jsonl")],
        "forget": ["--task", "docstrings", "--yes"],
        "report": ["--out", str(folder / "report")],
        "compare": [url, url, "--out", str(folder / "compared.csv")],
        "replay": ["--records", url],
        "advise": ["--n-train", "64"],
        "choose": ["--data", table, "--within", "1m", "--save", str(folder / "model")],
        "predict": ["--model", url, "--data", url, "--out", str(folder / "p.csv")],
        "methods": [url],
        "suites": [url],
        "probe": ["--backbone", url],
    }.get(name, [])
    takes_store = any(param.name == "store" for param in typer.main.get_command(app).commands[name].params)
    return [name, *wanted, *(["--store", url] if takes_store else [])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("secrets")
    write_toy_table(found / "toy.csv", n_rows=90)
    from harness.records.jsonl import write_jsonl

    write_jsonl([make_record()], found / "records.jsonl")
    return found


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: the store cannot be opened, so none is needed."""
    from harness.measure.device import find_device
    from harness.schedule.local import LocalWorkers

    monkeypatch.setattr(LocalWorkers, "warm_up", lambda _: None)
    monkeypatch.setattr(LocalWorkers, "device", property(lambda _: find_device("cpu")))


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("name", sorted(commands()))
def test_no_command_shows_the_password(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    slow = name in ("run", "plan", "choose", "doctor", "probe", "advise", "validate-advice")
    for url in URLS[:3:2] if slow else (URLS[0], URLS[2], URLS[5], URLS[7], URLS[10]):
        result = CliRunner().invoke(app, arguments_of(name, url, folder))
        assert SECRET not in everything_said(result, folder), url
        if not slow:
            result = CliRunner().invoke(app, [name, "--help"], env={"HARNESS_STORE": url})
            assert SECRET not in everything_said(result, folder), url


def test_errors_of_usage_and_tracebacks_of_bugs_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["status", "a", URLS[0]])
    assert result.exit_code == 2
    assert "unexpected extra argument" in result.output
    assert SECRET not in result.output
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    try:
        raise RuntimeError(f"a bug with {URLS[0]}")
    except RuntimeError as error:
        print_masked_traceback(type(error), error, error.__traceback__)
    assert "RuntimeError: a bug with postgresql://user:***@localhost" in err.getvalue()
    assert SECRET not in err.getvalue()


@pytest.mark.parametrize("url", URLS)
def test_no_exception_of_the_library_holds_the_password(url: str) -> None:
    for attempt in (
        lambda: Store.open(url, create=False),
        lambda: Store.open(url, read_only=True),
        lambda: parse_url(url) and Store.open(url, create=False),
        lambda: read_source(url),
        lambda: advise(url, n_train=64) if "://" in url else Store.open(url),
    ):
        with pytest.raises(HarnessError) as caught:
            attempt()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@w/x:y@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a b@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=pw&sslmode=require", "postgresql://me@host/db?password=***&sslmode=require"),
        ("postgresql://me@host/db?PassWord=pw", "postgresql://me@host/db?PassWord=***"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("results/harness.sqlite", "results/harness.sqlite"),
        ("/home/me@work/a:b.sqlite", "/home/me@work/a:b.sqlite"),
        ("sqlite:///C:/a.sqlite", "sqlite:///C:/a.sqlite"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, shown: str) -> None:
    assert mask_store(text) == shown
    if " " not in text:
        assert mask_text(f"The store {text} is there.") == f"The store {shown} is there."


def test_texts_without_passwords_stay_as_they_are() -> None:
    for text in ("took 1:20, see https://example.org:8080/a", "n_tokens=5 per text", "a@b.c", "lora[rank=4]"):
        assert mask_text(text) == text
    assert mask_text("it said hunter2 twice: hunter2", ("hunter2",)) == "it said *** twice: ***"
