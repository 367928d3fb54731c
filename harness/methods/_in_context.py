"""Base classes of in-context methods: settings, the language model, the fitted prompt.

Nothing is trained. The probability of a class, or of a choice, is the normalised likelihood of its words after a
prompt. An answer that is a text, or a part of one, is generated. A method of this family chooses the training rows
that a prompt shows (`FittedPrompt.demonstrations`, or the nearest to each text).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from harness.backbones import BackboneFiles
from harness.features import lengths_of
from harness.measure import PrecisionPolicy, long_step
from harness.methods._demonstrations import Nearest, asked
from harness.methods._label_likelihood import LabelLikelihood
from harness.methods._prompts import PLACE, Demonstration, Prompt, PromptWriter, Wording
from harness.methods._served_prompt import restored_served, why_not_served
from harness.methods._weights import FrozenWeights
from harness.methods.base import LANGUAGE_MODEL, SERVED, Fitted
from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN, Expected, check_tensors
from harness.records import Budget, Workload
from harness.support import UnsupportedError, UsageError, put_aside
from harness.tasks import Answers, Floats, Form, Ints, Reply, Rows, TextAnswers, kinds

if TYPE_CHECKING:
    from harness.backbones import Backbone, LanguageModel
    from harness.training import GenerativeModel

TEMPLATE = "Input: {text}\nLabel:"
"""Default template of a text, where neither the task nor the method sets one."""

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts without content (Zhao et al., 2021, section 5)."""


