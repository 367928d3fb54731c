"""After how many predictions training pays: against hand arithmetic, and the coverage of its interval."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.analysis import Expenses, Prices, break_even, spent
from harness.analysis.spending import ServedPrice, spending_of, stated_prices
from harness.analysis.total_cost import crossing
from harness.records import Record, write_jsonl
from harness.records.facts import prompts_model
from harness.records.served import ServedFacts
from harness.report.prompting import pairs_table, pairs_with_best, prompting_table
from harness.support import UsageError
from tests.commands import run_apart
from tests.record_factory import make_record, with_facts

ENCODER, WRITER = "sentence-transformers/all-MiniLM-L6-v2", "local/SmolLM2-135M-Instruct"


def a_record(
    method: str, n_train: int, seed: int = 0, *, train: float, each: float, accuracy: float = 0.7, **changes: Any
) -> Record:
    """A record on 200 test rows, with `train` seconds of training and `each` seconds a prediction."""
    is_prompted = method in ("zero-shot", "few-shot")
    own = {"backbone": WRITER, "weights": "a" * 8} if is_prompted else {}
    record = make_record(method, n_train, seed, accuracy=accuracy, **{**own, **changes})
    seconds = {"encode_seconds": 0.25 * train, "tune_seconds": 0.25 * train, "fit_seconds": 0.5 * train}
    record = dataclasses.replace(record, cost=dataclasses.replace(record.cost, **seconds, predict_seconds=200 * each))
    return with_facts(record, role="prompting") if is_prompted else record


def priced(record: Record, per_hour: float) -> Record:
    return dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, price_per_hour=per_hour))


NOTHING_BEFORE: dict[str, Any] = {
    **dict.fromkeys(("fit_requests", "fit_prompt_tokens", "fit_cached_prompt_tokens", "fit_completion_tokens"), 0),
    "fit_price": 0.0,
}
"""Facts of a served cell that sends no request before its first prediction."""


def served(record: Record, **facts: Any) -> Record:
    facts = {**NOTHING_BEFORE, **facts}
    return with_facts(dataclasses.replace(record, device="client of big-model"), served=ServedFacts(**facts))


@pytest.mark.parametrize(
    ("trained", "prompted", "outcome", "n"),
    [
        # 90 s of training, 1 ms each, against nothing and 10 ms each: (90 - 0) / (0.010 - 0.001) = 90 / 0.009 = 10,000.
        ((90.0, 0.001), (0.0, 0.010), "after", 10_000),
        # Labels for 100, 1 of training, 0.01 each, against labels for 1 and 0.03 each: (101 - 1) / 0.02 = 5,000.
        ((101.0, 0.01), (1.0, 0.03), "after", 5_000),
        # Cheaper in both: from the first. As dear at the start, and cheaper each: the same.
        ((1.0, 0.001), (2.0, 0.010), "from the first", None),
        ((2.0, 0.001), (2.0, 0.010), "from the first", None),
        # Dearer in both, or dearer at the start and no cheaper each: never. Equal costs: there is nothing to gain.
        ((90.0, 0.02), (0.0, 0.010), "never", None),
        ((90.0, 0.01), (0.0, 0.010), "never", None),
        ((2.0, 0.01), (2.0, 0.010), "never", None),
        # Cheaper at the start, dearer each: 4 less at the start are spent after 4 / (0.03 - 0.01) = 200 predictions.
        ((1.0, 0.03), (5.0, 0.01), "until", 200),
    ],
)
def test_closed_form(
    trained: tuple[float, float], prompted: tuple[float, float], outcome: str, n: float | None
) -> None:
    found = crossing(*trained, *prompted)
    assert found.outcome == outcome
    assert found.n == (None if n is None else pytest.approx(n))
    if n is not None:  # both totals are the same there
        assert trained[0] + n * trained[1] == pytest.approx(prompted[0] + n * prompted[1])


def test_costs_are_geometric_means_and_labels_are_added() -> None:
    costs = Expenses(training=(1.0, 4.0), each=(0.01, 0.04), labels=10.0)  # sqrt(1 * 4) = 2, sqrt(0.01 * 0.04) = 0.02
    assert costs.fixed == pytest.approx(12.0)
    assert costs.total(1000) == pytest.approx(12.0 + 20.0)
    assert Expenses(training=(0.0, 4.0), each=(0.01, 0.01)).fixed == 2.0  # no geometric mean with a 0


@pytest.mark.parametrize("bad", [{"training": (-1.0,)}, {"each": (math.nan,)}, {"training": ()}, {"labels": math.inf}])
def test_costs_that_are_none_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Expenses(**{"training": (1.0,), "each": (0.1,), **bad})


def test_one_record_gives_no_interval() -> None:
    several = Expenses(training=(90.0, 91.0), each=(0.001, 0.0011))
    one = Expenses(training=(0.0,), each=(0.01,))
    found = break_even(several, one)
    assert found.n is not None
    assert (found.has_interval, found.low, found.high) == (False, None, None)


def test_records_without_spread_give_an_interval_of_one_number() -> None:
    found = break_even(Expenses((90.0,) * 3, (0.001,) * 3), Expenses((0.0,) * 3, (0.010,) * 3))
    assert (found.low, found.high) == (pytest.approx(10_000), pytest.approx(10_000))


def test_an_interval_may_have_no_upper_end_and_ends_are_ordered() -> None:
    """With costs of a prediction that are hardly apart, training may never pay."""
    trained = Expenses((90.0, 100.0, 95.0), (0.0095, 0.0100, 0.0092))
    found = break_even(trained, Expenses((0.0,) * 3, (0.0100, 0.0103, 0.0099)))
    assert found.has_interval
    assert found.high is None
    assert found.low is not None
    assert found.n is not None
    assert found.low < found.n
    assert json.loads(json.dumps(found.to_dict()))["high"] is None
    # Where it is until a number, the interval is around that number.
    until = break_even(Expenses((1.0, 1.1, 0.9), (0.03, 0.031, 0.029)), Expenses((5.0, 5.1, 4.9), (0.01,) * 3))
    assert until.outcome == "until"
    assert until.low is not None
    assert until.high is not None
    assert until.n is not None
    assert until.low < until.n < until.high


@pytest.mark.parametrize("n_records", [3, 5])
def test_coverage_of_the_interval(n_records: int) -> None:
    """Log-normal costs around a known break-even: at least 95 % of the intervals hold it, and few are of no use."""
    rng = np.random.default_rng(n_records)
    fixed, trained, prompted, n_repeats = 30.0, 0.002, 0.02, 300
    truth, hits, widths = fixed / (prompted - trained), 0, []
    for seed in range(n_repeats):
        noise = np.exp(0.1 * rng.standard_normal((3, n_records)))
        found = break_even(
            Expenses(tuple(fixed * noise[0]), tuple(trained * noise[1])),
            Expenses((0.0,) * n_records, tuple(prompted * noise[2])),
            seed=seed,
        )
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
        widths.append(found.high / found.low)
    assert 0.95 - 2 * math.sqrt(0.05 * 0.95 / n_repeats) <= hits / n_repeats
    assert np.median(widths) < {3: 2.2, 5: 1.6}[n_records]


def test_the_costs_of_a_record_by_hand() -> None:
    """3,600 s of training at 0.5 an hour are 0.5; 0.72 s a prediction are 0.0001; 32 labels at 0.25 are 8."""
    record = priced(a_record("lora", 32, train=3600.0, each=0.72), 0.5)
    found = spending_of(record, Prices(per_label=0.25))
    assert found.train_seconds == pytest.approx(3600.0)
    assert found.predict_seconds == pytest.approx(0.72)
    assert (found.train_price, found.label_price) == (pytest.approx(0.5), pytest.approx(8.0))
    assert found.predict_price == pytest.approx(0.0001)
    # A price at question time takes the place of the record's, and that of a named machine of both.
    assert spending_of(record, Prices(per_hour=1.0)).train_price == pytest.approx(1.0)
    assert spending_of(record, Prices(per_hour=1.0, machines={record.device: 2.0})).train_price == pytest.approx(2.0)
    assert spending_of(a_record("lora", 32, train=1.0, each=0.1)).predict_price is None


def test_the_costs_of_a_served_model_by_hand() -> None:
    """200 rows for 0.4 are 0.002 each. By tokens: 0.2 M at 1, 0.8 M cached at 0.5, 0.01 M at 4: 0.64, 0.0032 each."""
    tokens = {"prompt_tokens": 1_000_000, "cached_prompt_tokens": 800_000, "completion_tokens": 10_000}
    record = served(a_record("few-shot", 8, train=0.0, each=0.3), price=0.4, **tokens)
    found = spending_of(record, Prices(per_hour=100.0))
    assert found.predict_price == pytest.approx(0.002)  # the client's machine does not count
    assert found.is_served
    by_tokens = Prices(models={WRITER: ServedPrice(1.0, 4.0, 0.5)})
    assert spending_of(record, by_tokens).predict_price == pytest.approx(0.0032)
    # A server of one's own for 6 an hour: 60 s of answers cost 0.1, 0.0005 each.
    assert spending_of(record, Prices(models={WRITER: ServedPrice(per_hour=6.0)})).predict_price == pytest.approx(
        0.0005
    )


def test_requests_of_the_fit_are_its_price_and_no_predictions() -> None:
    """40 rows: of 296 requests at 0.001, 256 compare wordings. A prediction costs 0.001, all before it 0.256."""
    totals = {"n_requests": 296, "prompt_tokens": 296_000, "cached_prompt_tokens": 0, "completion_tokens": 296}
    before = {"fit_requests": 256, "fit_prompt_tokens": 256_000, "fit_completion_tokens": 256, "fit_price": 0.256}
    record = a_record("few-shot", 8, train=256.0, each=0.2)
    assert record.score is not None
    record = dataclasses.replace(record, score=dataclasses.replace(record.score, n_test=40))
    asked = served(record, **totals, **before, price=0.296)
    found = spending_of(asked, Prices(machines={"client of big-model": 3600.0}))  # this machine only waits
    assert (found.train_price, found.predict_price) == (pytest.approx(0.256), pytest.approx(0.001))
    by_tokens = spending_of(asked, Prices(models={WRITER: ServedPrice(2.0, 1.0)}))
    assert by_tokens.train_price == pytest.approx((256_000 * 2 + 256) / 1e6)
    assert by_tokens.predict_price == pytest.approx((1_000 * 2 + 1) / 1e6)
    # A server of one's own for 3,600 an hour: 256 s before the first prediction, and 40 s for 40 predictions.
    by_hour = spending_of(asked, Prices(models={WRITER: ServedPrice(per_hour=3600.0)}))
    assert (by_hour.train_price, by_hour.predict_price) == (pytest.approx(256.0), pytest.approx(1.0))


def test_records_that_do_not_split_their_requests_are_not_guessed() -> None:
    def price(method: str, n_train: int, **facts: Any) -> float | None:
        record = with_facts(a_record(method, n_train, train=0.0, each=0.1), served=ServedFacts(price=0.4, **facts))
        return spending_of(record).predict_price

    assert price("few-shot", 8, n_requests=456) is None
    assert price("few-shot", 8, n_requests=200) == pytest.approx(0.002)
    assert price("zero-shot", 0, n_requests=400) == pytest.approx(0.002)


def test_label_similarity_prompts_no_language_model() -> None:
    """The rule goes by names in records; it must be that of the methods themselves."""
    from harness.choose.candidates import prompts_language_model
    from harness.methods import methods as known

    for name in known.names():
        method = known.get(name)
        asks = method.role == "prompting" and "encoder" not in method.serves
        assert prompts_language_model(method) == prompts_model(method.role, name) == asks, name
    similar = with_facts(a_record("label-similarity", 0, train=0.1, each=0.01), role="prompting")
    asked = a_record("zero-shot", 0, train=0.0, each=0.1)
    table = prompting_table([similar, asked])
    assert dict(zip(table["method"], table["role"], strict=True)) == {
        "zero-shot": "prompted",
        "label-similarity": "trained",
    }


def test_a_file_of_prices_by_hand() -> None:
    """The content of the file that served models read too; `default` is the price of machines without their own."""
    content = {
        "currency": "EUR",
        "machines": {"default": 0.5, "NVIDIA H200": 4.0},
        "models": {WRITER: {"prompt_per_million": 1.0, "completion_per_million": 4.0, "per_hour": None}},
    }
    found = stated_prices(label_price=0.1, file=content)
    assert (found.per_hour, found.per_label, dict(found.machines)) == (0.5, 0.1, {"NVIDIA H200": 4.0})
    assert found.models[WRITER] == ServedPrice(1.0, 4.0)
    assert stated_prices(0.2, file=content).per_hour == 0.2
    assert spending_of(a_record("lora", 8, train=36.0, each=1.0), found).train_price == pytest.approx(0.005)


def test_a_prompt_that_does_nothing_before_its_first_prediction_costs_nothing_there() -> None:
    """A record of zero-shot states no seconds of encoding, tuning and fitting: null, not 0."""
    record = a_record("zero-shot", 0, train=0.0, each=0.5)
    nothing = dict.fromkeys(("encode_seconds", "tune_seconds", "fit_seconds"))
    record = dataclasses.replace(record, cost=dataclasses.replace(record.cost, **nothing))
    assert record.cost.train_seconds is None
    assert spending_of(record).train_seconds == 0.0
    assert spending_of(with_facts(record, role="fine-tuning")).train_seconds is None


def test_a_cell_beside_others_has_no_seconds_and_disturbed_ones_do_not_count() -> None:
    record = a_record("lora", 32, train=10.0, each=0.1)
    shared = dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, cells_at_a_time=2))
    assert spending_of(shared).train_seconds is None
    assert spent([record, shared]).seconds is None
    disturbed = with_facts(a_record("lora", 32, 1, train=50.0, each=0.5), unsteady="load")
    found = spent([record, disturbed]).seconds
    assert found is not None
    assert found.fixed == pytest.approx(10.0)


def a_grid(**changes: Any) -> list[Record]:
    """Zero-shot, few-shot and two trained methods; three seeds with the same seconds."""
    return [
        a_record("zero-shot", 0, train=0.0, each=0.010, accuracy=0.5, **changes),
        *(a_record("few-shot", 128, s, train=0.0, each=0.050, accuracy=0.9, **changes) for s in range(3)),
        *(a_record("lora", 32, s, train=90.0, each=0.001, accuracy=0.8, **changes) for s in range(3)),
        *(a_record("lora", 128, s, train=98.0, each=0.001, accuracy=0.7, **changes) for s in range(3)),
        *(a_record("majority", 128, s, train=0.0, each=1e-6, accuracy=0.1, **changes) for s in range(3)),
    ]


def test_trained_methods_stand_beside_the_best_prompted_one_with_no_more_labels() -> None:
    found = {pair.trained.row.n_train: pair for pair in pairs_with_best(a_grid())}
    assert {size: pair.prompted.row.method for size, pair in found.items()} == {32: "zero-shot", 128: "few-shot"}
    few, many = found[32], found[128]
    assert few.found is not None
    assert few.found.n == pytest.approx(10_000)  # 90 / (0.010 - 0.001)
    assert not few.found.has_interval  # zero-shot has one record
    assert few.quality == "better"
    assert many.found is not None
    assert many.found.n == pytest.approx(2_000)  # 98 / (0.050 - 0.001)
    assert (many.quality, many.is_better) == ("worse", False)
    assert "majority" not in set(prompting_table(a_grid())["method"])


def test_the_label_price_counts_for_prompts_that_show_rows_too() -> None:
    """Few-shot may look at 128 labels as LoRA does, so labels cancel: 98 s at 3.6 an hour over 0.049 s each."""
    records = [priced(record, 3.6) for record in a_grid()]
    table = pairs_table(records, Prices(per_label=1.0), 1000)
    own = table[(table["n_train"] == 128) & (table["against"].str.startswith("few-shot"))].iloc[0]
    assert own["unit"] == "money"
    assert own["break_even"] == pytest.approx(2_000)
    assert own["total"] == pytest.approx(128 + 0.001 * (98 + 1000 * 0.001))  # 3.6 an hour is 0.001 a second
    # Beside zero-shot, 128 labels at 1 count: (128 + 0.098) / (0.001 * 0.009).
    zero = table[(table["n_train"] == 128) & (table["against"] == "zero-shot")].iloc[0]
    assert zero["break_even"] == pytest.approx(128.098 / 0.000009)


def test_seconds_of_different_devices_are_never_compared() -> None:
    trained = [record for record in a_grid() if record.cell.method == "lora"]
    elsewhere = [record for record in a_grid(device="NVIDIA H200") if record.cell.method != "lora"]
    table = prompting_table([*trained, *elsewhere])
    assert table.loc[table["role"] == "trained", "break_even_outcome"].isna().all()
    assert table.loc[table["role"] == "trained", "difference"].notna().all()  # scores compare
    by_price = prompting_table([*trained, *elsewhere], Prices(machines={"NVIDIA H200": 36.0}, per_hour=3.6))
    own = by_price[by_price["role"] == "trained"]
    assert own["is_across_devices"].all()
    first = own[own["n_train"] == 32].iloc[0]
    assert first["break_even"] == pytest.approx(0.09 / (0.0001 - 0.000001))  # 0.010 s at 36 an hour is 0.0001


def test_a_served_model_compares_by_price_alone() -> None:
    records = [record for record in a_grid() if record.facts.role != "prompting"]
    asked = [served(a_record("few-shot", 32, s, train=0.0, each=0.2, accuracy=0.9), price=0.4) for s in range(3)]
    table = prompting_table([*records, *asked])
    assert table.loc[table["role"] == "trained", "unit"].isna().all()
    table = prompting_table([*records, *asked], Prices(per_hour=3.6))
    own = table[(table["role"] == "trained") & (table["n_train"] == 32)].iloc[0]
    assert own["break_even"] == pytest.approx(0.09 / (0.002 - 0.000001))
    assert own["is_across_devices"]


def test_the_command_and_the_function_agree(tmp_path: Path) -> None:
    write_jsonl(a_grid(), tmp_path / "records.jsonl")
    found = harness.break_even(tmp_path / "records.jsonl", n_train=32, predictions=20_000)
    (row,) = found.to_dict()["pairs"]
    assert row["break_even"] == pytest.approx(10_000)
    assert (row["total"], row["total_prompted"]) == (pytest.approx(110.0), pytest.approx(200.0))
    options = ("--n-train", "32", "--predictions", "20000", "--store", str(tmp_path / "records.jsonl"))
    code, printed, _ = run_apart("break-even", *options, "--json", cwd=tmp_path)
    assert code == 0
    assert json.loads(printed) == found.to_dict()
    said = " ".join(run_apart("break-even", *options, cwd=tmp_path)[1].split())
    assert "beside zero-shot" in said
    assert "after 10,000" in said
    assert "no interval where one of the two methods has a single record" in said


def test_what_cannot_be_answered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompted method"):
        harness.break_even([record for record in a_grid() if record.facts.role != "prompting"])
    with pytest.raises(UsageError, match="Unknown task 'sst3'"):
        harness.break_even(a_grid(), task="sst3")
    with pytest.raises(UsageError, match="trained methods have 32, 128"):
        harness.break_even(a_grid(), n_train=33)
    for name, value in (("price_per_hour", -1.0), ("label_price", math.nan), ("predictions", 0)):
        with pytest.raises(UsageError, match=name):
            harness.break_even(a_grid(), **{name: value})


PRICES = """
currency: EUR
machines: {default: 3.6, "AMD EPYC, 2 threads": 7.2}
models:
  toy: {prompt_per_million: 1, completion_per_million: 4, per_hour: 36}
