"""Results of encoders that others published, shipped with the package as evidence."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections import Counter
from typing import Any, Final

from harness.records import EncoderFacts, PublishedEncoder, PublishedResult

_FILE: Final = "mteb-classification.jsonl"


def published_source() -> dict[str, Any]:
    """Return the source of the published results: its address, commit, licence and protocol."""
    return dict(_lines()[0])


@functools.cache
def published_encoders() -> tuple[PublishedEncoder, ...]:
    """Return the encoders whose results the package ships, by name: frozen probes on English classification tasks.

    The results are MTEB's (Muennighoff et al., EACL 2023), and `published_source` names their commit. They are read
    when they are asked for first. Results on tasks that an encoder was trained on are among them
    (`PublishedResult.has_seen_task`).
    """
    return tuple(_encoder(line) for line in _lines()[1:])


def _lines() -> list[dict[str, Any]]:
    text = importlib.resources.files("harness.store.published").joinpath(_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _encoder(line: dict[str, Any]) -> PublishedEncoder:
    results = tuple(_result(task, values, line["revision"]) for task, values in line["results"].items())
    return PublishedEncoder(line["name"], EncoderFacts(**line["facts"]), results)


def _result(task: str, values: list[Any], usual: str) -> PublishedResult:
    """Return a result; it states the revision of the weights only where that is not the encoder's usual one."""
    accuracy, sd, n_draws, has_seen_task, data_revision, *revision = values
    return PublishedResult(
        task, accuracy, sd, n_draws, has_seen_task, revision[0] if revision else usual, data_revision
    )


def written(source: dict[str, Any], encoders: list[PublishedEncoder]) -> str:
    """Return the text of the shipped file; `published_encoders` reads it back, rounded to six decimals."""
    lines: list[dict[str, Any]] = [source]
    for encoder in sorted(encoders, key=lambda encoder: encoder.name):
        revision = Counter(result.revision for result in encoder.results).most_common(1)[0][0]
        facts = {name: value for name, value in vars(encoder.facts).items() if value is not None}
        results = {
            result.task: [
                round(result.accuracy, 6),
                None if result.sd is None else round(result.sd, 6),
                result.n_draws,
                result.has_seen_task,
                result.data_revision[:12],
                *([] if result.revision == revision else [result.revision]),
            ]
            for result in sorted(encoder.results, key=lambda result: result.task)
        }
        lines.append({"name": encoder.name, "revision": revision, "facts": facts, "results": results})
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
