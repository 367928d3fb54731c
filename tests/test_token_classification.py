"""Token classification: windows over long sentences, the loss of the first tokens, features of words, baselines."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score

from harness.backbones.locate import locate_backbone
from harness.backbones.model import load_backbone
from harness.data.schemes import tags_of
from harness.data.spec import TaskSpec
from harness.methods import methods
from harness.methods.word_features import best_tags, describe_words, marginals, shape_of
from harness.support import DataError
from harness.tasks import Rows, Source, TextAnswers, kinds
from harness.tasks._tag_answers import as_lines, question, read_lines
from harness.tasks._words import tokenize_words, words_of
from harness.testing.laboratory import lab
from harness.training.forms.tags import Tags

KIND = kinds.get("token-classification")
ARCHITECTURES = ["encoder", "causal", "sequence-to-sequence"]


def source_of(*sentences: list[str]) -> Source:
    return Source("key/test", [" ".join(words) for words in sentences], {"tokens": [tuple(s) for s in sentences]})


def task_of(folder: Path, train: list[dict], test: list[dict] | None = None, **more):
    files = {}
    for part, rows in (("train", train), ("test", test)):
        if rows is not None:
            files[part] = str(folder / f"{part}.jsonl")
            Path(files[part]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = TaskSpec.model_validate({"name": "own", "kind": KIND.name, "data": {"files": files}, **more})
    return KIND.prepare(spec, None)


# ---- windows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_word_of_a_long_sentence_is_predicted_once_where_it_has_most_context(architecture):
    backbone = load_backbone(lab().backbone(architecture))
    words = ["the", "invoice", "unseen!", "parcel", "my", "crash", "Ünknown"] * 12
    source = source_of(words, ["help"], words[:5])
    read = tokenize_words(source, backbone, 16)
    whole = tokenize_words(source, backbone, 500)
    assert len(whole.ids) == 3
    assert max(map(len, read.ids)) <= 16
    for row in range(3):
        windows = range(read.first[row], read.first[row + 1])
        owned = [word for window in windows for word in read.places[window][:, 0]]
        assert sorted(owned) == list(whole.places[row][:, 0])
        firsts = {int(word): whole.ids[row][at] for word, at, _ in whole.places[row]}
        for window in windows:
            for word, at, _ in read.places[window]:
                assert read.ids[window][at] == firsts[int(word)]  # the same token as in one reading
    # By brute force: no other window holds the word's first token with more tokens on its poorer side.
    room = 16 - backbone.tokenizer.num_special_tokens_to_add()
    stride = max(1, int(room / 3))
    n_special = int(whole.places[0][0, 1])
    tokens = whole.ids[0][n_special : whole.places[0][-1, 2]]
    starts = range(0, max(1, len(tokens) - stride), room - stride)
    spans = [(start, min(start + room, len(tokens))) for start in starts]
    for window in range(read.first[1]):
        for word, at, _ in read.places[window]:
            place = int(whole.places[0][word, 1]) - n_special
            contexts = [
                min(place - start if start else np.inf, end - 1 - place if end < len(tokens) else np.inf)
                for start, end in spans
                if start <= place < end
            ]
            before, after = at - n_special, len(read.ids[window]) - 1 - at - (16 - room - n_special)
            is_first, is_last = window == 0, window == read.first[1] - 1
            assert min(np.inf if is_first else before, np.inf if is_last else after) == max(contexts)


def test_words_without_tokens_have_no_place_and_are_predicted_as_outside():
    files = lab().backbone("encoder")
    source = source_of(["\u3000", "invoice"], ["\u3000"])
    read = tokenize_words(source, load_backbone(files), 16)
    assert [place[:, 0].tolist() for place in read.places] == [[1], []]
    task = lab().task(KIND)
    bench = lab().bench(task, files)
    rows = Rows(source, np.arange(2))
    for name in ("full", "linear-probe", "word-features"):
        fitted = methods.get(name)().fit(lab().rows(task, 24), bench) if name != "full" else quick(task, bench)
        answers = fitted.predict(rows, bench)
        assert answers.shape == (3, task.n_outputs)
        if name == "full":
            assert answers[[0, 2]].argmax(axis=1).tolist() == [0, 0]


def quick(task, bench, **settings):
    method = methods.get("full").model_validate({"epochs": 1, "min_steps": 4, **settings})
    return method.fit(lab().rows(task, 24), bench)


def test_words_in_the_middle_of_a_window_agree_with_one_reading_of_the_sentence():
    # Attention of the tiny backbone reaches everywhere: with all context a window gives the same as one reading.
    files = lab().backbone("encoder")
    task = lab().task(KIND)
    words = ["the", "invoice", "my", "crash"] * 10
    source = source_of(words)
    bench = lab().bench(task, files)
    fitted = quick(task, bench)
    whole = fitted.predict(Rows(source, np.arange(1)), bench)
    bench.max_length = 20
    parts = fitted.predict(Rows(source_of(words), np.arange(1)), lab().bench(lab().task(KIND, max_length=20), files))
    assert parts.shape == whole.shape == (40, task.n_outputs)
    assert np.abs(parts - whole)[5:35].max() < 0.05


# ---- the loss and the model


def test_the_loss_is_that_of_transformers_own_token_classifier():
    from transformers import BertForTokenClassification

    task, files = lab().task(KIND), lab().backbone("encoder")
    bench, rows = lab().bench(task, files), lab().rows(task, 12)
    method = methods.get("full").model_validate({"dropout": 0.0})
    examples = Tags().examples(rows, bench, 0)
    model = method.build(bench).eval()
    inputs = Tags().inputs(model, examples, bench, compact=False)
    batch = inputs.batch(np.arange(12), examples.targets)
    found = float(Tags().loss(inputs.forward(batch), batch.targets, 0.0))
    theirs = BertForTokenClassification.from_pretrained(files.folder, num_labels=task.n_outputs).eval()
    [linear] = [module for module in model.head.modules() if isinstance(module, torch.nn.Linear)]
    theirs.classifier.load_state_dict(linear.state_dict())
    tokenizer = load_backbone(files).tokenizer
    words = [list(rows.source.fields["tokens"][at]) for at in rows.index]
    encoded = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
    targets = torch.full(encoded["input_ids"].shape, -100)
    for row, tags in enumerate(rows.known_labels):
        before = None
        for at, word in enumerate(encoded.word_ids(row)):
            if word is not None and word != before:
                targets[row, at] = int(tags[word])
            before = word
    expected = float(theirs(**encoded, labels=targets).loss)
    assert found == pytest.approx(expected, abs=1e-5)


def test_pieces_of_a_batch_weigh_by_their_words():
    task, files = lab().task(KIND), lab().backbone("encoder")
    settings = {"dropout": 0.0, "transformer_dropout": 0.0, "epochs": 2, "precision": "fp32"}
    answers = []
    for accumulation in (1, 3):
        bench = lab().bench(task, files)
        answers.append(
            quick(task, bench, accumulation=accumulation, **settings).predict(task.test_rows_to_predict, bench)
        )
    assert np.abs(answers[0] - answers[1]).max() < 1e-4


# ---- features of words


@pytest.mark.parametrize("word", ["first", "mean"])
def test_features_of_words_are_those_of_a_plain_forward_pass(word):
    task, files = lab().task(KIND), lab().backbone("encoder")
    backbone, bench = load_backbone(files), lab().bench(task, files)
    source = source_of(["help", "unbelievable", "invoice"], ["my", "parcel"])
    found = bench.words(Rows(source, np.array([1, 0])), "encode", "fp32", word=word)
    assert found.shape == (5, backbone.hidden_size)
    expected = []
    for words in (["my", "parcel"], ["help", "unbelievable", "invoice"]):
        encoded = backbone.tokenizer([words], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            states = backbone.pristine(**encoded).last_hidden_state[0]
        of_words = np.array([-1 if at is None else at for at in encoded.word_ids(0)])
        for at in range(len(words)):
            own = states[np.flatnonzero(of_words == at)]
            expected.append((own[0] if word == "first" else own.mean(0)).numpy())
    assert np.abs(found - np.array(expected)).max() < 1e-5


def test_features_of_words_are_encoded_once(tmp_path):
    task, files = lab().task(KIND), lab().backbone("encoder")
    bench = lab().bench(task, files)
    rows = lab().rows(task, 24)
    first = bench.words(rows, "encode", "fp32")
    assert "features" not in bench.ledger.reused
    assert bench.ledger.train_flops > 0
    again = bench.words(rows.take(np.arange(24)[::-1]), "encode", "fp32")
    assert "features" in bench.ledger.reused
    counts = words_of(rows)
    ends = np.cumsum(counts)
    backwards = np.concatenate([first[end - n : end] for end, n in list(zip(ends, counts, strict=True))[::-1]])
    assert np.array_equal(again, backwards)


# ---- the baseline


def test_the_field_predicts_as_crfsuite_does(tmp_path):
    import pycrfsuite

    task = lab().task(KIND)
    bench, rows = lab().bench(task, None), lab().rows(task, 60)
    method = methods.get("word-features")()
    found = method.fit(rows, bench).predict(task.test_rows_to_predict, bench)
    trainer = pycrfsuite.Trainer(verbose=False)
    for at, tags in zip(rows.index, rows.known_labels, strict=True):
        trainer.append(describe_words(rows.source.fields["tokens"][at], 2), [task.label_names[tag] for tag in tags])
    trainer.set_params({"c1": 0.0, "c2": 0.1, "max_iterations": 200})
    trainer.train(str(tmp_path / "model"))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(tmp_path / "model"))
    expected, chances = [], []
    for words in task.test.fields["tokens"]:
        expected += tagger.tag(describe_words(words, 2))
        chances += [
            [tagger.marginal(t, at) if t in tagger.labels() else 0.0 for t in task.label_names]
            for at in range(len(words))
        ]
    assert [task.label_names[tag] for tag in found.argmax(axis=1)] == expected
    likeliest = np.eye(task.n_outputs)[[task.label_names.index(tag) for tag in expected]]
    assert np.abs(2 * found - likeliest - np.array(chances)).max() < 1e-3


def test_the_likeliest_sequence_and_the_marginals_are_those_of_all_sequences():
    draw = np.random.default_rng(0)
    scores, moves = draw.normal(size=(4, 3)), draw.normal(size=(3, 3))
    paths = np.array(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1).T
    total = scores[np.arange(4), paths].sum(axis=1) + moves[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    assert best_tags(scores, moves).tolist() == paths[total.argmax()].tolist()
    weights = np.exp(total) / np.exp(total).sum()
    expected = [[weights[paths[:, at] == tag].sum() for tag in range(3)] for at in range(4)]
    assert np.allclose(marginals(scores, moves), expected)


@pytest.mark.parametrize(("word", "shape"), [("London", "Xxx"), ("B-52s", "X-ddx"), ("ÉCOLE", "XX"), ("3,000", "d,dd")])
def test_shapes(word, shape):
    assert shape_of(word) == shape


def test_a_draw_without_entities_is_fitted():
    task = lab().task(KIND)
    bench, rows = lab().bench(task, lab().backbone("encoder")), lab().rows(task, 24)
    plain = np.empty(24, dtype=object)
    plain[:] = [np.zeros(len(tags), dtype=np.int64) for tags in rows.known_labels]
    for name in ("word-features", "linear-probe", "majority", "head"):
        fitted = methods.get(name)().fit(Rows(rows.source, rows.index, plain, np.zeros(24, dtype=np.int64)), bench)
        assert (fitted.predict(task.test_rows_to_predict, bench).argmax(axis=1) == 0).mean() > 0.9


# ---- rows of a task


GOOD = [{"tokens": ["Ada", "wrote", str(n)], "tags": ["B-PER", "O", "O"]} for n in range(8)] + [
    {"tokens": ["in", "Rome", str(n)], "tags": ["O", "B-LOC", "O"]} for n in range(8)
]


def test_rows_become_labels_and_facts(tmp_path):
    extra = {"tokens": ["in", "New", "York"], "tags": ["O", "I-LOC", "I-LOC"]}
    task = task_of(tmp_path, [*GOOD, extra], [{"tokens": ["Bob", "ran"], "tags": ["B-PER", "O"]}])
    assert task.label_names == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
    assert task.provenance["entity_types"] == ["LOC", "PER"]
    assert task.provenance["n_repaired_tags"] == 2
    assert set(task.train_strata.tolist()) == {0, 1, 2}
    assert task.test.fields["tokens"] == [("Bob", "ran")]
    assert task.test_labels[0].tolist() == [2, 0]


def test_tags_that_only_test_rows_have_are_refused_by_row(tmp_path):
    test = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b"], "tags": ["B-ORG"]}]
    with pytest.raises(DataError, match=r"line 2: tags of the type 'ORG' occur in the test rows only"):
        task_of(tmp_path, GOOD, test)


def test_empty_sentences_are_left_out_and_counted_or_refused(tmp_path):
    train = [*GOOD, {"tokens": [], "tags": []}]
    test = [{"tokens": ["Bob"], "tags": ["B-PER"]}]
    task = task_of(tmp_path, train, test)
    assert len(task.train) == len(GOOD)
    assert task.provenance["left_out"] == {"no text": 1}
    with pytest.raises(DataError, match="line 17: the sentence has no words"):
        task_of(tmp_path, train, test, strict=True)


def test_spans_of_a_text_are_read_and_a_rare_type_stays_in_training(tmp_path):
    rows = [{"text": f"Ada met Bob {n}", "label": [[0, 3, "PER"], [8, 11, "PER"]]} for n in range(8)]
    rows.append({"text": "in Rome", "label": [{"start": 3, "end": 7, "label": "LOC"}]})
    rows += [{"text": f"nothing {n}", "label": []} for n in range(4)]
    columns = {"tokens": "text", "label": "label"}
    with pytest.raises(DataError):
        task_of(tmp_path, [*rows, {"text": "Ada", "label": [[0, 9, "PER"]]}], columns=columns, splits={"test": None})
    task = task_of(tmp_path, rows, columns=columns, splits={"test": None})
    assert task.provenance["entity_types"] == ["LOC", "PER"]
    assert any("Rome" in words for words in task.train.fields["tokens"])


def test_the_score_is_seqevals(tmp_path):
    task = lab().task(KIND)
    draw = np.random.default_rng(0)
    answers = draw.random((KIND.n_answers(task.test_rows_to_predict), task.n_outputs), dtype=np.float32)
    score = KIND.score(task, KIND.decode(task, answers))
    names, ends = np.array(task.label_names), np.cumsum([len(tags) for tags in task.test_labels])
    predicted = [list(part) for part in np.split(names[answers.argmax(axis=1)], ends[:-1])]
    right = [list(names[tags]) for tags in task.test_labels]
    assert score.value == pytest.approx(f1_score(right, predicted), abs=1e-12)
    assert score.value == KIND.measure(task, answers, task.test_labels)


# ---- real data

MIRROR = os.environ.get("HARNESS_MIRROR")
HERE = MIRROR is not None and (Path(MIRROR) / "datasets/DFKI-SLT/cross_ner/ai/train.jsonl").exists()


def cross_ner(domain: str):
    spec = {"hub": "DFKI-SLT/cross_ner", "config": domain}
    columns = {"tokens": "tokens", "label": "ner_tags"}
    given = {"name": f"cross-ner-{domain}", "kind": KIND.name, "data": spec, "columns": columns, "test_cap": 100}
    return KIND.prepare(TaskSpec.model_validate(given), Path(MIRROR))


@pytest.mark.skipif(not HERE, reason="needs CrossNER in HARNESS_MIRROR")
def test_the_field_learns_crossner():
    task = cross_ner("ai")
    assert (len(task.train), len(task.label_names)) == (100, 29)
    bench = lab().bench(task, None)
    answers = methods.get("word-features")().fit(lab().rows(task, 100), bench).predict(task.test_rows_to_predict, bench)
    assert KIND.measure(task, answers, task.test_labels) > 0.35


# ---- prompts


@pytest.mark.parametrize(
    ("written", "expected", "is_read"),
    [
        ("PER: Ada Lovelace\nLOC: london", "B-PER I-PER O B-LOC O", True),
        ("- per: adalovelace", "B-PER I-PER O O O", True),
        ("None.", "O O O O O", True),
        ("", "O O O O O", False),
        ("LOC: Paris\nLOC: London", "O O O B-LOC O", False),
        ("ORG: London", "O O O O O", False),
        ("PER: Ada\nPER: Ada", "B-PER O O O O", False),
        ("It names London.", "O O O O O", False),
    ],
)
def test_written_answers_are_read_line_by_line(written, expected, is_read):
    words = ["Ada", "Lovelace", "in", "London", "."]
    names = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
    assert read_lines(written, words, names) == (expected.split(), is_read)


@pytest.mark.parametrize("scheme", ["IO", "IOB2", "IOBES"])
def test_right_answers_in_words_are_read_as_the_same_tags(scheme):
    names = tags_of(["LOC", "PER"], scheme)
    tags = {"IO": "I-PER I-PER O I-LOC", "IOB2": "B-PER I-PER O B-LOC", "IOBES": "B-PER E-PER O S-LOC"}[scheme].split()
    words = ["Ada", "Lovelace", "in", "London"]
    assert as_lines(words, tags) == "PER: Ada Lovelace\nLOC: London"
    assert read_lines(as_lines(words, tags), words, names) == (tags, True)
    assert as_lines(words, ["O"] * 4) == "none"


@pytest.mark.parametrize("architecture", ["causal", "sequence-to-sequence"])
def test_a_language_model_is_asked_for_types_and_its_unreadable_answers_are_counted(architecture, monkeypatch):
    from harness.training.generative import GenerativeModel

    task, files = lab().task(KIND), lab().backbone(architecture)
    right = KIND.in_words(Rows(task.test, np.arange(48), task.test_labels), task.label_names)
    asked = []

    def answer(model, prompts, bench, precision, shared=None):
        asked.extend(load_backbone(files).tokenizer.decode(ids) for ids in prompts)
        return TextAnswers([*right[:-1], "no idea"])

    monkeypatch.setattr(GenerativeModel, "answer", answer)
    bench = lab().bench(task, files)
    fitted = methods.get("few-shot")(k=2, n_template_rows=0).fit(lab().rows(task, 8), bench)
    answers = fitted.predict(task.test_rows_to_predict, bench)
    KIND.check(task, answers, KIND.n_answers(task.test_rows_to_predict))
    assert KIND.measure(task, answers, task.test_labels) > 0.97
    assert bench.ledger.remarks["unreadable_answers"] == "1 of 48"
    assert question(task.label_names).startswith(
        "Find all names of these types in the text: billing, shipping, technical."
    )
    assert len(asked) == 48


def test_a_cell_of_a_prompt_notes_what_could_not_be_read():
    record = lab().run(lab().task(KIND), lab().backbone("causal"), methods.get("zero-shot")())
    assert record.status == "ok"
    assert record.facts.remarks["unreadable_answers"].endswith(" of 48")


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="needs CrossNER in HARNESS_MIRROR")
@pytest.mark.parametrize("name", ["linear-probe", "full", "lora"])
def test_methods_on_a_real_encoder_beat_the_most_frequent_tag(name):
    task = cross_ner("politics")
    files = locate_backbone("sentence-transformers/paraphrase-MiniLM-L3-v2", Path(MIRROR))
    bench = lab().bench(task, files)
    fitted = methods.get(name)().fit(lab().rows(task, len(task.train)), bench)
    answers = fitted.predict(task.test_rows_to_predict, bench)
    assert KIND.measure(task, answers, task.test_labels) > 0.1
    assert KIND.log_loss(answers, task.test_labels) < 1.3
