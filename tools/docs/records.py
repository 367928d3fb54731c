"""The pages of records and of report files, from dataclasses and lists of columns."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any

from harness.analysis import EXPORT_COLUMNS
from harness.analysis.columns import EXTRA_COLUMNS
from harness.records import Cell, Record
from harness.records.facts import Facts, TextLengths
from harness.records.forgetting import Forgetting
from harness.records.inference import Inference
from harness.records.predictions import Predictions
from harness.records.record import STATUSES, Cost, CurvePoint, Provenance, Score
from harness.records.workload import FitLength, Workload
from harness.report.tables import _DTYPES, comparison
from harness.report.views.base import in_order, views
from tools.docs.markdown import code, fill, read_docstring, table

_STATUSES = {
    "ok": "The cell has a score.",
    "unsupported": "The method cannot serve this backbone, task or device. The error says why. It is final.",
    "out_of_memory": "The cell needed more than its memory budget, the device or the host has. It is final.",
    "out_of_time": "The cell ran past the limit of a cell or of its fit. It is final.",
    "failed": "An exception ended the cell. `--retry-failed` runs it again.",
}


def records_page() -> str:
    """Return the Markdown of the page on records."""
    of_facts = (Facts, TextLengths, Forgetting, Inference, Workload, FitLength)
    classes = (Record, Cell, Score, Cost, *of_facts, CurvePoint, Provenance, Predictions)
    statuses = [(code(status), _STATUSES[status]) for status in STATUSES]
    return fill(
        "records.md",
        {
            "statuses": table(("status", "meaning"), statuses),
            "classes": "\n\n".join(_fields(cls) for cls in classes),
        },
    )


def _fields(cls: Any) -> str:
    told = read_docstring(cls.__doc__)
    meanings = told.entries("Attributes")
    rows = [
        (code(field.name), code(str(field.type).replace(" | ", " or ")), meanings.get(field.name, ""))
        for field in dataclasses.fields(cls)
        if not field.name.startswith("_")
    ]
    return f"## {cls.__name__}\n\n{told.prose}\n\n{table(('field', 'type', 'meaning'), rows)}"


def _views() -> list[tuple[str, str]]:
    """Return the CSV files of the report's views, and what each holds, from the docstrings of their modules."""
    found = []
    for name, view in in_order():
        if view.csv is None or views.origin(name) is not None:
            continue
        told = read_docstring(importlib.import_module(f"harness.report.views.{name}").__doc__).prose
        told = re.sub(r"^[\w ]+: ", "", told.split("\n\n")[0])
        told = re.sub(rf" \({name}\.csv[^)]*\)", "", told)
        found.append((code(f"{name}.csv"), told[0].upper() + told[1:]))
    return found


def report_files_page() -> str:
    """Return the Markdown of the page on the files of a report and of an export."""
    known = {column.name: column.doc for column in (*EXPORT_COLUMNS, *EXTRA_COLUMNS)}
    known = {**known, **_ONLY_IN_COMPARISON}
    summary = read_docstring(comparison.__doc__).prose.replace("Return one row", "One row", 1)
    return fill(
        "report-files.md",
        {
            "views": table(("file", "content"), _views()),
            "export_columns": _columns(EXPORT_COLUMNS),
            "frame_columns": _columns(EXTRA_COLUMNS),
            "comparison": summary,
            "comparison_columns": table(
                ("column", "type", "what it holds"),
                [(code(name), dtype, known[name].rstrip(".") + ".") for name, dtype in _DTYPES.items()],
            ),
        },
    )


def _columns(columns: Any) -> str:
    rows = [(code(column.name), column.dtype, column.doc.rstrip(".") + ".") for column in columns]
    return table(("column", "type", "what it holds"), rows)


_ONLY_IN_COMPARISON = {
    "variant": "the method, with the settings that tell its configurations apart",
    "settings": "all settings that tell the configuration apart; empty where none do",
    "configuration": "the name without its backbone; a column only where a table holds several backbones",
    "backbone_label": "the backbone in the name; null for methods without one; a column only with `configuration`",
    "basis": "what the interval covers: seeds and test rows, test rows only, or seeds only",
    "n_seeds": "seeds with a score",
    "memory_bytes": "median memory that a cell needs: its peak and the weights that cells share",
    "peak_bytes": "median peak memory",
    "memory": "whose memory it is: device or host",
    "n_ok": "cells with a score",
    "n_failed": "cells that failed",
    "n_out_of_memory": "cells that ran out of memory",
    "n_out_of_time": "cells that ran out of time",
    "n_unsupported": "cells that the method does not support",
    "n_missing": "seeds that another method in the same tables has at this size",
    "n_unsteady": "cells that something on the machine disturbed",
    "n_learned_nothing": "cells that predict one class, at the training loss of guessing",
    "score": "mean score over seeds",
    "score_low": "lower end of its 95 % interval",
    "score_high": "upper end of the same",
    "note": "remarks on this row",
}
