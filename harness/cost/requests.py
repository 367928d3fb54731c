"""Estimate the requests of a cell to a served model before any is sent: number, tokens, price and seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.backbones import ServedModel
from harness.planning import PlannedCell
from harness.tasks import Rows, Task

BYTES_PER_TOKEN: Final = 4.0
"""Assumed UTF-8 bytes of a token: no tokenizer of a served model is here. English text has about 4."""

REQUEST_SECONDS: Final = 0.5
"""Assumed seconds of a request to a served model."""

_SEPARATOR_BYTES: Final = 2.0
"""Bytes between two texts of a prompt."""

_LISTING_BYTES: Final = 44.0
"""Bytes of the sentences around the classes in a prompt that lists them."""

_JSON_TOKENS: Final = 6.0
"""Assumed tokens around a constrained answer."""

_N_CONTENT_FREE: Final = 3
"""Number of texts by which prompts are calibrated."""

_LEAST_SCORED: Final = 8
"""Number of rows that no prompt shows below which both halves of the rows are scored."""

_MEAN_OF: Final = 1000
"""Maximum number of texts whose lengths give a mean."""


@dataclass(frozen=True)
class Requests:
    """Expected requests of cells.

    Attributes:
        n: number of requests.
        prompt_tokens: tokens of all prompts.
        completion_tokens: tokens that the model writes; for written answers the most that it may write.
        price: price of the tokens; None where no price is known.
        currency: currency of `price`.
        seconds: seconds of the requests, side by side.
        fit_seconds: part of them before the first prediction.
    """

    n: int
    prompt_tokens: float
    completion_tokens: float
    price: float | None
    currency: str | None
    seconds: float
    fit_seconds: float = 0.0


def requests_of(planned: PlannedCell, task: Task) -> Requests | None:
    """Return the expected requests of a cell; None where it asks no served model.

    Tokens are estimated from the mean lengths of the texts, of the demonstrations, and of the words of the answers.
    Answers that are stored already, and requests that are sent again, are not considered.

    Args:
        planned: the cell.
        task: its task.
    """
    files = planned.files
    if not isinstance(files, ServedModel) or planned.unsupported is not None:
        return None
    method, n_train = planned.method, planned.cell.n_train
    answer = _mean(len(word.encode()) for word in task.label_words) if task.label_words else 12.0
    setting = method.model_dump()  # `config` leaves newer settings out
    n_shown = min(n_train, int(setting.get("k", 0)))
    once, around = _wording_bytes(files, task, setting, is_shown=n_shown > 0)
    text = _text_bytes(task.test_rows_to_predict) + around
    shown = n_shown * (_text_bytes(_training_rows(task)) + around + answer) if n_shown else 0.0
    each, written = _sent_for_a_row(files, task, answer)
    prompts = once + shown + text + (answer if files.offer.echoes else 0.0)
    n_compared, n_scored = _choosing(task, n_train, setting)
    n_rows = task.n_test + n_compared * n_scored
    if str(getattr(method, "calibrates", "none")) == "content-free":
        n_rows += (1 + n_compared) * _N_CONTENT_FREE
    n = round(n_rows * each)
    tokens = n * prompts / BYTES_PER_TOKEN
    price = files.endpoint.price
    seconds = n * REQUEST_SECONDS / files.endpoint.concurrency
    return Requests(
        n,
        tokens,
        n * written,
        None if price is None else price.of(round(tokens), 0, round(n * written)),
        None if price is None else price.currency,
        seconds,
        seconds * (1 - task.n_test / n_rows) if n_rows else 0.0,
    )


def together(found: Iterable[Requests | None]) -> Requests | None:
    """Return the sum of requests; None where there are none. A price that is unknown makes the sum unknown."""
    known = [one for one in found if one is not None]
    if not known:
        return None
    currencies = {one.currency for one in known}
    has_price = len(currencies) == 1 and None not in currencies
    return Requests(
        sum(one.n for one in known),
        sum(one.prompt_tokens for one in known),
        sum(one.completion_tokens for one in known),
        sum(one.price or 0.0 for one in known) if has_price else None,
        known[0].currency if has_price else None,
        sum(one.seconds for one in known),
        sum(one.fit_seconds for one in known),
    )


def _sent_for_a_row(files: ServedModel, task: Task, answer_bytes: float) -> tuple[float, float]:
    """Return the number of requests for a row, and the tokens that the answer to one has."""
    form, offer = task.kind.form, files.offer
    if form in ("classes", "choices") and offer.echoes:
        n_choices = [len(one) for one in task.test.fields.get("choices", ())]
        return (_mean(n_choices) if n_choices else max(1, task.n_outputs)), 1.0
    if form in ("classes", "choices") and offer.scoring == "log-probabilities":
        return 1.0, 1.0
    if form in ("classes", "choices"):
        words = answer_bytes / BYTES_PER_TOKEN if form == "classes" else 1.0
        return 1.0, words + (_JSON_TOKENS if offer.scoring == "constrained" else 1.0)
    asked = task.kind.question(task.label_words)
    reply = task.reply if task.reply is not None or asked is None else asked[1]
    return 1.0, float(reply.max_new_tokens if reply is not None else 32)


def _wording_bytes(
    files: ServedModel, task: Task, setting: Mapping[str, Any], *, is_shown: bool
) -> tuple[float, float]:
    """Return the bytes of the instruction, once a prompt, and those around each text; by the default wording."""
    wording = task.kind.wordings(task.label_words, is_shown=is_shown)[0]
    template = str(setting.get("template", "auto"))
    own = template if template != "auto" else "" if task.prompt is not None else wording.template
    instruction = str(setting.get("instruction") or ("" if own == template else wording.instruction))
    said = f"{instruction} {own} {task.prompt or ''}".casefold()
    listed = 0.0
    if (
        task.kind.form == "classes"
        and (files.offer.api, files.offer.scoring) != ("completions", "log-probabilities")
        and any(w.casefold() not in said for w in task.label_words)
    ):
        listed = _LISTING_BYTES + sum(len(word.encode()) + 2 for word in task.label_words)
    return len(instruction.encode()) + listed, len(own.replace("{text}", "").encode()) + _SEPARATOR_BYTES


def _choosing(task: Task, n_train: int, setting: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of wordings and draws that are compared, and of the training rows that each is asked about."""
    others = n_train - min(n_train, int(setting.get("k", 0)))
    n_scored = min(int(setting.get("n_template_rows", 0)), others if others >= _LEAST_SCORED else n_train)
    n_compared = 0
    if n_scored and setting.get("template") == "auto" and task.prompt is None:
        n_wordings = len(task.kind.wordings(task.label_words, is_shown=True))
        n_compared += n_wordings if n_wordings > 1 else 0
    if setting.get("choose") == "validated":
        n_compared += int(setting.get("n_draws", 0))
    return n_compared, n_scored


def _training_rows(task: Task) -> Rows:
    return Rows(task.train, task.pool_index)


def _text_bytes(rows: Rows) -> float:
    """Return the mean UTF-8 bytes of rows, in the words of their prompts where they have some."""
    source = rows.source
    texts = source.texts if source.prompts is None else source.prompts
    return _mean(len(texts[int(row)].encode()) for row in rows.index[:_MEAN_OF])


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
