"""Words and lengths of sentences: the script that measures them, and the limits of README and pages."""

from __future__ import annotations

import pytest

from tools import prose

HAND_WRITTEN = [path for path in prose.pages() if "decisions" not in path.parts and path.name != "CHANGELOG.md"]


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: str(path.relative_to(prose.ROOT)))
def test_sentences_are_short(path: prose.Path) -> None:
    median = prose.measure(path.read_text("utf-8")).median
    assert median <= prose.MEDIAN_WORDS, f"the median sentence has {median:g} words"


def test_the_readme_is_short() -> None:
    assert prose.measure((prose.ROOT / "README.md").read_text("utf-8")).words <= prose.README_WORDS


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("One two. Three four five.", [2, 3]),
        ("It costs 0.5 s, e.g. at 32 labels. Done now!", [8, 2]),
        ("Smith et al. 2020 and J. Doe say so. It ends here.", [9, 3]),
        ("Run `harness run a --b c.` now. Then stop.", [3, 2]),
        ("Read [the page. It is long](a.md#b) today.", [3, 4]),
        ("- first item is one.\n- second item\n  goes on.\n- label", [4, 4]),
        ("# Not a heading. No.\n\n| a. B | c |\n| :-- | :-- |\n| d. E | f |\n\nOnly this.", [2]),
        ("```bash\nrun. It.\n```\nText here: see below.\n\n<!-- no. No. -->", [4]),
        ("Wrapped over\ntwo lines. Second (one).", [4, 2]),
        ("No full stop here", []),
        ('A question? **Yes**, it is. "Quoted." *End here.*', [2, 3, 2]),
    ],
)
def test_lengths_of_sentences(markdown: str, expected: list[int]) -> None:
    assert list(prose.measure(markdown).lengths) == expected


def test_words_are_those_that_a_reader_sees() -> None:
    text = (
        "# A heading\n\nSee [two words](https://example.com/a/b) - and `some code here`.\n\n| a | b |\n| --: | --: |\n"
    )
    assert prose.measure(text + "\n```\nnot counted\n```\n").words == 9
