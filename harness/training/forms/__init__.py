"""Forms of answers as methods that train inside a transformer serve them: model, inputs, loss, prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.training.forms.base import AnswerForm, Examples, Workbench

if TYPE_CHECKING:
    from harness.tasks import Form

__all__ = ["AnswerForm", "Examples", "Workbench", "answer_form"]


def answer_form(form: Form) -> AnswerForm:
    """Return the object that serves a kind's form."""
    from harness.training.forms.choices import Choices
    from harness.training.forms.classes import Classes
    from harness.training.forms.labels import LabelSets
    from harness.training.forms.number import Number
    from harness.training.forms.spans import Spans
    from harness.training.forms.tags import Tags
    from harness.training.forms.text import GeneratedText

    known: dict[Form, type[AnswerForm]] = {
        "classes": Classes,
        "choices": Choices,
        "spans": Spans,
        "text": GeneratedText,
        "number": Number,
        "labels": LabelSets,
        "tags": Tags,
    }
    return known[form]()
