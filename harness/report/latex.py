"""Tables for papers: LaTeX with booktabs, the best and what is tied with it marked."""

from __future__ import annotations

import re
from collections.abc import Collection

from harness.report import text
from harness.report.tables import Panel, pivot

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "·": r"\textperiodcentered{}",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
}
_ESCAPED = re.compile("|".join(re.escape(letter) for letter in _ESCAPES))


def escape(value: str) -> str:
    """A text that LaTeX sets as it is, on one line, without any command of its own."""
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text.plain(value))


def latex_pivot(panel: Panel, tied: Collection[tuple[str, str]] = ()) -> str:
    r"""Method x training size as a `table` for booktabs: bold is best, a dagger is not shown to be worse than it.

    Needs `\usepackage{booktabs}`.

    Args:
        panel: what to show.
        tied: (method, label of the size) of what is tied with the best there.
    """
    labels, lines = pivot(panel)
    rows = []
    for line in lines:
        cells = []
        for label, entry in zip(labels, line.entries, strict=True):
            score = rf"\textbf{{{escape(entry.score)}}}" if entry.is_best else escape(entry.score)
            mark = r"$^\dagger$" if not entry.is_best and (line.variant, label) in tied else ""
            interval = rf" {{\scriptsize [{escape(entry.interval)}]}}" if entry.interval else ""
            cells.append(f"{score}{mark}{interval}")
        rows.append(" & ".join([escape(line.variant), *cells, *map(escape, (line.fit, line.memory, line.trainable))]))
    header = " & ".join(["method", *map(escape, labels), "fit", "memory", "trainable"])
    metric = escape(panel.metric or "score")
    notes = [rf"{metric}: mean over seeds with its 95\,\% interval", r"bold is best, $\dagger$ is tied with it"]
    notes += [escape(footnote) for footnote in panel.footnotes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(panel.title)}. {'. '.join(notes)}.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(labels) + 3)}}}",
            r"\toprule",
            rf"{header} \\",
            r"\midrule",
            *(rf"{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
