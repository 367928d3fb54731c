"""From text to a configured method: `lora[rank=4,adapter_dropout=0.05]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import yaml
from pydantic import ValidationError

from harness.data import read_yaml, short
from harness.methods.base import Method, methods
from harness.support import UsageError, unknown_name


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Return configured methods from texts, each of which may name several, separated by commas.

    Raises:
        UsageError: an unknown method or setting, a bad value, or the same configuration twice.
    """
    parsed = [parse_method(piece) for text in texts for piece in split_top_level(text)]
    if not parsed:
        raise UsageError("No method was named; `harness methods` lists them.")
    unique: list[Method] = []
    for candidate in parsed:
        if candidate not in unique:
            unique.append(candidate)
    return unique


def with_trials(configured: Sequence[Method], n_trials: int) -> tuple[list[Method], list[str]]:
    """Have every method that has something to tune choose its settings from `n_trials` of them.

    Returns:
        The methods, those that say themselves how many trials they want as they were; and the names of those that
        have nothing to tune.

    Raises:
        UsageError: fewer than two trials.
    """
    if n_trials < 2:
        raise UsageError(f"{n_trials} trials were asked for; expected at least 2: one setting is no choice.")
    untunable = list(dict.fromkeys(candidate.name for candidate in configured if not candidate.search_space))
    tuned = [
        type(candidate).model_validate({**candidate.model_dump(), "tune": n_trials})  # a method may refuse it
        if candidate.search_space and candidate.tune is None
        else candidate
        for candidate in configured
    ]
    return tuned, untunable


def split_top_level(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets and quoted values; empty pieces are dropped.

    A quoted value begins with a quotation mark after `=`, and ends with the same one.
    """
    pieces, depth, current, quote = [], 0, "", ""
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not (quote == '"' and _is_escaped(text, at)) else quote
            current += character
            continue
        if character in "\"'" and current.rstrip().endswith("=") and character in text[at + 1 :]:
            quote = character
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            pieces.append(current.strip())
            current = ""
        else:
            current += character
    if depth != 0:
        raise UsageError(f"Brackets do not match in '{text}'; expected NAME or NAME[SETTING=VALUE,...].")
    return [piece for piece in [*pieces, current.strip()] if piece]


def _is_escaped(text: str, at: int) -> bool:
    """Return whether an odd number of backslashes is before a position."""
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


_BREAKS: Final = {"\\n": "\n", "\\t": "\t"}
"""Characters that a command line cannot show, by the way to type them."""


def _value_of(text: str, *, is_text: bool) -> Any:
    """Return the value of a setting; in texts, a typed backslash and n are a line break, also without quotes."""
    if text.lower() == "none":
        return None
    try:
        found = read_yaml(text)
    except yaml.YAMLError:
        found = text
    if not is_text:
        return found
    if not isinstance(found, str):  # YAML reads `Review: {text}` as a mapping
        found = text
    if not text.startswith('"'):
        for typed, meant in _BREAKS.items():
            found = found.replace(typed, meant)
    return found


_INSTEAD: Final = {
    **{init: f"lora[init={init}]" for init in ("pissa", "olora", "mica", "eva", "corda", "lora-ga")},
    "loftq": "qlora[init=loftq]",
    "lora-fa": "lora[update=lora-fa]",
    "lora+": "lora[b_rate_ratio=16]",
    "loraplus": "lora[b_rate_ratio=16]",
    **{name: f"full[optimiser={name}]" for name in ("galore", "apollo", "muon", "adafactor", "lisa")},
}
"""Settings of methods that are known by names of their own."""


def _known(name: str) -> type[Method]:
    """Return the method of a name.

    Raises:
        UsageError: there is none. The message names the setting that the name stands for, or says why there is none.
    """
    if name not in methods:
        lower = name.lower().replace("_", "-")
        if lower in _INSTEAD:
            raise UsageError(f"Unknown method '{name}': it is a setting here. Use {_INSTEAD[lower]}.")
        from harness.methods.peft_table import NOT_COMPARABLE

        reasons = {of.lower().replace("_", "-"): reason for of, reason in NOT_COMPARABLE.items()}
        if lower in reasons:
            raise UsageError(
                f"Method '{name}' cannot be compared: {reasons[lower]}. `harness methods` lists those that can."
            )
    return methods.get(name)


def parse_method(text: str) -> Method:
    """Return one configured method from `NAME` or `NAME[SETTING=VALUE,...]`."""
    name, bracket, rest = text.partition("[")
    cls = _known(name.strip())
    settings: dict[str, Any] = {}
    if bracket:
        if not rest.rstrip().endswith("]"):
            raise UsageError(f"Method '{text}' was given; expected NAME[SETTING=VALUE,...].")
        for piece in split_top_level(rest.rstrip()[:-1]):
            setting, equals, value = (part.strip() for part in piece.partition("="))
            if not equals:
                raise UsageError(f"Setting '{piece}' of method '{cls.name}' was given; expected SETTING=VALUE.")
            if setting not in cls.model_fields:
                raise unknown_name("setting", setting, cls.model_fields, f"of method '{cls.name}'")
            if setting in settings:
                raise UsageError(f"Setting '{setting}' of method '{cls.name}' was given twice in '{text}'.")
            settings[setting] = _value_of(value, is_text=cls.model_fields[setting].annotation is str)
    try:
        return cls(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        # pydantic's words: "Input should be a valid integer, unable to parse string as an integer".
        message = first["msg"].partition(", unable to")[0].removeprefix("Value error, ")
        message = f"expected {message.removeprefix('Input should be ')}" if message.startswith("Input") else message
        if not where:  # settings that do not go together; the message says what would
            given = ", ".join(f"{name}={value}" for name, value in settings.items())
            raise UsageError(f"Settings '{given}' of method '{cls.name}': {message.rstrip('.')}.") from None
        raise UsageError(
            f"Setting '{where}' of method '{cls.name}' was {short(first['input'])}; {message.rstrip('.')}."
        ) from None
