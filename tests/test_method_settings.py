"""Settings of methods as people type them: quotation marks, commas inside them, line breaks."""

from __future__ import annotations

import pytest

from harness.methods.configure import parse_methods
from harness.support.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "template"),
    [
        (r'zero-shot[template="Review: {text}\nSentiment:"]', "Review: {text}\nSentiment:"),
        (r"zero-shot[template='Review: {text}\nSentiment:']", "Review: {text}\nSentiment:"),
        (r"zero-shot[template=Review: {text}\nSentiment:]", "Review: {text}\nSentiment:"),
        (r"zero-shot[template={text}\n\t=>]", "{text}\n\t=>"),
        (r'zero-shot[template="C:\\new {text}"]', r"C:\new {text}"),  # YAML's own way to write a backslash
        (r'zero-shot[template="Good, or [bad]? {text}"]', "Good, or [bad]? {text}"),
        ("zero-shot[template=auto]", "auto"),
    ],
)
def test_templates_are_read_as_they_are_typed(typed: str, template: str) -> None:
    (found,) = parse_methods([typed])
    assert found.template == template  # type: ignore[attr-defined]


def test_other_settings_and_several_methods_stay_as_they_are() -> None:
    found = parse_methods([r'few-shot[separator="\n---\n",k=3,choose=nearest],lora[rank=4],zero-shot[instruction=5]'])
    assert [one.name for one in found] == ["few-shot", "lora", "zero-shot"]
    assert (found[0].separator, found[0].k) == ("\n---\n", 3)  # type: ignore[attr-defined]
    assert found[2].instruction == "5"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="Setting 'or bad'"):
        parse_methods(["zero-shot[instruction=good, or bad]"])
