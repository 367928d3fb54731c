"""The navigation of the site (`nav` in zensical.toml), from the pages that exist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.methods import methods
from tools.docs.describe import family_position, own

FIRST = {
    "tutorial": ("first-comparison", "first-choice", "first-paper-table"),
    "how-to": (
        *(
            "own-data",
            "own-suite",
            "own-backbone",
            "choose-a-backbone",
            "air-gapped-mirror",
            "plan-a-run",
            "many-machines",
            "gpu-server",
        ),
        *("large-models", "predict", "import-results", "export-results"),
        *("add-a-method", "add-a-kind", "add-a-metric", "plug-ins"),
    ),
    "explanation": (
        "protocol",
        "training",
        "statistics",
        "advice",
        "choosing",
        "ranking",
        "reliability",
        "performance",
    ),
    "reference": (
        "cli",
        "python",
        "METHODS",
        "kinds",
        "metrics",
        "suites",
        "defaults",
        "report-files",
        "records",
        "files",
    ),
}
"""Pages of each part in the order of the navigation; pages that are not named here follow by name."""

_NAV = re.compile(r"^nav = \[\n.*?^\]\n", re.DOTALL | re.MULTILINE)


def with_navigation(config: str, docs: Path, generated: Iterable[str]) -> str:
    """Return zensical.toml with the navigation of the pages in a folder.

    Args:
        config: the file as it is.
        docs: folder of the pages.
        generated: paths of generated pages below `docs/reference`, which may not have been written yet.
    """
    known = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} | {
        f"reference/{page}" for page in generated
    }
    lines = ["nav = [", '  { "Home" = "index.md" },']
    for title, part in (
        ("Tutorial", "tutorial"),
        ("How-to guides", "how-to"),
        ("Reference", "reference"),
        ("Explanation", "explanation"),
    ):
        lines += [f'  {{ "{title}" = [', *_part(part, known), "  ] },"]
    for title, page in (
        ("Findings", "findings"),
        ("Earlier findings", "earlier-findings"),
        ("Glossary", "glossary"),
        ("Compatibility", "compatibility"),
    ):
        lines += [f'  {{ "{title}" = "{page}.md" }},'] if f"{page}.md" in known else []
    lines += [
        '  { "Decisions" = [',
        *_entries(page for page in sorted(known) if page.startswith("decisions/")),
        "  ] },",
    ]
    return _NAV.sub(lambda _: "\n".join([*lines, "]\n"]), config)


def _part(part: str, known: Iterable[str]) -> list[str]:
    """Return the lines of one part of the site."""
    pages = [page for page in known if re.fullmatch(rf"{part}/[\w-]+\.md", page)]
    names = {page.removeprefix(f"{part}/").removesuffix(".md") for page in pages}
    order = [name for name in FIRST[part] if name in names or name == "METHODS"]
    lines: list[str] = []
    for name in [*order, *sorted(names - set(order))]:
        lines += _methods() if name == "METHODS" else _entries([f"{part}/{name}.md"])
    return lines


def _methods() -> list[str]:
    """Return the lines of the methods' pages, by family."""
    lines = ['    { "Methods" = [', '      "reference/methods/index.md",']
    family = ""
    ours = [cls for cls in methods if own(methods, cls.name)]
    for cls in sorted(ours, key=lambda cls: (*family_position(cls.family), cls.name)):
        if cls.family != family:
            lines += ["      ] },"] if family else []
            family = cls.family
            lines.append(f'      {{ "{family[0].upper()}{family[1:]}" = [')
        lines.append(f'        {{ "{cls.name}" = "reference/methods/{cls.name}.md" }},')
    return [*lines, "      ] },", "    ] },"]


def _entries(pages: Iterable[str]) -> list[str]:
    return [f'    "{page}",' for page in pages]
