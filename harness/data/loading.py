"""Load with the `datasets` library: quietly, into memory, and without waiting for a hub that does not answer."""

from __future__ import annotations

import glob
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.support import DataError, MissingResourceError, reason_of

if TYPE_CHECKING:
    from datasets import Dataset

HUB_ANSWER_SECONDS = 5.0
"""How long the hub may take to answer at all. `datasets` would try for 23 s before it says that there is no network."""

FORMATS = (".jsonl", ".csv", ".parquet")
"""Endings of a mirrored split, in the order in which they are looked for."""

_SAFE_FORMATS = frozenset({"arrow", "cache", "csv", "json", "parquet", "text"})
"""Formats of the hub that are data and nothing else: reading them executes nothing."""


def load_file(path: Path, cache: str | None = None) -> Dataset:
    """One JSONL, CSV or Parquet file, held in memory.

    Args:
        path: the file.
        cache: folder for the Arrow files that are made on the way; None for a temporary one. The library's own cache
            is not used: it may be read-only, and it grows with every edited file.

    Raises:
        DataError: the file cannot be read.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    readers = {".jsonl": Dataset.from_json, ".csv": Dataset.from_csv, ".parquet": Dataset.from_parquet}
    reader = readers[path.suffix.lower()]
    # Without this, pandas reads the texts "NA", "null" and "None" as missing.
    options = {"keep_default_na": False} if path.suffix.lower() == ".csv" else {}
    with quiet(), tempfile.TemporaryDirectory() as temporary:
        try:
            # The library takes the path for a pattern, so a folder called "run [1]" must be escaped.
            name = glob.escape(str(path))
            loaded = reader(name, cache_dir=cache or temporary, keep_in_memory=True, **options)
            # Made anew from the rows, so that the library's fingerprint is one of content, not of path and time.
            return Dataset(loaded.data)
        except (DatasetsError, OSError, ValueError, TypeError, StopIteration) as error:
            raise DataError(f"{path}: the file cannot be read ({_root_reason(error)}).") from error


def load_arrow_folder(path: Path) -> Dataset:
    """A folder that `Dataset.save_to_disk` wrote, held in memory."""
    from datasets import Dataset

    with quiet():
        try:
            return Dataset(Dataset.load_from_disk(str(path), keep_in_memory=True).data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a folder of `Dataset.save_to_disk` ({_root_reason(error)}).") from error


def load_from_hub(
    hub: str, config: str | None, revision: str | None, splits: list[str]
) -> tuple[list[Dataset], str | None]:
    """Splits of a data set on the hub, or of the copy that an earlier load left in the library's cache.

    Nothing that is downloaded is executed: only plain formats are read, and `datasets` has run no scripts since 4.0.

    Returns:
        The splits, in the order asked for, and the commit that they are of, where the library knows it.

    Raises:
        MissingResourceError: the hub does not answer and nothing is cached, or it has no such data set or revision.
        DataError: it has, but without such a configuration or split, or in a format that is not read.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    where = f"hub data set '{hub}'" + (f" ({config})" if config else "")
    if Path(hub).is_dir():  # the library would read it in the hub's place, and a result would depend on the folder
        raise DataError(f"The folder '{hub}' here hides the {where}. Run from another folder, or name a mirror.")
    with quiet(), offline_unless_answered() as reason:
        try:
            builder = datasets.load_dataset_builder(hub, config, revision=revision)
        except (DatasetNotFoundError, ConnectionError, FileNotFoundError) as error:
            raise MissingResourceError(reason or _root_reason(error)) from error
        except Exception as error:
            if reason:  # and the cache does not serve it either
                raise MissingResourceError(f"{reason}; {_root_reason(error)}") from error
            raise DataError(f"{where}: {_root_reason(error)}") from error
        commit = builder.hash if _is_commit(builder.hash) else None
        if reason and revision and commit != revision:
            raise MissingResourceError(f"{reason}, and the cached copy is not known to be of revision {revision}")
        kind = type(builder).__module__.rpartition(".")[2]
        if not type(builder).__module__.startswith("datasets.packaged_modules.") or kind not in _SAFE_FORMATS:
            raise DataError(f"{where} is kept as '{kind}'; only {', '.join(sorted(_SAFE_FORMATS))} are read.")
        try:
            return [datasets.load_dataset(hub, config, split=split, revision=revision) for split in splits], commit
        except ConnectionError as error:
            raise MissingResourceError(reason or _root_reason(error)) from error
        except Exception as error:
            raise DataError(f"{where}: {_root_reason(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of `datasets` and its hub client, and restore them after."""
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    data_bars, hub_bars = datasets.is_progress_bar_enabled(), not are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if data_bars:
        datasets.disable_progress_bars()
    if hub_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if data_bars:
            datasets.enable_progress_bars()
        if hub_bars:
            enable_progress_bars()


@contextmanager
def offline_unless_answered() -> Iterator[str | None]:
    """Ask the hub once; where it does not answer, let the libraries use their caches only, without trying again.

    Yields:
        None where the hub answers; otherwise why it is not asked, for a message.
    """
    import datasets.config
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if any(before):
        reason: str | None = "HF_HUB_OFFLINE is set, so the hub is not asked"
    elif _hub_answers(HUB_ANSWER_SECONDS):
        reason = None
    else:
        reason = f"the hub ({constants.ENDPOINT}) cannot be reached from here"
    try:
        if reason is not None:
            datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        yield reason
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _hub_answers(seconds: float) -> bool:
    """Whether the hub answers anything within `seconds`. In a thread, since looking up its name may take longer."""
    from huggingface_hub import constants, get_session

    answered: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.append(True)
        except Exception:  # noqa: BLE001 - whatever its HTTP library raises, there was no answer
            answered.append(False)

    thread = threading.Thread(target=ask, name="hub-answers", daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered) and answered[0]


def _is_commit(value: object) -> bool:
    return isinstance(value, str) and len(value) == 40 and all(digit in "0123456789abcdef" for digit in value)


def _root_reason(error: BaseException) -> str:
    """Return what went wrong at the root, in one line without a full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)
