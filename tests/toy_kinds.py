"""A toy task of every kind, written as files that anyone might have."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.data.spec import Columns, DataSource, Decoding, Files, TaskSpec
from harness.tasks import Task, kinds
from tests.toys import CLASS_WORDS, FILLER

WORDS = [word for words in CLASS_WORDS.values() for word in words]


def _sentence(generator: random.Random, n_words: int, *more: str) -> str:
    words = [*generator.choices(FILLER, k=n_words), *more]
    generator.shuffle(words)
    return " ".join(words)


def _pair(generator: random.Random) -> dict[str, Any]:
    names = list(CLASS_WORDS)
    first, second = generator.choice(names), generator.choice(names)
    if generator.random() < 0.3:
        second = first
    texts = [_sentence(generator, 4, generator.choice(CLASS_WORDS[name])) for name in (first, second)]
    return {"one": texts[0], "other": texts[1], "same": "is" if first == second else "not"}


def _choice(generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(CLASS_WORDS))
    asked, right = generator.sample(CLASS_WORDS[name], 2)
    others = [generator.choice(CLASS_WORDS[other]) for other in CLASS_WORDS if other != name]
    texts = [right, *others][: generator.choice([2, 3])]
    generator.shuffle(texts)
    labels = list("ABC")[: len(texts)]
    choices = {"text": texts, "label": labels}
    return {"question": _sentence(generator, 5, asked), "choices": choices, "answerKey": labels[texts.index(right)]}


def _span(generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(CLASS_WORDS))
    answer = generator.choice(CLASS_WORDS[name])
    context = _sentence(generator, 12, answer)
    return {
        "question": "help with " + generator.choice(CLASS_WORDS[name]),
        "context": context,
        "answers": {"text": [answer], "answer_start": [context.index(answer)]},
    }


def _translation(generator: random.Random) -> dict[str, Any]:
    words = generator.choices(WORDS, k=5)
    return {"source": " ".join(words), "target": " ".join(reversed(words))}


def _generation(generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(CLASS_WORDS))
    return {"asked": _sentence(generator, 4, generator.choice(CLASS_WORDS[name])), "said": CLASS_WORDS[name][0]}


def _text(generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(CLASS_WORDS))
    return {"text": " ".join(generator.choices(CLASS_WORDS[name], k=12))}


SHORT = Decoding(max_new_tokens=8)

TOYS: dict[str, tuple[Callable[[random.Random], dict[str, Any]], dict[str, Any]]] = {
    "text-pair": (_pair, {"columns": Columns.model_validate({"first": "one", "second": "other", "label": "same"})}),
    "multiple-choice": (_choice, {}),
    "question-answering": (_span, {"decoding": SHORT, "max_length": 24}),
    "translation": (_translation, {"decoding": SHORT}),
    "generation": (
        _generation,
        {"columns": Columns.model_validate({"prompt": "asked", "target": "said"}), "decoding": SHORT},
    ),
    "perplexity": (_text, {"columns": Columns.model_validate({"target": "text"}), "metric": "perplexity"}),
}
"""How a row of each toy is made, and what its spec says besides; `perplexity` is the other way to generate."""


WRITTEN = ("translation", "generation", "perplexity")
"""Toys that only a language model answers."""


def architectures_of(name: str) -> list[str]:
    """The architectures that some method can answer a toy on; the likelihood of a text is a causal model's."""
    if name == "perplexity":
        return ["causal"]
    return [*([] if name in WRITTEN else ["encoder"]), "causal", "sequence-to-sequence"]


def toy_rows(name: str, n_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a toy."""
    generator = random.Random(seed)
    return [TOYS[name][0](generator) for _ in range(n_rows)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def toy_spec(name: str, folder: Path, rows: list[dict[str, Any]] | None = None, **more: Any) -> TaskSpec:
    """The spec of a toy in files of its own: 160 training rows, or those given, and 24 of test."""
    train = write_rows(folder / f"{name}-train.jsonl", toy_rows(name, 160) if rows is None else rows)
    test = write_rows(folder / f"{name}-test.jsonl", toy_rows(name, 24, seed=1))
    kind = "generation" if name == "perplexity" else name
    said = {**TOYS[name][1], **more}
    data = DataSource(files=Files(train=str(train), test=str(test)))
    return TaskSpec(name=f"toy-{name}", kind=kind, data=data, **said)


def toy_task(name: str, folder: Path, **more: Any) -> Task:
    """A toy, ready to run."""
    spec = toy_spec(name, folder, **more)
    return kinds.get(spec.kind).prepare(spec, None)
