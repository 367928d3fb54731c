"""The fitted prompt of a served model: the same instruction, demonstrations and question, sent to its endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.backbones import BackboneFiles, ServedModel
from harness.methods._asking import Asking
from harness.methods._calibration import CONTENT_FREE, batch_prior, log_mean, log_softmax, normalised
from harness.methods._demonstrations import asked
from harness.methods._prompts import Demonstration
from harness.methods._written import read_written
from harness.methods.base import Fitted
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.serving import Answered, Conversation, Question
from harness.support import UnsupportedError, UsageError
from harness.tasks import Answers, Floats, Ints, Kind, Reply, Rows, TextAnswers

if TYPE_CHECKING:
    from harness.measure import Phase
    from harness.methods._in_context import InContextMethod

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TILT = 1e-3
"""Nats by which the guess of an unreadable answer exceeds the other classes, whose probabilities are nearly equal."""

_SHORTEST_WORDS = 4
"""Number of words below which a text is not cut further."""


def why_not_served(method: InContextMethod, kind: Kind, files: BackboneFiles) -> str | None:
    """Return why a method in context cannot ask a served model; None if it can."""
    if not isinstance(files, ServedModel):
        return None
    offer = files.offer
    if method.calibrates != "none" and kind.form != "classes":
        return f"calibration={method.calibrates} was given, which needs classes; a {kind.name} task has none."
    if method.calibrates != "none" and offer.scoring != "log-probabilities":
        return (
            f"'{method.name}' divides probabilities, and the server of '{files.endpoint.model}' is asked by "
            f"{offer.scoring}, which gives none. Use few-shot without calibration, or a server with log-probabilities."
        )
    if getattr(method, "weights", "auto") not in ("auto", None):
        return f"'{method.name}' was given weights={method.weights}; a server stores the weights of its model itself."
    if method.normalise and kind.form in ("classes", "choices") and not offer.echoes:
        return (
            "normalise=true needs the log-probabilities of all tokens of an answer, which this server does not return."
        )
    wanted = getattr(method, "prompt_format", "auto")
    offer = offer.for_writing if kind.form in method.writes else offer
    if wanted == "chat" and offer.api != "chat":
        return "prompt_format=chat needs the chat API of the server; take --endpoint-api chat."
    if wanted == "plain" and offer.api == "chat":
        return "prompt_format=plain needs the completions API of the server; take --endpoint-api completions."
    return None


class NearestByWords:
    """Chooses the training rows whose words are most like a text's: cosine of TF-IDF vectors, without an encoder.

    Args:
        texts: texts of the rows to choose from.
        k: number of rows to choose.
    """

    def __init__(self, texts: Sequence[str], k: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._k = k
        self._vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        try:
            self._vectors: Any = self._vectorizer.fit_transform(texts)
        except ValueError:  # no text has a word
            self._vectors = None
        self._n_texts = len(texts)

    def positions(self, texts: Sequence[str]) -> Ints:
        """Return the positions chosen for each text, the most similar last; shape (texts, at most k)."""
        if self._vectors is None:
            cosines = np.zeros((len(texts), self._n_texts))
        else:
            cosines = (self._vectorizer.transform(texts) @ self._vectors.T).toarray()
        order = np.argsort(-cosines, axis=1, kind="stable").astype(np.int64)
        return order[:, : self._k][:, ::-1]


class ServedPrompt(Fitted):
    """A served model with the demonstrations that its prompts show.

    In a chat, demonstrations are turns, and the template is the server's. A chat whose wording does not name the
    classes begins with an instruction that lists them. Without a tokenizer, prompts are shortened only where the
    server says that its context is exceeded: demonstrations first, then words of the text.

    Where the server returns the log-probabilities of a prompt's tokens, classes and choices are scored as in process.
    Otherwise a row's own choices get letters, in demonstrations too, and the model answers with a letter.

    Args:
        method: settings of the method.
        bench: the cell's bench.
        demonstrations: rows in the order in which prompts show them, or all rows that the nearest are chosen from.
        label_words: each class in words; None takes the task's.
        calibration: log-probabilities of the classes for content-free texts or a batch of rows; None where nothing is
            calibrated yet.
        asking: way to ask; None takes the method's default. The server's API decides between a chat and plain text.
    """

    n_parameters = None
    n_trainable = 0

    def __init__(
        self,
        method: InContextMethod,
        bench: Bench,
        demonstrations: Sequence[Demonstration] = (),
        *,
        label_words: Sequence[str] | None = None,
        calibration: Floats | None = None,
        asking: Asking | None = None,
    ) -> None:
        self.method = method
        self._label_words = tuple(bench.label_words if label_words is None else label_words)
        self.asking = method.askings(bench)[0] if asking is None else asking
        self._wording = self.asking.wording
        self._offer = bench.some_served.model.offer
        self.demonstrations = list(demonstrations)
        self._nearest = None
        if getattr(method, "choose", None) == "nearest" and self.demonstrations:
            with bench.working("fit"):
                self._nearest = NearestByWords([shown.text for shown in self.demonstrations], method.k)  # type: ignore[attr-defined]
            bench.ledger.remarks["nearest_by"] = "cosine of TF-IDF vectors: a served model encodes no texts"
        self.calibration = calibration

    def predict(self, rows: Rows, bench: Bench) -> Answers:
        """Return the served model's answers; the ledger notes how it was asked."""
        bench.ledger.remarks["prompt"] = self.asking.in_words()
        texts = asked(rows, self._wording)
        shown = self._shown(texts)
        if bench.kind.form == "classes":
            return self._classify(texts, shown, bench, part=_part_of(rows))
        if bench.kind.form == "choices":
            return self._choose(texts, shown, rows, bench)
        return self._write(texts, shown, rows, bench)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the calibration; nothing else is fitted."""
        return {} if self.calibration is None else {"calibration": self.calibration}

    def state(self) -> dict[str, Any]:
        """Return demonstrations, words of the classes and how to ask: predicting then needs no training rows."""
        return {
            "label_words": list(self._label_words),
            "demonstrations": [
                [shown.text, shown.answer, *([list(shown.choices)] if shown.choices else [])]
                for shown in self.demonstrations
            ],
            "asking": asdict(self.asking),
        }

    def _shown(self, texts: Sequence[str]) -> list[list[Demonstration]]:
        """Return the demonstrations of each text."""
        if self._nearest is None:
            return [self.demonstrations] * len(texts)
        return [[self.demonstrations[at] for at in row] for row in self._nearest.positions(texts)]

    def _conversation(self, question: str, shown: Sequence[Demonstration], answers: Sequence[str]) -> Conversation:
        found = self._wording.about(question, shown, separator=self.method.separator)
        return replace(found, instruction=self._instruction(answers), shown_as=self.asking.shown_as)

    def _instruction(self, answers: Sequence[str]) -> str:
        """Return the instruction; a prompt that names not all classes is told to answer with one of them.

        A plain prompt whose next words are scored is the one of a model in process.
        """
        own, template = self._wording.instruction, self._wording.template
        said = f"{own} {template}".casefold()
        is_scored = self._offer.api == "completions" and self._offer.scoring == "log-probabilities"
        if is_scored or not answers or all(_names(said, answer.casefold()) for answer in answers):
            return own
        listed = f"Answer with one of: {', '.join(answers)}. Answer with nothing else."
        return f"{own} {listed}" if own else listed

    def _classify(
        self, texts: Sequence[str], shown: Sequence[Sequence[Demonstration]], bench: Bench, *, part: str
    ) -> Floats:
        words = self._label_words
        conversations = [
            self._conversation(self._wording.ask(text), these, words) for text, these in zip(texts, shown, strict=True)
        ]
        answered = self._ask(
            [Question(one, answers=words) for one in conversations], texts, bench, "predict", part=part
        )
        scores = np.array([self._scores(one, len(words)) for one in answered], dtype=np.float64)
        is_read = np.array([one.chosen is not None for one in answered])
        if self.method.calibrates == "batch" and self.calibration is None:
            self.calibration = batch_prior(scores[is_read] if is_read.sum() > 1 else scores)
        if self.calibration is not None:
            scores = log_softmax(scores) - self.calibration
        _guess(scores, answered, bench.seeded("unreadable answers"))
        return normalised(scores)

    def _choose(
        self, texts: Sequence[str], shown: Sequence[Sequence[Demonstration]], rows: Rows, bench: Bench
    ) -> Floats:
        choices = [list(rows.source.fields["choices"][position]) for position in rows.index]
        questions = []
        for text, these, words in zip(texts, shown, choices, strict=True):
            conversation = self._conversation(self._wording.ask(text), these, ())
            answers = tuple(words)
            if not self._offer.echoes:
                pairs = tuple(
                    (_lettered(self._wording.ask(one.text), one.choices), _LETTERS[one.choices.index(one.answer)])
                    for one in these
                )
                question = _lettered(self._wording.ask(text), words)
                conversation = replace(conversation, question=question, shown=pairs, joint=" ")
                answers = tuple(_LETTERS[: len(words)])
            questions.append(Question(conversation, answers=answers))
        answered = self._ask(questions, texts, bench, "predict", part=_part_of(rows))
        scores = np.full((len(rows), bench.n_outputs), -np.inf)
        for row, (one, words) in enumerate(zip(answered, choices, strict=True)):
            scores[row, : len(words)] = self._scores(one, len(words))
        _guess(scores, answered, bench.seeded("unreadable answers"))
        return normalised(scores)

    def _write(
        self, texts: Sequence[str], shown: Sequence[Sequence[Demonstration]], rows: Rows, bench: Bench
    ) -> Answers:
        own = self.method.question(bench)
        reply = bench.reply if bench.reply is not None or own is None else own[1]
        assert isinstance(reply, Reply)
        stop = list(reply.stop)
        is_plain = self._offer.for_writing.api == "completions"
        if is_plain and self.demonstrations and self.method.separator:
            stop.append(self.method.separator)
        schema = bench.kind.schema(self._label_words)
        questions = [
            Question(
                self._conversation(self._wording.ask(text), these, ()),
                schema=schema,
                max_new_tokens=reply.max_new_tokens,
                stop=tuple(dict.fromkeys(stop)),
            )
            for text, these in zip(texts, shown, strict=True)
        ]
        answered = self._ask(questions, texts, bench, "predict", part=_part_of(rows))
        written = [_until(one.text or "", stop).strip() for one in answered]
        if bench.kind.form == "text":
            return TextAnswers(written, n_cut=sum(one.is_cut for one in answered))
        names, wording = self._label_words, self._wording
        found, n_unread = read_written(self.method, written, rows, bench, names, self.demonstrations, wording)
        bench.some_served.tally.note(unreadable=n_unread)
        return found

    def _scores(self, answered: Answered, n_answers: int) -> list[float]:
        """Return the log of the probability of each answer up to a constant; all are equal if nothing was read."""
        if answered.log_likelihoods is not None:
            values = list(answered.log_likelihoods)
            if self.method.normalise and answered.n_tokens is not None:
                values = [value / n for value, n in zip(values, answered.n_tokens, strict=True)]
            return values
        if answered.chosen is None:
            return [0.0] * n_answers
        return [0.0 if i == answered.chosen else -np.inf for i in range(n_answers)]

    def content_free(self, bench: Bench) -> Floats:
        """Return the log of the mean probability of each class over content-free texts, shape (classes,)."""
        words = self._label_words
        questions = [
            Question(self._conversation(self._wording.probe(text), self.demonstrations, words), answers=words)
            for text in CONTENT_FREE
        ]
        answered = self._ask(questions, CONTENT_FREE, bench, "fit", part="train")
        scores = np.array([self._scores(one, len(words)) for one in answered], dtype=np.float64)
        return log_mean(scores)

    def _ask(
        self, questions: Sequence[Question], texts: Sequence[str], bench: Bench, phase: Phase, *, part: str
    ) -> list[Answered]:
        """Return the answers, charged to a phase; note what did not fit into the context."""
        cut: set[int] = set()

        def shorten(row: int, n: int) -> Question | None:
            question = questions[row]
            n_shown = len(question.conversation.shown)
            if n_shown >> (n - 1):
                kept = n_shown >> n
                return replace(question, conversation=question.conversation.without_first(n_shown - kept))
            words = texts[row].split()
            n_words = len(words) >> (n - n_shown.bit_length())
            if n_words < _SHORTEST_WORDS or texts[row] not in question.conversation.question:
                return None
            cut.add(row)
            kept_words = words[-n_words:] if self._wording.cut_side == "left" else words[:n_words]
            shorter = question.conversation.question.replace(texts[row], " ".join(kept_words), 1)
            bare = replace(question.conversation.without_first(n_shown), question=shorter)
            return replace(question, conversation=bare)

        bench.report(phase, None, None)
        served = bench.some_served
        tally = served.tally
        n_unreadable, n_missing = tally.n_unreadable, tally.n_missing
        with bench.clock.paused():
            answered, seconds = served.ask(questions, shorten, lambda share: bench.report(phase, share, None))
        bench.clock.charge(phase, seconds)
        if cut:
            bench.ledger.note_cut(part, len(cut), len(texts), self._wording.cut_side)
        dropped = [one.n_dropped for one in answered if one.n_dropped]
        if dropped:
            n_shown = max(len(one.conversation.shown) for one in questions)
            where = "all rows" if len(dropped) == len(texts) else f"{len(dropped)} of {len(texts)} rows"
            bench.ledger.remarks["dropped_demonstrations"] = f"{max(dropped)} of {n_shown} at most, in {where}"
        n_unreadable, n_missing = tally.n_unreadable - n_unreadable, tally.n_missing - n_missing
        if n_unreadable and phase == "predict":
            bench.ledger.remarks["unreadable_answers"] = f"{n_unreadable} of {len(texts)}"
        if n_missing and phase == "predict":
            bench.ledger.remarks["missing_log_probabilities"] = (
                f"{n_missing} answers were not among the {self._offer.top} likeliest tokens; they count as less "
                "likely than these"
            )
        return answered


def _guess(scores: npt.NDArray[np.float64], answered: Sequence[Answered], seed: int) -> None:
    """Make a random guess of every unreadable answer, in place: equal scores would all count for the first class."""
    generator = np.random.default_rng(seed)
    for row, one in enumerate(answered):
        if one.chosen is None:
            possible = np.flatnonzero(np.isfinite(scores[row]))
            scores[row, possible] = 0.0
            scores[row, generator.choice(possible)] += _TILT


def _names(text: str, words: str) -> bool:
    """Return whether a text has some words, and not only inside of others."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _lettered(question: str, choices: Sequence[str]) -> str:
    """Return a question with its choices, each after a letter.

    Raises:
        UnsupportedError: there are more choices than letters.
    """
    if len(choices) > len(_LETTERS):
        raise UnsupportedError(
            f"A row has {len(choices)} choices; at most {len(_LETTERS)} were expected, which a served model answers "
            "with a letter each. Leave such rows out, or take a server that returns the log-probabilities of a "
            "prompt's tokens."
        )
    listed = "\n".join(f"{letter}. {one}" for letter, one in zip(_LETTERS, choices, strict=False))
    return f"{question}\n{listed}\nAnswer with the letter of the right choice:"


def restored_served(
    method: InContextMethod,
    tensors: dict[str, npt.NDArray[Any]],
    state: dict[str, Any],
    bench: Bench,
    asking: Asking,
) -> ServedPrompt:
    """Return a fitted prompt from its saved state."""
    needs_calibration = method.calibrates == "content-free" or "calibration" in tensors
    check_tensors(tensors, {"calibration": Expected((bench.n_outputs,))} if needs_calibration else {})
    if bench.kind.form == "classes" and len(state["label_words"]) != bench.n_outputs:
        raise UsageError(f"The saved state has words for {len(state['label_words'])} of {bench.n_outputs} classes.")
    return ServedPrompt(
        method,
        bench,
        [Demonstration(text, answer, *map(tuple, choices)) for text, answer, *choices in state["demonstrations"]],
        label_words=state["label_words"],
        calibration=tensors.get("calibration"),
        asking=asking,
    )


def _until(text: str, stop: Sequence[str]) -> str:
    """Return a text up to the first of some texts."""
    ends = [at for at in (text.find(one) for one in stop if one) if at >= 0]
    return text[: min(ends)] if ends else text


def _part_of(rows: Rows) -> str:
    return rows.source.key.rpartition("/")[2]
