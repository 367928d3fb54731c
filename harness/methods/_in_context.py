"""Base classes of in-context methods: settings, the language model, the fitted prompt.

Nothing is trained. The probability of a class, or of a choice, is the normalised likelihood of its words after a
prompt. An answer that is a text, or a part of one, is generated. A method of this family chooses the training rows
that a prompt shows (`FittedPrompt.demonstrations`, or the nearest to each text).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from harness.backbones import BackboneFiles
from harness.features import lengths_of
from harness.measure import PrecisionPolicy
from harness.methods._asking import AUTO, Asking, PromptFormat, wordings
from harness.methods._calibration import CONTENT_FREE, batch_prior, log_mean, log_softmax, normalised
from harness.methods._chat import NO_TEMPLATE, Chat, ShownAs
from harness.methods._demonstrations import Nearest, asked
from harness.methods._label_likelihood import LabelLikelihood
from harness.methods._language_model import load_language_model
from harness.methods._prompts import PLACE, Demonstration, Prompt, PromptWriter, Wording
from harness.methods._served_prompt import why_not_served
from harness.methods._weights import FrozenWeights
from harness.methods._written import read_written
from harness.methods.base import LANGUAGE_MODEL, SERVED, Fitted, Method
from harness.methods.bench import Bench
from harness.metrics import IN_UNITS
from harness.records import Budget, Workload
from harness.tasks import Answers, Floats, Form, Ints, Kind, Reply, Rows, Task, TextAnswers, kinds

if TYPE_CHECKING:
    from harness.backbones import LanguageModel
    from harness.training import GenerativeModel

FIRST_TEMPLATE: Final = "Input: {text}\nLabel:"
"""Default template of version 0.1, which gave way to a task's own prompt."""

MANY: Final = 32
"""Number of demonstrations above which all prompts show the same ones, so that these are read once."""

