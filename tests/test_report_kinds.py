"""Reports of numbers, label sets and spans: planted records against numpy, scipy and scikit-learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from harness.analysis.counted import LabelAnswers, SpanAnswers, per_label, per_type
from harness.analysis.numbers import NumberAnswers, largest_residuals, residuals_by_truth
from harness.api.known_rows import known_texts
from harness.records.predictions import Predictions
from harness.records.record import Record, Score
from harness.report.across import across_tasks
from harness.report.auditing import audit
from harness.report.conclusion import conclude
from harness.report.known_rows import KnownRows
from harness.report.measured import what_was_compared
from harness.report.observations import observe
from harness.report.page import page_html
from harness.report.panels import curves_of
from harness.report.styles import styles
from harness.report.tables import comparison
from harness.report.views.base import ReportData, in_order
from harness.report.views.learning_curves import draw_learning_curves
from harness.report.write import write_report
from harness.support import text
from tests.record_factory import make_record, with_facts
from tests.toy_kinds import toy_task

LABELS = ("anger", "joy", "love", "surprise")
TYPES = ("LOC", "ORG", "PER")


def _record(method: str, seed: int, score: Score, statistics: dict[str, Any], n_train: int, **dataset: Any) -> Record:
    record = make_record(method, n_train, seed, task="planted", n_test=score.n_test)
    return dataclasses.replace(
        record,
        score=score,
        train_score=None,
        predictions=Predictions(f"planted-{score.n_test}", statistics=statistics),
        provenance=dataclasses.replace(record.provenance, dataset={"name": "planted", **dataset}),
    )


def numbers(
    method: str, noise: float, seed: int = 0, *, metric: str = "rmse", n_rows: int = 300, n_train: int = 64,
    scale: float = 1.0, on_scale: bool = True,
) -> Record:  # fmt: skip
    """A record of estimates that miss the truth by this much noise, in units of `scale`."""
    draw = np.random.default_rng(3)
    truth = scale * draw.uniform(0, 5, n_rows)
    error = np.random.default_rng([len(method), seed]).normal(0, noise * scale, n_rows)
    estimate = truth + error
    found = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.abs(error).mean()),
        "spearman": float(pd.Series(estimate).corr(pd.Series(truth), method="spearman")),
        "pearson": float(np.corrcoef(estimate, truth)[0, 1]),
    }
    lower = metric in ("rmse", "mae")
    known = ("pearson", "spearman", *(("rmse", "mae") if on_scale else ()))
    others = {name: found[name] for name in known if name != metric}
    score = Score(metric, found[metric], None, None, not lower, n_rows, n_rows, others, None if lower else 1.0)
    statistics: dict[str, Any] = {"estimate": estimate, "truth": truth}
    if not on_scale:
        statistics["unscaled"] = np.ones(n_rows, dtype=np.uint8)
    return _record(method, seed, score, statistics, n_train)


def label_sets(method: str, wrong: float, seed: int = 0, n_rows: int = 200, n_train: int = 64) -> Record:
    """A record of label sets of which this share of entries is wrong."""
    wanted = (np.random.default_rng(5).random((n_rows, 4)) < (0.5, 0.3, 0.1, 0.02)).astype(np.uint8)
    flips = np.random.default_rng([len(method), seed]).random(wanted.shape) < wrong
    given = np.where(flips, 1 - wanted, wanted).astype(np.uint8)
    value = float(sklearn.metrics.f1_score(wanted, given, average="micro"))
    score = Score("micro_f1", value, None, None, True, n_rows, n_rows)
    return _record(method, seed, score, {"given": given, "wanted": wanted}, n_train, n_labels=4, labels=list(LABELS))


def spans(method: str, share: float, seed: int = 0, n_rows: int = 100, n_train: int = 64) -> Record:
    """A record of spans of which this share is found."""
    true = np.random.default_rng(6).integers(0, 3, (n_rows, 3))
    draw = np.random.default_rng([len(method), seed])
    right = draw.binomial(true, share)
    predicted = right + draw.binomial(2, 0.1, (n_rows, 3))
    counts = np.stack([right, predicted, true], axis=-1)
    total = counts.sum(axis=(0, 1))
    value = float(2 * total[0] / (total[1] + total[2]))
    score = Score("span_f1", value, None, None, True, n_rows, n_rows)
    return _record(method, seed, score, {"spans": counts}, n_train, entity_types=list(TYPES), n_repaired_tags=3)


def csv_of(records: list[Record], name: str) -> pd.DataFrame:
    view = dict(in_order())[name]
    assert view.csv is not None
    return view.csv(ReportData(records))


# ---- the figures


def test_scores_by_label_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    wanted = (draw.random((150, 5)) < 0.3).astype(np.uint8)
    wanted[:, 4] = 0
    given = (draw.random((3, 150, 5)) < 0.3).astype(np.uint8)
    given[:, :, 3] = 0
    found = per_label(LabelAnswers(given, wanted, tuple("abcde"))).set_index("label")
    each = np.array([
        sklearn.metrics.precision_recall_fscore_support(wanted, fit, average=None, zero_division=np.nan)[:3]
        for fit in given
    ], dtype=float)  # fmt: skip
    mean = each.mean(axis=0)
    assert found.index[-1] == "e"  # no test row has it
    for i, name in enumerate("abcde"):
        for part, measured in enumerate(("precision", "recall", "f1")):
            value = float(found[measured].astype(float)[name])
            assert value == pytest.approx(mean[part, i], abs=1e-12, nan_ok=True)
    assert found["f1"].iloc[:4].is_monotonic_increasing
    assert found.loc["a", "n_predicted"] == pytest.approx(given[:, :, 0].sum() / 3)
    assert found["n_test"].to_dict() == {name: int(wanted[:, i].sum()) for i, name in enumerate("abcde")}


def test_scores_by_type_are_those_of_a_count_by_hand() -> None:
    counts = np.zeros((2, 3, 2, 3), dtype=int)
    counts[0, :, 0] = [(1, 2, 2), (0, 0, 1), (1, 1, 1)]  # right 2, predicted 3, true 4
    counts[1, :, 0] = [(2, 2, 2), (1, 1, 1), (0, 1, 1)]  # right 3, predicted 4, true 4
    counts[0, 0, 1] = (0, 1, 0)
    found = per_type(SpanAnswers(counts, ("PER", "LOC"))).set_index("type")
    assert found.loc[["PER"], ["n_test", "n_predicted", "n_right"]].to_numpy()[0].tolist() == [4, 3.5, 2.5]
    assert found.loc["PER", "precision"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert found.loc["PER", "recall"] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert found.loc["PER", "f1"] == pytest.approx((4 / 7 + 6 / 8) / 2)
    assert found["recall"].isna().tolist() == [False, True]
    assert found.index.tolist() == ["PER", "LOC"]


def test_residuals_are_those_of_numpy() -> None:
    draw = np.random.default_rng(1)
    truth, estimate = draw.normal(size=101), draw.normal(size=(3, 101))
    found = largest_residuals(NumberAnswers(estimate, truth), most=4)
    mean = estimate.mean(axis=0) - truth
    order = sorted(range(101), key=lambda row: -abs(mean[row]))[:4]
    assert found["row"].tolist() == order
    np.testing.assert_allclose(found["residual"].astype(float), mean[order])
    np.testing.assert_allclose(found["estimate"].astype(float), estimate.mean(axis=0)[order])
    parts = residuals_by_truth(NumberAnswers(estimate, truth))
    assert parts["n_test"].tolist() == [21, 20, 20, 20, 20]
    first = truth <= np.quantile(truth, 0.2)
    np.testing.assert_allclose(parts.iloc[0, 3:].astype(float), [
        truth[first].mean(), estimate[:, first].mean(), (estimate - truth)[:, first].mean(),
        np.abs(estimate - truth)[:, first].mean(),
    ])  # fmt: skip
    assert np.average(parts["mae"], weights=parts["n_test"]) == pytest.approx(np.abs(estimate - truth).mean())


def test_equal_numbers_share_a_group_and_no_scale_means_no_residuals() -> None:
    truth = np.repeat([0.0, 1.0, 2.0], [90, 5, 5])
    parts = residuals_by_truth(NumberAnswers(truth[None] + 1, truth))
    assert parts["n_test"].tolist() == [90, 10]
    assert parts["residual"].tolist() == [1, 1]
    unscaled = NumberAnswers(truth[None], truth, is_on_scale=False)
    assert residuals_by_truth(unscaled).empty
    assert largest_residuals(unscaled).empty


# ---- the views


def test_a_report_shows_the_residuals_of_the_best_method(tmp_path: Path) -> None:
    records = [numbers(method, noise, seed, n_train=n) for method, noise in (("full", 0.4), ("tfidf", 1.2))
               for seed in range(3) for n in (32, 64)]  # fmt: skip
    known = KnownRows(([f"text number {i}" for i in range(300)],))
    write_report(records, tmp_path, formats=("png",), texts={"planted-300": known})
    assert (tmp_path / "figures" / "planted-residuals.png").stat().st_size > 10_000
    found = pd.read_csv(tmp_path / "largest_residuals.csv")
    best = [r.predictions for r in records if r.cell.method == "full" and r.cell.n_train == 64]
    mean = np.mean([p.statistics["estimate"] - p.statistics["truth"] for p in best if p is not None], axis=0)
    assert found["variant"].unique().tolist() == ["full"]
    assert found["n_seeds"].unique().tolist() == [3]
    assert found["row"].tolist() == np.argsort(-np.abs(mean), kind="stable")[:10].tolist()
    assert found["text"].iloc[0] == f"text number {found['row'].iloc[0]}"
    told = (tmp_path / "report.md").read_text()
    assert "### Where full is wrong" in told
    assert "text number" in told
    page = (tmp_path / "report.html").read_text()
    assert "Largest residuals" in page
    assert 'alt="Estimates and residuals of full' in page
    for absent in ("confusions.csv", "per_class.csv", "per_label.csv", "per_type.csv"):
        assert not (tmp_path / absent).exists()


def test_estimates_that_only_order_rows_have_no_residuals() -> None:
    records = [numbers("cosine-similarity", 0.1, metric="spearman", on_scale=False, n_train=0)]
    report = ReportData(records)
    (winner,) = report.winners.values()
    assert isinstance(winner.answers, NumberAnswers)
    assert not winner.answers.is_on_scale
    assert csv_of(records, "residuals").empty
    assert "only its order" not in page_html(report)  # an image
    assert "They have no residuals" in page_html(report)


def test_a_report_shows_each_label_and_each_type() -> None:
    records = [
        label_sets(method, wrong, seed) for method, wrong in (("full", 0.05), ("tfidf", 0.3)) for seed in range(3)
    ]
    found = csv_of(records, "per_label").set_index("label")
    assert found["variant"].unique().tolist() == ["full"]
    best = [r.predictions.statistics for r in records[:3] if r.predictions is not None]
    expected = np.mean([sklearn.metrics.f1_score(s["wanted"], s["given"], average=None) for s in best], axis=0)
    np.testing.assert_allclose(found.loc[list(LABELS), "f1"].astype(float), expected)
    assert "lowest F1 first" in page_html(records)
    tagged = [spans("full", 0.9, seed) for seed in range(3)] + [spans("tfidf", 0.3, seed) for seed in range(3)]
    assert sorted(csv_of(tagged, "per_type")["type"]) == list(TYPES)
    assert csv_of(tagged, "per_label").empty


def test_the_same_records_of_numbers_give_the_same_page() -> None:
    records = [numbers(method, noise, seed) for method, noise in (("full", 0.4), ("tfidf", 1.2)) for seed in range(2)]
    assert page_html(records) == page_html(records[::-1])


def test_only_the_largest_size_is_kept() -> None:
    made = [numbers("full", 0.5, n_train=n) for n in (32, 64)] + [label_sets("lora", 0.1, n_train=n) for n in (32, 64)]
    report = ReportData([dataclasses.replace(r, cell=dataclasses.replace(r.cell, task=r.cell.method)) for r in made])
    assert len(report.observations.answers) == 2


# ---- remarks, and metrics where lower is better


def test_the_report_says_which_labels_and_tags_are_odd() -> None:
    records = [label_sets("full", 0.1, seed, n_train=16) for seed in range(2)] + [label_sets("full", 0.1)]
    records[0] = with_facts(records[0], remarks={"unseen_labels": "love, surprise"})
    records[1].provenance.dataset["n_labels_unseen"] = 3
    records[2].provenance.dataset["n_labels_not_in_test"] = 1
    said = what_was_compared(observe(records))
    assert "at 16 labels (seed 0: love, surprise; seed 1: 3)" in said
    assert "planted: 1 label of 4 on no test row" in said
    assert "3 tags outside any span" in what_was_compared(observe([spans("full", 0.9)]))


def test_lower_is_better_in_every_rendering(tmp_path: Path) -> None:
    noise = {"full": 0.4, "lora": 0.41, "tfidf": 1.2}
    records = [numbers(m, s, seed, n_train=n) for m, s in noise.items() for seed in range(3) for n in (32, 64)]
    write_report(records, tmp_path, formats=("png",))
    found = pd.read_csv(tmp_path / "standings.csv")
    at_64 = found[found["n_train"] == 64].set_index("variant")
    scores = {m: np.mean([r.score.value for r in records if r.score and r.cell.method == m and r.cell.n_train == 64])
              for m in noise}  # fmt: skip
    best = min(scores, key=lambda method: scores[method])
    assert at_64.index[at_64["is_best"]].tolist() == [best]
    assert at_64.loc["tfidf", "behind"] == pytest.approx(scores["tfidf"] - scores[best])
    assert not at_64.loc["tfidf", "is_tied"]
    sentence = str(conclude(records))
    assert sentence.startswith(f"With 64 labels, {best} scores best: rmse {scores[best]:.3f}")
    assert "(lower is better)" in sentence
    for name in ("report.md", "report.html", "tables/planted.tex"):
        assert "rmse (lower is better)" in (tmp_path / name).read_text()
    assert rf"\textbf{{{scores[best]:.3f}}}" in (tmp_path / "tables" / "planted.tex").read_text()
    (panel,) = ReportData(records).panels
    curves = curves_of(panel)
    figure = draw_learning_curves(curves, styles({(line, line) for line in curves["line"]}))
    assert figure.axes[0].get_ylabel() == "rmse (lower is better)"


def test_errors_in_units_have_intervals_without_an_upper_end_and_no_mean_over_tasks() -> None:
    records = [numbers(m, s, seed, scale=50_000.0) for m, s in (("full", 0.4), ("tfidf", 1.2)) for seed in range(3)]
    row = comparison(records).set_index("variant").loc["full"]
    assert 0 < row["score_low"] < row["score"] < row["score_high"]
    assert row["basis"] == "seeds and test rows"
    assert text.score(row["score"]) == f"{row['score']:.0f}"
    other = [dataclasses.replace(r, cell=dataclasses.replace(r.cell, task="other")) for r in records]
    (ranked,) = across_tasks([*records, *other])
    assert ranked.methods == ("full", "tfidf")
    assert ranked.means is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.00012, "0.00012"), (-0.000034, "-0.000034"), (1e-9, "0.000"), (0.0, "0.000"), (123456.7, "123457")],
)
def test_no_score_is_shown_as_nothing(value: float, shown: str) -> None:
    assert text.score(value) == shown


def test_numbers_of_one_column_have_the_same_decimals() -> None:
    assert text.quantities([4.2, 0.05, None]) == ["4.200", "0.050", "–"]
    assert text.quantities([250_000.4, -3.2]) == ["250,000", "-3"]
    assert text.quantities([0.00123, -0.0000001]) == ["0.001230", "0.000000"]
    assert text.quantities([]) == []


def test_texts_of_numbers_are_lent_to_a_report(tmp_path: Path) -> None:
    task = toy_task("regression", tmp_path)
    known = known_texts([task, toy_task("multi-label", tmp_path)])
    assert list(known) == [task.test_rows]
    assert known[task.test_rows].fields == (list(task.test.texts),)


def test_an_audit_in_points_leaves_out_errors_in_units() -> None:
    def tuned(record: Record) -> Record:
        config = {**record.cell.config, "tune": 8}
        return dataclasses.replace(record, cell=dataclasses.replace(record.cell, config=config))

    for metric, n_places in (("rmse", 0), ("spearman", 1)):
        records = [numbers("lora", 0.5, seed, metric=metric) for seed in range(2)]
        found = audit([*records, *map(tuned, records)])
        assert len(found.places) == n_places
