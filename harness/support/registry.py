"""Names to objects: the one way methods, kinds of task and metrics are found.

Members live one to a file in a package; the registry imports that package's files when it is first asked, so that a
new file is all that a new member needs, and importing the registry itself costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Generic, TypeVar

from harness.support.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to members, filled by the modules of one package.

    Args:
        kind: what a member is, in the singular, for messages ("method").
        package: the package whose modules register the members when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._members: dict[str, T] = {}
        self._filled = False

    def add(self, name: str, member: T) -> None:
        """Register `member` under `name`; two members of one name are a programming error."""
        if name in self._members and self._members[name] is not member:
            raise ValueError(f"Two {self.kind}s are called '{name}'.")
        self._members[name] = member

    def _fill(self) -> None:
        if self._filled:
            return
        package = importlib.import_module(self._package)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
            importlib.import_module(f"{self._package}.{module.name}")
        self._filled = True

    def get(self, name: str) -> T:
        """The member called `name`; raises `UsageError` with the nearest known name if there is none."""
        self._fill()
        try:
            return self._members[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._members) from None

    def names(self) -> list[str]:
        """All names, sorted."""
        self._fill()
        return sorted(self._members)

    def __iter__(self) -> Iterator[T]:
        return iter([self._members[name] for name in self.names()])

    def __contains__(self, name: str) -> bool:
        self._fill()
        return name in self._members
