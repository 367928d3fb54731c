"""Build the embedded tasks: the package that a docstring of the standard library comes from, the length of its code.

Docstrings are real human text on every machine with Python, read with `ast` from the sources of the running
interpreter. They vary with the Python version, so a fingerprint of the content is part of every result.
"""

from __future__ import annotations

import ast
import math
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
"""The twelve packages with the most usable docstrings among those in Python 3.11 to 3.14 on every platform.

Left out: `distutils` and `lib2to3` (removed in 3.12 and 3.13); `tkinter`, `turtledemo`, `idlelib`, `ensurepip` and
`venv` (packaged separately by some systems); `zipfile` and `pathlib` (packages only since 3.12 and 3.13); `encodings`,
whose docstrings are mostly one generated line per code page ("generated from ... with gencodec.py").
"""

MIN_CHARACTERS = 30
"""Minimum length of a docstring; shorter ones ("Return self.") say nothing about their package."""

_PLACEHOLDER = "package"
"""Word that replaces the name of any package."""

_TEST_FRACTION = 0.25
_TESTS = frozenset({"test", "tests"})  # some systems strip the library's own tests

_NAMES = re.compile(
    # A name matches between dots, underscores and word boundaries, in either case: `xml.dom`, `http_client`,
    # `_asyncio`, `urllib2`. Spellings in prose match too: `e-mail`, `unit tests`, `XML-RPC`, `emails`.
    r"(?<![A-Za-z0-9])"
    r"(?:asyncio|collections?|e-?mails?|https?(?:lib)?|importlib|logging|multi-?processing|unit[ -]?tests?"
    r"|urllib|wsgiref|xml[ -]?rpc(?:lib)?|xmls?)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_NAMES_IN_CLASS_NAMES = re.compile(r"XMLRPC|XML|HTTPS?")  # `SimpleXMLRPCServer`, `HTTPError`, `XMLReader`


def mask_names(text: str) -> str:
    """Return `text` with every package name, in its obvious variants, replaced by the word "package"."""
    return _NAMES_IN_CLASS_NAMES.sub(_PLACEHOLDER.capitalize(), _NAMES.sub(_PLACEHOLDER, text))


def read_docstrings(library: Path | None = None) -> list[tuple[str, str]]:
    """Return all usable docstrings as (masked text, package), sorted (see `read_documented`)."""
    return [(text, package) for text, package, _ in read_documented(library)]


def read_documented(library: Path | None = None) -> list[tuple[str, str, int]]:
    """Return all usable docstrings as (masked text, package, lines of the documented code), sorted.

    Lines are those below the docstring, to the end of its module, class or function: at least 1, and the most of those
    that share the text.

    Texts are cleaned of indentation, at least `MIN_CHARACTERS` long, and distinct. A text that occurs in two packages
    is dropped from both, since it has no right answer.

    Args:
        library: folder of the standard library; None for the running interpreter's.

    Raises:
        MissingResourceError: a package's sources are missing.
    """
    library = Path(sysconfig.get_path("stdlib")) if library is None else library
    packages_of: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for package in PACKAGES:
        found = False
        for path in sorted((library / package).rglob("*.py")):
            if _TESTS.isdisjoint(path.relative_to(library).parts):
                found = True
                for raw, n_lines in _docstrings_of(path):
                    text = mask_names(raw)
                    key = overlap_key(text)
                    packages_of.setdefault(key, set()).add(package)
                    texts[key] = min(text, texts.get(key, text))
                    lines[key] = max(n_lines, lines.get(key, 1))
        if not found:
            raise MissingResourceError(
                f"The embedded task 'docstrings' reads the sources of Python's standard library, and those of "
                f"'{package}' are not in {library}: this Python was installed without them (zipped or stripped). Use "
                "a Python with its full standard library (python.org, conda, uv, the system's python3 package), or "
                "other data: `--data FILE --text COLUMN --label COLUMN`, or another suite."
            )
    return sorted((texts[key], min(owners), lines[key]) for key, owners in packages_of.items() if len(owners) == 1)


def load_docstrings(library: Path | None = None) -> tuple[Dataset, Dataset]:
    """Return the training and test rows: `text`, `label` (the package's name), `log2_lines` (length of the code).

    A text's own hash decides its side, so rows that another Python version adds or lacks move no other row.

    Args:
        library: folder of the standard library; None for the running interpreter's.
    """
    from datasets import Dataset, Features, Value

    features = Features({"text": Value("string"), "label": Value("string"), "log2_lines": Value("float64")})
    sides: tuple[list[tuple[str, str, float]], list[tuple[str, str, float]]] = ([], [])
    for text, package, n_lines in read_documented(library):
        draw = int.from_bytes(digest(overlap_key(text), key="docstrings split")[:8], "little") / 2**64
        sides[draw < _TEST_FRACTION].append((text, package, math.log2(n_lines)))
    train, test = (
        Dataset.from_dict({name: [row[i] for row in side] for i, name in enumerate(features)}, features)
        for side in sides
    )
    return train, test


def _docstrings_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the cleaned docstrings of a file's module, classes and functions, each with the lines of code below it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the library's own sources
        try:
            content = path.read_bytes()
            tree = ast.parse(content)
        except (OSError, SyntaxError, ValueError):  # unreadable, or broken on purpose
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=True)
            if text is not None and len(text.strip()) >= MIN_CHARACTERS:
                last = getattr(node, "end_lineno", None) or len(content.splitlines())
                yield text.strip(), max(1, last - (node.body[0].end_lineno or last))
