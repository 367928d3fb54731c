"""Find the backbones of a grid: what is missing among several is said once, and the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.backbones import BACKBONE_SHAPES, BackboneFiles, locate_backbone
from harness.records import short_backbones
from harness.support import HarnessError, MissingResourceError, UsageError


@dataclass(frozen=True)
class Found:
    """The backbones of a grid.

    Attributes:
        backbones: available backbones of each task, by the task's name, each once, in the order asked for.
        by_name: the same by the names that they were asked for by.
        missing: one message for each backbone that cannot be used: what is wrong, how to supply it.
        errors: the errors behind these messages.
        notes: remarks on backbones that are the same, or share a name.
    """

    backbones: dict[str, tuple[BackboneFiles, ...]]
    by_name: dict[str, BackboneFiles] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    errors: list[HarnessError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def error(self) -> HarnessError:
        """Return one error that says all that is missing."""
        only_missing = all(isinstance(error, MissingResourceError) for error in self.errors)
        return (MissingResourceError if only_missing else UsageError)("\n".join(self.missing))


def find_backbones(names: Mapping[str, Sequence[str]], mirror: Path | None, *, weights: bool) -> Found:
    """Find and verify the backbones of each task.

    Args:
        names: names of the backbones of each task, by the task's name; a name given twice counts once.
        mirror: folder that is searched first for hub ids.
        weights: whether a backbone without weights is refused.
    """
    asked = list(dict.fromkeys(name for several in names.values() for name in several))
    located: dict[str, BackboneFiles] = {}
    found = Found({})
    for name in asked:
        try:
            located[name] = _locate(name, mirror, weights=weights)
        except HarnessError as error:
            tasks = [task for task, wanted in names.items() if name in wanted]
            for_whom = "" if len(tasks) == len(names) else f" (Asked for by {', '.join(tasks)}.)"
            found.missing.append(f"{error}{for_whom}")
            found.errors.append(error)
    first: dict[str, str] = {}
    for name, files in list(located.items()):
        same = first.setdefault(files.fingerprint, name)
        if same != name:
            found.notes.append(f"backbones '{same}' and '{name}' are the same files; they run once, as the first.")
            located[name] = located[same]
    found.notes.extend(_namesakes(located))
    found.by_name.update(located)
    for task, wanted in names.items():
        found.backbones[task] = tuple(dict.fromkeys(located[name] for name in wanted if name in located))
    return found


def _locate(name: str, mirror: Path | None, *, weights: bool) -> BackboneFiles:
    if weights and name in BACKBONE_SHAPES:
        raise UsageError(
            f"Backbone '{name}' is a shape without weights: `harness plan` and `harness probe` take it, a run cannot."
        )
    files = locate_backbone(name, mirror, weights=weights)
    files.require_tokenizer()
    return files


def _namesakes(located: Mapping[str, BackboneFiles]) -> list[str]:
    """Return a note for each name that several different backbones have, such as folders with one base name."""
    labels = short_backbones((files.name, files.fingerprint) for files in located.values())
    by_name: dict[str, dict[str, str]] = {}
    for asked, files in located.items():
        by_name.setdefault(files.name, {}).setdefault(labels[files.name, files.fingerprint], asked)
    return [
        f"different backbones are called '{name}'; their fingerprints tell them apart: "
        + ", ".join(f"{label} is {asked}" for label, asked in told.items())
        + "."
        for name, told in by_name.items()
        if len(told) > 1
    ]
