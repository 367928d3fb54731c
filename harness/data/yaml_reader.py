"""Read YAML as people write it by hand: plain data of a sane size, or an error that names the line.

PyYAML's safe loader runs no code. But its parsers of numbers and dates raise various errors, its recursion can be
exhausted, and ten lines of aliases can stand for a thousand million values.
"""

from __future__ import annotations

import reprlib
from collections.abc import Hashable
from typing import Any

import yaml

_MOST_NESTED = 50
_MOST_VALUES = 100_000
_MOST_BITS = 1023
"""Maximum bits of a whole number; a larger one fits no float, and Python may refuse to print it."""

_REPR = reprlib.Repr()
_REPR.maxstring = 60


def read_yaml(text: str) -> Any:
    """Return the value of a document; refuse repeated keys, of which PyYAML would keep the last.

    Raises:
        yaml.YAMLError: the document cannot be read; a `MarkedYAMLError` if the line is known.
    """
    return yaml.load(text, Loader=_Plain)


def short(value: object) -> str:
    """Return a value as a short text for messages, however large or nested it is."""
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Plain(yaml.SafeLoader):
    """A loader that accepts only plain data of a sane size."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and refuse a depth that would exhaust the recursion."""
        self._depth += 1
        if self._depth > _MOST_NESTED:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested more than {_MOST_NESTED} deep", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        """Return the root node, and refuse a document that aliases (`*name`) blow up."""
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value, and turn unreadable or unusable ones into errors with a line."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            why = f" ({error})" if isinstance(error, ValueError) else ""  # other types describe PyYAML, not the text
            raise _error(node, f"{short(node.value)} cannot be read as '{node.tag.rpartition(':')[2]}'{why}") from error
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _error(node, f"{short(node.value)} is too large a number")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _error(node, "half a character (a lone surrogate), which can be neither printed nor stored")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping, and refuse keys that are repeated or cannot be keys."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, which PyYAML expands
                continue
            key = self.construct_object(key_node, deep=True)
            n_before = len(seen)
            try:
                seen.add(key)
            except TypeError:
                raise _error(key_node, f"{short(key)} cannot be a key") from None
            if len(seen) == n_before:
                raise _error(key_node, f"the key '{key}' is there twice")
        return super().construct_mapping(node, deep)


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a node, with each use of an alias counted.

    Raises:
        yaml.MarkedYAMLError: the node contains itself, or too many values.
    """
    if id(node) in known:
        if known[id(node)] == 0:  # not counted yet, so this is a cycle
            raise _error(node, "a value that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    known[id(node)] = 1 + sum(_count_values(child, known) for child in children)
    if known[id(node)] > _MOST_VALUES:
        raise _error(node, f"more than {_MOST_VALUES:,} values")
    return known[id(node)]


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
