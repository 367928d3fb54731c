"""Checks of the contract of a method; many share a fit, since fitting takes the most time."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.backbones import Architecture, BackboneFiles, load_backbone
from harness.methods import (
    FineTuning,
    FittedModel,
    Method,
    TrainedMethod,
    artifact_size_bytes,
    check_declarations,
    check_workload,
    load_artifact,
    methods,
    save_artifact,
)
from harness.records import Budget, Record
from harness.support import UsageError
from harness.tasks import Answers, Kind, Likelihoods, Task, TextAnswers, Unscaled, kinds
from harness.testing.abilities import check_abilities, disturb
from harness.testing.checks import Check, CheckError, expect
from harness.testing.elsewhere import Case, predict_elsewhere
from harness.testing.laboratory import Lab, lab, state_hash

BRIEF: Final[dict[str, Any]] = {"min_steps": 6, "epochs": 1, "n_pairs": 1, "max_steps": 6}
"""Settings of a fit that ends after a few steps."""

FAST: Final[dict[str, Any]] = {"learning_rate": 3e-3, "head_learning_rate": 1e-2, "min_steps": 150}
"""Settings that move a tiny model with random weights, which needs higher rates than a pretrained one."""

N_TRAIN: Final = 48

LEARNED: Final = 0.3
"""Required accuracy above the majority class with 192 texts whose words reveal the class."""


def method_checks(cls: type[Method]) -> Iterator[Check]:
    """Return the checks of a method, on a tiny backbone of every architecture that it serves."""
    for what in (describes_the_method, serves_or_refuses_each_kind):
        yield Check(cls.name, _name(what), functools.partial(what, cls))
    architectures = sorted(cls.serves - {"served"}) or ["encoder"]  # a method without a backbone must accept one
    if "encoder" in architectures:
        architectures.insert(0, architectures.pop(architectures.index("encoder")))
    for architecture in architectures:
        subject = _Subject(cls, architecture)
        checks = [repeats_itself, predicts_the_same_when_restored]
        if issubclass(cls, FineTuning):
            checks += [trains_what_it_says_and_nothing_else, starts_from_the_pretrained_function]
            checks += [merges_and_converts_as_it_declares]
        if architecture == architectures[0]:
            if cls.serves:
                checks += [does_what_it_declares]
            checks += [draws_by_its_seed, learns, predicts_the_same_in_another_process]
            if issubclass(cls, TrainedMethod):
                checks += [stops_early]
                for budget in (Budget(steps=7), Budget(epochs=2), Budget(train_seconds=0.4)):
                    stops = functools.partial(stops_within_its_budget, budget=budget)
                    run = functools.partial(_on_a_pristine_backbone, stops, subject)
                    yield Check(str(subject), f"stops within its budget of {budget.label()}", run)
        for check in checks:
            yield Check(str(subject), _name(check), functools.partial(_on_a_pristine_backbone, check, subject))


def _on_a_pristine_backbone(check: Callable[[_Subject], None], subject: _Subject) -> None:
    """Run a check; if it changed the weights of the backbone, drop them, so that later checks find the right ones."""
    subject.lab.drop_changed_weights(subject.architecture)
    try:
        check(subject)
    except Exception as error:
        if subject.lab.drop_changed_weights(subject.architecture):
            raise CheckError(f"expected untouched weights of the backbone; found changed ones, and: {error}") from error
        raise
    expect(
        not subject.lab.drop_changed_weights(subject.architecture), "untouched weights of the backbone", "changed ones"
    )


def _name(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ")


@dataclass(frozen=True)
class _Subject:
    """A method on a tiny backbone of one architecture."""

    cls: type[Method]
    architecture: Architecture

    def __str__(self) -> str:
        return f"{self.cls.name} on a tiny {self.architecture} backbone"

    @property
    def lab(self) -> Lab:
        """The laboratory."""
        return lab()

    @property
    def files(self) -> BackboneFiles:
        """The backbone."""
        return self.lab.backbone(self.architecture)

    @functools.cached_property
    def task(self) -> Task:
        """A task of the first kind that the method serves: classification, if it does."""
        served = [kind for kind in kinds if self.cls.why_not_kind(kind) is None]
        expect(served, "a kind of task that the method serves", "none")
        return self.lab.task(served[0])

    def configured(self, **settings: Any) -> Method:
        """Return the method with the given settings, without those that it lacks."""
        return configured(self.cls, **settings)

    @property
    def refusal(self) -> str | None:
        """Why the method cannot run here; None if it can."""
        return self.configured(**BRIEF).why_not(self.task, self.files, "cpu")

    def run(self, method: Method, task: Task | None = None, **how: Any) -> Record:
        """Run one cell, which must succeed."""
        record = self.lab.run(task or self.task, self.files, method, **how)
        expect(record.status == "ok", "a cell that ends well", f"{record.status}: {record.error}")
        return record


def configured(cls: type[Method], **settings: Any) -> Method:
    """Return a method with the given settings, without those that it lacks."""
    return cls(**{name: value for name, value in settings.items() if name in cls.model_fields})


def comparable(answers: Answers) -> Any:
    """Return answers as arrays or lists, which can be compared."""
    if isinstance(answers, TextAnswers):
        return list(answers.texts)
    if isinstance(answers, Unscaled):
        return answers.values
    return answers.nll if isinstance(answers, Likelihoods) else answers


def same(first: Answers, second: Answers) -> bool:
    """Return whether two answers are the same to the last bit."""
    return bool(np.array_equal(comparable(first), comparable(second)))


# ---- declarations of a method


def describes_the_method(cls: type[Method]) -> None:
    """Check the declarations, the docstring, the version and the settings."""
    try:
        check_declarations(cls)
    except UsageError as error:
        raise CheckError(str(error)) from error
    expect(methods.get(cls.name) is cls, "a registered class (`@method`)", "another method of that name")
    expect(cls.__doc__, "a docstring, which `harness methods NAME` prints", "none")
    for name in ("family", "trains", "source"):
        expect(getattr(cls, name), f"a text in `{name}`", "an empty one")
    expect(cls.version >= 1, "a version from 1 on", cls.version)
    config = cls().config()
    expect(json.loads(json.dumps(config)) == config, "settings that are JSON values", config)
    expect(cls(**config).config() == config, f"the settings {config} again", cls(**config).config())
    unknown = sorted(set(cls.search_space) - set(cls.model_fields))
    expect(not unknown, "a search space over the method's settings", f"no setting called {', '.join(unknown)}")


def serves_or_refuses_each_kind(cls: type[Method]) -> None:
    """Check that the method serves a kind, or refuses it by name, and that its cells are unsupported."""
    for kind in kinds:
        reason = cls.why_not_kind(kind)
        if reason is None:
            continue
        expect(cls.name in reason and kind.name in reason, f"a refusal of {kind.name} with both names", reason)
        task, files = lab().task(kind), lab().backbone("causal")
        record = lab().run(task, files, cls())
        expect(record.status == "unsupported", f"an unsupported cell of {kind.name}", record.status)
        expect(record.error == reason, f"the reason '{reason}'", record.error)
        return  # one cell shows it; the others differ in the text alone


# ---- what a cell does


def repeats_itself(subject: _Subject) -> None:
    """Check that running A, B, A gives A twice, for any test labels."""
    method = subject.configured(**BRIEF)
    if subject.refusal is not None:
        record = subject.lab.run(subject.task, subject.files, method)
        expect(record.status == "unsupported", "an unsupported cell", record.status)
        expect(record.error == subject.refusal, f"the reason '{subject.refusal}'", record.error)
        return
    first = subject.run(method)
    between = configured(methods.get("full"), **BRIEF)
    if between.why_not(subject.task, subject.files, "cpu") is None:
        subject.run(between, seed=1)
    task = dataclasses.replace(subject.task, test_labels=np.roll(subject.task.test_labels, 1))
    again = subject.run(method, task)
    for name in ("predicted", "confidence", "texts"):
        one, other = (getattr(record.predictions, name) for record in (first, again))
        expect(np.array_equal(one, other), "the same predictions again, and with other test labels", f"other {name}")
    cost = first.cost
    expect((cost.n_trainable or 0) <= (cost.n_parameters or 0), "n_trainable within n_parameters", cost)
    expect(cost.artifact_bytes, "the size of what is saved", cost.artifact_bytes)


def draws_by_its_seed(subject: _Subject) -> None:
    """Check that another seed draws other rows and gives other answers."""
    if subject.refusal is not None or not subject.cls.uses_labels:
        return
    fitted = [_fit(subject, seed=seed) for seed in (0, 1)]
    expect(not same(*fitted), "other answers with other training rows", "the same")


def _fit(subject: _Subject, seed: int) -> Answers:
    method, task = subject.configured(**BRIEF), subject.task
    bench = subject.lab.bench(task, subject.files if method.serves else None, seed=seed)
    return method.fit(subject.lab.rows(task, 24, seed=seed), bench).predict(task.test_rows_to_predict, bench)


def trains_what_it_says_and_nothing_else(subject: _Subject) -> None:
    """Check which parameters move in a fit, and how they are counted."""
    method = subject.configured(**{**BRIEF, "min_steps": 12})
    assert isinstance(method, FineTuning)
    if subject.refusal is not None:
        return
    bench = subject.lab.bench(subject.task, subject.files)
    before = method.build(bench)
    start = state_hash(before)
    trained = {key for key, value in before.named_parameters() if value.requires_grad}
    fitted = method.fit(subject.lab.rows(subject.task, N_TRAIN), bench)
    assert isinstance(fitted, FittedModel)
    check_what_moved(fitted, start, trained, all_of_it=True)


def check_what_moved(fitted: FittedModel, start: dict[str, str], trained: set[str], *, all_of_it: bool) -> None:
    """Check that a fit changed the trained parameters and nothing else.

    Values that are saved although they do not train (`PeftMethod.keeps`) may have been read from training rows.

    Args:
        fitted: the fitted model.
        start: `state_hash` of the model before.
        trained: names of the trained parameters.
        all_of_it: whether each of them must have changed.
    """
    end = state_hash(fitted.model)
    expect(end.keys() == start.keys(), "the tensors that were built", sorted(end.keys() ^ start.keys()))
    own = dict(fitted.model.named_parameters())  # each tensor once: tied tensors have one name
    saved_too = {key for key in fitted.tensors() if key in own and not own[key].requires_grad}
    moved = {key for key in own if end[key] != start[key] and key not in saved_too}
    buffers = [key for key, _ in fitted.model.named_buffers() if key in end and end[key] != start[key]]
    expect(not buffers, "buffers that stay as they were", f"changes of {buffers}")
    expect(moved and moved <= trained, "changes of what requires gradients alone", f"also {sorted(moved - trained)}")
    expect(moved == trained or not all_of_it, "changes of all that is trained", f"none of {sorted(trained - moved)}")
    n_trained = sum(own[key].numel() for key in trained if key in own)
    expect(fitted.n_trainable == n_trained, f"n_trainable {n_trained}", fitted.n_trainable)


def starts_from_the_pretrained_function(subject: _Subject) -> None:
    """Check that added parameters change nothing before they are trained.

    Soft prompts are excluded, since they start as text.
    """
    import torch

    method = subject.cls.model_validate({"precision": "fp32"})  # else frozen matrices are rounded, as products are
    assert isinstance(method, FineTuning)
    if subject.refusal is not None or method.reserved_tokens():
        return
    if subject.task.kind.form != "classes":
        return
    model = method.build(subject.lab.bench(subject.task, subject.files)).eval()
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    asked: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        found = model.transformer(**asked).last_hidden_state
        expected = load_backbone(subject.files).pristine(**asked).last_hidden_state
    far = float((found - expected).abs().max())
    expect(far < 1e-4, "hidden states of the pretrained transformer", f"a difference of {far:.3g}")


def merges_and_converts_as_it_declares(subject: _Subject) -> None:
    """Check that a fit can be merged, and turned into LoRA, if the method declares it, and is refused otherwise."""
    if subject.refusal is not None:
        return
    method, task = subject.configured(**BRIEF, precision="fp32"), subject.task
    bench = subject.lab.bench(task, subject.files)
    fitted = method.fit(subject.lab.rows(task, N_TRAIN if method.uses_labels else 0), bench)
    if isinstance(fitted, FittedModel):
        disturb(fitted)
    may_refuse = subject.architecture != "encoder" and "encoder" in subject.cls.serves
    check_abilities(subject.cls, fitted, task.test_rows_to_predict, bench, may_refuse=may_refuse)


def predicts_the_same_when_restored(subject: _Subject) -> None:
    """Check that a saved method gives the same predictions, without the seed and in any order of the rows."""
    if subject.refusal is not None:
        return
    method, task = subject.configured(**BRIEF), subject.task
    files = subject.files if method.serves else None
    bench = subject.lab.bench(task, files)
    fitted = method.fit(subject.lab.rows(task, N_TRAIN if method.uses_labels else 0), bench)
    rows = task.test_rows_to_predict
    answers = fitted.predict(rows, bench)
    task.kind.check(task, answers, task.kind.n_answers(rows))
    with tempfile.TemporaryDirectory(dir=subject.lab.folder) as folder:
        written = save_artifact(fitted, method, Path(folder), bench)
        suffixes = {path.suffix for path in Path(folder).iterdir()}
        expect(suffixes == {".json", ".safetensors"}, "files of JSON and safetensors alone", suffixes)
        size = artifact_size_bytes(fitted, method)
        expect(written == size, f"an artifact of {written} bytes, as written", size)
        another = subject.lab.bench(task, files, seed=7)
        restored_method, restored = load_artifact(Path(folder), another)
    expect(restored_method == method, f"the settings {method!r}", repr(restored_method))
    expect(restored.n_trainable == fitted.n_trainable, f"n_trainable {fitted.n_trainable}", restored.n_trainable)
    again = restored.predict(rows, another)
    expect(same(again, answers), "the same answers from what was saved", "other answers")
    if isinstance(answers, np.ndarray):
        order = np.arange(len(rows))[::-1]
        backwards = restored.predict(rows.take(order), another)
        assert isinstance(backwards, np.ndarray)
        # A row may have several answers: one for each word.
        counts = [task.kind.n_answers(rows.take(np.array([at]))) for at in range(len(rows))]
        places = np.split(np.arange(len(answers)), np.cumsum(counts)[:-1])
        far = float(np.abs(backwards - answers[np.concatenate(places[::-1])]).max())
        expect(far < 1e-3, "answers that do not depend on the order of the rows", f"a difference of {far:.3g}")


def stops_within_its_budget(subject: _Subject, budget: Budget) -> None:
    """Check that a long fit stops when its budget is spent."""
    if subject.refusal is not None:
        return
    method = subject.configured(epochs=10_000, n_pairs=1, max_steps=100_000)
    subject.run(method, budget=Budget(steps=1))  # kernels are warm from here on
    record = subject.run(method, budget=budget)
    [cap] = budget.to_json()
    expect(record.cost.stopped_by == cap, f"a fit stopped by {cap}", record.cost.stopped_by)
    steps = record.curve[-1].step
    if budget.steps is not None:
        expect(steps == budget.steps, f"{budget.steps} steps", steps)
    elif budget.epochs is not None:
        items = 48 if "n_pairs" in type(method).model_fields else 24  # a pair of each sign for each text
        n_steps = budget.epochs * -(-items // method.config()["batch_size"])
        expect(steps == n_steps, f"{n_steps} steps", steps)
    else:
        seconds = record.cost.train_seconds
        expect(seconds is not None and 0.4 <= seconds < 0.8, "0.4 seconds, less than twice as much", seconds)


def stops_early(subject: _Subject) -> None:
    """Check that with `patience` a fit validates on labels of its own, and stops."""
    if subject.refusal is not None:
        return
    method = subject.configured(patience=1, epochs=200, n_pairs=1, max_steps=2000, learning_rate=3e-2)
    record = subject.run(method, size="30", budget=Budget(steps=120))
    validated = [point for point in record.curve if point.validation is not None]
    expect(len(validated) >= 2, "two validations at least", len(validated))
    stopped_by = record.cost.stopped_by
    expect(stopped_by in ("early_stopping", "steps"), "a fit stopped by early_stopping or steps", stopped_by)
    if stopped_by == "early_stopping":
        last = record.curve[-1]
        expect(last.step < 120 and last.validation is not None, "a validation where it stopped", last)


def does_what_it_declares(subject: _Subject) -> None:
    """Check the declared workload and length of a fit against a fit: texts, passes, steps and changed parameters."""
    if subject.refusal is not None:
        return
    task, method = subject.lab.task(subject.task.kind, n_train=96), subject.configured(**BRIEF, k=1)
    if task.kind.form == "classes":
        rows = subject.lab.rows(task, len(task.train))  # all rows: encoding fills its batches with other rows
        try:
            check_workload(method, rows, subject.lab.bench(task, subject.files))
        except AssertionError as error:
            raise CheckError(str(error)) from error


def learns(subject: _Subject) -> None:
    """Check that 192 texts whose words reveal their class suffice to beat the majority class by far."""
    if subject.refusal is not None or not subject.cls.uses_labels or subject.task.kind.name != "classification":
        return
    floor = subject.run(methods.get("majority")(), size="192").score
    score = subject.run(subject.configured(**FAST), size="192").score
    assert floor is not None
    assert score is not None
    least = floor.value + LEARNED
    expect(score.value >= least, f"an accuracy of {least:.2f} at least", f"{score.value:.2f}")


def predicts_the_same_in_another_process(subject: _Subject) -> None:
    """Check identity and predictions in another process, with a cold and a warm cache, and from the saved method."""
    if subject.refusal is not None:
        return
    for name, cls in ((subject.cls.name, subject.cls), (subject.task.kind.name, type(subject.task.kind))):
        expect(
            cls.__module__ != "__main__",
            f"a module that other processes can import: move the class {cls.__name__} to a module of its own, and "
            "import that",
            f"'{name}' defined in the script that runs",
        )
    check_elsewhere([(subject.cls, subject.architecture)], subject.task.kind)


def check_elsewhere(cases: list[tuple[type[Method], Architecture]], kind: Kind) -> None:
    """Check that some methods give the same cells in another process; one process runs all, since it starts slowly."""
    here, task = [], lab().task(kind)
    with tempfile.TemporaryDirectory(dir=lab().folder) as saved:
        for at, (cls, architecture) in enumerate(cases):
            method, files = configured(cls, **BRIEF), lab().backbone(architecture)
            bench = lab().bench(task, files if method.serves else None)
            fitted = method.fit(lab().rows(task, 24 if method.uses_labels else 0), bench)
            save_artifact(fitted, method, Path(saved) / str(at), bench)
            answers = fitted.predict(task.test_rows_to_predict, bench)
            here.append((Case(method, files, Path(saved) / str(at)), answers))
        for _ in range(2):  # the second time features come from the cache
            found = predict_elsewhere([case for case, _ in here], task, lab())
            for (case, answers), there in zip(here, found, strict=True):
                cell_id, predictions, restored = there
                about = f"of {case.method.name} on {case.files.architecture}"
                known = lab().plan(task, case.files, case.method).cell.id
                expect(cell_id == known, f"the identity {known} {about}", cell_id)
                ours = task.kind.decode(task, answers).to_json()
                expect(predictions == ours, f"the same predictions {about} in another process", "others")
                expect(restored == ours, f"the same predictions {about} from what was saved", "others")
