"""Code blocks of the documentation, and the commands in them.

A block with a title is a file (```python title="queries.py"). A comment before a block marks it: `<!-- slow -->`, or
`<!-- not run: REASON -->`. `<!-- starts from: PAGE.md -->` at the top of a page names the page whose first steps (its
files, and the first block of commands) the reader has taken already.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(
    r"^(?: *<!-- (?P<mark>slow|not run: .+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)\n(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_STARTS_FROM = re.compile(r"^<!-- starts from: (\S+) -->$", re.MULTILINE)
_ENDS_A_COMMAND = {"&&", "||", ";", "|", "&"}


@dataclass(frozen=True)
class Block:
    """A block of code: its language, text, line in the page, title (the file it is) and mark (None for none)."""

    language: str
    text: str
    line: int
    title: str | None
    mark: str | None


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in their order."""
    text = page.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(match["language"], body, line, match["title"], match["mark"]))
    n_fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    assert n_fences == 2 * len(found), (
        f"{page}: {n_fences} fences, {len(found)} blocks: a fence or a title is malformed"
    )
    return found


def page_before(page: Path) -> Path | None:
    """Return the page whose first steps this page starts from."""
    named = _STARTS_FROM.search(page.read_text("utf-8"))
    return (page.parent / named[1]).resolve() if named else None


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a block of shell, without comments; `a && b` and `a; b` are two."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _ENDS_A_COMMAND:
                words.append(word)
            elif words:
                yield words
                words = []
