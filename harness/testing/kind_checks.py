"""Checks of the contract of a kind of task, on a task made of its examples."""

from __future__ import annotations

import dataclasses
import functools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.backbones import Architecture, load_backbone
from harness.methods import Method, methods
from harness.metrics import metrics
from harness.records import Budget, Predictions, Record
from harness.support import HarnessError, UnreadableError
from harness.tasks import FORMS, Kind, Likelihoods, Task, TextAnswers, Toys, kinds
from harness.testing.checks import Check, expect
from harness.testing.laboratory import lab, made_up_rows, task_spec

QUICK: Final[dict[str, Any]] = {"epochs": 2, "min_steps": 8}

OVERFITS: Final[dict[str, Any]] = {
    **{"epochs": 100, "min_steps": 1, "learning_rate": 2e-3},
    **{"dropout": 0.0, "transformer_dropout": 0.0},
}
"""Settings with which a tiny model memorises 32 rows."""

SOME_METHODS: Final = ("full", "lora", "last-layers", "zero-shot", "few-shot", "linear-probe", "head", "majority")
"""Methods of each family to run a kind with."""


def kind_checks(kind: Kind) -> Iterator[Check]:
    """Return the checks of a kind."""
    for what in (
        describes_the_kind,
        makes_examples,
        gives_rows_an_identity,
        never_trains_on_test_rows,
        names_what_is_missing,
    ):
        yield Check(kind.name, _name(what), functools.partial(what, kind))
    for check in (refuses_answers_that_are_none, reads_every_row, overfits_its_training_rows):
        yield Check(kind.name, _name(check), functools.partial(_on_its_examples, check, kind))
    for architecture in ("encoder", "causal", "sequence-to-sequence"):
        run = functools.partial(_on_its_examples, runs_from_data_to_score, kind, architecture)
        yield Check(f"{kind.name} on a tiny {architecture} backbone", _name(runs_from_data_to_score), run)


def _name(check: Any) -> str:
    return str(check.__name__).replace("_", " ")


def _on_its_examples(check: Any, kind: Kind, *more: Any) -> None:
    check(lab().task(kind), *more)


def served_on(task: Task, method: Method | None = None) -> list[Architecture]:
    """Return the architectures on which a method (by default full fine-tuning) serves a task."""
    asked = method or methods.get("full")()
    every: tuple[Architecture, ...] = ("encoder", "causal", "sequence-to-sequence")
    return [name for name in every if asked.why_not(task, lab().backbone(name), "cpu") is None]


# ---- declarations of a kind


def describes_the_kind(kind: Kind) -> None:
    """Check the docstring, the roles, the metrics and the form of the answers."""
    expect(kind.name in kinds and type(kinds.get(kind.name)) is type(kind), "a registered kind (`kinds.add`)", "none")
    expect(type(kind).__doc__, "a docstring", "none")
    expect(kind.roles, "a role for each column", "none")
    expect(kind.name not in FORMS, "a name that is no form of answers", kind.name)
    expect(kind.form in FORMS or kind.answer_form() is not None, "an answer_form for a form of its own", "None")
    for name in kind.metrics:
        expect(name in metrics, "registered metrics", name)
    expect(kind.metrics[0] == kind.main_metric, f"{kind.main_metric} as the first of its metrics", kind.metrics)
    expect(set(kind.likelihood_metrics) <= set(kind.metrics), "likelihood metrics that score it", kind.metrics)


def makes_examples(kind: Kind) -> None:
    """Check that examples have the kind's roles and depend only on the random numbers."""
    first, again = (kind.example(Toys(random.Random(0))) for _ in range(2))
    expect(first == again, "one example for one state of the random numbers", f"{first} and {again}")
    expect(set(first) <= set(kind.roles), f"examples with the roles {', '.join(kind.roles)}", ", ".join(first))


# ---- from rows to a task


def _prepared(kind: Kind, train: list[dict[str, Any]], test: list[dict[str, Any]], **settings: Any) -> Task:
    with tempfile.TemporaryDirectory(dir=lab().folder) as folder:
        return kind.prepare(task_spec(kind, Path(folder), train, test, **settings), None)


