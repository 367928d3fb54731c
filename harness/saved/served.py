"""The served model of a saved prompt: where it is and how it is asked, without the key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones import ServedModel
from harness.saved.layout import Description, SavedEndpoint
from harness.support import UsageError

if TYPE_CHECKING:
    from harness.serving import Connection


def saved_endpoint(model: ServedModel) -> SavedEndpoint:
    """Return what a saved model keeps of a served one."""
    endpoint, offer = model.endpoint, model.offer
    return SavedEndpoint(
        url=endpoint.url,
        model=endpoint.model,
        revision=endpoint.revision,
        key=endpoint.key_variable,
        concurrency=endpoint.concurrency,
        timeout=endpoint.timeout,
        offer=offer.identity(),
    )


def connect(
    folder: Path, described: Description, url: str | None = None, key: str | None = None, answers: Path | None = None
) -> Connection:
    """Contact the endpoint of a saved prompt, and return a connection to the model that it was saved with.

    Args:
        folder: folder of the saved model, for messages.
        described: its description.
        url: URL of the endpoint; None takes the saved one.
        key: name of the environment variable that holds the key; None takes the saved one.
        answers: file that keeps every answer; None keeps them in memory.

    Raises:
        MissingResourceError: the endpoint cannot be reached.
        UsageError: it refuses the key, serves another model, or answers in another way than when the model was saved.
    """
    from harness.serving import Connection, contact, read_endpoint

    saved = described.endpoint
    assert saved is not None
    options = read_endpoint(
        {
            "url": saved.url if url is None else url,
            "model": [saved.model],
            "revision": saved.revision,
            "key": saved.key if key is None else key,
            "concurrency": saved.concurrency,
            "timeout": saved.timeout,
            "api": "auto" if saved.offer.get("chat") else saved.offer.get("api"),  # one for classes, one for writing
            "scoring": saved.offer.get("scoring"),
        }
    )
    assert options is not None
    (found,) = contact(options, answers)
    if found.fingerprint != described.weights:
        raise UsageError(
            f"The endpoint {options.url} does not answer as it did when '{folder}' was saved: "
            f"{_differences(saved.offer, found.offer.identity())}. Predictions would differ. Name the right server "
            "with --endpoint URL, or choose and save again."
        )
    unpriced = replace(found, endpoint=replace(found.endpoint, price=None))  # a limit of money is no part of predicting
    return Connection(unpriced)


def _differences(saved: dict[str, Any], found: dict[str, Any]) -> str:
    names = [name for name in {**saved, **found} if saved.get(name) != found.get(name)]
    parts = [f"{name.replace('_', ' ')} is {found.get(name)}, expected {saved.get(name)}" for name in names]
    return "; ".join(parts) or "its name or revision is another one"
