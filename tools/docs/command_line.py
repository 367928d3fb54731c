"""The page of the command line, from typer's tree of commands and `examples.toml`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from harness.cli.main import app
from tools.docs.markdown import code, fill, table, unwrapped

EXAMPLES = Path(__file__).parent / "examples.toml"

_MANY = 10
"""Number of options that two commands share from which the page names them only once."""


def commands() -> dict[str, Any]:
    """Return each command of `harness` by its name, in the order of `harness --help`."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def examples() -> dict[str, list[dict[str, str]]]:
    """Return the examples of each command: `command`, and `says`, what it does."""
    found: dict[str, list[dict[str, str]]] = tomllib.loads(EXAMPLES.read_text("utf-8"))
    return found


def command_line_page() -> str:
    """Return the Markdown of the page."""
    known = commands()
    overview = table(
        ("command", "use it to"),
        [(f"[`harness {name}`](#harness-{name})", _first_sentence(command)) for name, command in known.items()],
    )
    sections = "\n\n".join("\n\n".join(_section(name, command, known)) for name, command in known.items())
    return fill("cli.md", {"overview": overview, "commands": sections})


def _section(name: str, command: Any, known: dict[str, Any]) -> Iterator[str]:
    yield f"## harness {name}"
    yield f"```text\n{_usage(name, command)}\n```"
    yield unwrapped(command.help)
    told = examples().get(name, [])
    if told:
        lines = [f"# {one['says']}\n{one['command']}" if "says" in one else one["command"] for one in told]
        yield "```bash\n" + "\n".join(lines) + "\n```"
    arguments = [param for param in command.params if not _is_option(param)]
    if arguments:
        rows = [(code(_metavar(param)), _needed(param), _sentence(param.help)) for param in arguments]
        yield table(("argument", "", "meaning"), rows)
    options = [param for param in command.params if _is_option(param) and not param.hidden]
    first = known["run"]
    shared = {_told(param) for param in first.params if _is_option(param)} if name != "run" else set()
    same = [param for param in options if _told(param) in shared]
    if len(same) >= _MANY:
        listed = ", ".join(code(_spelling(param)) for param in same)
        yield f"It takes these options of [`harness run`](#harness-run): {listed}."
        options = [param for param in options if param not in same]
    if options:
        yield table(("option", "default", "meaning"), [_option(param) for param in options])


def _is_option(param: Any) -> bool:
    return bool(param.opts[0].startswith("-"))


def _spelling(param: Any) -> str:
    return " / ".join([*param.opts, *param.secondary_opts])


def _told(param: Any) -> tuple[str, ...]:
    """Return everything that the page says of an option."""
    return (_spelling(param), _default(param), _sentence(param.help))


def _usage(name: str, command: Any) -> str:
    parts = ["harness", name]
    for param in command.params:
        if not _is_option(param):
            text = _metavar(param) + ("..." if param.nargs == -1 else "")
            parts.append(text if param.required else f"[{text}]")
        elif param.required:
            parts.append(f"{param.opts[0]} {_value(param)}")
    return " ".join([*parts, "[OPTIONS]"] if any(map(_is_option, command.params)) else parts)


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _needed(param: Any) -> str:
    return "required" if param.required else "optional"


def _value(param: Any) -> str:
    """Return a word for the value that an option takes; empty for a flag."""
    if param.is_flag:
        return ""
    words = {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}
    annotation = param.type_descriptor.annotation
    return words.get(getattr(annotation, "__name__", ""), "TEXT")


def _option(param: Any) -> tuple[str, str, str]:
    name = " ".join(filter(None, (_spelling(param), _value(param))))
    meaning = _sentence(param.help)
    if param.envvar:
        meaning = f"{meaning} Environment variable: `{param.envvar}`."
    return code(name), _default(param), meaning


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.is_flag:
        return ("on" if param.default else "off") if param.secondary_opts else ""
    if param.default is None or param.default == []:
        return ""
    return code(param.default if isinstance(param.default, str | Path) else json.dumps(param.default))


def _sentence(text: str | None) -> str:
    """Return a help text that ends with a full stop; angle brackets do not start HTML."""
    text = " ".join((text or "").split()).replace("<", "&lt;")
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _first_sentence(command: Any) -> str:
    return unwrapped(command.help).split("\n\n")[0]
