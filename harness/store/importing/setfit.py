"""Import results of SetFit's scripts (github.com/huggingface/setfit): `MODEL/DATASET/train-8-0/results.json`.

Tunstall et al., "Efficient Few-Shot Learning Without Prompts", 2022 (arXiv 2209.11055). The published archives
(`final_results/METHOD/MODEL.tar.gz`) are read without unpacking them.
"""

from __future__ import annotations

import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from harness.records import Budget, Cell, Record, Score
from harness.store.importing.fields import ResultRow, imported
from harness.store.importing.outside import checked, parse_json, plain_settings, points_down
from harness.support import UsageError

MEASURED_BY: Final = "SetFit"
"""Name of the source in records."""

_WHAT: Final = "a result of SetFit's scripts, with score and measure"
_FILE: Final = "results.json"
_MOST_BYTES: Final = 2**20
_PROTOCOL: Final = (
    "SetFit's scripts: N texts of each class drawn with the split's seed (n_train is N times the classes), scored on "
    "the whole test split; the method is named by the folder; no seconds and no memory are stated"
)
_SPLIT: Final = re.compile(r"^train-(?P<size>\d+|full)(-(?P<seed>\d+))?$")
_SETFIT_RUN: Final = re.compile(
    r"^(?P<role>setfit_teacher_|setfit_student_|baseline_student_)?(?P<model>.+?)-(?P<loss>[A-Za-z]+Loss)"
    r"-(?P<classifier>[a-z_]+(?:-rbf)?(?:-norm)?)-(?P<steps>epochs|iterations|student_iters)_(?P<n_steps>\d+)"
    r"-batch_(?P<batch>\d+)(?:-(?P<experiment>.+))?$"
)
_RATE_RUN: Final = re.compile(r"^(?P<model>.+?)-lr-(?P<rate>\d[\d.]*(?:e-?\d+)?)(?:-(?P<experiment>.+))?$")
_SHORT_RUN: Final = re.compile(r"^(?P<model>.+?)[-_](?P<experiment>(?:epochs_\d+|linear-probe|iterations_\d+).*)$")
_LANGUAGES: Final = frozenset({"each", "en", "all"})
"""Folders of the multilingual scripts, which say in which languages a model was trained."""

_METHODS: Final = {
    "setfit": ("setfit", "fine-tuning", "setfit"),
    "transformers": ("full", "full fine-tuning", "full"),
    "tfew": ("t-few", "parameter-efficient", None),
    "adapet": ("adapet", "fine-tuning", None),
    "perfect": ("perfect", "fine-tuning", None),
    "distillation": ("setfit-distillation", "fine-tuning", None),
}
"""Method, family and method of the harness, by the folder of the scripts that made a result."""

_MEASURES: Final = {
    **{"matthews_correlation": "matthews", "mcc": "matthews", "acc": "accuracy", "mean_absolute_error": "mae"},
    "ap": "average_precision",
}
"""Names here of measures that are defined in the same way."""

_CLASSES: Final = {
    **{"emotion": 6, "SentEval-CR": 2, "sst5": 5, "ag_news": 4, "enron_spam": 2, "amazon_counterfactual_en": 2},
    **{"sst2": 2, "imdb": 2, "subj": 2, "bbc-news": 5, "toxic_conversations": 2},
    **dict.fromkeys((f"amazon_reviews_multi_{language}" for language in ("en", "de", "es", "fr", "ja", "zh")), 5),
}
"""Classes of the data sets of the SetFit organisation on the Hub, as their cards state."""

_N_TEST: Final = {
    **{"emotion": 2000, "SentEval-CR": 753, "sst5": 2210, "ag_news": 7600, "enron_spam": 2000, "sst2": 1821},
    **{"imdb": 25_000, "subj": 2000, "bbc-news": 1000},
    **dict.fromkeys((f"amazon_reviews_multi_{language}" for language in ("en", "de", "es", "fr", "ja", "zh")), 5000),
}
"""Rows of their test splits."""


@dataclass(frozen=True)
class _Place:
    """Facts in the folders of a result: `SCRIPTS/MODEL/DATASET/[LANGUAGES/]SPLIT`.

    Attributes:
        scripts: folder of the scripts, such as `transformers`; None where no folder is called like one.
        run: folder of the model and its settings.
        dataset: name of the data set.
        languages: languages of the training texts; None outside the multilingual scripts.
        size: labelled texts of each class; None for all, and 0 without any.
        seed: number of the draw.
    """

    scripts: str | None
    run: str
    dataset: str
    languages: str | None
    size: int | None
    seed: int

    def source(self) -> str:
        """Return the path of the file from the folder of the model."""
        some = "train-full" if self.size is None else f"train-{self.size}-{self.seed}"
        split = "zeroshot" if self.size == 0 else some
        return "/".join(one for one in (self.run, self.dataset, self.languages, split, _FILE) if one)


