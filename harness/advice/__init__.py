"""Which method fits a budget, answered from what was measured. Runs nothing, and imports no torch."""

from __future__ import annotations

from harness.advice.answer import Advice, advise
from harness.advice.ask import ask
from harness.advice.choice import Choice
from harness.advice.question import Question

__all__ = ["Advice", "Choice", "Question", "advise", "ask"]