"""


def test_a_file_of_prices_reaches_the_table_the_report_and_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums by hand: lora trains 100 s and takes 1 ms each on a machine for 7.2 an hour, which is 0.002 a second.

    Its training costs 0.2, a prediction 2e-6. The served model reads 200 * 1,000 tokens for 0.2 and writes 200 * 25 for
    0.02; its 200 answers take 20 s of a machine for 0.01 a second, which is 0.2. A prediction costs 0.42 / 200.
    """
    few = a_record("few-shot", 8, train=0.0, each=0.1, accuracy=0.6, backbone="served:toy")
    few = served(few, prompt_tokens=200_000, completion_tokens=5_000, price=99.0)
    records = [a_record("lora", 32, train=100.0, each=0.001), few]
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    pays = 0.2 / (0.42 / 200 - 2e-6)
    (row,) = harness.break_even(records, prices=path).to_frame().to_dict("records")
    assert row["unit"] == "money"
    assert row["train_price"] == pytest.approx(0.2)
    assert row["price_per_1000"] == pytest.approx(0.002)
    assert row["against_price_per_1000"] == pytest.approx(2.1)
    assert row["break_even"] == pytest.approx(pays)
    written = harness.report(records, tmp_path / "report", formats="png", prices=path).report
    assert written is not None
    assert "2.1" in (written.parent / "fine_tune_or_prompt.csv").read_text()
    write_jsonl(records, tmp_path / "own.jsonl")
    monkeypatch.setenv("HARNESS_PRICES", str(path))
    found = harness.advise(tmp_path / "own.jsonl", n_train=32, reference=False, kind="classification")
    by_name = {one.method: one for one in found.spending}
    assert next(one for name, one in by_name.items() if "few" in name).price_per_1000 == pytest.approx(2.1)
    assert next(one for name, one in by_name.items() if "lora" in name).train_price == pytest.approx(0.2, rel=0.05)
    assert harness.break_even(records).to_frame()["break_even"].tolist() == [pytest.approx(pays)]
    path.write_text("currency: EUR\nmachines: {default: cheap}\n")
    with pytest.raises(UsageError, match=r"machines\.default"):
        harness.break_even(records)


def test_names_of_served_models_and_backbones_have_prices() -> None:
    price = ServedPrice(per_hour=6.0)
    for name in ("toy", "served:toy"):
        assert Prices(models={name: price}).model_of("served:toy") == price
    assert Prices(models={WRITER: price}).model_of(WRITER) == price
    assert Prices(models={"toy": price}).model_of("toys") is None
