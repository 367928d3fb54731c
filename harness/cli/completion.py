"""Names that a shell completes, found without importing methods, kinds or suites."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from pathlib import Path

METRICS = (
    *("accuracy", "bleu", "chrf", "exact_number", "f1", "macro_f1", "macro_f1_labels", "mae", "matthews"),
    *("mean_average_precision", "micro_f1", "pearson", "perplexity", "rmse", "rouge1", "rouge2", "rougeLsum"),
    *("rouge_l", "span_f1", "span_f1_macro", "spearman", "squad_exact_match", "squad_f1", "subset_accuracy"),
    "token_accuracy",
)
"""Main metrics of all kinds."""

_NAME = re.compile(r'^(?:    name = "([^"]+)"|        name="([^"]+)",)$', re.MULTILINE)
"""Line of a class, or of a row in a table of methods, that names it."""


def one_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return the completion of an option that takes one of these names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def some_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return the completion of an option that takes several of these names, with commas between them."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in taken]

    return complete


def suites_to_complete() -> list[str]:
    """Return the names of suites, those of plug-ins included."""
    from harness.support import shipped

    folder = shipped("suites")
    own = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted([*own, *_plugged("suites")])


def method_names() -> list[str]:
    """Return the names of methods, those of plug-ins included."""
    return _declared("methods")


def kind_names() -> list[str]:
    """Return the names of kinds of task, those of plug-ins included."""
    return _declared("tasks")


def _declared(package: str) -> list[str]:
    """Return the names that the classes of a package declare; its modules are read and not imported."""
    files = (Path(__file__).parents[1] / package).glob("*.py")
    found = [
        of_class or of_row for file in files for of_class, of_row in _NAME.findall(file.read_text(encoding="utf-8"))
    ]
    return sorted({*found, *_plugged(package)})


def _plugged(package: str) -> list[str]:
    return [found.name for found in importlib.metadata.entry_points(group=f"harness.{package}")]


complete_suite = one_of(suites_to_complete)
complete_method = one_of(method_names)
complete_methods = some_of(method_names)
complete_capabilities = some_of(lambda: ("merge", "convert-to-lora", "quantise", "vllm"))
complete_kind = one_of(kind_names)


def complete_words(*words: str) -> Callable[[str], list[str]]:
    """Return the completion of an option that takes one of a few words."""
    return one_of(lambda: words)
