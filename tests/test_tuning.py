"""Settings chosen inside a cell: the best on validation rows, within the budget, paid for, and the same every time."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles
from harness.data.sampling import carve_validation
from harness.measure.device import Device
from harness.measure.memory import settle_for_good
from harness.methods import Bench, Fitted, Method, methods
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.methods.base import Choice, Range, SearchSpace
from harness.methods.configure import parse_method, parse_methods, with_trials
from harness.methods.knn import NearestNeighbours
from harness.methods.majority import Majority
from harness.methods.tfidf import Tfidf
from harness.records.record import Budget, Cell, Record
from harness.running import tuning
from harness.running.proposals import Proposals
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks import Rows, Task
from tests.toys import make_bench, plan_one, run_one, test_rows


class Dial(Method):
    """Is right on a share of the rows that its settings decide: a peak at x = 0.01, word = "good"."""

    name: ClassVar[str] = "dial"
    family: ClassVar[str] = "test"
    role: ClassVar[str] = "baseline"
    trains: ClassVar[str] = "nothing"
    source: ClassVar[str] = "tests"
    serves: ClassVar[frozenset[Any]] = frozenset()
    search_space: ClassVar[SearchSpace] = {
        "x": Range(1e-4, 1.0, log=True),
        "word": Choice(("bad", "good", ("listed", 1))),
        "width": Range(1, 9),
    }

    x: float = 0.5
    word: str | tuple[str, int] = "bad"
    width: int = 3
    fails_with: str = ""

    seen: ClassVar[list[tuple[Dial, int, Budget, list[int]]]] = []
    """Every fit: the settings, rows, budget, and where global generators stood."""

    def quality(self) -> float:
        return 0.9 - 0.2 * abs(np.log10(self.x) + 2) - 0.3 * (self.word != "good")

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        Dial.seen.append((self, len(rows), bench.budget, [int(np.random.randint(2**31))]))
        bench.report("dialling", 0.5, None)
        bench.clock.charge("fit", 1.0)
        bench.ledger.train_flops += 100.0
        bench.ledger.stopped_by = "epochs"
        if self.fails_with and self.word != "good":
            raise {
                "diverged": FloatingPointError("the loss is nan"),
                "memory": MemoryError(),
                "device": RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"),
                "bug": ValueError("a bug"),
            }[self.fails_with]
        return _DialFit(self, rows)

    def restore(self, tensors: dict[str, Any], state: dict[str, Any], bench: Bench) -> Fitted:
        raise NotImplementedError


class _DialFit(Fitted):
    n_parameters = n_trainable = 1

    def __init__(self, dial: Dial, rows: Rows) -> None:
        self.dial = dial
        self.answers = {text: int(label) for text, label in zip(rows.texts, rows.known_labels, strict=True)}

    def predict(self, rows: Rows, bench: Bench) -> Any:
        assert rows.labels is None  # trials are scored like anything else: predictions know no labels
        bench.clock.charge("predict", 0.25)
        sharp = np.eye(bench.n_outputs, dtype=np.float32)
        keys = [sum(map(ord, text)) for text in rows.texts]
        # The class's words tell the class; a share of rows, by a fixed hash of the text, is answered wrongly.
        right = [
            next(c for c, words in enumerate(WORDS) if any(w in text.split() for w in words)) for text in rows.texts
        ]
        wrong = [key * 7919 % 1000 / 1000 >= self.dial.quality() for key in keys]
        return np.stack([sharp[(c + w) % bench.n_outputs] * 0.98 + 0.01 for c, w in zip(right, wrong, strict=True)])

    def tensors(self) -> dict[str, Any]:
        return {"x": np.zeros(1, dtype=np.float32)}


WORDS = (
    ("invoice", "refund", "charge", "payment", "price"),
    ("parcel", "courier", "delivery", "tracking", "address"),
    ("crash", "error", "install", "screen", "update"),
)


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_there_for_good() -> None:
    """As a worker has it: else each trial goes through every object of every library, looking for garbage."""
    tuning.warm_up_sampler()
    settle_for_good()


@pytest.fixture(autouse=True)
def _forget() -> None:
    Dial.seen.clear()


def fit(
    method: Method, task: Task, device: Device, n_train: int = 120, budget: Budget | None = None
) -> tuple[Fitted, Method, Bench]:
    bench = make_bench(task, None, device, budget=budget)
    fitted, chosen = tuning.fit(method, rows_of(task, device, n_train), bench)
    return fitted, chosen, bench


def rows_of(task: Task, device: Device, n_train: int) -> Rows:
    return Worker(device, None).training_rows(task, n_train, 0, "stratified")


# ---- what is chosen


def test_the_best_of_the_trials_is_fitted_on_all_rows(toy: Task, cpu: Device) -> None:
    fitted, chosen, bench = fit(Dial(tune=12), toy, cpu)
    trials = Dial.seen[:-1]
    assert trials[0][0].x == 0.5  # its own settings first
    assert len(trials) == 12
    assert len({(dial.x, dial.word, dial.width) for dial, *_ in trials}) == 12
    inside, outside = carve_validation(rows_of(toy, cpu, 120).known_labels)
    assert {n for _, n, *_ in trials} == {len(inside)}
    # Scored anew, by hand, on the rows that the rule sets aside.
    rows = rows_of(toy, cpu, 120).take(outside)
    accuracy = [
        float(
            (_DialFit(dial, rows).predict(Rows(rows.source, rows.index), bench).argmax(1) == rows.known_labels).mean()
        )
        for dial, *_ in trials
    ]
    best = int(np.argmax(accuracy))
    assert max(accuracy) > accuracy[0]
    last, n_rows, *_ = Dial.seen[-1]
    assert n_rows == 120
    assert (last.x, last.word, last.width) == (trials[best][0].x, trials[best][0].word, trials[best][0].width)
    assert chosen == last
    assert chosen.tune is None
    assert isinstance(fitted, _DialFit)
    assert bench.ledger.facts.tuned_trials == f"12 tried, best {best + 1}"
    config = chosen.config()
    assert bench.ledger.facts.tuned_settings == {name: config[name] for name in Dial.search_space}
    for dial, *_ in trials:
        assert 1e-4 <= dial.x <= 1
        assert float(f"{dial.x:.3g}") == dial.x
        assert 1 <= dial.width <= 9


def test_equal_scores_are_told_apart_by_the_log_loss_then_by_order(
    toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(self: _DialFit, rows: Rows, bench: Bench) -> Any:
        sure = {1: 0.9, 2: 0.6}.get(self.dial.width, 0.7)
        return np.tile(np.array([sure, 1 - sure, 0], dtype=np.float32), (len(rows), 1))

    monkeypatch.setattr(_DialFit, "predict", predict)
    _, outside = carve_validation(rows_of(toy, cpu, 120).known_labels)
    labels = rows_of(toy, cpu, 120).known_labels[outside]
    losses = {}
    _, chosen, _ = fit(Dial(tune=12), toy, cpu)
    for dial, *_ in Dial.seen[:-1]:
        sure = {1: 0.9, 2: 0.6}.get(dial.width, 0.7)
        shares = np.clip(np.array([sure, 1 - sure, 0]), 1e-7, 1)
        losses[dial.width] = -float(np.log(shares[labels]).mean())
    least = min(losses.values())
    first = next(dial for dial, *_ in Dial.seen[:-1] if losses[dial.width] == pytest.approx(least, abs=1e-9))
    assert (chosen.width, chosen.x) == (first.width, first.x)  # type: ignore[attr-defined]


def test_a_small_space_is_not_tried_twice(toy: Task, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dial, "search_space", {"word": Choice(("good", "bad"))})
    _, chosen, bench = fit(Dial(tune=8), toy, cpu)
    assert [dial.word for dial, *_ in Dial.seen] == ["bad", "good", "good"]
    assert bench.ledger.facts.tuned_trials == "2 tried, best 2"
    assert chosen.word == "good"  # type: ignore[attr-defined]


def test_own_settings_outside_of_the_space_are_tried_all_the_same(toy: Task, cpu: Device) -> None:
    _, _, bench = fit(Dial(x=50.0, tune=3), toy, cpu)
    assert Dial.seen[0][0].x == 50.0
    assert bench.ledger.facts.tuned_trials.startswith("3 tried")


def test_too_few_rows_to_validate_on_tune_nothing(toy: Task, cpu: Device) -> None:
    _, chosen, bench = fit(Dial(tune=4), toy, cpu, n_train=9)
    assert [n for _, n, *_ in Dial.seen] == [9]
    assert chosen == Dial()
    assert "9 rows leave no validation rows" in bench.ledger.facts.tuned_trials
    assert bench.clock.seconds("tune") is None


# ---- trials that do not work


@pytest.mark.parametrize("failure", ["diverged", "memory", "device"])
def test_settings_that_cannot_be_fitted_are_the_worst(failure: str, toy: Task, cpu: Device) -> None:
    _, chosen, bench = fit(Dial(fails_with=failure, tune=10), toy, cpu)
    assert chosen.word == "good"  # type: ignore[attr-defined]
    n_failed = sum(dial.word != "good" for dial, *_ in Dial.seen)
    assert n_failed
    assert bench.ledger.facts.tuned_trials.endswith(f", {n_failed} failed")
    assert bench.ledger.train_flops == 100.0 * 11  # what failed was paid for too


def test_a_bug_ends_the_cell_and_a_diverging_method_fails(toy: Task, cpu: Device) -> None:
    record = run_one(toy, None, Dial(fails_with="bug", tune=4), cpu, size="120")
    assert (record.status, len(Dial.seen)) == ("failed", 1)
    assert record.cost.tune_seconds is not None
    assert record.cost.tune_seconds >= 1.0
    monkey = {"x": Dial.search_space["x"]}
    try:
        Dial.search_space, kept = monkey, Dial.search_space
        record = run_one(toy, None, Dial(fails_with="diverged", tune=3), cpu, size="120")
    finally:
        Dial.search_space = kept
    assert record.status == "failed"
    assert "the loss is nan" in (record.error or "")
    assert record.facts.tuned_trials == "3 tried, none could be fitted"


# ---- what it costs


def test_trials_share_half_of_seconds_and_operations_and_the_fit_has_the_rest(toy: Task, cpu: Device) -> None:
    budget = Budget(train_seconds=100, train_flops=100_000, epochs=3, peak_memory_bytes=10**12)
    said: list[str] = []
    bench = dataclasses.replace(make_bench(toy, None, cpu, budget=budget), report=lambda what, *_: said.append(what))
    tuning.fit(Dial(tune=5), rows_of(toy, cpu, 120), bench)
    *trials, last = [budget for _, _, budget, _ in Dial.seen]
    assert {(b.train_seconds, b.train_flops) for b in trials} == {(10.0, 10_000.0)}
    assert {(b.epochs, b.peak_memory_bytes) for b in [*trials, last]} == {(3.0, 10**12)}
    assert last.train_flops == 100_000 - 5 * 100
    # 5 trials of 1 s of fitting and 0.25 s of predicting, and what the sampler took.
    assert 93 < (last.train_seconds or 0) <= 100 - 5 * 1.25
    assert bench.clock.seconds("fit") == 1.0
    assert bench.clock.seconds("predict") is None
    assert 6.25 <= (bench.clock.seconds("tune") or 0) < 7
    assert bench.ledger.train_flops == 600
    assert bench.ledger.stopped_by == "epochs"
    assert said == [*(f"trial {n} of 5, dialling" for n in range(1, 6)), "dialling"]


def test_no_trial_starts_once_their_share_is_spent(toy: Task, cpu: Device) -> None:
    _, _, bench = fit(Dial(tune=8), toy, cpu, budget=Budget(train_seconds=5))
    assert bench.ledger.facts.tuned_trials.startswith("2 tried")  # 1.25 s each of 2.5 s
    _, _, bench = fit(Dial(tune=8), toy, cpu, budget=Budget(train_flops=500))
    assert bench.ledger.facts.tuned_trials.startswith("3 tried")


def test_a_tuned_cell_is_charged_within_its_budget(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = parse_method("full[learning_rate=1e-3,tune=3,precision=fp32]")
    record = run_one(toy, tiny, method, cpu, size="60", budget=Budget(steps=4))
    assert record.status == "ok", record.error
    assert record.cell.config["tune"] == 3
    assert (record.cost.tune_seconds or 0) > 0
    assert (record.cost.fit_seconds or 0) > 0
    assert record.cost.stopped_by == "steps"
    assert {point.step for point in record.curve} <= {1, 2, 3, 4}
    assert all(point.seconds >= (record.cost.tune_seconds or 0) for point in record.curve)
    chosen = record.facts.tuned_settings
    alone = run_one(toy, tiny, type(method)(**{**method.config(), "tune": None, **chosen}), cpu, size="60",
                    budget=Budget(steps=4))  # fmt: skip
    same_predictions(record, alone)
    assert record.cost.artifact_bytes == alone.cost.artifact_bytes
    assert (record.cost.train_flops or 0) > 2 * (alone.cost.train_flops or 0)
    limited = run_one(toy, tiny, method, cpu, size="60", budget=Budget(train_seconds=1.0))
    assert limited.status == "ok"
    assert (limited.cost.train_seconds or 9) < 4  # one step over, on a busy machine


def test_features_are_encoded_once_a_cell_and_paid_for_once(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    worker = Worker(cpu, None)
    tuned = run_one(toy, tiny, NearestNeighbours(tune=4), cpu, worker=worker, size="60")
    assert tuned.facts.tuned_trials.startswith("4 tried")
    assert tuned.cost.reused == ()  # what a cell has encoded itself is not reused
    chosen = tuned.facts.tuned_settings
    alone = run_one(toy, tiny, NearestNeighbours(**chosen), cpu, worker=worker, size="60")
    assert set(alone.cost.reused) == {"backbone", "features"}
    same_predictions(tuned, alone)
    assert tuned.cost.encode_seconds == pytest.approx(alone.cost.encode_seconds)
    assert tuned.cost.train_tokens == alone.cost.train_tokens
    assert (tuned.cost.tune_seconds or 0) > 0
    again = run_one(toy, tiny, NearestNeighbours(tune=3), cpu, worker=worker, size="60")
    assert set(again.cost.reused) == {"backbone", "features"}
    assert again.cost.encode_seconds == pytest.approx(alone.cost.encode_seconds)


# ---- identity, repeatability, refusals


def test_what_is_not_tuned_is_the_cell_it_was() -> None:
    # Computed before there was any tuning.
    cell = Cell("t", "d" * 64, None, None, "majority", 1, Majority().config(), 32, Budget(epochs=3), 0)
    assert cell.id == "059b774acbf57f6ff52945b5216c959e"
    cell = Cell("t", "d" * 64, None, None, "tfidf", 1, Tfidf().config(), 32, Budget(epochs=3), 0)
    assert cell.id == "8397a0c5c60fbed45c471ddb5203cd67"
    for cls in methods:
        assert "tune" not in cls().config()
    assert Dial(tune=8).config()["tune"] == 8
    assert Dial(**Dial(tune=8).config()) == Dial(tune=8)


def test_how_many_trials_is_part_of_the_identity_and_of_the_label(toy: Task) -> None:
    planned = [plan_one(toy, None, Dial(tune=tune)) for tune in (None, 4, 8)]
    assert len({one.cell.id for one in planned}) == 3
    assert "dial[tune=4]" in planned[1].label()


def test_the_same_seed_tries_the_same_and_the_global_generators_stand_where_they_do_without(
    toy: Task, cpu: Device
) -> None:
    runs = []
    for seed in (0, 0, 1):
        Dial.seen.clear()
        run_one(toy, None, Dial(tune=6), cpu, size="120", seed=seed)
        runs.append([(dial, drawn) for dial, _, _, drawn in Dial.seen])
        drawn = [drawn for _, _, _, drawn in Dial.seen]
        Dial.seen.clear()
        run_one(toy, None, Dial(), cpu, size="120", seed=seed)
        assert drawn == [Dial.seen[0][3]] * 7
    assert runs[0] == runs[1]
    assert runs[0][1:] != runs[2][1:]


def test_a_method_with_nothing_to_tune_is_refused() -> None:
    with pytest.raises(UsageError, match="'majority' was given tune=8 and has no settings to search over"):
        parse_methods(["majority[tune=8]"])
    with pytest.raises(UsageError, match="greater than or equal to 2"):
        parse_methods(["knn[tune=1]"])
    with pytest.raises(UsageError, match="at least 2"):
        with_trials([NearestNeighbours()], 1)


def test_tune_goes_to_every_method_that_has_something_to_choose() -> None:
    asked: list[Method] = [NearestNeighbours(), NearestNeighbours(tune=3), Majority(), Majority()]
    tuned, untunable = with_trials(asked, 8)
    assert [one.tune for one in tuned] == [8, 3, None, None]
    assert untunable == ["majority"]


@pytest.mark.parametrize("name", [cls.name for cls in methods if cls.search_space])
def test_every_search_space_holds_settings_that_the_method_takes(name: str) -> None:
    cls = methods.get(name)
    for setting, space in cls.search_space.items():
        assert setting in cls.model_fields
        values = space.values if isinstance(space, Choice) else (space.low, space.high)
        for value in values:
            assert cls(**{setting: value}).config()[setting] == cls(**{setting: value}).model_dump(mode="json")[setting]
        proposals = Proposals(cls(), 0, 4)
        first = proposals.next()
        assert first == {own: getattr(cls(), own) for own in cls.search_space}
        proposals.learn(first, None)
        following = proposals.next()
        assert following is not None
        assert cls(**following).config() != cls().config()


def test_what_was_chosen_can_be_saved_and_restored(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Any) -> None:
    bench = make_bench(toy, tiny, cpu)
    fitted, chosen = tuning.fit(NearestNeighbours(k=3, tune=4), rows_of(toy, cpu, 60), bench)
    assert save_artifact(fitted, chosen, tmp_path, bench) == artifact_size_bytes(fitted, chosen)
    method, restored = load_artifact(tmp_path, make_bench(toy, tiny, cpu))
    assert method == chosen
    np.testing.assert_array_equal(
        restored.predict(test_rows(toy), make_bench(toy, tiny, cpu)), fitted.predict(test_rows(toy), bench)
    )


def same_predictions(one: Record, other: Record) -> None:
    assert one.predictions is not None
    assert other.predictions is not None
    np.testing.assert_array_equal(one.predictions.predicted, other.predictions.predicted)
    np.testing.assert_array_equal(one.predictions.confidence, other.predictions.confidence)
