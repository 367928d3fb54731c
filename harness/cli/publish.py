"""`harness publish`: write a site."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.api import publish
from harness.cli.as_json import print_json
from harness.cli.console import make_console, open_page, say
from harness.support import text


def publish_command(
    out: Path,
    sources: list[str],
    *,
    by_suite: bool = False,
    prices: Path | None = None,
    show: bool = False,
    as_json: bool = False,
) -> None:
    """Write or update a site; `show` opens its index in the browser."""
    published = publish(out, sources, by_suite=by_suite, prices=prices)
    if as_json:
        opened = show and open_page(published.index, Console(stderr=True))
        print_json(
            {
                "index": published.index,
                "reports": published.reports,
                "regressions": published.regressions,
                "opened": opened,
            }
        )
        return
    console = make_console()
    for name, page in published.reports.items():
        say(f"{name}: {page}", console)
        if any(worse := published.regressions.get(name, {}).values()):
            changes = page.with_name("changes.html")
            say(f"  {text.counted(sum(worse), 'regression')} since it was published last: {changes}", console)
    say(f"Site: {published.index}", console)
    if show:
        open_page(published.index, console)
