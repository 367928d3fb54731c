"""The embedded task: which package of the Python standard library does this docstring come from?

Real human text that every machine with Python has, read with `ast` from the sources of the running interpreter. The
text varies with the Python version, so the fingerprint of its content is a part of every result.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.rows import digest, overlap_key
from harness.support import MissingResourceError

if TYPE_CHECKING:
    from datasets import Dataset

PACKAGES = (
    "asyncio",
    "collections",
    "email",
    "http",
    "importlib",
    "logging",
    "multiprocessing",
    "unittest",
    "urllib",
    "wsgiref",
    "xml",
    "xmlrpc",
)
"""The dozen packages with the most usable docstrings among those that Python 3.11 to 3.14 have on every platform.

Left out: `distutils` and `lib2to3` (gone in 3.12 and 3.13); `tkinter`, `turtledemo`, `idlelib`, `ensurepip` and
`venv` (split off by some systems); `zipfile` and `pathlib` (packages only since 3.12 and 3.13); `encodings`, whose
docstrings are for the most part one line that a program wrote per code page ("generated from ... with gencodec.py").
"""

MIN_CHARACTERS = 30
"""Shorter docstrings ("Return self.") say nothing about their package."""

MASK = "package"
"""What stands in place of a package's name; the same for all of them."""

_TEST_FRACTION = 0.25
_TESTS = frozenset({"test", "tests"})  # systems strip the library's own tests, so their docstrings would come and go

_NAMES = re.compile(
    # A name counts between dots, underscores and the ends of words, in either case: `xml.dom`, `http_client`,
    # `_asyncio`, `urllib2`; so do the ways in which prose writes it: `e-mail`, `unit tests`, `XML-RPC`, `emails`.
    r"(?<![A-Za-z0-9])"
    r"(?:asyncio|collections?|e-?mails?|https?(?:lib)?|importlib|logging|multi-?processing|unit[ -]?tests?"
    r"|urllib|wsgiref|xml[ -]?rpc(?:lib)?|xmls?)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_NAMES_IN_CLASS_NAMES = re.compile(r"XMLRPC|XML|HTTPS?")  # `SimpleXMLRPCServer`, `HTTPError`, `XMLReader`


def mask_names(text: str) -> str:
    """`text` with every name of one of the packages, in its obvious variants, replaced by `MASK`."""
    return _NAMES_IN_CLASS_NAMES.sub(MASK.capitalize(), _NAMES.sub(MASK, text))


def read_docstrings(library: Path | None = None) -> list[tuple[str, str]]:
    """All usable docstrings, as (masked text, package), sorted.

    Cleaned of indentation, at least `MIN_CHARACTERS` long, each text once. A text that occurs in two packages is
    dropped from both: there is no right answer to it.

    Args:
        library: folder of the standard library; None for the running interpreter's.

    Raises:
        MissingResourceError: a package's sources are not there.
    """
    library = Path(sysconfig.get_path("stdlib")) if library is None else library
    packages_of: dict[str, set[str]] = {}
    text_of: dict[str, str] = {}
    for package in PACKAGES:
        found = False
        for path in sorted((library / package).rglob("*.py")):
            if _TESTS.isdisjoint(path.relative_to(library).parts):
                found = True
                for raw in _docstrings_of(path):
                    text = mask_names(raw)
                    key = overlap_key(text)
                    packages_of.setdefault(key, set()).add(package)
                    text_of[key] = min(text, text_of.get(key, text))
        if not found:
            raise MissingResourceError(
                f"The embedded task 'docstrings' reads the sources of Python's standard library, and those of "
                f"'{package}' are not in {library}: this Python was installed without them (zipped or stripped). Use "
                "a Python with its full standard library (python.org, conda, uv, the system's python3 package), or "
                "other data: `--data FILE --text COLUMN --label COLUMN`, or another suite."
            )
    return sorted((text_of[key], min(owners)) for key, owners in packages_of.items() if len(owners) == 1)


def load_docstrings(library: Path | None = None) -> tuple[Dataset, Dataset]:
    """The task's training and test rows, with columns `text` and `label` (the package's name).

    A text's side follows from its own hash, so rows that another Python version adds or lacks move no other row.

    Args:
        library: folder of the standard library; None for the running interpreter's.
    """
    from datasets import Dataset, Features, Value

    features = Features({"text": Value("string"), "label": Value("string")})
    sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for text, package in read_docstrings(library):
        draw = int.from_bytes(digest(overlap_key(text), key="docstrings split")[:8], "little") / 2**64
        sides[draw < _TEST_FRACTION].append((text, package))
    train, test = (
        Dataset.from_dict({"text": [text for text, _ in side], "label": [label for _, label in side]}, features)
        for side in sides
    )
    return train, test


def _docstrings_of(path: Path) -> Iterator[str]:
    """The docstrings of a file's module, classes and functions, cleaned, in the order of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the library's own sources
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # not readable, or kept broken on purpose: no docstrings then
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=True)
            if text is not None and len(text.strip()) >= MIN_CHARACTERS:
                yield text.strip()
