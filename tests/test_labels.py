"""Names of configurations: short, unique, without settings that only restate a default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.labels import (
    MAX_LABEL,
    configuration_label,
    configuration_names,
    short_backbones,
    variants,
)
from harness.records.record import Cell
from harness.records.upgrade import facts_of
from harness.report.tables import comparison
from harness.support import text
from tests.record_factory import make_record

BASE: Cell = make_record("lora").cell
DEFAULTS = {"accumulation": 1, "patience": None}


def labels(*configs: dict[str, Any], method: str = "lora", defaults: dict[str, Any] | None = None) -> list[str]:
    cells = [replace(BASE, method=method, config=config, seed=seed) for seed, config in enumerate(configs)]
    return variants(cells, [defaults or {}] * len(cells))


def test_a_setting_that_restates_a_default_is_not_in_the_name() -> None:
    older, later = {"rank": 8}, {"rank": 8, "accumulation": 1, "patience": None}
    assert labels(older, later, defaults=DEFAULTS) == ["lora", "lora"]
    assert labels(older, {**later, "patience": 2}, defaults=DEFAULTS) == ["lora", "lora[patience=2]"]
    # Nobody knows the default: the two may differ.
    assert labels(older, later) == ["lora", "lora[accumulation=1, +1]"]
    # Versions have defaults of their own.
    cells = [replace(BASE, config=older), replace(BASE, config=later, version=2)]
    assert variants(cells, [{}, DEFAULTS]) == ["lora[version=1]", "lora[version=2]"]


def test_disputed_defaults_are_not_known() -> None:
    cells = [replace(BASE, config={"rank": 8}), replace(BASE, config={"rank": 8, "accumulation": 1}, seed=1)]
    assert variants(cells, [{"accumulation": 1}, {"accumulation": 2}]) == ["lora", "lora[accumulation=1]"]


def test_one_configuration_stated_twice_is_never_counted_twice() -> None:
    older, later = {"rank": 8}, {"rank": 8, "accumulation": 1}
    same_place = [replace(BASE, config=config) for config in (older, later)]
    assert variants(same_place, [DEFAULTS] * 2) == ["lora #2", "lora"]
    assert variants(same_place, [DEFAULTS] * 2, devices=["one", "two"]) == ["lora", "lora"]
    records = [
        replace(record, facts=replace(record.facts, defaults=DEFAULTS))
        for seed in range(3)
        for record in (make_record(seed=seed, config=older), make_record(seed=seed, config=later, accuracy=0.9))
    ]
    rows = comparison(records)
    assert rows[["variant", "n_seeds"]].to_numpy().tolist() == [["lora", 3], ["lora #2", 3]]
    assert rows["score"].tolist() == pytest.approx([0.9, 0.7], abs=0.02)


def test_the_first_records_of_version_01_are_the_configuration_that_later_ones_state() -> None:
    def named(method: str, family: str, older: dict[str, Any], more: dict[str, Any]) -> list[str]:
        cells = [replace(BASE, method=method, config=config) for config in (older, {**older, **more})]
        facts = [
            facts_of({"cell": vars(cell), "cost": {}, "family": family, "suite": "sst2"}, {}, {}) for cell in cells
        ]
        return variants(cells, [one.defaults for one in facts], devices=["a", "b"])

    more = {"accumulation": 1, "gradient_checkpointing": False, "l2_start": 0.0, "patience": None}
    more |= {"transformer_dropout": None, "validation_fraction": 0.2}
    assert named("full", "full fine-tuning", {"batch_size": 16}, more) == ["full"] * 2
    assert named("full", "full fine-tuning", {"batch_size": 16}, {**more, "patience": 2}) == [
        "full",
        "full[patience=2]",
    ]
    probe = {"layer": "last", "pooling": "own"}
    assert named("linear-probe", "frozen features", {"c_grid": [1.0]}, probe) == ["linear-probe"] * 2


def test_settings_that_were_tried_are_told_from_those_that_are_used() -> None:
    configs = [{"learning_rate": rate} for rate in (0.1, 0.01, 0.001)]
    cells = [replace(BASE, config=config) for config in configs]
    found = configuration_names(cells, [{}] * 3, is_evidence=[False, True, False])
    assert [name.label for name in found] == ["lora[learning_rate=0.1]", "lora", "lora[learning_rate=0.001]"]
    assert [name.settings for name in found] == [f"learning_rate={rate}" for rate in (0.1, 0.01, 0.001)]


def test_long_names_are_shortened_in_one_style_for_a_method() -> None:
    rates = [{"learning_rate": rate} for rate in (0.001, 0.03)]
    assert labels(*rates, method="layer-norm") == ["layer-norm[lr=0.001]", "layer-norm[lr=0.03]"]
    wide = [{"rank": rank, "targets": "all-linear-layers", "schedule": "linear"} for rank in (4, 8)]
    assert labels(*wide, {"rank": 8}) == ["lora[rank=4, +2]", "lora[rank=8, +2]", "lora[rank=8]"]
    long = [{"instruction": "x" * 40 + end} for end in "ab"]
    assert labels(*long, method="zero-shot") == ["zero-shot[+1]", "zero-shot[+1] #2"]
    assert labels({}, {"rank": 4}, method="m" * 40) == ["m" * 29 + "…", "m" * 25 + "…[+1]"]


names = st.sampled_from(
    ["rank", "learning_rate", "lr", "patience", "a_setting_of_a_rather_long_name", "\ud800", "\x00"]
)
values = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from([0.1, "word", "x" * 50, "\udfff"]))
configurations = st.dictionaries(names, values | st.dictionaries(names, values, max_size=2), max_size=4)


@given(
    st.lists(st.tuples(st.sampled_from(["lora", "m" * 40]), configurations, st.booleans()), min_size=1, max_size=8),
    st.dictionaries(names, values, max_size=2),
)
def test_labels_are_short_and_unique_and_do_not_depend_on_the_order(
    found: list[tuple[str, dict[str, Any], bool]], defaults: dict[str, Any]
) -> None:
    cells = [replace(BASE, method=method, config=config) for method, config, _ in found]
    evidence = [counts for _, _, counts in found]
    named = variants(cells, [defaults] * len(cells), is_evidence=evidence)
    stated: dict[str, set[str]] = {}
    for cell, label in zip(cells, named, strict=True):
        assert len(label) <= MAX_LABEL
        stated.setdefault(text.plain(label), set()).add(f"{cell.method} {sorted(cell.config.items(), key=repr)!r}")
    assert all(len(configs) == 1 for configs in stated.values())  # all cells are in one place
    backwards = variants(cells[::-1], [defaults] * len(cells), is_evidence=evidence[::-1])
    assert backwards[::-1] == named


def test_a_plan_names_configurations_as_briefly() -> None:
    assert configuration_label("lora", {"rank": 4, "alpha": 16}, {"rank": 8, "alpha": 16}) == "lora[rank=4]"
    wide = [{"rank": 4, "targets": "all-linear-layers", "n": n} for n in (1, 2)]
    one, two = (configuration_label("lora", config, {"rank": 8}) for config in wide)
    assert one != two
    assert one.startswith("lora[n=1, rank=4, +1] #")
    assert max(len(one), len(two)) <= MAX_LABEL


L6, MPNET = "sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2"


def test_short_names_of_backbones_leave_out_the_owner_where_no_other_name_ends_alike() -> None:
    assert short_backbones([(L6, "aa"), (MPNET, "bb"), (L6, "aa")]) == {
        (L6, "aa"): "all-MiniLM-L6-v2", (L6, None): "all-MiniLM-L6-v2",
        (MPNET, "bb"): "all-mpnet-base-v2", (MPNET, None): "all-mpnet-base-v2",
    }  # fmt: skip
    other = "someone/all-MiniLM-L6-v2"
    alike = short_backbones([(L6, "aa"), (other, "cc"), (MPNET, "bb")])
    assert [alike[L6, "aa"], alike[other, "cc"], alike[MPNET, "bb"]] == [L6, other, "all-mpnet-base-v2"]
    assert short_backbones([("local:bert", "aa"), ("google/bert", "bb")]) == {
        ("local:bert", "aa"): "local:bert", ("local:bert", None): "local:bert",
        ("google/bert", "bb"): "bert", ("google/bert", None): "bert",
    }  # fmt: skip
    assert short_backbones([]) == {}


def test_backbones_of_one_name_are_told_apart_by_their_files() -> None:
    named = short_backbones([("local:model", "3fa9c1"), ("local:model", "77b1d0"), (L6, None)])
    assert named["local:model", "3fa9c1"] == "local:model #3fa9"
    assert named["local:model", "77b1d0"] == "local:model #77b1"
    assert named[L6, None] == "all-MiniLM-L6-v2"
    close = short_backbones([("local:model", "3fa9c1"), ("local:model", "3fa9c2")])
    assert close["local:model", "3fa9c1"] == "local:model #3fa9c1"


@given(st.lists(st.tuples(st.sampled_from(["a/x", "b/x", "x", "c/y", "local:x"]), st.sampled_from(["aa1", "aa2"]))))
def test_short_names_of_different_backbones_never_agree(pairs: list[tuple[str, str | None]]) -> None:
    named = short_backbones(pairs)
    assert len({named[pair] for pair in pairs}) == len(set(pairs))


def test_imported_runs_are_told_by_their_names_and_leave_other_names_alone() -> None:
    own = labels({"rank": 8}, {"experiment": "rank32-dora"}, {"experiment": "lr_0.005"}, defaults=DEFAULTS)
    assert own == ["lora", "lora[rank32-dora]", "lora[lr_0.005]"]
    long = labels({"rank": 8}, {"experiment": "rank32-factor4-lr0.003-a"}, {"experiment": "rank32-factor4-lr0.003-b"})
    assert all(len(label) <= MAX_LABEL for label in long)
    assert len(set(long)) == 3
    assert labels({"experiment": "default"}) == ["lora"]
