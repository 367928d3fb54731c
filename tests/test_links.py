"""Links of Markdown files: what they name exists, and a page of the site leads nowhere outside the site."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OTHERS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "reports/README.md")
]

_FENCED = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^[ \t]*\2[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"(!?)\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?((?:[^()\s<>]|\([^)]*\))+)>?[^)]*\)")


def links_of(text: str) -> list[tuple[bool, str]]:
    """Return whether each link is a picture, and its address; code is left out."""
    plain = _CODE.sub("code", _FENCED.sub("", text))
    return [(bool(mark), address) for mark, address in _LINK.findall(plain)]


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub and Python-Markdown make them."""
    found: dict[str, int] = {}
    for line in _FENCED.sub("", path.read_text("utf-8")).splitlines():
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1).replace("`", ""))
            slug = re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())
            found[slug] = found.get(slug, -1) + 1
            if found[slug]:
                found[f"{slug}-{found[slug]}"] = found[f"{slug}_{found[slug]}"] = 0
    return frozenset(found)


def broken(path: Path) -> list[str]:
    """Return the links of a file that lead nowhere, with the reason."""
    problems = []
    for is_picture, address in links_of(path.read_text("utf-8")):
        if re.match(r"[a-z]+:", address):
            continue
        name, _, anchor = unquote(address).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (is_picture and not target.is_file()):
            problems.append(f"{address}: there is no such file")
        elif path.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
            problems.append(f"{address}: it lies outside docs/, so the site does not have it; name it as code")
        elif path.is_relative_to(DOCS) and target.is_dir():
            problems.append(f"{address}: a folder is no page")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            problems.append(f"{address}: no heading has this anchor")
    return problems


@pytest.mark.parametrize("path", [*OTHERS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n[a](page.md#one) [b](page.md#two) [c](none.md) ![d](none.png) `[e](none)`\n", "utf-8")
    assert [problem.partition(":")[0] for problem in broken(page)] == ["page.md#two", "none.md", "none.png"]


def test_every_page_is_in_the_navigation_once() -> None:
    config: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))

    def listed(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        children = entry.values() if isinstance(entry, dict) else entry
        return [page for child in children for page in listed(child)]

    assert sorted(listed(config["project"]["nav"])) == [str(page.relative_to(DOCS)) for page in PAGES]