LEAST_SCORED: Final = 8
"""Minimum number of rows that a prompt does not show for scoring on these alone."""

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
        template: form in which prompts show a text; contains `{text}` once. `auto` is the task's own wording (`prompt`
            in its suite, or `--prompt`), else one of the kind's wordings.
        separator: text between instruction, demonstrations and text.
        instruction: beginning of every prompt, or the system message of a chat; empty for that of the wording.
        normalise: use the mean log-probability of a label's tokens instead of their sum, so that classes of many
            tokens are not at a disadvantage (Brown et al., 2020, section 2.4).
        precision: `auto` is bfloat16 where the hardware has it natively.
        prompt_format: `chat` writes prompts by the tokenizer's own chat template, `plain` as one text. `auto` is a chat
            where the model writes its answer and the tokenizer has a chat template, else plain.
        prompt: question to the language model in the words of `--prompt`, which sets it; empty for none.
        shown_as: demonstrations in a chat: `turns` shows each as a question and an answer; `message` puts them into the
            user's one message.
    """

    family = "in context"
    role = "prompting"
    trains = "nothing"
    serves = LANGUAGE_MODEL | SERVED
    forms: ClassVar[frozenset[Form]] = frozenset({"classes", "choices", "spans", "text", "tags", "number", "labels"})
    writes: ClassVar[frozenset[Form]] = frozenset({"text", "spans", "tags", "number", "labels"})
    shows_answers: ClassVar[bool] = False
    """Whether prompts show training rows with their answers."""
    probabilities_are: ClassVar[str] = "likelihoods of the classes' words, scaled to sum to 1"
    newer_settings: ClassVar[frozenset[str]] = frozenset({"prompt_format", "shown_as", "prompt"})

    template: str = AUTO
    separator: str = "\n\n"
    instruction: str = ""
    normalise: bool = False
    precision: PrecisionPolicy = "auto"
    prompt_format: PromptFormat = "auto"
    shown_as: ShownAs = "turns"
    prompt: str = ""

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, template: str) -> str:
        if template != AUTO and template.count(PLACE) != 1:
            raise ValueError(f"expected {AUTO}, or {PLACE} once in the template, where the text goes; got {template!r}")
        return template

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also chats without a chat template, calibration of anything but classes, and models without keys.

        A model for classes needs the keys and values of a prompt (Mamba keeps states).
        """
        reason = super().why_unsupported(kind, files, device)
        if reason is None and files is not None and files.architecture == "served":
            return why_not_served(self, kinds.get(kind), files)
        if reason is not None or files is None:
            return reason
        if self.prompt_format == "chat" and not files.has_chat_template:
            return NO_TEMPLATE
        form = kinds.get(kind).form
        if form != "classes" and self.calibrates != "none":
            return (
                f"calibration={self.calibrates} was given, which needs classes; a {kind} task has none. Leave it out."
            )
        if form != "classes" or files.architecture != "causal":
            return None
        return None if files.model_type in KEEPS_KEYS else _why_no_keys(files)

    @classmethod
    def why_not_kind(cls, kind: Kind) -> str | None:
        """Refuse also a kind of another package that cannot be asked in words."""
        reason = super().why_not_kind(kind)
        if reason is None and kind.form in ("tags", "number", "labels") and kind.question(()) is None:
            return f"'{cls.name}' asks a question in words; a {kind.name} task has none (`Kind.question`)."
        return reason

    def on_task(self, task: Task) -> Method:
        """Return the method with the task's prompt, where that is no part of the data's fingerprint."""
        if task.prompt is None or not task.spec.prompt_in_configuration or self.template != AUTO:
            return self
        return self.model_copy(update={"prompt": task.prompt})

    def question(self, bench: Bench) -> tuple[str, Reply] | None:
        """Return the kind's own question for answers that are written and are no texts; None without one."""
        return bench.kind.question(bench.label_words, is_shown=self.shows_answers)

    def why_not(self, task: Task, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also errors in the units of a number whose scale no demonstration and no wording states."""
        reason = super().why_not(task, files, device)
        if reason is None and self.prompt and self.prompt != task.prompt:
            reason = (
                "The setting 'prompt' repeats the words of --prompt; give --prompt itself, or the setting 'template'."
            )
        asks_itself = task.prompt is None and self.template == AUTO and not self.shows_answers
        own_scale = getattr(task.kind, "scale", None)
        if reason is None and asks_itself and own_scale is not None and task.metric in IN_UNITS:
            reason = (
                f"'{self.name}' asks for a number from {own_scale[0]:g} to {own_scale[1]:g}; '{task.metric}' is in the "
                "units of the target. State the scale in the task's prompt, show answers (few-shot), or take "
                "pearson or spearman as the metric."
            )
        return reason

    def cell_version(self, files: BackboneFiles | None, form: Form) -> int:
        """Return the version in a cell's identity: a later one where version 0.1 asked otherwise with these settings.

        It gave its default template up for a task's prompt, wrote no chats, and dropped demonstrations row by row.
        """
        version = super().cell_version(files, form)
        if self.template == AUTO or files is None:
            return version
        is_chat = self.prompt_format == "auto" and form in self.writes and files.has_chat_template
        return version + (self.template == FIRST_TEMPLATE or is_chat or int(getattr(self, "k", 0)) > MANY)

    @property
    def calibrates(self) -> str:
        """The calibration of probabilities: `none`, `content-free` or `batch`."""
        return str(getattr(self, "calibration", "none"))

    def wording(self, bench: Bench) -> Wording:
        """Return the default wording of a row."""
        return wordings(self.template, self.instruction, bench, is_shown=self.shows_answers)[0]

    def askings(self, bench: Bench) -> list[Asking]:
        """Return the ways to ask that labels may choose from; the first is the default.

        A template of the method or a prompt of the task leaves nothing to choose.
        """
        known = wordings(self.template, self.instruction, bench, is_shown=self.shows_answers)
        if bench.served is not None:  # the server's API decides between a chat and plain text
            return [Asking(one, bench.served.model.offer.api == "chat", self.shown_as) for one in known]
        has_template = bool(getattr(bench.some_backbone.tokenizer, "chat_template", None))
        if self.prompt_format != "auto" or not has_template or bench.files.architecture != "causal":
            formats = [self.prompt_format == "chat"]
        elif bench.kind.form in self.writes:
            formats = [True]
        else:
            formats = [False]
        return [Asking(one, is_chat, self.shown_as) for is_chat in formats for one in known]

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: nothing is trained, and every answer reads the whole prompt."""
        return Workload(texts_per_answer=1.0 + min(n_train, int(getattr(self, "k", 0))))

    def warm_up(self) -> None:
        """Import the libraries that the first prompt needs."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, cache_utils  # noqa: F401


class DemonstratingMethod(InContextMethod):
    """Settings of methods whose prompts show training rows.

    Attributes:
        k: maximum number of rows; all training rows where there are fewer. More than 32 are many-shot: as many as fit
            before a text of the maximum length are shown, the same for all rows.
        n_template_rows: maximum number of training rows on which the kind's wordings are compared where `template` is
            `auto` and the task has no prompt of its own; 0 takes the first wording. Rows that prompts show are not
            among them, unless fewer than 8 others are left: then each half of the rows is asked after the other half.
    """

    finds_likelihood: ClassVar[bool] = False
    newer_settings: ClassVar[frozenset[str]] = frozenset({"n_template_rows"})
    shows_answers: ClassVar[bool] = True

    k: int = Field(default=8, ge=1)
    n_template_rows: int = Field(default=64, ge=0)

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each of the kind's wordings is scored on training rows."""
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(whole, scored_per_wording=self._n_scored(n_train) if self.template == AUTO else 0)

    def _n_scored(self, n_train: int) -> int:
        """Return the number of rows that wordings are compared on (`Chooser`)."""
        others = n_train - min(self.k, n_train)
        if others >= LEAST_SCORED:
            return min(others, self.n_template_rows)
        halves = (n_train // 2, n_train - n_train // 2)
        return sum(min(half, self.n_template_rows) for half in halves) if halves[0] else 0


class FittedPrompt(Fitted):
    """A language model with the demonstrations that its prompts show.

    Args:
        method: settings of the method.
        bench: the cell's bench; loading the language model is charged to its "load" phase.
        demonstrations: rows in the order in which prompts show them, or all rows that `nearest` chooses from.
        nearest: chooser of demonstrations for each text; None shows all demonstrations in every prompt.
        calibration: log-probabilities of the classes for content-free texts or a batch of rows, shape (classes,),
            subtracted from those of every row; None where nothing is calibrated, or the first call of `predict` finds
            the batch's.
        label_words: each class in words; None takes the task's.
        asking: way to ask; None takes the method's default.
        loaded: the language model, where it is loaded already.
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
        asking: Asking | None = None,
        loaded: LanguageModel | None = None,
    ) -> None:
        backbone = bench.some_backbone
        loaded = load_language_model(method, method.precision, bench) if loaded is None else loaded
        self.n_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        self._model = loaded.model
        self.method = method
        self._label_words = tuple(bench.label_words if label_words is None else label_words)
        self.asking = method.askings(bench)[0] if asking is None else asking
        self._wording = self.asking.wording
        self._chat = Chat(backbone.tokenizer, self.asking.shown_as) if self.asking.is_chat else None
        reply = self._reply(bench)
        self._writer = PromptWriter(
            backbone,
            self._wording,
            separator=method.separator,
            max_text_tokens=bench.max_length,
            answers=self._label_words if bench.kind.form == "classes" else (),
            n_answer_tokens=0 if reply is None else reply.max_new_tokens,
            chat=self._chat,
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
        self._n_unfit = 0
        if nearest is None and len(self.demonstrations) > MANY:
            self._n_unfit = self._writer.n_unfit(self.demonstrations)
            self.demonstrations = self.demonstrations[self._n_unfit :]
        self.calibration = calibration
        self._calibrates_by_batch = method.calibrates == "batch"

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Return the language model's answers; the ledger notes how it was asked, and what did not fit into prompts."""
        if bench.reply is not None and bench.reply.wants_likelihood:  # the likelihood of the text itself, no prompt
            tokens = bench.token_rows(rows, "predict")
            with bench.working("predict"):
                return self._generative_model(bench).answer(tokens, bench, bench.precision(self.method.precision))
        bench.ledger.remarks["prompt"] = self.asking.in_words()
        positions = self._nearest.positions(rows, bench) if self._nearest is not None else None
        with bench.working("predict"):
            shown = [self.demonstrations] * len(rows)
            if positions is not None:
                shown = [[self.demonstrations[position] for position in row] for row in positions]
            texts = asked(rows, self._wording)
            if bench.kind.form == "choices":
                return self._choose(texts, shown, rows, bench, share=positions is None)
            prompts = [self._writer.write(text, these) for text, these in zip(texts, shown, strict=True)]
            self._note(prompts, len(shown[0]) if shown else 0, rows, bench)
            if bench.kind.form == "classes":
                return self._classify(prompts, share=positions is None)
            answers = self._write(prompts, bench, share=positions is None)
            if not isinstance(answers, TextAnswers) or bench.kind.form == "text":
                return answers
            shown_rows, words = self.demonstrations, self._label_words
            return read_written(self.method, answers.texts, rows, bench, words, shown_rows, self._wording)[0]

    def _reply(self, bench: Bench) -> Reply | None:
        """Return the settings of generation: the task's, or those of the kind's own question."""
        asked = self.method.question(bench)
        return bench.reply if bench.reply is not None or asked is None else asked[1]

    def content_free(self, n_dropped: int = 0) -> Floats:
        """Return the log of the mean probability of each class over the content-free texts, shape (classes,)."""
        shown = self.demonstrations[n_dropped:]
        prompts = [self._writer.write_probe(text, shown) for text in CONTENT_FREE]
        shared = self._writer.shared(shown[prompts[0].n_dropped :])
        scores = self.likelihood.score([prompt.ids for prompt in prompts], shared)
        return log_mean(scores)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors for choosing and calibrating; none for fixed demonstrations without calibration."""
        tensors = {} if self._nearest is None else {"embeddings": self._nearest.embeddings}
        return tensors if self.calibration is None else {**tensors, "calibration": self.calibration}

    def state(self) -> dict[str, Any]:
        """Return demonstrations, words of the classes and how to ask: predicting then needs no training rows."""
        return {
            "label_words": list(self._label_words),
            "demonstrations": [[shown.text, shown.answer] for shown in self.demonstrations],
            "asking": dataclasses.asdict(self.asking),
        }

    def _classify(self, prompts: Sequence[Prompt], *, share: bool) -> Floats:
        """Return probabilities of the classes; `share` says that all prompts show the same demonstrations."""
        scores = np.empty((len(prompts), len(self._label_words)), dtype=np.float32)
        for members, shared, n_dropped in self._alike(prompts, share=share):
            found = self.likelihood.score([prompts[row].ids for row in members], shared)
            if self.calibration is not None and not self._calibrates_by_batch:
                # Fewer demonstrations make a different context, which needs a calibration of its own.
                content_free = self.calibration if n_dropped == 0 else self.content_free(n_dropped)
                found = np.asarray(log_softmax(found) - content_free, dtype=np.float32)
            scores[members] = found
        if self._calibrates_by_batch:
            self.calibration = batch_prior(scores) if self.calibration is None else self.calibration
            scores = np.asarray(log_softmax(scores) - self.calibration, dtype=np.float32)
        return normalised(scores)

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
        self._note(prompts, len(shown[0]) if shown else 0, rows, bench)
        scores = np.full((len(rows), bench.n_outputs), -np.inf)
        for members, shared, _ in self._alike(prompts, share=share):
            replies = [written[row][1] for row in members]
            likelihoods = self.likelihood.score_replies([prompts[row].ids for row in members], replies, shared)
            counts = lengths_of(replies)
            exists = np.zeros(scores.shape, dtype=bool)
            exists[members] = np.arange(bench.n_outputs) < counts[:, None]
            scores[exists] = likelihoods
        return normalised(scores)

    def _write(self, prompts: Sequence[Prompt], bench: Bench, *, share: bool) -> Answers:
        """Generate a text after each prompt; with demonstrations, the separator of rows ends a plain text."""
        reply = self._reply(bench)
        assert reply is not None
        if self.demonstrations and self.method.separator and self._chat is None:
            reply = dataclasses.replace(reply, stop=tuple(dict.fromkeys([*reply.stop, self.method.separator])))
        bench = dataclasses.replace(bench, reply=reply, chat=self._chat is not None)
        ids = [prompt.ids.astype(np.int32) for prompt in prompts]
        shared = self._writer.shared(self.demonstrations if share else ())
        return self._generative_model(bench).answer(
            ids, bench, bench.precision(self.method.precision), shared.astype(np.int32)
        )

    def _note(self, prompts: Sequence[Prompt], n_shown: int, rows: Rows, bench: Bench) -> None:
        """Note cut texts, with the end that they lose, and dropped demonstrations in the ledger."""
        part = rows.source.key.rpartition("/")[2]
        n_cut = sum(prompt.is_cut for prompt in prompts)
        if n_cut:
            bench.ledger.note_cut(part, n_cut, len(prompts), self._wording.cut_side)
        dropped = [self._n_unfit + prompt.n_dropped for prompt in prompts]
        n_short = sum(n_dropped > 0 for n_dropped in dropped)
        if n_short:
            where = "all rows" if n_short == len(prompts) else f"{n_short} of {len(prompts)} rows"
            said = f"{max(dropped)} of {n_shown + self._n_unfit} at most, in {where}"
            bench.ledger.remarks["dropped_demonstrations"] = said

    def _generative_model(self, bench: Bench) -> GenerativeModel:
        from harness.training import GenerativeModel

        return GenerativeModel(self._model, is_causal=bench.some_backbone.files.architecture == "causal")
