"""Sentences with tags: forms of rows, schemes, repairs, CoNLL files, and the refusal of bad input by row."""

import random
from pathlib import Path

import pytest
from seqeval.scheme import IOB2, IOBES, Entities

from harness.data.files import read_rows
from harness.data.raw import Origin
from harness.data.schemes import repair, spans_of, tags_of, unify
from harness.data.tagging import read_sentences, read_tokens, split_words
from harness.support import DataError
from harness.tasks.token_classification import class_names

ORIGIN = Origin("notes.jsonl", "line", [3, 5, 9])
COLUMNS = ("tokens", "tags")


def read(tokens, tags, names=()):
    found = read_sentences([tokens], [tags], COLUMNS, ORIGIN, names)
    return found.tokens[0], found.tags[0]


# ---- schemes


@pytest.mark.parametrize(("scheme", "theirs"), [("IOB2", IOB2), ("IOBES", IOBES)])
def test_spans_and_repairs_are_those_of_seqevals_strict_mode(scheme, theirs):
    draw = random.Random(0)
    tags = tags_of(["LOC", "PER"], scheme)
    for _ in range(2000):
        sentence = draw.choices(tags, k=draw.randint(1, 9))
        expected = [(one.start, one.end, one.tag) for one in Entities([sentence], theirs).entities[0]]
        assert spans_of(sentence, scheme) == expected
        mended = list(repair(sentence, scheme))
        assert [(one.start, one.end, one.tag) for one in Entities([mended], theirs).entities[0]] == expected
        assert sum(tag != "O" for tag in mended) == sum(end - start for start, end, _ in expected)


@pytest.mark.parametrize(
    ("given", "scheme", "expected", "n_repaired"),
    [
        (["B-PER", "I-PER", "O", "I-LOC"], "IOB2", ["B-PER", "I-PER", "O", "O"], 1),
        (["B-PER", "E-PER", "S-LOC", "I-LOC"], "IOBES", ["B-PER", "E-PER", "S-LOC", "O"], 1),
        (["B-PER", "L-PER", "U-LOC", "O"], "IOBES", ["B-PER", "E-PER", "S-LOC", "O"], 0),
        (["PER", "PER", "O", "LOC"], "IO", ["I-PER", "I-PER", "O", "I-LOC"], 0),
        (["I-PER", "I-PER", "O", "I-LOC"], "IO", ["I-PER", "I-PER", "O", "I-LOC"], 0),
        (["I-PER", "B-PER", "I-PER", "I-LOC"], "IOB2", ["B-PER", "B-PER", "I-PER", "B-LOC"], 0),
        (["O", "O"], "IO", ["O", "O"], 0),
    ],
)
def test_tags_come_into_one_scheme(given, scheme, expected, n_repaired):
    found = unify([[given]], "tags", [ORIGIN])
    assert (found.scheme, list(found.parts[0][0]), found.n_repaired) == (scheme, expected, n_repaired)


def test_a_tag_without_a_prefix_among_others_is_refused_by_row():
    with pytest.raises(DataError, match=r"line 5: column 'tags' has the tag 'ORG', and others have a prefix"):
        unify([[("B-PER", "I-PER"), ("ORG", "O")]], "tags", [ORIGIN])


def test_tags_are_outside_first_then_sorted():
    assert tags_of(["PER", "LOC"], "IOB2") == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


# ---- forms of rows


def test_numbers_become_the_tags_that_the_task_names():
    assert read(["Ada", "wrote"], [1, 0], ["O", "B-PER"]) == (("Ada", "wrote"), ("B-PER", "O"))
    assert read('["Ada", "wrote"]', "[1, 0]", ["O", "B-PER"]) == (("Ada", "wrote"), ("B-PER", "O"))
    assert read("[1]", [[0, 3, "NOTE"]]) == (("[", "1", "]"), ("B-NOTE", "I-NOTE", "I-NOTE"))


@pytest.mark.parametrize(
    ("tokens", "tags"),
    [
        ('["Ada", "wrote"]', '["B-PER", "O"]'),
        ("['Ada', 'wrote']", "['B-PER', 'O']"),
        ("Ada wrote", "B-PER O"),
        (("Ada", "wrote"), ("B-PER", "O")),
        ([{"text": "Ada", "start": 0}, {"text": "wrote", "start": 4}], ["B-PER", "O"]),
    ],
)
def test_lists_may_be_written_as_text(tokens, tags):
    assert read(tokens, tags) == (("Ada", "wrote"), ("B-PER", "O"))


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 12, "PER"], [22, 28, "LOC"]],
        [{"start": 22, "end": 28, "label": "LOC"}, {"start": 0, "end": 12, "label": "PER"}],
        [{"start_offset": 0, "end_offset": 12, "label": "PER"}, {"start_offset": 22, "end_offset": 28, "label": "LOC"}],
        [
            {"start": 0, "end": 12, "text": "Ada Lovelace", "labels": ["PER"]},
            {"start": 22, "end": 28, "labels": ["LOC"]},
        ],
        '[[0, 12, "PER"], [22, 28, "LOC"]]',
    ],
)
def test_spans_of_annotation_tools_become_iob2(spans):
    tokens, tags = read("Ada Lovelace lived in London.", spans)
    assert tokens == ("Ada", "Lovelace", "lived", "in", "London", ".")
    assert tags == ("B-PER", "I-PER", "O", "O", "B-LOC", "O")


def test_a_span_splits_the_word_that_it_ends_in():
    tokens, tags = read("NewYork-based", [[0, 3, "X"], [3, 7, "Y"]])
    assert tokens == ("New", "York", "-", "based")
    assert tags == ("B-X", "B-Y", "O", "O")


