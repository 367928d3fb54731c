"""Facts that a backbone's authors state: its licence, and the data sets it was trained on."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Any, Final

import yaml

from harness.backbones import BackboneFiles
from harness.data import TaskSpec, read_yaml

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_LARGEST_CARD = 1 << 20
_MOST_CHARACTERS = 80

_SAME: Final = {
    "banking77classification": "banking77",
    "imdbclassification": "imdb",
    "largemoviereview": "imdb",
    "acllmdb": "imdb",
    "aclimdb": "imdb",
    "stanfordsst2": "sst2",
    "gluesst2": "sst2",
    "sst": "sst2",
    "trecqc": "trec",
    "cogcomptrec": "trec",
    "trecfine": "trec",
    "newsgroups": "20newsgroups",
    "agnewsinsubset": "agnews",
    "multinli": "mnli",
    "quora": "qqp",
    "quoraduplicates": "qqp",
    "yahooanswerstopics": "yahooanswers",
    "amazonpolarityclassification": "amazonpolarity",
    "amazonreviewsclassification": "amazonreviews",
    "amazonreviewsmulti": "amazonreviews",
    "mtopdomainclassification": "mtop",
    "mtopdomain": "mtop",
    "mtopintent": "mtop",
    "massiveintentclassification": "massive",
    "massivescenarioclassification": "massive",
    "amazonmassiveintent": "massive",
    "amazonmassivescenario": "massive",
    "toxicconversationsclassification": "toxicconversations",
    "toxicconversations50k": "toxicconversations",
    "tweetsentimentextractionclassification": "tweetsentiment",
    "tweetsentimentextraction": "tweetsentiment",
    "dbpedia14": "dbpedia",
    "yelppolarity": "yelp",
    "yelpreviewfull": "yelp",
    "smsspamcollection": "smsspam",
    "medicalabstractsdataset": "medicalabstracts",
    "stsbenchmark": "stsb",
    "msmarcotriplets": "msmarco",
    "stackexchangexml": "stackexchange",
}
"""Other names of data sets, by their letters and digits."""

_SEVERAL: Final = {"allnli": ("snli", "mnli"), "glue": ("sst2", "cola", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")}
"""Names of collections, and the data sets in them."""


@dataclass(frozen=True)
class Card:
    """Facts of a model card's front matter.

    Attributes:
        licence: the licence's identifier; None where the folder states none.
        data: names of the data sets, as the card writes them.
    """

    licence: str | None = None
    data: tuple[str, ...] = ()


def read_card(files: BackboneFiles) -> Card:
    """Return the facts of the README.md in a backbone's folder; an empty card where it states none."""
    for folder in (files.folder, files.folder.parent):
        path = folder / "README.md"
        try:
            if path.is_file() and (folder == files.folder or (folder / "modules.json").is_file()):
                with path.open(encoding="utf-8", errors="replace") as opened:
                    return card_of(opened.read(_LARGEST_CARD))
        except OSError:
            continue
    return Card()


def card_of(text: str) -> Card:
    """Return the facts of a model card; an empty one where its front matter is missing or cannot be read."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return Card()
    try:
        stated: Any = read_yaml(found.group(1))
    except (yaml.YAMLError, ValueError, RecursionError):
        return Card()
    if not isinstance(stated, dict):
        return Card()
    licence = stated.get("license_name") if stated.get("license") == "other" else stated.get("license")
    data = stated.get("datasets")
    names = [data] if isinstance(data, str) else data if isinstance(data, list) else []
    return Card(
        licence=licence.strip()[:_MOST_CHARACTERS] if isinstance(licence, str) and licence.strip() else None,
        data=tuple(name for name in names if isinstance(name, str) and name.strip()),
    )


def data_set(name: str) -> tuple[str, ...]:
    """Return the plain names of a data set: `SetFit/sst2` and `glue/sst2` are both `sst2`."""
    letters = re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())
    return _SEVERAL.get(letters, (_SAME.get(letters, letters),)) if letters else ()


def why_seen(files: BackboneFiles, card: Card, spec: TaskSpec) -> str | None:
    """Return the reason to believe that a backbone was trained on a task's data; None where nothing says so.

    Sources are the task's own `seen_by`, the model card's `datasets`, and the shipped table of known training data.
    Silence is no proof: many backbones do not state their training data.

    Args:
        files: the backbone's files.
        card: its card.
        spec: the task.
    """
    if any(fnmatch.fnmatchcase(files.name, pattern) for pattern in spec.seen_by):
        return "the task's suite lists it as seen"
    own = _of_task(spec)
    from_card = [name for name in card.data if own & set(data_set(name))]
    if from_card:
        return f"its model card lists {from_card[0]}"
    for names, source, data in _known():
        if any(fnmatch.fnmatchcase(files.name, pattern) for pattern in names) and own & data:
            return f"{', '.join(sorted(own & data))} is among its training data ({source})"
    return None


def _of_task(spec: TaskSpec) -> set[str]:
    """Return the plain names of a task's data set and of those that share texts with it."""
    names: list[str] = [spec.name, *(text.partition(":")[0] for text in spec.overlaps)]
    if spec.data.hub is not None:
        names.append(spec.data.hub)
    return {plain for name in names for plain in data_set(name)}


@functools.cache
def _known() -> tuple[tuple[tuple[str, ...], str, frozenset[str]], ...]:
    """Return the shipped table: patterns of names, the source, and plain names of data sets."""
    text = (package_files("harness.ranking") / "training_data.yaml").read_text(encoding="utf-8")
    return tuple(
        (tuple(entry["names"]), str(entry["source"]), frozenset(_plain(entry["data"])))
        for entry in read_yaml(text)["backbones"]
    )


def _plain(names: Iterable[str]) -> Iterable[str]:
    return (plain for name in names for plain in data_set(name))