KEEPS_KEYS: Final = frozenset({"llama", "gpt2", "opt", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text"})
"""Causal model types that keep keys and values. A plan with them skips building the architecture."""


@functools.lru_cache(maxsize=64)
def _why_no_keys(files: BackboneFiles) -> str | None:
    """Return why the classes of a task cannot be scored; None if they can, or if only a run can tell."""
    from harness.backbones import outline_backbone

    model = outline_backbone(files, language_model=True)
    if model is None or "past_key_values" in inspect.signature(model.forward).parameters:
        return None
    return (
        f"Scoring classes needs the keys and values of a prompt, which a {type(model).__name__} does not keep. Use "
        "linear-probe, head or full."
    )


class InContextMethod(FrozenWeights):
    """Settings of every method that asks a language model for the words of a class.

    Attributes:
        template: form in which prompts show a text; contains `{text}` once. The default gives way to a task's own
            wording (`prompt` in its suite).
        separator: text between instruction, demonstrations and text.
        instruction: beginning of every prompt.
        normalise: use the mean log-probability of a label's tokens instead of their sum, so that classes of many
            tokens are not at a disadvantage (Brown et al., 2020, section 2.4).
        precision: `auto` is bfloat16 where the hardware has it natively.
    """

    family = "in context"
    role = "prompting"
    trains = "nothing"
    serves = LANGUAGE_MODEL | SERVED
    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices", "spans", "text", "tags"})
    writes: ClassVar[frozenset[Form]] = frozenset({"text", "spans", "tags"})
    probabilities_are: ClassVar[str] = "likelihoods of the classes' words, scaled to sum to 1"
    calibrates: ClassVar[bool] = False

    template: str = TEMPLATE
    separator: str = "\n\n"
    instruction: str = ""
    normalise: bool = False
    precision: PrecisionPolicy = "auto"

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, template: str) -> str:
        if template.count(PLACE) != 1:
            raise ValueError(f"expected {PLACE} once in the template, where the text goes; got {template!r}")
        return template

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a model for classes that keeps no keys and values of a prompt (Mamba keeps states)."""
        reason = super().why_unsupported(kind, files, device)
        if reason is None and files is not None and files.architecture == "served":
            return why_not_served(self, kinds.get(kind), files, calibrates=self.calibrates)
        if reason is not None or files is None or kinds.get(kind).form != "classes" or files.architecture != "causal":
            return reason
        return None if files.model_type in KEEPS_KEYS else _why_no_keys(files)

    def wording(self, bench: Bench) -> Wording:
        """Return the wording of a row: the task's own, unless the user set a template."""
        if bench.prompt is not None and self.template == TEMPLATE:
            return Wording(bench.prompt, is_whole=True, ending=bench.ending)
        asked = bench.kind.question(bench.label_words) if self.template == TEMPLATE else None
        return Wording(self.template if asked is None else asked[0])

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: nothing is trained, and every answer reads the whole prompt."""
        return Workload(texts_per_answer=1.0 + min(n_train, int(getattr(self, "k", 0))))

    def warm_up(self) -> None:
        """Import the libraries that the first prompt needs."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, cache_utils  # noqa: F401


class DemonstratingMethod(InContextMethod):
    """Settings of methods whose prompts show training rows.

    Attributes:
        k: maximum number of rows; all training rows where there are fewer.
    """

    finds_likelihood: ClassVar[bool] = False

    k: int = Field(default=8, ge=1)


class FittedPrompt(Fitted):
    """A language model with the demonstrations that its prompts show.

    Args:
        method: settings of the method.
        bench: the cell's bench; loading the language model is charged to its "load" phase.
        demonstrations: rows in the order in which prompts show them, or all rows that `nearest` chooses from.
        nearest: chooser of demonstrations for each text; None shows all demonstrations in every prompt.
        calibration: log-probabilities of the classes for content-free texts, shape (classes,), subtracted from those
            of every row; None disables calibration.
        label_words: each class in words; None takes the task's.
    """

    n_trainable = 0

    def __init__(
        self,
        method: InContextMethod,
        bench: Bench,
        demonstrations: Sequence[Demonstration] = (),
        *,
        nearest: Nearest | None = None,
        calibration: Floats | None = None,
        label_words: Sequence[str] | None = None,
    ) -> None:
        backbone = bench.some_backbone
        loaded = _load_language_model(method, bench)
        self.n_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        self._model = loaded.model
        self._method = method
        self._label_words = tuple(bench.label_words if label_words is None else label_words)
        self._wording = method.wording(bench)
        reply = self._reply(bench)
        self._writer = PromptWriter(
            backbone,
            self._wording,
            separator=method.separator,
            instruction=method.instruction,
            max_text_tokens=bench.max_length,
            answers=self._label_words if bench.kind.form == "classes" else (),
            n_answer_tokens=0 if reply is None else reply.max_new_tokens,
        )
        self.likelihood = LabelLikelihood(
            loaded.model,
            self._writer.labels,
            is_causal=backbone.files.architecture == "causal",
            normalise=method.normalise,
            device=bench.device,
            precision=bench.precision(method.precision),
        )
        self.demonstrations = [
            Demonstration(self._writer.shorten(shown.text), shown.answer) for shown in demonstrations
        ]
        self._nearest = nearest
        self.calibration = calibration

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Return the language model's answers; the ledger notes what did not fit into prompts."""
        if bench.reply is not None and bench.reply.wants_likelihood:  # the likelihood of the text itself, no prompt
            tokens = bench.token_rows(rows, "predict")
            with bench.working("predict"):
                return self._generative_model(bench).answer(tokens, bench, bench.precision(self._method.precision))
        positions = self._nearest.positions(rows, bench) if self._nearest is not None else None
        with bench.working("predict"):
            shown = [self.demonstrations] * len(rows)
            if positions is not None:
                shown = [[self.demonstrations[position] for position in row] for row in positions]
            texts = asked(rows, self._wording)
            if bench.kind.form == "choices":
                return self._choose(texts, shown, rows, bench, share=positions is None)
            prompts = [self._writer.write(text, these) for text, these in zip(texts, shown, strict=True)]
            _note(prompts, len(shown[0]) if shown else 0, rows, bench, self._wording.cut_side)
            if bench.kind.form == "classes":
                return self._classify(prompts, share=positions is None)
            answers = self._write(prompts, bench, share=positions is None)
            if not isinstance(answers, TextAnswers) or bench.kind.question(self._label_words) is None:
                return answers
            found, n_unread = bench.kind.read_replies(answers.texts, rows, self._label_words)
            bench.ledger.remarks["unreadable_answers"] = f"{n_unread} of {len(rows)}"
            return found

    def _reply(self, bench: Bench) -> Reply | None:
        """Return the settings of generation: the task's, or those of the kind's own question."""
        asked = bench.kind.question(self._label_words)
        return bench.reply if bench.reply is not None or asked is None else asked[1]

    def content_free(self, n_dropped: int = 0) -> Floats:
        """Return the log of the mean probability of each class over the content-free texts, shape (classes,)."""
        shown = self.demonstrations[n_dropped:]
        prompts = [self._writer.write_probe(text, shown) for text in CONTENT_FREE]
        shared = self._writer.shared(shown[prompts[0].n_dropped :])
        scores = self.likelihood.score([prompt.ids for prompt in prompts], shared)
        mean = _normalised(scores).mean(axis=0, dtype=np.float64)
        return np.asarray(np.log(np.maximum(mean, np.finfo(np.float32).tiny)), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors for choosing and calibrating; none for fixed demonstrations without calibration."""
        tensors = {} if self._nearest is None else {"embeddings": self._nearest.embeddings}
        return tensors if self.calibration is None else {**tensors, "calibration": self.calibration}

    def state(self) -> dict[str, Any]:
        """Return the demonstrations and the words of the classes: predicting then needs no training rows."""
        return {
            "label_words": list(self._label_words),
            "demonstrations": [[shown.text, shown.answer] for shown in self.demonstrations],
        }

    def _classify(self, prompts: Sequence[Prompt], *, share: bool) -> Floats:
        """Return probabilities of the classes; `share` says that all prompts show the same demonstrations."""
        scores = np.empty((len(prompts), len(self._label_words)), dtype=np.float32)
        for members, shared, n_dropped in self._alike(prompts, share=share):
            found = self.likelihood.score([prompts[row].ids for row in members], shared)
            if self.calibration is not None:
                # Fewer demonstrations make a different context, which needs a calibration of its own.
                content_free = self.calibration if n_dropped == 0 else self.content_free(n_dropped)
                found = np.asarray(_log_softmax(found) - content_free, dtype=np.float32)
            scores[members] = found
        return _normalised(scores)

    def _alike(self, prompts: Sequence[Prompt], *, share: bool) -> Iterator[tuple[list[int], Ints, int]]:
        """Yield prompts that begin alike: their positions, the first tokens, the demonstrations that were dropped."""
        if not share:  # each prompt shows other demonstrations, after the same instruction
            yield list(range(len(prompts))), self._writer.shared(()), 0
            return
        for n_dropped in sorted({prompt.n_dropped for prompt in prompts}):
            members = [row for row, prompt in enumerate(prompts) if prompt.n_dropped == n_dropped]
            yield members, self._writer.shared(self.demonstrations[n_dropped:]), n_dropped

    def _choose(
        self, texts: Sequence[str], shown: Sequence[Sequence[Demonstration]], rows: Rows, bench: Bench, *, share: bool
    ) -> Floats:
        """Return probabilities of each row's own choices, from the likelihood of their words."""
        choices = [rows.source.fields["choices"][position] for position in rows.index]
        written = [
            self._writer.write_with(text, these, words)
            for text, these, words in zip(texts, shown, choices, strict=True)
        ]
        prompts = [prompt for prompt, _ in written]
        _note(prompts, len(shown[0]) if shown else 0, rows, bench, self._wording.cut_side)
        scores = np.full((len(rows), bench.n_outputs), -np.inf)
        for members, shared, _ in self._alike(prompts, share=share):
            replies = [written[row][1] for row in members]
            likelihoods = self.likelihood.score_replies([prompts[row].ids for row in members], replies, shared)
            counts = lengths_of(replies)
            exists = np.zeros(scores.shape, dtype=bool)
            exists[members] = np.arange(bench.n_outputs) < counts[:, None]
            scores[exists] = likelihoods
        return _normalised(scores)

    def _write(self, prompts: Sequence[Prompt], bench: Bench, *, share: bool) -> Answers:
        """Generate a text after each prompt; with demonstrations, the separator of rows ends the text."""
        reply = self._reply(bench)
        assert reply is not None
        if self.demonstrations and self._method.separator:
            reply = dataclasses.replace(reply, stop=tuple(dict.fromkeys([*reply.stop, self._method.separator])))
        bench = dataclasses.replace(bench, reply=reply)
        ids = [prompt.ids.astype(np.int32) for prompt in prompts]
        shared = self._writer.shared(self.demonstrations if share else ())
        return self._generative_model(bench).answer(
            ids, bench, bench.precision(self._method.precision), shared.astype(np.int32)
        )

    def _generative_model(self, bench: Bench) -> GenerativeModel:
        from harness.training import GenerativeModel

        return GenerativeModel(self._model, is_causal=bench.some_backbone.files.architecture == "causal")


def restored(
    method: InContextMethod,
    tensors: dict[str, npt.NDArray[Any]],
    state: dict[str, Any],
    bench: Bench,
    *,
    calibrated: bool = False,
) -> Fitted:
    """Return a fitted prompt from what `FittedPrompt.tensors` and `FittedPrompt.state` saved.

    Raises:
        UsageError: a tensor or an entry of the state is missing or has a wrong shape.
    """
    if bench.served is not None:
        return restored_served(method, tensors, state, bench)
    embeddings = tensors.get("embeddings")
    nearest = None
    expected = {}
    if getattr(method, "choose", None) == "nearest":
        expected["embeddings"] = Expected((len(state["demonstrations"]), bench.some_backbone.hidden_size))
    if calibrated:
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
    )


def _load_language_model(method: InContextMethod, bench: Bench) -> LanguageModel:
    """Return the backbone with its language-modelling head, charged to "load" at the cost of its first load."""
    backbone = bench.some_backbone
    with bench.clock.paused(), long_step(), put_aside():  # it stays for later cells
        try:
            loaded = backbone.language_model(
                bench.device.torch_device(), bench.precision(method.precision), method.weights
            )
        except UsageError as error:  # the files hold no language-modelling head: unsupported, not failed
            raise UnsupportedError(str(error)) from None
    bench.clock.charge("load", loaded.load_seconds)
    bench.note_weights(loaded.model, resident=True)
    if backbone in _LOADED:  # by an earlier cell
        bench.ledger.reused.add("language model")
    _LOADED.add(backbone)
    return loaded


_LOADED: weakref.WeakSet[Backbone] = weakref.WeakSet()
"""Backbones whose language model an earlier fit has loaded."""


def run_in_fit(run: Callable[[], Floats], likelihood: LabelLikelihood, bench: Bench) -> Floats:
    """Run the language model as part of a fit: once timed, and once untimed to count its operations."""
    before = likelihood.n_tokens
    with bench.working("fit"):
        result = run()
    bench.ledger.train_tokens += likelihood.n_tokens - before
    bench.count_train_flops(run)
    return result


def _note(prompts: Sequence[Prompt], n_shown: int, rows: Rows, bench: Bench, side: Literal["left", "right"]) -> None:
    """Note cut texts, with the end that they lose, and dropped demonstrations in the ledger."""
    part = rows.source.key.rpartition("/")[2]
    n_cut = sum(prompt.is_cut for prompt in prompts)
    if n_cut:
        bench.ledger.note_cut(part, n_cut, len(prompts), side)
    n_short = sum(prompt.n_dropped > 0 for prompt in prompts)
    if n_short:
        most = max(prompt.n_dropped for prompt in prompts)
        where = "all rows" if n_short == len(prompts) else f"{n_short} of {len(prompts)} rows"
        bench.ledger.remarks["dropped_demonstrations"] = f"{most} of {n_shown} at most, in {where}"


def _log_softmax(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)


def _normalised(scores: npt.NDArray[Any]) -> Floats:
    """Return probabilities of the classes from log-likelihoods, shape (rows, classes)."""
    return np.exp(_log_softmax(scores)).astype(np.float32)
