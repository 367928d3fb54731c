"""Pieces of Markdown: tables, sections of docstrings, and templates with places to fill."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PARTS = Path(__file__).parent / "parts"

_SECTIONS = ("Args", "Attributes", "Class attributes", "Returns", "Raises", "Warns", "Yields", "Example")
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


@dataclass
class Docstring:
    """A docstring in Google's style, in parts.

    Attributes:
        prose: paragraphs and indented blocks before the first section, as Markdown.
        sections: text of each section by its heading, without indentation.
    """

    prose: str
    sections: dict[str, str] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, str]:
        """Return the entries `name: meaning` of a section; `a, b: meaning` counts for both names."""
        meanings: dict[str, str] = {}
        names: list[str] = []
        for line in self.sections.get(section, "").splitlines():
            found = re.match(r"(\*{0,2}[\w.]+(?:, [\w.]+)*):\s*(.*)", line)
            if found:
                names = found.group(1).split(", ")
                meanings.update(dict.fromkeys(names, found.group(2)))
            elif line.strip():
                meanings.update({name: f"{meanings[name]} {line.strip()}".strip() for name in names})
        return meanings


def read_docstring(text: str | None) -> Docstring:
    """Return the parts of a docstring."""
    lines = inspect.cleandoc(text or "").splitlines()
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    into = prose
    for line in lines:
        if line.endswith(":") and line[:-1] in _SECTIONS:
            into = sections[line[:-1]] = []
        else:
            into.append(line)
    return Docstring(
        unwrapped("\n".join(prose)), {name: inspect.cleandoc("\n".join(ls)) for name, ls in sections.items()}
    )


def unwrapped(text: str) -> str:
    """Return Markdown with each paragraph on one line; lists and indented blocks keep their lines."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("    "):
            paragraphs.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        else:
            paragraphs.append(re.sub(r"\n(?!\s*[-*] |\s*\d+\. )\s*", " ", paragraph))
    return "\n\n".join(paragraphs)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> str:
    """Return a table; cells are Markdown, and the columns at the positions `right` are aligned right."""
    align = ["--:" if at in set(right) else ":--" for at in range(len(headings))]
    lines = [headings, align, *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def cell(value: object) -> str:
    """Return Markdown that is safe inside a cell of a table: one line, without bars."""
    text = " ".join(str(value).split())
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def code(value: object) -> str:
    """Return a value as code, or nothing for an empty one."""
    text = str(value)
    return f"`{text}`" if text else ""


def linked(source: str) -> str:
    """Return a source whose arXiv numbers and DOIs are links."""
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"doi:([^\s;]+\w\)?)(?=[;\s]|$)", r"[doi:\1](<https://doi.org/\1>)", source)


def fill(template: str, places: Mapping[str, str]) -> str:
    """Return a hand-written part with each place `{{name}}` replaced by generated Markdown.

    Raises:
        KeyError: the part names a place that is not given; a given name without a place raises ValueError.
    """
    text = (PARTS / template).read_text("utf-8")
    unused = set(places) - set(_PLACE.findall(text))
    if unused:
        raise ValueError(f"{template} has no place for {', '.join(sorted(unused))}")
    return _PLACE.sub(lambda found: places[found.group(1)], text)
