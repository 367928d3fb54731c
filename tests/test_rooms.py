"""Rules that import-linter cannot state: what the face of a room lists, and that tests do not import each other."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import harness

TESTS = Path(__file__).parent
PACKAGE = Path(harness.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.pyi"))

DOCUMENTED = {
    ("methods", "method"),
    ("saved", "SavedModel"),
    ("tasks", "Classification"),
    ("training", "Classes"),
}
"""Names that users of the package import for methods and kinds of their own, and the type of a loaded model."""

PUBLIC = {"testing"}
"""Rooms for users alone."""

NOT_IMPORTED = {"cli"}
"""Rooms that no other room uses, which therefore have no face."""


def imported(path: Path) -> set[str]:
    """Return the full names that a module imports, including those of `from` imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def face_of(room: str) -> dict[str, str]:
    """Return the names that a room's face lists, and the module of each; modules that it lists whole are left out."""
    tree = ast.parse((PACKAGE / room / "__init__.pyi").read_text("utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.asname or alias.name: str(node.module) for node in nodes for alias in node.names}


@cache
def used_by_room() -> dict[str, set[str]]:
    """Return the names that the modules of each room import; those outside the rooms count as the room `''`."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        found[parts[0] if len(parts) > 1 else ""] |= imported(path)
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            found[""] |= {f"harness.{str(node.module).split('.')[0]}.{alias.name}" for alias in node.names}
    return found


def test_each_folder_is_a_room_with_a_face() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {*ROOMS, *NOT_IMPORTED}


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_face_exist_and_are_no_modules(room: str) -> None:
    """A name that is a module's too would be either, depending on what was imported first."""
    face = face_of(room)
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")} | {
        path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")
    }
    assert sorted(set(face) & modules) == []
    module = importlib.import_module(f"harness.{room}")
    assert [name for name in face if not hasattr(module, name)] == []
    assert set(face) <= set(module.__all__)


@pytest.mark.parametrize("room", sorted(set(ROOMS) - PUBLIC))
def test_each_name_of_a_face_is_used_by_another_room(room: str) -> None:
    used = set().union(*(names for other, names in used_by_room().items() if other != room))
    unused = {name for name in face_of(room) if f"harness.{room}.{name}" not in used and (room, name) not in DOCUMENTED}
    assert sorted(unused) == []


def test_no_test_module_imports_another() -> None:
    """Helpers live in modules whose names do not begin with `test_`, and fixtures in conftest.py."""
    tests = {f"tests.{path.stem}" for path in TESTS.glob("test_*.py")} | {"tests.conftest"}
    found = {path.name: imported(path) & tests for path in TESTS.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}


def test_the_architecture_page_names_every_room() -> None:
    page = (TESTS.parent / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    rooms = {line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= rooms