def read_setfit(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the position and the record of each result: of a file, a folder at any depth, or a `.tar.gz`.

    Raises:
        UsageError: a file is damaged, or its folders do not name model, data set and split.
    """
    n_found = 0
    for name, raw in _files(path):
        n_found += 1
        where = name if name.startswith("/") else f"{path}: {name}"
        yield where, _record(_place(name, where), parse_json(raw, where, _WHAT), where)
    if not n_found:
        raise UsageError(
            f"{path} holds no result of SetFit's scripts. Expected files such as MODEL/DATASET/train-8-0/{_FILE}."
        )


def is_setfit(value: Any) -> bool:
    """Return whether a JSON value is a result of SetFit's scripts."""
    return isinstance(value, dict) and "score" in value and "measure" in value


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of results."""
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        yield from _members(path)
        return
    try:
        if path.is_dir():
            for file in sorted(path.rglob(_FILE)):
                yield str(file.absolute()), file.read_bytes()
            for archive in sorted((*path.rglob("*.tar.gz"), *path.rglob("*.tgz"))):
                yield from _members(archive)
        else:
            yield str(path.absolute()), path.read_bytes()
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror or error}.") from None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the results in an archive; nothing is written to the disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name != _FILE or name.name.startswith("._"):
                    continue
                if member.size > _MOST_BYTES:
                    raise UsageError(f"{path}: {name} has {member.size:,} bytes; expected {_WHAT}.")
                file = archive.extractfile(member)
                if file is not None:
                    # The folder of the archive names the scripts: final_results/transformers/roberta-large.tar.gz.
                    yield f"{path.absolute().parent.name}/{name}", file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UsageError(f"{path} is a damaged archive: {error}. Is the file complete?") from None


def _place(name: str, where: str) -> _Place:
    """Return what the folders of a file say.

    Raises:
        UsageError: they do not have the layout of the scripts.
    """
    folders = list(PurePosixPath(Path(name).as_posix()).parts[:-1])
    split = _SPLIT.match(folders[-1]) if folders else None
    is_zero = bool(folders) and folders[-1] == "zeroshot"
    rest = folders[:-1]
    languages = rest.pop() if rest and rest[-1] in _LANGUAGES else None
    if len(rest) > 2 and rest[-2] == "SetFit":  # data sets given by their names on the Hub: SetFit/emotion
        del rest[-2]
    if (split is None and not is_zero) or len(rest) < 2 or rest[-1] == "/" or rest[-2] == "/":
        raise UsageError(
            f"{where}: the folders name no model, data set and split; expected MODEL/DATASET/train-8-0/{_FILE}, as "
            "SetFit's scripts write it. Keep these folders, and name one of them."
        )
    dataset, run, above = rest[-1], rest[-2], rest[:-2]
    scripts = next((folder for folder in reversed(above[-3:]) if folder in _METHODS), None)
    size = 0 if split is None else None if split["size"] == "full" else int(split["size"])
    return _Place(scripts, run, dataset, languages, size, int(split["seed"] or 0) if split else 0)


def _record(place: _Place, value: Any, where: str) -> Record:
    if not is_setfit(value):
        raise UsageError(f"{where} is no result of SetFit's scripts; expected an object with score and measure.")
    row = ResultRow(value, where)
    measure, percent = row.text("measure"), row.number("score", least=-100.0)
    if measure is None or percent is None:
        raise UsageError(f"{where}: {'measure' if measure is None else 'score'} is missing.")
    metric = _MEASURES.get(measure, measure)
    is_up = not points_down(metric, row)
    if is_up and percent > 100:
        raise UsageError(f"{where}: score is {percent:g}; expected a percentage of at most 100.")
    model, config, method = _run(place)
    name, family, method_here = _METHODS[method]
    classes, n_test = _CLASSES.get(place.dataset), _N_TEST.get(place.dataset, 0)
    n_train = 0 if place.size == 0 else None if place.size is None or not classes else place.size * classes
    missing = {"costs": "the scripts state none"}
    if n_train is None:
        missing["n_train"] = "the size of the split is not known here"
    if not n_test:
        missing["n_test"] = "not stated"
    spread = row.number("iqr", least=0.0)
    score = round(percent / 100, 12)
    record = imported(
        cell=Cell(
            task=place.dataset,
            data=f"SetFit/{place.dataset}",
            backbone=model,
            weights="not stated",
            method=name,
            version=1,
            config=config,
            n_train=n_train or 0,
            budget=Budget(),
            seed=place.seed,
            draw="stratified" if place.size is None else "balanced",
        ),
        device=MEASURED_BY,
        kind="classification",
        family=family,
        status="ok",
        source=place.source(),
        protocol=_PROTOCOL,
        score=Score(
            metric,
            score,
            None,
            None,
            is_up,
            n_test,
            others={} if spread is None else {"iqr_over_seeds": spread / 100},
            highest=1.0 if is_up else None,
        ),
        dataset={"hub": f"SetFit/{place.dataset}", **({"n_classes": classes} if classes else {})},
        missing=missing,
        method_here=method_here if set(config) <= {"experiment"} or method == "setfit" else None,
        measured_by=MEASURED_BY,
        is_evidence=n_train is not None and math.isfinite(score),
    )
    return checked(record, where)


def _run(place: _Place) -> tuple[str, dict[str, Any], str]:
    """Return the model, the settings and the method that the folders name."""
    told: dict[str, Any] = {"trained_on_languages": place.languages}
    if place.size is None:
        told["labels"] = "all"
    if found := _SETFIT_RUN.match(place.run):
        told |= {"loss": found["loss"], "classifier": found["classifier"], found["steps"]: int(found["n_steps"])}
        told |= {"batch_size": int(found["batch"]) or None, "experiment": found["experiment"]}
        told["distillation"] = (found["role"] or "").strip("_") or None
        method = "distillation" if found["role"] and not found["role"].startswith("setfit_teacher") else "setfit"
    elif found := _RATE_RUN.match(place.run):
        told |= {"learning_rate": float(found["rate"]), "experiment": found["experiment"]}
        method = "transformers"
    elif found := _SHORT_RUN.match(place.run):
        told["experiment"] = found["experiment"]
        method = place.scripts or "setfit"
    else:
        method = place.scripts or "setfit"
    if place.scripts in ("tfew", "adapet", "perfect", "distillation"):
        method = place.scripts
    if "epochs" in told:
        told["pairs_rounds"] = told.pop("epochs")  # rounds of pairs, not passes over texts
    return (found["model"] if found else place.run), plain_settings(told), method
