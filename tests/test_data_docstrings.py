"""The embedded task: real docstrings, masked, split by their own hash."""

from __future__ import annotations

import asyncio
import email.message
import inspect
import logging
import re
import time
import urllib.parse
import xml.dom.minidom
from collections import Counter
from pathlib import Path

import pytest

from harness.data.docstrings import (
    MIN_CHARACTERS,
    PACKAGES,
    load_docstrings,
    mask_names,
    read_docstrings,
    read_documented,
)
from harness.support.errors import MissingResourceError


@pytest.fixture(scope="module")
def rows():
    return read_docstrings()


def test_live_objects_of_the_library_have_their_docstrings_among_the_rows(rows):
    # Independent of the parsing: what the running interpreter itself says about its objects.
    label_of = dict(rows)
    for found, package in (
        (asyncio.wait_for, "asyncio"),
        (email.message.Message.get_payload, "email"),
        (logging.Logger.addHandler, "logging"),
        (urllib.parse.urljoin, "urllib"),
        (xml.dom.minidom.parse, "xml"),
    ):
        assert label_of[mask_names(inspect.getdoc(found).strip())] == package


def test_lines_of_code_are_those_of_the_source_below_the_docstring():
    lines_of = {text: n_lines for text, _, n_lines in read_documented()}
    for found in (asyncio.wait_for, email.message.Message.get_payload, urllib.parse.urljoin, logging.Logger):
        raw = inspect.getdoc(found).strip()
        source = inspect.getsource(found)
        below = source.split(raw.splitlines()[-1].strip(), 1)[1].split('"""', 1)[-1]
        assert lines_of[mask_names(raw)] == below.rstrip("\n").count("\n")


def test_there_are_enough_of_every_package_and_each_text_once(rows):
    counts = Counter(package for _, package in rows)
    assert sorted(counts) == sorted(PACKAGES)
    assert len(PACKAGES) == 12
    assert min(counts.values()) >= 40
    assert len(rows) >= 1900
    assert len({" ".join(text.split()) for text, _ in rows}) == len(rows)
    assert min(len(text) for text, _ in rows) >= MIN_CHARACTERS - 12  # masking may shorten a text
    assert rows == sorted(rows)


def test_no_text_names_a_package(rows):
    for text, _ in rows:
        words = {word.lower() for word in re.findall(r"[A-Za-z]+", text)}
        assert words.isdisjoint(PACKAGES), text
        assert not re.search("XML|HTTP", text), text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("See xml.dom and _xml.", "See package.dom and _package."),
        ("HTTP/1.1 over http_client", "package/1.1 over package_client"),
        ("an E-mail, emails, email6", "an package, package, package6"),
        ("Unit tests (unittest)", "package (package)"),
        ("SimpleXMLRPCServer raises HTTPError", "SimplePackageServer raises PackageError"),
        ("XML-RPC with xmlrpc.client", "package with package.client"),
        ("a collection of loggings", "a package of loggings"),
        ("urllib2, urllib.parse, asyncio", "package2, package.parse, package"),
    ],
)
def test_names_and_their_variants_are_masked(text, masked):
    assert mask_names(text) == masked


def test_the_split_is_by_each_texts_own_hash(tmp_path):
    started = time.process_time()
    train, test = load_docstrings()
    assert time.process_time() - started < 10  # 1 s on a usual processor
    assert train.column_names == ["text", "label", "log2_lines"]
    share = len(test) / (len(train) + len(test))
    assert 0.21 < share < 0.29
    assert set(test["label"]) == set(train["label"]) == set(PACKAGES)
    assert not set(train["text"]) & set(test["text"])
    again = load_docstrings()
    assert again[0]._fingerprint == train._fingerprint
    # A library with fewer rows, in another order: what is left stays on its side.
    full = small_library(tmp_path / "a", list(range(30)))
    fewer = small_library(tmp_path / "b", list(range(28, 0, -2)))
    for side, rest in zip(load_docstrings(full), load_docstrings(fewer), strict=True):
        assert len(rest) > 20
        assert set(rest["text"]) < set(side["text"])


def small_library(folder: Path, numbers: list[int]) -> Path:
    for package in PACKAGES:
        (folder / package / "test").mkdir(parents=True)
        lines = [f'def f{at}():\n    """Do thing {at} as no other does, {package[::-1]}."""' for at in numbers]
        (folder / package / "__init__.py").write_text("\n".join(lines))
        (folder / package / "test" / "test_it.py").write_text('"""A docstring of the tests, which is left out."""')
    return folder


def test_texts_of_two_packages_and_short_ones_are_dropped(tmp_path):
    library = small_library(tmp_path, list(range(10)))
    (library / "email" / "more.py").write_text(
        '"""This module is about  messages\n    in general."""\ndef f():\n    """Short."""\n'
        'class C:\n    """Only the email package says this sentence."""\n'
        'class D:\n    """Only the email package says this sentence."""\n'
    )
    (library / "xml" / "more.py").write_text('"""This module is about messages in general."""\n')
    (library / "xml" / "broken.py").write_text("def f(:\n")
    rows = read_docstrings(library)
    texts = [text for text, _ in rows]
    assert not [text for text in texts if "messages" in text or "left out" in text or text == "Short."]
    assert texts.count("Only the package package says this sentence.") == 1
    assert dict(rows)["Only the package package says this sentence."] == "email"


def test_a_library_without_sources_says_what_to_do(tmp_path):
    with pytest.raises(MissingResourceError, match=r"those of 'asyncio' are not in .*--data FILE"):
        read_docstrings(tmp_path)
