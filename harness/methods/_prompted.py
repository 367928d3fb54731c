"""Make, calibrate and restore the fitted prompt of a method: with the model in this process, or with a served one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from harness.methods._asking import AUTO, Asking, wordings
from harness.methods._demonstrations import Nearest
from harness.methods._in_context import FIRST_TEMPLATE, DemonstratingMethod, FittedPrompt, InContextMethod
from harness.methods._language_model import run_in_fit
from harness.methods._prompts import Demonstration, Wording
from harness.methods._served_prompt import ServedPrompt, restored_served
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN, Expected, check_tensors
from harness.support import UsageError

if TYPE_CHECKING:
    from harness.backbones import LanguageModel


def prompted(
    method: InContextMethod,
    bench: Bench,
    demonstrations: Sequence[Demonstration] = (),
    *,
    nearest: Nearest | None = None,
    asking: Asking | None = None,
    loaded: LanguageModel | None = None,
) -> FittedPrompt | ServedPrompt:
    """Return the prompt of the bench's model; arguments as for `FittedPrompt`."""
    if bench.served is not None:
        return ServedPrompt(method, bench, demonstrations, asking=asking)
    return FittedPrompt(method, bench, demonstrations, nearest=nearest, asking=asking, loaded=loaded)


def calibrated(fitted: FittedPrompt | ServedPrompt, bench: Bench) -> FittedPrompt | ServedPrompt:
    """Calibrate as part of a fit: once timed, and once untimed to count its operations."""
    if fitted.method.calibrates != "content-free" or isinstance(fitted, ServedPrompt):
        return calibrate(fitted, bench)
    fitted.calibration = run_in_fit(fitted.content_free, fitted.likelihood, bench)
    return fitted


def calibrate(fitted: FittedPrompt | ServedPrompt, bench: Bench) -> FittedPrompt | ServedPrompt:
    """Measure the content-free texts, where the method calibrates by them."""
    if fitted.method.calibrates != "content-free":
        return fitted
    if isinstance(fitted, ServedPrompt):
        fitted.calibration = fitted.content_free(bench)
    else:
        fitted.calibration = fitted.content_free()
    return fitted


def restored(
    method: InContextMethod,
    tensors: dict[str, npt.NDArray[Any]],
    state: dict[str, Any],
    bench: Bench,
) -> Fitted:
    """Return a fitted prompt from what `FittedPrompt.tensors` and `FittedPrompt.state` saved.

    Raises:
        UsageError: a tensor or an entry of the state is missing or has a wrong shape.
    """
    asking = _saved_asking(method, state, bench)
    if bench.served is not None:
        return restored_served(method, tensors, state, bench, asking)
    embeddings = tensors.get("embeddings")
    nearest = None
    expected = {}
    if getattr(method, "choose", None) == "nearest":
        expected["embeddings"] = Expected((len(state["demonstrations"]), bench.some_backbone.hidden_size))
    if method.calibrates == "content-free" or "calibration" in tensors:
        expected["calibration"] = Expected((bench.n_outputs,))
    check_tensors(tensors, expected)
    if bench.kind.form == "classes" and len(state["label_words"]) != bench.n_outputs:
        n_saved = len(state["label_words"])
        raise UsageError(f"The saved state has words for {n_saved} classes; expected {bench.n_outputs}. {AGAIN}")
    if embeddings is not None and isinstance(method, DemonstratingMethod):
        nearest = Nearest(embeddings, method.k, method.precision, method.weights)
    return FittedPrompt(
        method,
        bench,
        [Demonstration(text, shown) for text, shown in state["demonstrations"]],
        nearest=nearest,
        calibration=tensors.get("calibration"),
        label_words=state["label_words"],
        asking=asking,
    )


def _saved_asking(method: InContextMethod, state: dict[str, Any], bench: Bench) -> Asking:
    """Return how a saved method asks. Version 0.1 saved no wording: it had one, which it wrote as plain text."""
    saved = state.get("asking")
    if saved is not None:
        return Asking(**{**saved, "wording": Wording(**saved["wording"])})
    has_own = bench.prompt is not None or bench.kind.question(state["label_words"]) is not None
    template = AUTO if has_own and method.template == FIRST_TEMPLATE else method.template
    return Asking(wordings(template, method.instruction, bench, is_shown=method.shows_answers)[0])
