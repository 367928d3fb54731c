"""Load the splits of a task from the mirror, the hub, local files, or the interpreter (embedded data)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.data.classes import check_can_hold_out, check_labels, check_texts
from harness.data.files import missing_column
from harness.data.frames import Frames
from harness.data.loading import MIRROR_ENDINGS, load_arrow_folder, load_file, load_from_hub
from harness.data.own_rows import read_own_rows
from harness.data.raw import Origin, RawSplits
from harness.data.rows import hold_out
from harness.data.spec import Files, TaskSpec
from harness.data.table import Part, read_table
from harness.support import DataError, MissingResourceError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Reading:
    """The parts of a data set that a kind of task reads.

    Attributes:
        columns: required columns.
        keys: function that returns the text and class of each row of a split, for holding out a test; it refuses rows
            that lack them.
        texts: columns of texts of a user's table of texts and labels, which gets the checks of `data.table`; empty
            where a file is no such table.
        keep_classes: whether to keep classes in training that cannot be held out.
        labels: columns of the answers among `columns`, for a user's files that are no such table.
        form: form of the answers, for the same files.
        hold_out: function that selects the test rows where no test split is named, by `keys`' text and class of each
            row; None takes a quarter of each class.
        held_out: rule of `hold_out` in words.
        converted: function from the columns of a user's file to columns whose values have one type each; it refuses bad
            rows. None keeps them.
    """

    columns: Sequence[str]
    keys: Callable[[Dataset, Origin], tuple[list[str], Any]]
    texts: Sequence[str] = ()
    keep_classes: bool = False
    labels: Sequence[str] = ()
    form: str = ""
    hold_out: Callable[[Sequence[str], Any], npt.NDArray[np.bool_]] | None = None
    held_out: str = "a quarter of each class, by a hash of the text"
    converted: Callable[[Mapping[str, Sequence[Any]], Origin], dict[str, list[Any]]] | None = None


def _reading_of_classes(spec: TaskSpec) -> Reading:
    """Return the reading of one text and one label per row."""
    columns = spec.columns
    keep_classes = spec.data.files is not None and not spec.strict

    def keys(data: Dataset, origin: Origin) -> tuple[list[str], list[str]]:
        texts = check_texts(data.data.column(columns.text).to_pylist(), columns.text, origin)
        labels = check_labels(data.data.column(columns.label).to_pylist(), columns.label, origin)
        if not keep_classes:
            check_can_hold_out(texts, labels, origin)
        return texts, labels

    return Reading((columns.text, columns.label), keys, texts=(columns.text,), keep_classes=keep_classes)


def load_splits(
    spec: TaskSpec, mirror: Path | None = None, *, validation: bool = False, reading: Reading | None = None
) -> RawSplits:
    """Load the training and test rows of a task, as they are in its source.

    If `spec.splits.test` is None, a quarter of each class of the training split is held out as the test, by a fixed
    hash of the text. Rows without classes count as one class, unless `reading` has a rule of its own.

    Args:
        spec: the task.
        mirror: folder in which hub ids are looked up first, as `datasets/<hub id>[/<config>]/<split>.jsonl`.
        validation: load the data set's own validation split too. For choosing defaults, never for a cell.
        reading: the parts to read; None reads one text and one label per row.

    Raises:
        MissingResourceError: the data were not found; the message lists the ways to supply them.
        DataError: the data were found but cannot be used.
    """
    reading = reading or _reading_of_classes(spec)
    if spec.data.embedded is not None:
        return _load_embedded(spec, reading)
    if spec.data.files is not None:
        return _load_table(spec, reading) if reading.texts else _load_files(spec, reading)
    return _load_hub_id(spec, mirror, validation, reading)


def _load_embedded(spec: TaskSpec, reading: Reading) -> RawSplits:
    import platform

    from harness.data.docstrings import load_docstrings

    train, test = load_docstrings()
    origins = {part: Origin(f"embedded data 'docstrings', {part}") for part in ("train", "test")}
    provenance = {"from": "embedded", "embedded": spec.data.embedded, "python": platform.python_version()}
    return _assembled(reading, {"train": train, "test": test}, provenance, origins)


def _load_files(spec: TaskSpec, reading: Reading) -> RawSplits:
    files = spec.data.files
    assert files is not None
    texts = [name for name in reading.columns if name not in reading.labels]
    found = {
        part: read_own_rows(
            files,
            part,
            texts,
            reading.labels,
            reading.form,
            separator=spec.label_separator,
            strict=spec.strict,
            converted=reading.converted,
        )
        for part in ("train", "test")
        if getattr(files, part) is not None
    }
    left_out: Counter[str] = Counter()
    for rows in found.values():
        left_out.update(rows.left_out)
    said = [warning for rows in found.values() for warning in rows.warnings]
    notes: dict[str, Any] = {
        **({"kind_because": spec.kind_because} if spec.kind_because else {}),
        **({"left_out": dict(sorted(left_out.items()))} if left_out else {}),
        **({"warnings": said} if said else {}),
    }
    return _assembled(
        reading,
        {part: rows.data for part, rows in found.items()},
        {**_files_provenance(files), **notes},
        {part: rows.origin for part, rows in found.items()},
    )


def _load_table(spec: TaskSpec, reading: Reading) -> RawSplits:
    from datasets import Dataset, Features, Value

    files = spec.data.files
    assert files is not None
    label = spec.columns.label
    table = read_table(files, reading.texts, label, strict=spec.strict)
    features = Features({name: Value("string") for name in (*reading.texts, label)})

    def dataset(part: Part) -> Dataset:
        return Dataset.from_dict({**part.columns, label: part.labels}, features)

    parts = {"train": dataset(table.train)}
    origins = {"train": table.train.origin}
    if table.test is not None:
        parts["test"], origins["test"] = dataset(table.test), table.test.origin
    return _assembled(reading, parts, {**_files_provenance(files), **table.notes()}, origins)


def _files_provenance(files: Files) -> dict[str, Any]:
    """Return the files' names without their folders, which would reveal where the user works."""
    if isinstance(files, Frames):
        return {"from": "DataFrame"}
    names = {"train": Path(files.train).name, "test": None if files.test is None else Path(files.test).name}
    return {"from": "files", "files": names}


