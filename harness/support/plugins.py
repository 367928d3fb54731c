"""Methods, kinds, metrics and suites from other installed packages, by their entry points."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.support.errors import reason_of


@dataclass(frozen=True)
class PlugIn:
    """One entry point of another package.

    Attributes:
        name: name of the member that it stands for.
        package: name of the package.
        version: version of the package.
        entry: the entry point itself.
    """

    name: str
    package: str
    version: str
    entry: importlib.metadata.EntryPoint

    @property
    def origin(self) -> str:
        """The package and its version, for lists and records."""
        return f"{self.package} {self.version}".strip()

    def load(self) -> Any:
        """Return the object or the module that the entry point names.

        Raises:
            PlugInError: it cannot be loaded; the message names the package and the reason.
        """
        try:
            return self.entry.load()
        except (Exception, SystemExit) as error:
            raise PlugInError(self.refusal(reason_of(error))) from error

    def refusal(self, reason: str) -> str:
        """Return the message that this entry point cannot be used, and why."""
        return (
            f"Package {self.origin} offers '{self.name}' ({self.entry.group}: {self.entry.value}), which cannot be "
            f"loaded: {reason}. Update or uninstall the package."
        )


class PlugInError(Exception):
    """A plug-in that cannot be used."""


@functools.cache
def _entry_points() -> Any:
    """Return all entry points: reading them once takes some 20 ms."""
    return importlib.metadata.entry_points()


def plug_ins(group: str) -> list[PlugIn]:
    """Return the entry points of a group ("harness.methods"), sorted by name and package; nothing is imported."""
    found = [
        PlugIn(
            name=entry.name,
            package=entry.dist.name if entry.dist else "an unknown package",
            version=entry.dist.version if entry.dist else "",
            entry=entry,
        )
        for entry in _entry_points().select(group=group)
    ]
    return sorted(found, key=lambda each: (each.name, each.package))


def yaml_files(plug_in: PlugIn) -> Iterator[Traversable]:
    """Return the YAML files of a package or a folder that an entry point names.

    Raises:
        PlugInError: it is neither, or holds no YAML file.
    """
    named = plug_in.load()
    if isinstance(named, ModuleType):
        from importlib.resources import files

        folder: Traversable = files(named)
    elif isinstance(named, str | Path):
        folder = Path(named)
    else:
        raise PlugInError(plug_in.refusal(f"expected a package or a folder with YAML files, not {named!r:.80}"))
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".yaml")] if folder.is_dir() else []
    if not found:
        raise PlugInError(plug_in.refusal(f"no YAML file in {folder}"))
    return iter(sorted(found, key=lambda entry: entry.name))
