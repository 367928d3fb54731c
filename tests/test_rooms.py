"""Rules that import-linter cannot state: faces of rooms, and tests that do not import each other."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def imported(path: Path) -> set[str]:
    """Return the full names that a module imports, including those of `from` imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_test_module_imports_another() -> None:
    """Helpers live in modules whose names do not begin with `test_`, and fixtures in conftest.py."""
    tests = {f"tests.{path.stem}" for path in TESTS.glob("test_*.py")} | {"tests.conftest"}
    found = {path.name: imported(path) & tests for path in TESTS.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}