def _load_hub_id(spec: TaskSpec, mirror: Path | None, validation: bool, reading: Reading) -> RawSplits:
    hub = spec.data.hub
    assert hub is not None
    wanted = {"train": spec.splits.train, "test": spec.splits.test}
    if validation:
        wanted["validation"] = spec.splits.validation
    names = {part: split for part, split in wanted.items() if split is not None}
    provenance: dict[str, Any] = {"hub": hub, "config": spec.data.config, "asked_revision": spec.data.revision}
    folder = None if mirror is None else _mirror_folder(mirror, spec)
    if folder is not None and all(_mirrored(folder, names[part]) for part in ("train", "test") if part in names):
        found = {part: path for part, split in names.items() if (path := _mirrored(folder, split)) is not None}
        parts = {part: load_arrow_folder(path) if path.is_dir() else load_file(path) for part, path in found.items()}
        origins = {part: _origin_of(path) for part, path in found.items()}
        # A mirror has no history, so its revision is unknown.
        return _assembled(reading, parts, {"from": "mirror", **provenance, "revision": None}, origins)
    try:
        loaded, commit = load_from_hub(hub, spec.data.config, spec.data.revision, list(names.values()))
    except MissingResourceError as error:
        raise MissingResourceError(_how_to_supply(spec, folder, names, str(error))) from error
    origins = {part: Origin(f"{spec.data.label()}, split '{split}'") for part, split in names.items()}
    parts = dict(zip(names, loaded, strict=True))
    return _assembled(reading, parts, {"from": "hub", **provenance, "revision": commit}, origins)


def _assembled(
    reading: Reading, parts: dict[str, Dataset], provenance: dict[str, Any], origins: dict[str, Origin]
) -> RawSplits:
    """Check the columns, hold out a test where there is none, and note the fingerprints."""
    from datasets import Dataset

    for part, data in parts.items():
        for column in reading.columns:
            if column not in data.column_names:
                raise missing_column(origins[part].name, column, data.column_names)
    if "test" not in parts:
        whole, origin = parts["train"], origins["train"]
        texts, labels = reading.keys(whole, origin)
        if reading.hold_out is not None:
            held = reading.hold_out(texts, labels)
            if not held.any():
                raise DataError(
                    f"{origin.name}: no text can be held out as the test, since each has a label that no other text "
                    "has. Add examples, or name a test file."
                )
        else:
            held = hold_out(texts, labels, keep_classes=reading.keep_classes)
        for part, mask in (("train", ~held), ("test", held)):
            parts[part] = Dataset(whole.data.table.filter(mask))
            origins[part] = origin.of(mask.nonzero()[0].tolist())
        provenance = {**provenance, "held_out": reading.held_out}
    fingerprints = {part: str(data._fingerprint) for part, data in sorted(parts.items())}
    counts = {part: len(data) for part, data in sorted(parts.items())}
    provenance = {**provenance, "n_rows": counts, "datasets_fingerprints": fingerprints}
    return RawSplits(parts["train"], parts["test"], parts.get("validation"), provenance, origins)


def _mirror_folder(mirror: Path, spec: TaskSpec) -> Path:
    folder = mirror / "datasets" / str(spec.data.hub)
    return folder / spec.data.config if spec.data.config else folder


def _mirrored(folder: Path, split: str) -> Path | None:
    """Return the file or Arrow folder of a split in a mirror; None if it has none."""
    for ending in MIRROR_ENDINGS:
        if (folder / f"{split}{ending}").is_file():
            return folder / f"{split}{ending}"
    return folder / split if (folder / split / "state.json").is_file() else None


def _origin_of(path: Path) -> Origin:
    """Return the origin of a file's rows: lines in a JSONL file, rows in others."""
    return Origin(str(path), "line" if path.suffix == ".jsonl" else "row")


def _how_to_supply(spec: TaskSpec, folder: Path | None, names: dict[str, str], reason: str) -> str:
    """Return the message about missing data: where it was looked for, and every way to supply it."""
    layout = "/".join(filter(None, ("datasets", spec.data.hub, spec.data.config)))
    files = " and ".join(f"{layout}/{split}.jsonl" for split in names.values())
    if folder is None:
        looked = "no mirror was named"
    else:
        lacking = [split for split in names.values() if _mirrored(folder, split) is None]
        looked = f"the mirror has no {' and no '.join(str(folder / split) + '.jsonl' for split in lacking)}"
    return (
        f"Data set '{spec.data.label()}' of task '{spec.name}' was not found: {looked}; {reason}.\n"
        "Supply it in one of these ways:\n"
        "  - connect to the network, and unset HF_HUB_OFFLINE: it is then loaded from the hub;\n"
        f"  - name a mirror with `--mirror DIR` or HARNESS_MIRROR that holds {files}\n"
        "    (or .csv, .parquet, or a folder of `Dataset.save_to_disk` with the name of the split);\n"
        "  - use files of your own: `harness run --data FILE --text COLUMN --label COLUMN`."
    )
