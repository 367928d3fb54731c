"""Load data with the `datasets` library: quietly, into memory, and without waiting for an unreachable hub."""

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
"""Seconds to wait for any answer of the hub. `datasets` would try for 23 s before it reports a missing network."""

MIRROR_ENDINGS = (".jsonl", ".csv", ".parquet")
"""Endings of a mirrored split, in order of preference."""

_SAFE_FORMATS = frozenset({"arrow", "cache", "csv", "json", "parquet", "text"})
"""Formats on the hub that contain only data: reading them executes no code."""


def load_file(path: Path, cache: str | None = None) -> Dataset:
    """Load one JSONL, CSV or Parquet file into memory.

    Args:
        path: the file.
        cache: folder for intermediate Arrow files; None for a temporary one. The library's own cache is not used: it
            may be read-only, and it grows with every edited file.

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
            # The library reads the path as a pattern, so a folder named "run [1]" must be escaped.
            name = glob.escape(str(path))
            loaded = reader(name, cache_dir=cache or temporary, keep_in_memory=True, **options)
            # Rebuilt from the rows, so that the library's fingerprint depends on content, not on path and time.
            return Dataset(loaded.data)
        except (DatasetsError, OSError, ValueError, TypeError, StopIteration) as error:
            raise DataError(f"{path}: the file cannot be read ({_root_reason(error)}).") from error


def load_arrow_folder(path: Path) -> Dataset:
    """Load a folder of `Dataset.save_to_disk` into memory."""
    from datasets import Dataset

    with quiet():
        try:
            return Dataset(Dataset.load_from_disk(str(path), keep_in_memory=True).data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a folder of `Dataset.save_to_disk` ({_root_reason(error)}).") from error


def load_from_hub(
    hub: str, config: str | None, revision: str | None, splits: list[str]
) -> tuple[list[Dataset], str | None]:
    """Load splits of a data set from the hub, or from the library's cache of an earlier load.

    No downloaded code is executed: only plain formats are read, and `datasets` has run no scripts since 4.0.

    Returns:
        The splits in the requested order, and their commit where the library knows it.

    Raises:
        MissingResourceError: the hub does not answer and nothing is cached, or it has no such data set or revision.
        DataError: the data set lacks the configuration or split, or has an unsupported format.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    where = f"hub data set '{hub}'" + (f" ({config})" if config else "")
    if Path(hub).is_dir():  # the library would read it instead of the hub's, so results would depend on the folder
        raise DataError(f"The folder '{hub}' here hides the {where}. Run from another folder, or name a mirror.")
    with quiet(), _offline_unless_answered() as reason:
        try:
            builder = datasets.load_dataset_builder(hub, config, revision=revision)
        except (DatasetNotFoundError, ConnectionError, FileNotFoundError) as error:
            raise MissingResourceError(reason or _root_reason(error)) from error
        except Exception as error:
            if reason:  # the cache lacks it too
                raise MissingResourceError(f"{reason}; {_root_reason(error)}") from error
            raise DataError(f"{where}: {_root_reason(error)}") from error
        commit = builder.hash if _is_commit(builder.hash) else None
        if reason and revision and commit != revision:
            raise MissingResourceError(f"{reason}, and the cached copy is not known to be of revision {revision}")
        kind = type(builder).__module__.rpartition(".")[2]
        if not type(builder).__module__.startswith("datasets.packaged_modules.") or kind not in _SAFE_FORMATS:
            raise DataError(f"{where} has the format '{kind}'; expected one of {', '.join(sorted(_SAFE_FORMATS))}.")
        try:
            return [datasets.load_dataset(hub, config, split=split, revision=revision) for split in splits], commit
        except ConnectionError as error:
            raise MissingResourceError(reason or _root_reason(error)) from error
        except Exception as error:
            raise DataError(f"{where}: {_root_reason(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of `datasets` and its hub client, and restore them afterwards."""
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
def _offline_unless_answered() -> Iterator[str | None]:
    """Contact the hub once; if it does not answer, make the libraries use only their caches, without retries.

    Yields:
        None if the hub answers; otherwise the reason for not using it, for a message.
    """
    import datasets.config
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if any(before):
        reason: str | None = "HF_HUB_OFFLINE is set, so the hub is not contacted"
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
    """Return whether the hub gives any answer within `seconds`; a thread bounds a slow look-up of its name."""
    from huggingface_hub import constants, get_session

    answered: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.append(True)
        except Exception:  # noqa: BLE001 - any error of the HTTP library means no answer
            answered.append(False)

    thread = threading.Thread(target=ask, name="hub-answers", daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered) and answered[0]


def _is_commit(value: object) -> bool:
    return isinstance(value, str) and len(value) == 40 and all(digit in "0123456789abcdef" for digit in value)


def _root_reason(error: BaseException) -> str:
    """Return the root cause of an error in one line, without a full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)
