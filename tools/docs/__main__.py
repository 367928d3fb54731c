"""`python -m tools.docs`: write the reference pages and the findings, or check with `--check` that they are up to date.

The navigation in zensical.toml is generated too.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from pathlib import Path

from tools.docs.findings_page import findings_page
from tools.docs.navigation import with_navigation
from tools.docs.pages import NOTICE, generated, make_pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
CONFIG = ROOT / "zensical.toml"


def main() -> int:
    """Write the pages; with `--check`, print the differences instead and return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare without writing")
    check = parser.parse_args().check
    made = make_pages()
    findings = DOCS / "findings.md"
    existing = [CONFIG, *([findings] if findings.exists() else []), *sorted(REFERENCE.rglob("*.md"))]
    found = {path: path.read_text("utf-8") for path in existing}
    pages = {REFERENCE / name: text for name, text in made.items()}
    pages[findings] = generated(findings_page())
    pages[CONFIG] = with_navigation(found[CONFIG], DOCS, made)
    left_over = [path for path, text in found.items() if NOTICE in text and path not in pages]
    changed = [path for path, text in pages.items() if found.get(path) != text]
    if check:
        for path in changed:
            _show_difference(path, found.get(path, ""), pages[path])
        for path in left_over:
            print(f"{path.relative_to(ROOT)}: nothing generates this page any more")
        if changed or left_over:
            print("The generated pages are out of date: run `python -m tools.docs` and commit what it writes.")
        return int(bool(changed or left_over))
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path], "utf-8", newline="\n")
    for path in left_over:
        path.unlink()
    print(f"{len(pages)} files; {len(changed)} written, {len(left_over)} removed")
    return 0


def _show_difference(path: Path, before: str, after: str, most: int = 40) -> None:
    name = str(path.relative_to(ROOT))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, f"{name} (generated)", lineterm="", n=1)
    for line in itertools.islice(lines, most):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
