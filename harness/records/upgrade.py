"""Bring the JSON of an older record to the present schema: the one place that infers facts from names.

Records of schema 1 (version 0.1) describe their methods briefly, and keep measurements as texts. The missing facts
follow from the names of settings, methods, families and suites of version 0.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from harness.records.facts import TRAINS_INSIDE, Facts, Role, TextLengths
from harness.records.record import Record
from harness.records.workload import FitLength

_CUT = re.compile(r"(\d{1,12}) of (\d{1,12})(, on the left)?")
_COUNT = re.compile(r"\d{1,12}(\.\d{1,12})?")
_CHOOSING_SUITES = frozenset({"defaults", "choose"})
"""Suites of version 0.1 whose records chose default settings, or a method for a user's data, on validation rows."""

_WORDS: dict[str, Any] = {"analyzer": "word", "ngrams": 2}
_OF_TRAINING: dict[str, Any] = {
    **{"accumulation": 1, "gradient_checkpointing": False, "l2_start": 0.0},
    **{"patience": None, "transformer_dropout": None, "validation_fraction": 0.2},
}
"""Settings of training that version 0.1 gained, with the values that leave a fit as it was before."""

_OF_ANSWERS = {"class_weights": "none", "threshold": None}
"""Settings of methods that fit an output layer, or a linear model, to labels."""

_OF_COMPUTING: dict[str, Any] = {"attention": "auto", "optimiser": "adamw", "prompt_format": "plain"}
"""Settings of training that came after version 0.1. The fits of its records were those of these values."""

_OF_FEATURES: dict[str, Any] = {"layer": "last", "pooling": "own"}
"""The same of methods on frozen features."""

_OF_PROMPTS: dict[str, dict[str, Any]] = {
    "zero-shot": {"calibration": "none"},
    "few-shot": {"calibration": "none", "n_draws": 8, "n_template_rows": 64},
    "calibrated-few-shot": {"calibration": "content-free", "n_template_rows": 64},
}
"""The same of methods that prompt a language model, which share `prompt_format` and `shown_as`."""

_OF_LORA: dict[str, Any] = {
    "b_rate_ratio": 1.0,
    "init": "default",
    "init_rows": 256,
    "layers": None,
    "rank_pattern": [],
    "update": "plain",
}
"""The same of LoRA and its relatives."""

_LORAS = frozenset({"lora", "dora", "rslora", "qlora"})

_HIGHEST: dict[str, float | None] = {"bleu": 100.0, "chrf": 100.0, "perplexity": None, "mae": None, "rmse": None}
_SHARED_FOLDER = "-1-thread"
"""Suffix of folders of earlier results that two processes measured at the same time."""

_NO_EVIDENCE_FILES = frozenset(
    {"added-parameters.jsonl", "choose-grids.jsonl", "defaults.jsonl", "learning-curves.jsonl", "prompting.jsonl"}
)
"""Files of earlier results that chose default settings, that judge `choose` or learning curves, or that have one seed
of prompting or of added parameters."""


def upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a record in the present schema, with its facts as a `Facts` object.

    Args:
        value: JSON of a record of schema 1, checked or not; it is not changed. JSON of another schema is returned.
    """
    if value.get("schema") != 1 or type(value["schema"]) is not int:
        return value
    score, provenance = value.get("score"), dict(value["provenance"])
    notes = dict(provenance.pop("measured", {}))
    if score is not None:
        score = {**score, "highest": highest_of(score["metric"])}
    facts = facts_of(value, notes, provenance.get("dataset", {}))
    return {**value, "schema": 2, "score": score, "provenance": provenance, "facts": facts}


def facts_of(value: Mapping[str, Any], notes: dict[str, str], dataset: Mapping[str, Any]) -> Facts:
    """Return the facts that a record of schema 1 implies.

    Args:
        value: its JSON.
        notes: its `provenance.measured`; entries that have their own field are removed from it.
        dataset: its `provenance.dataset`.
    """
    cell, cost, family = value["cell"], value["cost"], value["family"]
    config, role = cell["config"], role_of(cell, family)
    train, test = (_lengths(notes, part) for part in ("train", "test"))
    if family == "frozen features" and cost.get("train_tokens") and cell["n_train"]:
        train = replace(train or TextLengths(), mean=cost["train_tokens"] / cell["n_train"])
    counts_words = all(config.get(name, wanted) == wanted for name, wanted in _WORDS.items())
    tuned = _settings(notes)
    penalty = notes.get("chosen_c", "")
    if _COUNT.fullmatch(penalty):
        del notes["chosen_c"]
    missing = {name.removesuffix("_missing"): notes.pop(name) for name in list(notes) if name.endswith("_missing")}
    return Facts(
        role=role,
        fit_length=fit_length_of(config) if role in TRAINS_INSIDE else None,
        defaults=_defaults(cell, family, role),
        is_evidence=value["suite"] not in _CHOOSING_SUITES,
        train_texts=train,
        test_texts=test,
        n_terms=_n_terms(cell, cost, dataset) if counts_words else None,
        counts_words=counts_words,
        penalty=float(penalty) if _COUNT.fullmatch(penalty) else None,
        tuned_trials=notes.pop("tuned_trials", None),
        tuned_settings=tuned,
        unsteady=notes.pop("unsteady", None),
        left_behind=notes.pop("left_behind", None),
        on_oom=notes.pop("on_oom", None),
        peak_rss_source=notes.pop("peak_rss", None),
        energy_source=notes.pop("energy", None),
        missing=missing,
        imported_from=notes.pop("imported_from", None),
        protocol=notes.pop("protocol", None),
        remarks=notes,
    )


def role_of(cell: Mapping[str, Any], family: str) -> Role | None:
    """Return the role of a method, by the names of its family and settings; None for imported results."""
    if cell["method"] == "majority":
        return "floor"
    if cell["method"] == "from-scratch":
        return "from scratch"
    if "batch_size" in cell["config"] and "pooling" not in cell["config"]:
        return "fine-tuning"
    if family == "in context":
        return "prompting"
    if cell["backbone"] is None:
        return "baseline"
    return "frozen features" if "pooling" in cell["config"] or family == "frozen features" else None


def fit_length_of(config: Mapping[str, Any]) -> FitLength | None:
    """Return the steps of a fit inside the transformer, by the settings of version 0.1; None if they lack them."""
    if not config.get("batch_size"):
        return None
    n_pairs, most = config.get("n_pairs"), config.get("max_steps")
    length = FitLength(int(config["batch_size"]), float(config.get("epochs") or 1.0), int(config.get("min_steps") or 1))
    if n_pairs is None:
        return length
    return replace(length, max_steps=most, items_per_label=2 * int(n_pairs), texts_per_item=2, reads_after=1)


def highest_of(metric: str) -> float | None:
    """Return the highest value of a metric, by its name; None without an upper end."""
    return _HIGHEST.get(metric, 1.0)


def is_accelerator(device: str) -> bool:
    """Return whether a probed device is an accelerator; a CPU's name ends with its threads."""
    return re.search(r"\d+ threads?$", device) is None


