"""Output handling shared by all commands: no passwords, and no crash on text that the terminal cannot show."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup

from harness.support import HarnessError, mask_text, named_as_options

COMPARE = "Compare methods"
ASK = "Ask for advice"
USE = "Get a model and use it"
INSPECT = "Look things up"
KEEP = "Keep records"
SECTIONS = (COMPARE, ASK, USE, INSPECT, KEEP)
"""Sections of `harness --help`, in their order."""


class Commands(TyperGroup):
    """The commands: their help has sections, and their errors show no password of a store."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by section (typer does so only with rich, which takes long to import)."""
        named = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = max(len(name) for name, _ in named)
        for section in SECTIONS:
            rows = [
                (f"{name:{width}}", command.get_short_help_str(formatter.width - 6 - width))
                for name, command in named
                if getattr(command, "rich_help_panel", None) == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; mask the message of an error that is meant for the user."""
        try:
            with named_as_options():
                return super().invoke(ctx)
        except HarnessError as error:
            error.args = (mask_text(str(error)),)
            raise
        except Exception as error:
            # Errors of usage, which typer prints itself. Its class differs between versions of typer.
            if isinstance(message := getattr(error, "message", None), str):
                error.message = mask_text(message)  # type: ignore[attr-defined]
            raise


def make_streams_tolerant() -> None:
    """Replace characters that standard output or standard error cannot encode, rather than crash on them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def print_masked_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug as Python does, without passwords. For `sys.excepthook`."""
    typer.echo(mask_text("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)
