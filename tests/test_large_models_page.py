"""The table of the guide to large models, against the plans of the commands that the guide names."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.api.plans import PlanRow

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "large-models.md"
CARDS = ("24GB", "40GB", "80GB")
SHAPES = {"1B": "llama-3.2-1b-like", "3B": "llama-3.2-3b-like", "8B": "llama-3.1-8b-like"}


def stated() -> dict[tuple[str, str], list[str]]:
    """The cells of the table by model and method: needed GB, then how it runs on each card."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (1B|3B|8B) \|", line)]
    rows = [[field.strip() for field in line.strip("|").split("|")] for line in lines]
    return {(model, method.strip("`")): rest for model, method, *rest in rows}


METHODS = [method for model, method in stated() if model == "1B"]


@pytest.fixture(scope="module")
def tickets() -> pd.DataFrame:
    """400 texts of two classes, all longer than the 256 tokens that are read."""
    words = "the printer on the second floor does not answer when a page is sent to it from my desk " * 30
    labels = ["hardware", "network"] * 200
    return pd.DataFrame({"body": [f"{number} {words}" for number in range(400)], "queue": labels})


def how(row: PlanRow, memory_bytes: float) -> str:
    """One cell of the table: whether and in which form a plan expects a method to fit."""
    assert row.peak_bytes is not None
    if row.peak_bytes <= memory_bytes:
        return "yes"
    if row.runs_as is None:
        return "no"
    pieces = re.search(r"accumulation=(\d+)", row.runs_as)
    assert pieces is not None, row.runs_as
    return f"{pieces[1]} pieces" + (", recomputed" if "gradient_checkpointing=true" in row.runs_as else "")


@pytest.mark.parametrize(
    ("model", "card"),
    [
        pytest.param(model, card, marks=[] if (model, card) == ("8B", "24GB") else pytest.mark.slow)
        for model in SHAPES
        for card in CARDS
    ],
)
def test_the_table_of_cards_is_what_a_plan_says(model: str, card: str, tickets: pd.DataFrame) -> None:
    plan = harness.plan(
        data=tickets,
        text="body",
        label="queue",
        max_length=256,
        sizes=["128"],
        seeds=[0],
        methods=METHODS,
        backbone=SHAPES[model],
        device="cuda",
        device_memory=card,
    )
    assert [row.unsupported for row in plan.rows] == [None] * len(METHODS)
    for method, row in zip(METHODS, plan.rows, strict=True):
        needed, *cards = stated()[model, method]
        found = (f"{(row.peak_bytes or 0.0) / 1e9:.1f}", how(row, plan.memory_bytes))
        assert (needed, cards[CARDS.index(card)]) == found, (model, method, card)


def test_every_model_has_every_method() -> None:
    assert list(stated()) == [(model, method) for model in SHAPES for method in METHODS]
    assert len(METHODS) == 11