def is_earlier_evidence(file: str) -> bool:
    """Return whether the earlier results in a file of this name are evidence of methods."""
    return file not in _NO_EVIDENCE_FILES


def of_earlier(record: Record, folder: str) -> Record:
    """Return an earlier result with the fact in the name of its folder: whether two cells ran at a time."""
    if folder.endswith(_SHARED_FOLDER):
        return record.replaced(provenance=replace(record.provenance, cells_at_a_time=2))
    return record


def _lengths(notes: dict[str, str], part: str) -> TextLengths | None:
    longest, cut = notes.get(f"longest_{part}_tokens", ""), _CUT.fullmatch(notes.get(f"truncated_{part}_rows", ""))
    found: dict[str, Any] = {}
    if _COUNT.fullmatch(longest):
        found["longest"] = int(float(notes.pop(f"longest_{part}_tokens")))
    if cut is not None and 0 < int(cut[1]) <= int(cut[2]):
        side: Literal["left", "right"] = "left" if cut[3] else "right"
        found |= {"n_cut": int(cut[1]), "n_texts": int(cut[2]), "cut_side": side}
        del notes[f"truncated_{part}_rows"]
    return TextLengths(**found) if found else None


def _n_terms(cell: Mapping[str, Any], cost: Mapping[str, Any], dataset: Mapping[str, Any]) -> float | None:
    """Return the number of terms of a TF-IDF record: its coefficients, less one constant per row."""
    classes, n_trainable = dataset.get("n_classes"), cost.get("n_trainable")
    if cell["method"] != "tfidf" or not isinstance(classes, int) or not n_trainable:
        return None
    n_terms = n_trainable / (1 if classes == 2 else classes or 1) - 1
    return n_terms if n_terms > 0 else None


def _defaults(cell: Mapping[str, Any], family: str, role: Role | None) -> dict[str, Any]:
    """Return the settings that a configuration states only if they differ from their defaults.

    Records lack the settings that came after them: their fits were those of the defaults.
    """
    method, config = cell["method"], cell["config"]
    found: dict[str, Any] = {"tune": None}
    if method == "tfidf" or "analyzer" in config:
        found["analyzer"] = "word"
    is_contrastive = "n_pairs" in config  # SetFit has a loop of its own
    if "compile" in config or (role in TRAINS_INSIDE and not is_contrastive):
        found["compile"] = False
    if "c_grid" in config or "label_smoothing" in config:
        found |= {name: value for name, value in _OF_ANSWERS.items() if name not in config}
    if role in TRAINS_INSIDE and not is_contrastive:
        found |= {name: value for name, value in (_OF_TRAINING | _OF_COMPUTING).items() if name not in config}
    if "c_grid" in config and role == "frozen features":
        found |= {name: value for name, value in _OF_FEATURES.items() if name not in config}
    if method in _OF_PROMPTS:
        own = {"prompt_format": "auto", "shown_as": "turns", "prompt": "", **_OF_PROMPTS[method]}
        found |= {name: value for name, value in own.items() if name not in config}
    trains_all = family == "full fine-tuning" or role == "from scratch"
    if trains_all or method == "last-layers":
        found |= {"masters": "float32", "optimiser_blocks": 2, "optimiser_rank": 8}
    if method in _LORAS:
        found |= {name: value for name, value in _OF_LORA.items() if name not in config}
    holds_frozen = role in ("fine-tuning", "prompting", "frozen features") and not trains_all
    if holds_frozen and not is_contrastive and "weights" not in config:  # a setting of knn with another meaning
        found["weights"] = "auto"
    return found


def _settings(notes: dict[str, str]) -> dict[str, Any] | None:
    try:
        found = json.loads(notes.get("tuned_settings", ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    del notes["tuned_settings"]
    return found
