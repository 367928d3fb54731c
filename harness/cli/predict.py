"""`harness predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from harness.api import in_words, predict_file
from harness.cli.as_json import print_json
from harness.cli.console import say
from harness.support import text as wording


def predict_command(model: Path, data: Path, out: Path, *, as_json: bool = False, **asked: Any) -> int:
    """Predict the texts of a file and say where the predictions are; return the exit code.

    Arguments are those of `api.predict_file`.
    """
    found = predict_file(model, data, out, **asked)
    if as_json:
        print_json(found)
        return 0
    console = Console(highlight=False)
    say(f"{wording.counted(found.n_predicted, 'prediction')}: {found.out}", console)
    n_without = found.n_rows - found.n_predicted
    if n_without:
        has = "row has" if n_without == 1 else "rows have"
        say(f"{n_without:,} {has} no prediction: {in_words(found.unpredicted)}.", console)
    if found.n_split:
        say(
            f"{wording.counted(found.n_split, 'text')} split into words and punctuation marks: see the column 'words'.",
            console,
        )
    if found.probabilities_are:
        say(
            f"Note: the probabilities of {found.method} are {found.probabilities_are}. They order the classes; they do "
            "not say how often a prediction is right.",
            console,
        )
    return 0
