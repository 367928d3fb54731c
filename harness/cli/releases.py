"""Commands that compare releases and publish reports. Imports typer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.completion import complete_words
from harness.cli.options import JsonOption, OverwriteOption, PriceFileOption
from harness.cli.streams import COMPARE


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("compare", rich_help_panel=COMPARE)(_compare)
    app.command("publish", rich_help_panel=COMPARE)(_publish)


def _compare(
    releases: Annotated[
        list[str],
        typer.Argument(
            help="Two or more stores, .jsonl files of records, or folders of such files, the earliest first."
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            help="Split all records into releases by this instead: version or commit of the harness.",
            autocompletion=complete_words("version", "commit"),
        ),
    ] = None,
    cost_tolerance: Annotated[
        float, typer.Option(help="Relative change of seconds or memory that does not count.")
    ] = 0.1,
    fail_on_regression: Annotated[
        bool | None,
        typer.Option(
            "--fail-on-regression/--no-fail-on-regression",
            help="Exit with 1 also for higher costs and lost cells, or never. Default: for worse scores.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write all rows to this .csv file.")] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what got better or worse between releases.

    Differences within noise do not count. Seconds and memory are compared on the same device only. The exit code is 1
    if a score got worse.
    """
    from harness.cli.compare import compare_command

    code = compare_command(
        releases, out, by=by, tolerance=cost_tolerance, fails=fail_on_regression, overwrite=overwrite, as_json=as_json
    )
    raise typer.Exit(code)


def _publish(
    out: Annotated[Path, typer.Argument(help="Folder of the site.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Records of each report: a store, a .jsonl file, or a folder of such files, each as SOURCE or "
            "NAME=SOURCE."
        ),
    ],
    by_suite: Annotated[bool, typer.Option("--by-suite", help="Make a report of each suite in the records.")] = False,
    prices: PriceFileOption = None,
    show: Annotated[bool, typer.Option("--open", help="Open the site in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish reports as a site of static pages, or update it.

    Each figure and table has a permanent address. The pages work from a folder and from any web server.
    """
    from harness.cli.publish import publish_command

    publish_command(out, sources, by_suite=by_suite, prices=prices, show=show, as_json=as_json)