def gives_rows_an_identity(kind: Kind) -> None:
    """Check that a task's fingerprint depends only on its rows, in any order."""
    train, test = made_up_rows(kind, 60), made_up_rows(kind, 20, seed=1)
    first, again = _prepared(kind, train, test), _prepared(kind, train[::-1], test)
    expect(first.data == again.data, "one fingerprint for the same rows in another order", "two")
    expect(list(first.train.texts) == list(again.train.texts), "one order of the training rows", "two")
    expect(first.data != _prepared(kind, train[:-10], test).data, "another fingerprint for fewer rows", "the same")
    expect(first.kind is kind, f"a task of the kind {kind.name}", first.kind.name)
    expect(first.metric == kind.main_metric, f"the metric {kind.main_metric}", first.metric)
    counts = {len(first.train), len(first.train_labels), len(first.train_strata), len(first.train_digests)}
    expect(len(counts) == 1, "as many training labels, strata and digests as rows", sorted(counts))
    expect(len(first.test) == first.n_test, "as many test labels as rows", f"{len(first.test)} and {first.n_test}")
    for split in (first.train, first.test):
        for role, values in split.fields.items():
            expect(len(values) == len(split), f"a value of '{role}' for each row", len(values))
        asked = len(split) if split.prompts is None else len(split.prompts)
        expect(asked == len(split), "a prompt for each row, or none at all", asked)


def never_trains_on_test_rows(kind: Kind) -> None:
    """Check that copies of test rows are dropped from training."""
    train, test = made_up_rows(kind, 60), made_up_rows(kind, 20, seed=1)
    task = _prepared(kind, [*train, *test], test)
    shared = set(task.train.texts) & set(task.test.texts)
    expect(not shared, "no text both in training and in the test", f"{len(shared)} texts")
    dropped = task.provenance["n_dropped_from_training"]
    expect(dropped >= len(test), f"{len(test)} rows dropped at least", dropped)


def names_what_is_missing(kind: Kind) -> None:
    """Check that missing columns and unknown roles are refused by name, and missing values refused or left out."""
    train, test = made_up_rows(kind, 60), made_up_rows(kind, 20, seed=1)
    for role in train[0]:
        broken = [{**row, role: None} if at == 2 else row for at, row in enumerate(train)]
        _expect_refusal(kind, role, f"a row whose '{role}' is missing", broken, test)
        column = {name: f"no-such-{role}" if name == role else name for name in train[0]}
        _expect_refusal(kind, f"no-such-{role}", f"a missing column '{role}'", train, test, columns=column)
    unknown = {**{role: role for role in train[0]}, "no-such-role": "text"}
    _expect_refusal(kind, "no-such-role", "an unknown role", train, test, columns=unknown)


def _expect_refusal(kind: Kind, named: str, what: str, train: Any, test: Any, **settings: Any) -> None:
    try:
        task = _prepared(kind, train, test, **settings)
    except HarnessError as error:
        expect(named in str(error), f"a message that names '{named}'", str(error))
        return
    expect(task.provenance.get("left_out"), f"a refusal of {what}, or a note that rows are left out", "neither")


# ---- from a task to a score


def reads_every_row(task: Task) -> None:
    """Check that tokenizing respects the maximum length and keeps every row."""
    for architecture in served_on(task):
        backbone = load_backbone(lab().backbone(architecture))
        read = task.kind.tokenize(task.test, backbone, 12)
        longest = max(len(ids) for ids in read.ids)
        expect(longest <= 12, "sequences of 12 tokens at most", longest)
        n_rows = len(read.ids) if read.first is None else len(read.first) - 1
        expect(n_rows == len(task.test), f"tokens of {len(task.test)} rows", n_rows)
        if read.first is not None:
            expect(read.first[0] == 0 and read.first[-1] == len(read.ids), "bounds of all sequences", read.first)
            expect((np.diff(read.first) > 0).all(), "one sequence a row at least", read.first)
        tokens = [-1 - token if token < 0 else token for ids in read.ids for token in ids]
        expect(max(tokens) < len(backbone.tokenizer), "tokens of the backbone's vocabulary", max(tokens))
        expect(read.n_truncated <= len(task.test), "no more cut rows than rows", read.n_truncated)


