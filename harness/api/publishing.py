"""Publish reports as a site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.results import Records, Results, records_of
from harness.records import Record
from harness.store import of_suite
from harness.support import UsageError, check_output_folder, checked_path, find_store, spelt_for_caller, uncollected

if TYPE_CHECKING:
    from harness.report import Observations
    from harness.site import Published


@uncollected()
@spelt_for_caller
def publish(
    out: str | Path,
    sources: str | Path | Iterable[str | Path] | Mapping[str, Records],
    *,
    by_suite: bool = False,
    prices: str | Path | None = None,
) -> Published:
    """Write a site of static pages with a report of each collection of records, or update such a site.

    Args:
        out: folder of the site. Other reports that were published there stay, and so do all other files.
        sources: records of each report: a store, a .jsonl file, a folder of such files, or a list of these, each as
            `SOURCE` or `NAME=SOURCE`. A mapping gives names and records of any form. A name is a title, and the
            report's address follows from it. Without one, it is the name of the file or folder.
        by_suite: whether each suite in the records becomes a report of its own.
        prices: YAML file of prices of machines and served models; None takes the file that HARNESS_PRICES names.

    Returns:
        The pages, and what got worse since each report was published last.

    Raises:
        UsageError: there is no record, two reports have one address, or other files are in the way.
        StoreError: the records or the site cannot be read or written.
    """
    from harness.analysis import asked_prices
    from harness.site import Source, publish_reports

    folder = Path(checked_path("out", out, "a folder"))
    named = dict(sources) if isinstance(sources, Mapping) else _named(sources)
    paths = [find_store(source) for source in named.values() if isinstance(source, str | Path)]
    if not named:
        raise UsageError("No source was given; expected a store, a .jsonl file of records, or a folder of such files.")
    check_output_folder(
        folder, ["index.html", "site.json", "assets"], inputs=paths, ours=_is_site, overwrite=None, option="OUT"
    )
    made = []
    for name, source in named.items():
        for title, observed in _reports(name, source, by_suite=by_suite, is_only=len(named) == 1):
            made.append(Source(title, observed))
    return publish_reports(folder, made, asked_prices(path=prices))


def _is_site(folder: Path) -> bool:
    return (folder / "site.json").is_file() and (folder / "index.html").is_file()


_NAMED = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)


def _named(sources: str | Path | Iterable[str | Path]) -> dict[str, Records]:
    """Return the sources by name: `NAME=SOURCE`, or the name of the file or folder."""
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    found: dict[str, Records] = {}
    for one in listed:
        checked_path("sources", one, "stores, .jsonl files of records, or folders of such files, each NAME=SOURCE")
        match = None if Path(one).exists() else _NAMED.fullmatch(str(one))
        name, source = (match[1].strip(), match[2]) if match else (_name_of(str(one)), str(one))
        if name in found:
            raise UsageError(f"Two reports named {name} were given. Name them: NAME={source}.")
        found[name] = source
    return found


def _name_of(source: str) -> str:
    """Return the name of a file, folder or database, without a password or an ending."""
    path = Path(source.partition("?")[0].rsplit("/", 1)[-1] if "://" in source else Path(source).resolve())
    return (path.stem if path.suffix in (".jsonl", ".sqlite", ".db") else path.name) or "report"


def _reports(name: str, source: Records, *, by_suite: bool, is_only: bool) -> Iterator[tuple[str, Observations]]:
    """Yield the title and the records of each report of one source."""
    from harness.report import observe

    if isinstance(source, str | Path):
        source = find_store(source)
        _refuse_report(Path(source))
    if not by_suite:
        whole = isinstance(source, Results) and source.observations
        yield name, whole or observe(records_of(name, source))
        return
    kept = source if isinstance(source, str | Path) else list(records_of(name, source))
    for suite in sorted({record.suite for record in _streamed(name, kept)}):
        yield suite if is_only else f"{name} {suite}", observe(of_suite(_streamed(name, kept), suite))


def _streamed(name: str, source: Records) -> Iterable[Record]:
    return records_of(name, source)


def _refuse_report(path: Path) -> None:
    if path.is_dir() and (path / "report.html").is_file() and next(path.rglob("*.jsonl"), None) is None:
        raise UsageError(
            f"{path} is a report, which does not hold the records that it shows. Name the store or the .jsonl files "
            "that it was made from."
        )
