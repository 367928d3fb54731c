"""Registry of members by name: methods, kinds of task, metrics and views.

Members live one to a file in a package; the registry imports that package's files when it is first asked, so a new
member needs only a new file, and importing the registry is cheap. Members of other installed packages come by entry
points.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Generic, TypeVar

from harness.support.errors import UsageError, unknown_name
from harness.support.plugins import PlugIn, PlugInError, plug_ins

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Registry(Generic[T]):
    """A mapping from names to members, filled by the modules of one package and by entry points of others.

    An entry point has the name of its member, and names the member or a module that registers it. One that cannot be
    used is skipped with a warning; its name is then answered with the reason.

    Args:
        kind: a member, in the singular, for messages ("method").
        package: the package whose modules register the members when imported.
        group: the group of entry points of other packages; None is called like the package.
        expected: a member in words, for messages about plug-ins ("a subclass of harness.methods.Method").
        why_not: returns the reason why an object is no member; None if it is one.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        *,
        group: str | None = None,
        expected: str = "",
        why_not: Callable[[Any], str | None] | None = None,
    ) -> None:
        self.kind = kind
        self._package = package
        self._group = group or package
        self._expected = expected
        self._why_not = why_not
        self._members: dict[str, T] = {}
        self._origins: dict[str, PlugIn] = {}
        self._refused: dict[str, str] = {}
        self._loading: PlugIn | None = None
        self._filled = False

    def add(self, name: str, member: T) -> None:
        """Register a member.

        Raises:
            ValueError: the name is taken or no name; a programming error.
            TypeError: the object is no member.
        """
        reason = None if self._why_not is None else self._why_not(member)
        if reason is not None:
            raise TypeError(f"{reason}; expected {self._expected}")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name; accepted: letters, digits, '_', '.', '-'")
        if self._members.setdefault(name, member) is not member:
            owner = self._origins.get(name)
            raise ValueError(
                f"Two {self.kind}s are called '{name}'; "
                f"the other comes from {owner.origin if owner else 'the harness itself'}"
            )
        if self._loading is not None:
            self._origins.setdefault(name, self._loading)

    def _fill(self) -> None:
        if self._filled:
            return
        package = importlib.import_module(self._package)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
            importlib.import_module(f"{self._package}.{module.name}")
        self._filled = True
        for plug_in in plug_ins(self._group):
            try:
                self._take(plug_in)
            except PlugInError as error:
                self._refused[plug_in.name] = str(error)
                if multiprocessing.parent_process() is None:  # the parent process shows the warning
                    warnings.warn(str(error), stacklevel=2)

    def _take(self, plug_in: PlugIn) -> None:
        """Load one entry point and register what it names.

        Raises:
            PlugInError: it cannot be loaded, is no member, or has a name that is taken.
        """
        self._loading = plug_in
        try:
            named = plug_in.load()
            if not isinstance(named, ModuleType):
                name = getattr(named, "name", plug_in.name)
                if name != plug_in.name:
                    raise ValueError(f"the {self.kind} is called {name!r:.80}; expected the name of its entry point")
                self.add(name, named)
        except (TypeError, ValueError) as error:
            raise PlugInError(plug_in.refusal(str(error))) from error
        finally:
            self._loading = None
        if self._origins.get(plug_in.name) is plug_in:
            return
        member = self._members.get(plug_in.name)
        # A module that was imported before has registered its members before, perhaps for another entry point.
        offered = [named, *getattr(named, "__dict__", {}).values()]
        if member is None or not any(value is member for value in offered):
            raise PlugInError(
                plug_in.refusal(f"it registers no {self.kind} called '{plug_in.name}', the name of its entry point")
            )
        self._origins.setdefault(plug_in.name, plug_in)

    def get(self, name: str) -> T:
        """Return the member called `name`.

        Raises:
            UsageError: there is none; the message has the nearest name, or the reason why a plug-in is not available.
        """
        self._fill()
        try:
            return self._members[name]
        except KeyError:
            if name in self._refused:
                raise UsageError(f"The {self.kind} '{name}' is not available. {self._refused[name]}") from None
            raise unknown_name(self.kind, name, self._members) from None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._fill()
        return sorted(self._members)

    def origin(self, name: str) -> str | None:
        """Return the package that a member comes from, with its version; None for the harness's own."""
        self._fill()
        found = self._origins.get(name)
        return None if found is None else found.origin

    def __iter__(self) -> Iterator[T]:
        return iter([self._members[name] for name in self.names()])

    def __contains__(self, name: str) -> bool:
        self._fill()
        return name in self._members
