"""`docs/findings.md`: the text of `parts/findings.md` with figures of the reference records."""

from __future__ import annotations

from tools.docs.markdown import fill, table
from tools.findings import (
    LARGE,
    MEDIUM,
    PROMPTED,
    SIZES,
    SMALL,
    Gap,
    choose,
    gap,
    means,
    measured_parts,
    ratio,
    reference,
    seconds,
    spread,
)

_Fits = tuple[str, str | None]
"""A method and its encoder; None where it uses none."""

_ON_SMALL = ("linear-probe", "last-layers", "lora", "full")


def findings_page() -> str:
    """Return the Markdown of the page on findings."""
    return fill(
        "findings.md",
        {
            "setting": _setting(),
            "full_against_probe": _gaps(("full", SMALL), ("linear-probe", SMALL)),
            "full_by_task": _by_task(),
            "probe_seconds": _seconds("linear-probe", SMALL),
            "full_seconds": _seconds("full", SMALL),
            "last_against_full": _gaps(("last-layers", SMALL), ("full", SMALL)),
            "last_seconds": _ratio(("last-layers", SMALL), ("full", SMALL), "train_seconds"),
            "last_memory": _ratio(("last-layers", SMALL), ("full", SMALL), "memory_bytes"),
            "lora_against_full": _gaps(("lora", SMALL), ("full", SMALL)),
            "lora_seconds": _ratio(("lora", SMALL), ("full", SMALL), "train_seconds"),
            "lora_memory": _ratio(("lora", SMALL), ("full", SMALL), "memory_bytes"),
            "setfit_against_probe": _gaps(("setfit", SMALL), ("linear-probe", SMALL)),
            "setfit_against_full": _gaps(("setfit", SMALL), ("full", SMALL)),
            "setfit_seconds": _seconds("setfit", SMALL),
            "larger_probe": _gaps(("linear-probe", MEDIUM), ("linear-probe", SMALL)),
            "larger_probe_seconds": _ratio(("linear-probe", MEDIUM), ("linear-probe", SMALL), "train_seconds", 1),
            "small_full_against_larger_probe": _gaps(("full", SMALL), ("linear-probe", MEDIUM)),
            "probe_against_words": _gaps(("linear-probe", MEDIUM), ("tfidf", None)),
            "names_against_probe": _names(),
            "neighbours": _gaps(("knn", MEDIUM), ("linear-probe", MEDIUM)),
            "class_means": _gaps(("prototypes", MEDIUM), ("linear-probe", MEDIUM)),
            "spreads": _spreads(),
            "scores": _scores(),
            "missing": measured_parts(),
        },
    )


def _setting() -> str:
    found = reference()
    n_tasks = found.loc[found["kind"] == "classification", "task"].nunique()
    encoders = ", ".join(one for one in (SMALL, MEDIUM, LARGE, PROMPTED) if (found["encoder"] == one).any())
    return (
        f"{len(found):,} cells on {n_tasks} classification tasks, on one machine ({found['device'].iloc[0]}). "
        f"Backbones: {encoders}."
    )


def _gaps(first: _Fits, second: _Fits) -> str:
    """Return a table of the difference of two methods on encoders, at the sizes that have four common tasks."""
    pairs = [(size, choose(first[0], size, first[1]), choose(second[0], size, second[1])) for size in SIZES]
    return _gap_table(
        [_gap_row(size, gap(one, other)) for size, one, other in pairs if len({*one["task"]} & {*other["task"]}) >= 4]
    )


def _gap_row(size: str, one: Gap) -> tuple[str, ...]:
    interval = f"{one.low:+.1f} to {one.high:+.1f}"
    return size, f"{one.mean:+.1f}", interval, f"{one.n_ahead} of {len(one.by_task)}", str(one.n_seeds)


def _gap_table(rows: list[tuple[str, ...]]) -> str:
    return table(("labels", "points", "95 % interval", "tasks ahead", "seeds"), rows, right=(1, 2, 3, 4))


def _by_task() -> str:
    """Return the tasks on which full fine-tuning gains and loses most at 4 labels a class."""
    one = gap(choose("full", "4/class", SMALL), choose("linear-probe", "4/class", SMALL))
    ordered = sorted(one.by_task.items(), key=lambda item: item[1])
    return ", ".join(f"{task} {points:+.0f}" for task, points in (*ordered[:2], *ordered[-2:]))


def _seconds(method: str, encoder: str) -> str:
    found = [(size, seconds(method, size, encoder)) for size in SIZES if len(choose(method, size, encoder))]
    return ", ".join(f"{value:.1f} s ({size})" if value < 10 else f"{value:.0f} s ({size})" for size, value in found)


def _ratio(first: _Fits, second: _Fits, column: str, digits: int = 2) -> str:
    return f"{ratio(choose(first[0], None, first[1]), choose(second[0], None, second[1]), column):.{digits}f}"


def _names() -> str:
    names = choose("label-similarity", "0", MEDIUM)
    rows = [_gap_row(size, gap(names, choose("linear-probe", size, MEDIUM), on=("task",))) for size in SIZES]
    return _gap_table([(*row[:4], "3") for row in rows])


def _spreads() -> str:
    rows = [
        (size, f"{spread(size, 'linear-probe', MEDIUM):.1f}", f"{spread(size, 'linear-probe', SMALL):.1f}")
        for size in SIZES
    ]
    return table(("labels", MEDIUM, SMALL), rows, right=(1, 2))


def _scores() -> str:
    tasks = sorted(
        set.intersection(
            *(set(choose(method, size, SMALL)["task"]) for method in _ON_SMALL for size in ("4/class", "16/class"))
        )
    )
    sizes = [
        size for size in SIZES if all(set(tasks) <= set(choose(method, size, SMALL)["task"]) for method in _ON_SMALL)
    ]
    rows = [
        ("`tfidf`", "tfidf", None),
        *((f"`{method}`, {SMALL}", method, SMALL) for method in ("knn", "prototypes", *_ON_SMALL)),
        *((f"`{method}`, {MEDIUM}", method, MEDIUM) for method in ("knn", "prototypes", "linear-probe")),
    ]
    listed = ", ".join(tasks)
    return f"Mean accuracy over {len(tasks)} tasks ({listed}):\n\n{means(rows, sizes, tasks)}"