def test_words_are_runs_of_letters_with_their_marks_and_single_signs():
    text = "नमस्ते, U.S. 3,5 x_1 😀ok"
    words = [text[start:end] for start, end in split_words(text)]
    assert words == ["नमस्ते", ",", "U", ".", "S", ".", "3", ",", "5", "x_1", "😀", "ok"]


def test_texts_to_predict_are_split_and_lists_are_kept():
    assert read_tokens(["Ada, wrote", ["U.S.", "won"], None], "text", ORIGIN) == [
        ("Ada", ",", "wrote"),
        ("U.S.", "won"),
        (),
    ]


# ---- bad input


@pytest.mark.parametrize(
    ("tokens", "tags", "message"),
    [
        (["a", "b"], ["O"], "line 3: column 'tokens' has 2 tokens and column 'tags' has 1 tags; expected one tag"),
        (["a", " "], ["O", "O"], "line 3: token 2 in column 'tokens' is blank"),
        (["a", 5], ["O", "O"], "line 3: token 2 in column 'tokens' is 5, which is no text"),
        (["a", None], ["O", "O"], "line 3: token 2 in column 'tokens' is None"),
        (["a"], [None], "line 3: tag 1 in column 'tags' is missing"),
        (["a"], [1.5], "line 3: tag 1 in column 'tags' is 1.5, which is no text"),
        (["a"], [3], "the task does not name its tags"),
        (["a"], [[0, 1, "X"]], "spans need the text"),
        (7, ["O"], "line 3: column 'tokens' holds 7; expected a list of tokens"),
        ("Ada", [[0, 2, "X"], [1, 3, "Y"]], "overlaps another: 0 to 2 'X' and 1 to 3 'Y'"),
        ("Ada", [[0, 4, "X"]], "is outside the text: 0 to 4 'X'; the text has 3 characters"),
        ("Ada", [[-1, 2, "X"]], "is outside the text"),
        ("Ada", [[2, 2, "X"]], "is empty: 2 to 2 'X'"),
        ("a  b", [[1, 3, "X"]], "covers no word: 1 to 3 'X'"),
        ("Ada", [[0, 2]], r"expected \{start, end, label\}"),
        ("Ada", [{"start": 0, "end": 2, "label": None}], "one label"),
        ("Ada", [{"start": True, "end": 2, "label": "X"}], "whole numbers"),
        ("a\ud800", [], "half a surrogate pair"),
    ],
)
def test_bad_rows_are_refused_by_row_and_rule(tokens, tags, message):
    with pytest.raises(DataError, match=message):
        read(tokens, tags)


def test_a_number_beyond_the_named_tags_is_refused():
    with pytest.raises(DataError, match=r"line 3: tag 1 in column 'tags' is 2; expected 0 to 1"):
        read(["a"], [2], ["O", "B-X"])


# ---- CoNLL files


def conll(folder: Path, text: str, name: str = "news.conll"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_rows(path, ["tokens", "tags"])


@pytest.mark.parametrize("name", ["a.conll", "a.iob", "a.iob2", "a.bio", "a.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_column_file_gives_tokens_and_tags(tmp_path, name, end):
    lines = ["-DOCSTART- -X- O O", "", "EU NNP B-NP B-ORG", "rejects VBZ B-VP O", "", "", "Ada NNP B-NP B-PER"]
    rows = conll(tmp_path, end.join(lines), name)
    assert rows.columns == {"tokens": [["EU", "rejects"], ["Ada"]], "tags": [["B-ORG", "O"], ["B-PER"]]}
    assert rows.origin.at(1) == "line 7"


def test_a_column_file_with_tabs_keeps_spaces_and_skips_comments(tmp_path):
    rows = conll(tmp_path, "-DOCSTART- O\n\n# id 7\tdomain=en\nNew York\tB-LOC\n#\tO\n\n# text = x\n# 1\tO\n")
    assert rows.columns == {"tokens": [["New York", "#"], ["# 1"]], "tags": [["B-LOC", "O"], ["O"]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EU B-ORG\nrejects\n", "line 2 has 1 column, line 1 has 2; expected as many on every line"),
        ("\nEU\n", "line 2 has a single column"),
        ("EU\t\n", "line 1 has no tag"),
        ("EU\tB-ORG\n\t\tO\n", "line 2 has 3 columns"),
        ("-DOCSTART- O\n\n", "no sentences"),
    ],
)
def test_a_broken_column_file_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        conll(tmp_path, text)


def test_a_column_file_without_tags_gives_tokens_to_predict(tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("Ada\nwrote\n\nEU\n", encoding="utf-8")
    assert read_rows(path, ["tokens"]).columns == {"tokens": [["Ada", "wrote"], ["EU"]]}
    assert read_rows(path, ["tokens"], others=True).columns == {"tokens": [["Ada", "wrote"], ["EU"]]}
    path.write_text("Ada\tB-PER\n", encoding="utf-8")
    assert read_rows(path, ["tokens"], others=True).columns == {"tokens": [["Ada"]], "tags": [["B-PER"]]}


# ---- numbers that a data set names


def test_a_parquet_file_of_the_hub_names_its_tags(tmp_path):
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER"]))})
    made = Dataset.from_dict({"tokens": [["Ada", "ran"]], "ner_tags": [[1, 0]]}, features)
    made.to_parquet(tmp_path / "train.parquet")
    rows = read_rows(tmp_path / "train.parquet", ["tokens", "ner_tags"])
    assert rows.columns == {"tokens": [["Ada", "ran"]], "ner_tags": [["B-PER", "O"]]}
    assert class_names(made, "ner_tags") == ("O", "B-PER")
    assert class_names(made, "tokens") == ()