def refuses_answers_that_are_none(task: Task) -> None:
    """Check that answers to another number of rows, and answers that are not finite, are refused."""
    files = lab().backbone(served_on(task)[0])
    bench = lab().bench(task, files)
    method = methods.get("full")(**QUICK)
    answers = method.fit(lab().rows(task, 12), bench).predict(task.test_rows_to_predict, bench)
    n_answers = task.kind.n_answers(task.test_rows_to_predict)
    task.kind.check(task, answers, n_answers)
    broken: Any = answers
    if isinstance(answers, np.ndarray):
        broken = np.full_like(answers, np.nan)
    elif isinstance(answers, Likelihoods):
        broken = dataclasses.replace(answers, nll=np.full_like(answers.nll, np.nan))
    elif isinstance(answers, TextAnswers):
        broken = dataclasses.replace(answers, confidence=np.full(task.n_test, np.nan, dtype=np.float32))
    for what, given, n_rows in (
        ("answers to another number of rows", answers, n_answers + 1),
        ("answers that are not finite", broken, n_answers),
        ("something that is no answer", object(), n_answers),
    ):
        try:
            task.kind.check(task, given, n_rows)  # type: ignore[arg-type]
        except (ValueError, FloatingPointError):
            continue
        expect(False, f"a refusal of {what}", "none")


def runs_from_data_to_score(task: Task, architecture: Architecture) -> None:
    """Check cells of some methods: the score follows from the stored predictions, or the record has a reason."""
    files = lab().backbone(architecture)
    for name in SOME_METHODS:
        cls = methods.get(name)
        method = cls(**{key: value for key, value in QUICK.items() if name in ("full", "lora")})
        planned = lab().plan(task, files, method)
        record = lab().run(task, files, method)
        if planned.unsupported is not None:
            expect(record.status == "unsupported", f"an unsupported cell of {name}", record.status)
            expect(record.error == planned.unsupported, f"the reason '{planned.unsupported}'", record.error)
            continue
        if record.status == "failed" and str(record.error).startswith(UnreadableError.__name__):
            continue  # random weights need not write a number
        expect(record.status == "ok", f"a cell of {name} that ends well", f"{record.status}: {record.error}")
        _check_record(record, task)


def _check_record(record: Record, task: Task) -> None:
    score, predictions = record.score, record.predictions
    assert score is not None
    assert predictions is not None
    spec = metrics.get(task.metric)
    expect(score.metric == task.metric, f"a score by {task.metric}", score.metric)
    expect(score.higher_is_better == spec.higher_is_better, "the direction of its metric", score.higher_is_better)
    expect(score.n_test == task.n_test, f"a score of {task.n_test} rows", score.n_test)
    expect(predictions.rows == task.test_rows, "predictions of the task's test rows", predictions.rows)
    expect(record.train_score is not None or not record.cell.n_train, "a score of the training rows", "none")
    stored = Predictions.from_json(predictions.to_json())
    again = task.kind.score(task, stored)
    expect(again == score, f"the score {score} from what is stored", again)


def overfits_its_training_rows(task: Task) -> None:
    """Check that full fine-tuning memorises 32 rows, by the task's metric."""
    method = methods.get("full")(**OVERFITS)
    files = lab().backbone(served_on(task, method)[-1 if task.kind.form == "text" else 0])
    record = lab().run(task, files, method, size="32")
    found = record.train_score
    expect(found is not None, "a score of the training rows", record.error)
    assert found is not None
    spec = metrics.get(task.metric)
    if spec.higher_is_better and spec.high is not None:
        least = spec.low + 0.9 * (spec.high - spec.low)
        expect(found > least, f"a {task.metric} above {least:g} on the training rows", found)
        return
    before = lab().run(task, files, method, size="32", budget=Budget(steps=1)).train_score
    assert before is not None
    expect(found < before / 3, f"a {task.metric} below a third of {before:.3g}, that of one step", found)
