"""Table: every method at every size, with scores and costs."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.blocks import Block, TableBlock, Words
from harness.report.panels import Panel
from harness.report.tables import each
from harness.report.views.base import ReportData, View, views
from harness.support import text


def every_size(panel: Panel) -> TableBlock:
    """Return every row of a panel: score, seeds, train, predict, memory, parameters, missing cells."""
    header = ["method", "labels", "score", "95 % interval", "train score", "seeds", "train", "predict"]
    moved = panel.rows["forgetting"].notna().any()
    asked = [
        (title, name, say)
        for title, name, say in (("energy", "energy_joules", text.energy), ("price", "price", text.price))
        if panel.rows[name].notna().any()
    ]
    header += ["peak memory", "trainable", *(["forgetting"] if moved else [])]
    header += [*(title for title, _, _ in asked), "missing"]
    rows = [
        [
            row.variant,
            text.size(row.n_train, row.draw, row.n_per_class),
            text.score(row.score),
            text.interval(row.score_low, row.score_high) or text.ABSENT,
            text.score(row.train_score),
            str(row.n_seeds),
            text.seconds(row.train_seconds),
            text.seconds(row.predict_seconds),
            text.memory(row.memory_bytes),
            text.number(row.n_trainable),
            *([text.forgetting(row.forgetting, row.forgetting_unit)] if moved else []),
            *(say(getattr(row, name)) for _, name, say in asked),
            row.note if text.present(row.note) else "",
        ]
        for row in each(panel.rows)
    ]
    return TableBlock("Every size", header, rows, on_page=False, data=panel.rows)


def _blocks(_: ReportData, panel: Panel) -> Iterator[Block]:
    if panel.metric is not None:  # the page's scripts show the same rows
        yield Words("### Every size")
        yield every_size(panel)


views.add("every_size", View(position=90, in_panel=_blocks))
