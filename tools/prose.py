"""`python -m tools.prose [FILE...]`: count words and measure the sentences of Markdown files.

Without files, it prints the figures of README.md, CONTRIBUTING.md, CHANGELOG.md and all pages in docs/.
"""

from __future__ import annotations

import argparse
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

README_WORDS = 700
"""Maximum number of words in README.md."""

MEDIAN_WORDS = 20
"""Maximum of the median number of words of a page's sentences."""

_ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "etc.", "vs.", "cf.", "approx.", "fig.", "eq.", "no.", "resp.")
_DOT = "\0"
"""Stands for a full stop that ends no sentence."""

_ENDS = re.compile(r"(?<=[.!?])[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_]*[A-Z0-9])")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")


@dataclass(frozen=True)
class Figures:
    """Figures of one text.

    Attributes:
        words: number of words that a reader sees, without code blocks and links' addresses.
        lengths: number of words of each sentence outside tables and headings, in order.
    """

    words: int
    lengths: tuple[int, ...]

    @property
    def median(self) -> float:
        """Median length of a sentence; 0 without any."""
        return float(statistics.median(self.lengths)) if self.lengths else 0.0

    @property
    def ninetieth(self) -> int:
        """Length that nine in ten sentences do not exceed."""
        return sorted(self.lengths)[int(0.9 * (len(self.lengths) - 1))] if self.lengths else 0


def measure(markdown: str) -> Figures:
    """Return the figures of a Markdown text."""
    text = _without_markup(markdown)
    return Figures(_n_words(text), tuple(map(_n_words, sentences(markdown))))


def sentences(markdown: str) -> list[str]:
    """Return the sentences of paragraphs and list items; a code span counts as one word.

    Headings, tables and items that end without a full stop, question mark, exclamation mark or colon are no sentences.
    """
    found = []
    for block in _blocks(_without_markup(markdown)):
        for abbreviation in _ABBREVIATIONS:
            said = re.compile(rf"(?i)(?<!\w){re.escape(abbreviation)}")
            block = said.sub(lambda match: match.group().replace(".", _DOT), block)
        block = re.sub(r"\b([A-Z])\.(?= [A-Z])", rf"\1{_DOT}", block)  # initials
        parts = [part.replace(_DOT, ".").strip() for part in _ENDS.split(block)]
        found += [part for part in parts if re.search(r"[.!?:][\"'”’)\]*_]*$", part) and _n_words(part) > 1]
    return found


def _without_markup(markdown: str) -> str:
    """Return the text without code blocks, comments, HTML, pictures and addresses; each code span is one word."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^([ \t]*)(`{3,}|~{3,}).*?^[ \t]*\2[ \t]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", lambda found: _as_word(found.group(2)), text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:<[^>]*>|[^()]|\([^)]*\))*\)", r"\1", text)
    text = re.sub(r"\[([^\]]*)\]\[[^\]]*\]", r"\1", text)
    text = re.sub(r"^\[[^\]]+\]:.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text)


def _as_word(code: str) -> str:
    """Return a code span as one word that starts like a name and ends no sentence."""
    return "C" + re.sub(r"\W", "", code)[:1]


def _blocks(text: str) -> list[str]:
    """Return paragraphs and list items, each on one line."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        stripped = re.sub(r"^\s*>\s?", "", line).strip()
        if not stripped or stripped.startswith("#") or stripped.startswith("|") or set(stripped) <= set("-=:| "):
            blocks.append([])
            continue
        if _ITEM.match(line):
            blocks.append([])
            stripped = _ITEM.sub("", stripped, count=1)
        blocks[-1].append(stripped)
    return [" ".join(block) for block in blocks if block]


def _n_words(text: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def pages() -> list[Path]:
    """Return the Markdown files whose prose is measured."""
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*named, *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Print the figures of each file."""
    parser = argparse.ArgumentParser(prog="python -m tools.prose", description="Measure the prose of Markdown files.")
    parser.add_argument("files", nargs="*", type=Path, help="Markdown files; by default, the project's own")
    files = parser.parse_args().files or pages()
    names = [str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for path in files]
    width = max(map(len, names), default=0)
    print(f"{'file':<{width}}  words  sentences  median  90 %  longest")
    for name, path in zip(names, files, strict=True):
        found = measure(path.read_text("utf-8"))
        most = max(found.lengths, default=0)
        row = f"{found.words:>5,}  {len(found.lengths):>9}  {found.median:>6g}  {found.ninetieth:>4}  {most:>7}"
        print(f"{name:<{width}}  {row}")


if __name__ == "__main__":
    main()
