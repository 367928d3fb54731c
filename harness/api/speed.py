"""Measure what using a saved model costs on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.support import DataError, UsageError, checked_path, quiet_libraries, spelt_for_caller

if TYPE_CHECKING:
    import pandas as pd

    from harness.data import TextColumns
    from harness.records import Inference
    from harness.tasks import Kind

Texts: TypeAlias = "str | Path | pd.DataFrame | Iterable[Any]"


@dataclass(frozen=True)
class InferenceCost:
    """Cost of using a saved model on this machine.

    Attributes:
        method: label of the model's method.
        device: name of the device, with its threads.
        n_texts: number of texts that were used, in turn.
        as_fitted: latency, throughput, memory, bytes on disk and seconds to load of the model as it was saved.
        merged: the same with what the method added merged into the weights, without disk and loading; None where
            nothing can be merged.
        why_not_merged: reason for that; None where it can.
    """

    method: str
    device: str
    n_texts: int
    as_fitted: Inference
    merged: Inference | None
    why_not_merged: str | None


@spelt_for_caller
def measure_inference(
    model: str | Path, data: Texts, text: TextColumns | None = None, *, device: str = "auto"
) -> InferenceCost:
    """Measure the latency, throughput, memory, size and loading time of a saved model, merged and not.

    It takes about five seconds for each form, more for a model that writes texts. Give texts like those that the model
    will read: seconds depend on their lengths.

    Args:
        model: folder of the saved model.
        data: texts: a list as for `SavedModel.predict`, a data frame, or the path of a CSV, TSV, JSON, JSONL, Parquet
            or CoNLL file. The first 512 usable ones are taken.
        text: column of the texts; two columns of a model of pairs. None takes the kind's own names, such as `text`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: the model is damaged, or the device is not there.
        UnsupportedError: its predictions are requests to a server.
        DataError: the data cannot be read, or hold no text.
    """
    from harness.measure import MOST_TEXTS, check_device_name, find_device
    from harness.saved import kind_of_saved, measure_saved, read_description, why_not_input

    check_device_name(device)
    folder = Path(checked_path("model", model, "the folder of a saved model")).expanduser()
    described = read_description(folder)
    kind = kind_of_saved(described.kind)
    given = _inputs(data, text, kind)
    usable = [one for one in given if why_not_input(one, kind) is None][:MOST_TEXTS]
    if not usable:
        raise DataError(f"None of the {len(given):,} rows of --data holds a text to predict. Is it the right --text?")
    quiet_libraries()
    found = measure_saved(folder, usable, device)
    return InferenceCost(
        method=described.method,
        device=find_device(device).name,
        n_texts=len(usable),
        as_fitted=found.as_fitted,
        merged=found.merged,
        why_not_merged=found.why_not_merged,
    )


def _inputs(data: Texts, text: TextColumns | None, kind: Kind) -> list[Any]:
    from harness.data import MissingColumnError, is_frame, read_rows, texts_in
    from harness.saved import as_input, input_columns, read_inputs

    if not isinstance(data, str | Path):
        if text is not None and not is_frame(data):
            raise UsageError("`text` names a column of a file or a data frame; a list was given. Leave it out.")
        return read_inputs(data, text, kind)
    names = input_columns(text, kind)
    try:
        rows = read_rows(Path(data), names)
    except MissingColumnError as error:
        raise DataError(f"{error} --text names the column of texts.") from None
    return [as_input(value, kind) for value in texts_in(rows.columns, names)]
