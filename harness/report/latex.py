"""Write tables for papers in LaTeX with booktabs, with the marks and cautions of the other renderings."""

from __future__ import annotations

import re
from collections.abc import Collection

from harness.report.caption import COSTS, cautions, coverage, scores_said
from harness.report.panels import Panel
from harness.report.pivot import pivot
from harness.support import text

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
    "--": "-{}-",
    "`": r"\textasciigrave{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
}
_ESCAPED = re.compile("|".join(re.escape(letter) for letter in _ESCAPES))


def escape(value: str) -> str:
    """Return a text on one line that LaTeX sets as it is, without reading commands in it."""
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text.plain(value))


def latex_pivot(panel: Panel, tied: Collection[tuple[str, str]] = (), unknown: Collection[tuple[str, str]] = ()) -> str:
    r"""Return methods by training size as a `table` for booktabs: the best is bold, methods tied with it have a star.

    Missing seeds stand beside the scores, and the caption holds the number of seeds and all cautions. The table needs
    `\usepackage{booktabs}`.

    Args:
        panel: the panel to show.
        tied: (method, label of the size) of scores that are tied with the best.
        unknown: the same of scores that may or may not be tied.
    """
    labels, lines = pivot(panel)
    rows = []
    for line in lines:
        cells = []
        for label, entry in zip(labels, line.entries, strict=True):
            score = rf"\textbf{{{escape(entry.score)}}}" if entry.is_best else escape(entry.score)
            at = (line.variant, label)
            mark = "" if entry.is_best else r"$^\ast$" if at in tied else "$^?$" if at in unknown else ""
            interval = rf" {{\scriptsize [{escape(entry.interval)}]}}" if entry.interval else ""
            note = rf" {{\scriptsize ({escape(entry.note)})}}" if entry.note else ""
            cells.append(f"{score}{mark}{interval}{note}")
        costs = map(escape, (line.train, line.memory, line.trainable))
        rows.append(" & ".join([_first(escape(line.shown)), *cells, *costs]))
    header = " & ".join(["method", *map(escape, labels), "train", "peak memory", "trainable"])
    notes = [escape(scores_said(panel)), r"bold is best, $\ast$ is tied with it"]
    if unknown:
        notes.append("for ? it is unknown")
    notes += [escape(said) for said in (COSTS, *coverage(panel), *cautions(panel))]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(panel.heading)}. {'. '.join(notes)}.}}",
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


def _first(field: str) -> str:
    r"""Return the first field of a row: after `\\`, LaTeX reads an opening bracket or an asterisk as its argument."""
    return f"{{}}{field}" if field.startswith(("[", "*")) else field
