"""Publish reports as a site of static files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis import NO_PRICES, Prices
from harness.report import (
    Observations,
    PageFiles,
    ReportData,
    page_html,
    page_scripts,
    page_styles,
)
from harness.site import change_pages, figure_pages, pages
from harness.site.addresses import address_of
from harness.site.changes import changes_since, entry_of
from harness.site.facts import Facts, Listed, facts_of, read_facts, write_facts
from harness.site.items import Addresses, Item, items_of, write_item
from harness.site.staging import SITE_FILE, files_of, relative_files, reports_of, staged
from harness.site.state import save_state
from harness.support import UsageError, text

ASSETS = "assets"
"""Folder of the files that all pages share."""

ITEMS = "f"
"""Folder of the figures and tables of a report; their permanent addresses begin with it."""


@dataclass(frozen=True)
class Source:
    """The records of one report.

    Attributes:
        name: name of the report, from which its address follows.
        observations: the records.
        title: title of the report; the name where empty.
    """

    name: str
    observations: Observations
    title: str = ""


@dataclass(frozen=True)
class Published:
    """A published site.

    Attributes:
        index: its first page.
        reports: page of each report that was published now, by its name.
        regressions: what got worse in each of them since the last publish, by its name; see `Compared.regressions`.
            Reports that are new, or whose records are the same, have none.
    """

    index: Path
    reports: dict[str, Path]
    regressions: dict[str, dict[str, int]]


def publish_reports(out: Path, sources: Sequence[Source], prices: Prices = NO_PRICES) -> Published:
    """Add reports to a site, or update those that it has. Other reports of the site stay.

    The same records and the same earlier site give the same bytes. Nothing that was published is removed: the address
    of a figure that a report no longer has shows it as it was, and says so.

    Args:
        out: folder of the site.
        sources: the reports.
        prices: the user's prices of machines and served models.

    Raises:
        UsageError: two reports have one address, or files that the harness did not write are in the way.
        StoreError: the site cannot be read or written.
    """
    addresses = {source.name: _address(source.name) for source in sources}
    if len(set(addresses.values())) < len(sources):
        raise UsageError(
            f"Reports named {', '.join(addresses)} were given; expected names with different letters or digits. "
            "Name each: NAME=SOURCE."
        )
    regressions: dict[str, dict[str, int]] = {}
    with staged(out) as stage:
        shared = _write_assets(stage / ASSETS)
        for source in sources:
            address = addresses[source.name]
            facts = _write_report(source, stage / address, out / address, shared, prices)
            last = facts.history[-1] if facts.history else {}
            if (earlier := _earlier(out / address)) is not None and len(facts.history) > len(earlier.history):
                regressions[source.name] = {
                    name: last["changes"][f"n_{name}"]
                    for name in ("scores", "train", "predict", "memory", "failed", "missing")
                }
        others = [name for name in reports_of(out) if name not in addresses.values()]
        found = {name: read_facts(out / name) for name in others}
        found |= {name: read_facts(stage / name) for name in addresses.values()}
        _write(stage / "index.html", pages.index_page(found, shared.styles))
        files = sorted({*files_of(out), *relative_files(stage), SITE_FILE})
        listing = {"format": 1, "reports": sorted(found), "files": files}
        _write(stage / SITE_FILE, json.dumps(listing, indent=1) + "\n")
    made = {name: out / address / "index.html" for name, address in addresses.items()}
    return Published(out / "index.html", made, regressions)


def _address(name: str) -> str:
    found = address_of(name)
    return f"{found}-report" if found in (ASSETS, ITEMS) else found


@dataclass(frozen=True)
class _Shared:
    """Addresses of the shared files, relative to the site's first page."""

    styles: str
    scripts: tuple[str, ...]


def _write_assets(folder: Path) -> _Shared:
    """Write the files that all pages share; their names hold a hash, so that older pages keep theirs."""
    folder.mkdir(parents=True)
    own = pages.site_styles()
    plotly, page = page_scripts()
    contents = {"page.css": page_styles() + own, "plotly.js": plotly, "page.js": page}
    names = {}
    for name, content in contents.items():
        stem, _, ending = name.partition(".")
        names[name] = f"{stem}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.{ending}"
        _write(folder / names[name], content)
    return _Shared(f"{ASSETS}/{names['page.css']}", (f"{ASSETS}/{names['plotly.js']}", f"{ASSETS}/{names['page.js']}"))


def _write_report(source: Source, folder: Path, old: Path, shared: _Shared, prices: Prices) -> Facts:
    """Write the pages, figures, tables and records of one report, and return its facts."""
    report = ReportData(source.observations, prices=prices)
    addresses = Addresses(report)
    items = items_of(report, addresses)
    (folder / ITEMS).mkdir(parents=True)
    for item in items:
        write_item(item, folder / ITEMS)
    save_state(source.observations, folder)
    facts = _with_past(
        facts_of(text.plain(source.title or source.name), source.observations), items, folder, old, source
    )
    write_facts(facts, folder)
    styles = f"../{shared.styles}"
    beside = PageFiles(
        styles=styles,
        scripts=tuple(f"../{one}" for one in shared.scripts),
        picture=lambda panel, picture: _files_of_picture(addresses.of(panel, picture)),
        above=pages.bar(facts, here="index.html"),
        title=facts.title,
    )
    _write(folder / "index.html", page_html(report, beside))
    _write(folder / "figures.html", figure_pages.figures_page(facts, styles))
    _write(folder / "changes.html", change_pages.changes_page(facts, styles))
    by_address = {item.address: item for item in items}
    for one in facts.listed:
        csv = (folder if one.is_current else old) / ITEMS / f"{one.address}.csv"
        page = figure_pages.item_page(facts, one, by_address.get(one.address), csv, f"../{styles}")
        _write(folder / ITEMS / f"{one.address}.html", page)
    return facts


def _with_past(facts: Facts, items: Sequence[Item], folder: Path, old: Path, source: Source) -> Facts:
    """Return the facts with the addresses and the history of the report in `old`."""
    earlier = _earlier(old)
    listed = [Listed(item.address, item.title, item.part, item.is_figure) for item in items]
    entry = entry_of(facts, folder)
    if earlier is None:
        return dataclasses.replace(facts, listed=tuple(listed), history=(entry,))
    known = {one.address for one in listed}
    listed += [dataclasses.replace(one, is_current=False) for one in earlier.listed if one.address not in known]
    history = earlier.history
    if not history or history[-1]["digest"] != entry["digest"]:
        history = (*history, {**entry, "changes": changes_since(old, source.observations)})
    return dataclasses.replace(facts, listed=tuple(listed), history=history)


def _earlier(folder: Path) -> Facts | None:
    return read_facts(folder) if (folder / "report.json").is_file() else None


def _files_of_picture(address: str) -> tuple[str, str]:
    return f"{ITEMS}/{address}.svg", f"{ITEMS}/{address}.html"


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="\n")
