"""Write the comparison of prompting with training for readers: the same fields for page, terminal and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from harness.analysis import said_break_even, said_count
from harness.report.blocks import TableBlock
from harness.report.latex import escape
from harness.report.prompting import THOUSAND
from harness.report.tables import each
from harness.support import text


def prompting_blocks(table: pd.DataFrame) -> Iterator[TableBlock]:
    """Return one table of plain text for each task and metric of `prompting_table` or `pairs_table`."""
    for (task, _, metric), own in table.groupby(["task", "data", "metric"], sort=False):
        columns = _columns(own, str(metric))
        rows = [[get(row) for _, get in columns] for row in each(own)]
        names = [name for name, _ in columns]
        yield TableBlock(f"{text.plain(str(task))}: {text.plain(str(metric))}", names, rows, names.index("labels"))


def _columns(own: pd.DataFrame, metric: str) -> list[tuple[str, Any]]:
    """Return the columns of one task's table: the name of each, and a function from a row to its text."""
    beside = (
        own[["against", "against_backbone", "against_device", "against_n_train"]].dropna(how="all").drop_duplicates()
    )
    found: list[tuple[str, Any]] = [
        ("method", lambda row: text.plain(row.method)),
        ("backbone", lambda row: short_name(row.backbone)),
    ]
    if own["budget"].nunique() > 1:
        found.append(("budget", lambda row: text.plain(row.budget)))
    if len(beside) > 1:
        found.append(("beside", _beside))
    found += [
        ("labels", lambda row: text.size(row.n_train, row.draw)),
        (text.plain(metric), _score),
        ("difference", difference_said),
        ("training", lambda row: text.seconds(row.train_seconds)),
        (f"{THOUSAND:,} predictions", lambda row: text.seconds(row.seconds_per_1000)),
    ]
    if own[["train_price", "price_per_1000"]].notna().any(axis=None):
        found.append(("price of training", lambda row: text.price(row.train_price)))
        if (own["label_price"] > 0).any():
            found.append(("of labels", lambda row: text.price(row.label_price)))
        found.append((f"of {THOUSAND:,}", lambda row: text.price(row.price_per_1000)))
    if own["total"].notna().any():
        n = said_count(float(own["n_predictions"].dropna().iloc[0]))
        found += [(f"{n} in total", _total("total")), ("prompted in total", _total("total_prompted"))]
    return [*found, ("training pays", break_even_said)]


def short_name(backbone: Any) -> str:
    """Return the last part of a backbone's name."""
    return text.plain(backbone).rpartition("/")[2] if text.present(backbone) else text.ABSENT


def _beside(row: Any) -> str:
    if not text.present(row.against):
        return text.ABSENT
    labels = f", {row.against_n_train:,} labels" if row.against_n_train else ""
    return f"{text.plain(row.against)} · {short_name(row.against_backbone)}{labels}"


def _score(row: Any) -> str:
    interval = text.interval(row.score_low, row.score_high)
    return f"{text.score(row.score)} {interval}".rstrip()


def _total(name: str) -> Any:
    def said(row: Any) -> str:
        value = getattr(row, name)
        return text.price(value) if row.unit == "money" else text.seconds(value)

    return said


def break_even_said(row: Any) -> str:
    """Return a break-even for readers, with a star across devices: `after 12,000 (9,800 to 15,000)`, `never`."""
    if not text.present(row.break_even_outcome):
        return text.ABSENT if not text.present(row.against) else "not known"
    said = said_break_even(row.break_even_outcome, row.break_even if text.present(row.break_even) else None)
    if row.is_across_devices:
        said += "*"
    low, high = row.break_even_low, row.break_even_high
    if (
        not row.break_even_has_interval
        or not text.present(low)
        or (text.present(high) and said_count(low) == said_count(high))
    ):
        return said
    if not text.present(high):
        return f"{said} ({said_count(low)} or more)"
    return f"{said} ({said_count(low)} to {said_count(high)})"


def difference_said(row: Any) -> str:
    """Return the distance of a trained method's score to the prompted one's: `+0.120, better`."""
    if not text.present(row.difference):
        return text.ABSENT
    sign = "+" if row.difference >= 0 else "-"
    return f"{sign}{text.score(abs(row.difference))}, {row.quality}"


def prompting_notes(table: pd.DataFrame) -> list[str]:
    """Return the sentences that a reader of `prompting_table` or `pairs_table` needs, without full stops."""
    trained = table[table["role"] == "trained"]
    said = [
        "Training pays: the number of predictions from which on labels, training and predictions together cost less "
        "than prompting, with its 95 % interval over records",
        "Costs are geometric means over records. Difference: the score less that of the prompted method (the best one "
        "with no more labels where none is named); tied: not shown to differ",
    ]
    if not (trained["quality"] == "better").fillna(False).all():
        said.append(
            "A trained method that is not shown to score better than prompting pays by its cost alone, and only where "
            "its score is enough"
        )
    known = trained[trained["break_even_outcome"].notna()]
    if not known["break_even_has_interval"].fillna(False).all():
        said.append("There is no interval where one of the two methods has a single record")
    if trained["is_across_devices"].fillna(False).any():
        said.append("* by prices on different devices, or of a served model: their seconds are never compared")
    if trained["break_even_outcome"].isna().any():
        said.append(
            "Not known: the two were measured on different devices, or the time of one was not measured alone, and a "
            "price is missing (--price-per-hour)"
        )
    return said


def prompting_latex(table: pd.DataFrame) -> str:
    """Return the tables for papers in LaTeX with booktabs; empty where there is none."""
    parts = []
    for block in prompting_blocks(table):
        notes = ". ".join(map(escape, (block.title, *prompting_notes(table))))
        rows = [" & ".join(map(escape, row)) for row in block.rows]
        figures = len(block.header) - block.n_names
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{notes}.}}",
            rf"\begin{{tabular}}{{{'l' * block.n_names}{'r' * figures}}}",
            r"\toprule",
            rf"{' & '.join(map(escape, block.header))} \\",
            r"\midrule",
            *(rf"{{}}{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts)
