"""Classic baseline for tags without a transformer: a conditional random field on the spelling of words."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.methods.base import NO_BACKBONE, Fitted, Method, Range, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.tasks import Floats, Form, Rows

_LONGEST_AFFIX = 4
"""Length of the longest prefix and suffix, in characters."""

_UNSEEN_BIAS = -1e4
"""Score of a tag without a training word, which is never predicted."""


@method
class WordFeatures(Method):
    """Fit a conditional random field on the spelling of each word and of its neighbours, without a transformer.

    Each word becomes a sparse vector x of zeros and ones: the word, its prefixes and suffixes of up to 4 characters,
    its shape (`Xxx`, `dd-dd`), and the words and shapes of its neighbours. A linear layer scores the tags of a word,
    and a matrix each pair of neighbouring tags:

        p(y | x) = exp(sum over t of (w[y_t] x_t + T[y_(t-1), y_t])) / Z

    CRFsuite fits both by L-BFGS. The likeliest tags of the sentence are predicted.

    Attributes:
        window: number of neighbours on each side.
        c2: strength of the L2 penalty on the weights.
        max_iterations: maximum number of iterations of the solver.
    """

    name = "word-features"
    family = "baseline"
    role = "baseline"
    trains = "a conditional random field on words, affixes, shapes and neighbours"
    source = "Lafferty et al., 2001; Ratinov and Roth, 2009, aclanthology.org/W09-1119; CRFsuite, Okazaki, 2007"
    probabilities_are = "half those of each tag, and half 1 for the tag of the likeliest sequence"
    serves = NO_BACKBONE
    forms: ClassVar[frozenset[Form]] = frozenset({"tags"})
    search_space: ClassVar[SearchSpace] = {"c2": Range(1e-3, 10.0, log=True)}

    window: int = Field(default=2, ge=0, le=5)
    c2: float = Field(default=0.1, ge=0)
    max_iterations: int = Field(default=200, ge=1)

    def warm_up(self) -> None:
        """Import CRFsuite."""
        import pycrfsuite  # noqa: F401

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Learn the features of the training sentences, and fit."""
        with bench.working("encode"):
            sentences = self.described(rows)
            names = sorted({name for words in sentences for word in words for name in word})
            place = {name: str(at) for at, name in enumerate(names)}
            bench.ledger.state(n_terms=len(names))
        with bench.working("fit"):
            items = [[[place[name] for name in word] for word in words] for words in sentences]
            tensors, n_iterations = self._train(items, rows.known_labels, len(names), bench.n_outputs)
            n_words = sum(map(len, sentences))
            per_word = sum(len(word) for words in sentences for word in words) / max(1, n_words) + bench.n_outputs
            bench.ledger.train_flops += 4.0 * n_iterations * n_words * per_word * bench.n_outputs
        return _Field(self, names, tensors)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved features and weights."""
        names, n_tags = state["features"], bench.n_outputs
        check_tensors(
            tensors,
            {
                "weights": Expected((n_tags, len(names))),
                "transitions": Expected((n_tags, n_tags)),
                "bias": Expected((n_tags,)),
            },
        )
        return _Field(self, names, tensors)

    def described(self, rows: Rows) -> list[list[list[str]]]:
        """Return the names of the features of each word of each row."""
        tokens = rows.source.fields["tokens"]
        return [describe_words(tokens[at], self.window) for at in rows.index]

    def _train(
        self, sentences: list[list[list[str]]], labels: npt.NDArray[Any], n_features: int, n_tags: int
    ) -> tuple[dict[str, Floats], int]:
        """Return the tensors of the model by name, and the number of iterations.

        CRFsuite knows features and tags by their numbers. Its model file is read here once and not kept.
        """
        import pycrfsuite

        trainer = pycrfsuite.Trainer(verbose=False)
        for words, tags in zip(sentences, labels, strict=True):
            trainer.append(words, [str(tag) for tag in tags])
        trainer.set_params({"c1": 0.0, "c2": self.c2, "max_iterations": self.max_iterations})
        weights = np.zeros((n_tags, n_features), dtype=np.float32)
        transitions = np.zeros((n_tags, n_tags), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model")
            trainer.train(path)
            with pycrfsuite.Tagger().open(path) as tagger:
                found = tagger.info()
        for (feature, tag), weight in found.state_features.items():
            weights[int(tag), int(feature)] = weight
        for (before, after), weight in found.transitions.items():
            transitions[int(before), int(after)] = weight
        bias = np.full(n_tags, _UNSEEN_BIAS, dtype=np.float32)
        bias[[int(tag) for tag in found.labels]] = 0.0
        last = trainer.logparser.last_iteration  # None where there is a single tag: nothing is fitted
        return {"weights": weights, "transitions": transitions, "bias": bias}, int(last["num"]) if last else 0


def describe_words(words: Sequence[str], window: int) -> list[list[str]]:
    """Return the names of the features of each word of a sentence.

    Args:
        words: the words.
        window: number of neighbours on each side.
    """
    lower = [word.lower() for word in words]
    shapes = [shape_of(word) for word in words]
    found = []
    for at, word in enumerate(words):
        features = ["any", f"word={lower[at]}", f"as written={word}", f"shape={shapes[at]}"]
        features += [f"prefix={lower[at][:n]}" for n in range(1, min(_LONGEST_AFFIX, len(lower[at])) + 1)]
        features += [f"suffix={lower[at][-n:]}" for n in range(1, min(_LONGEST_AFFIX, len(lower[at])) + 1)]
        for step in (step for step in range(-window, window + 1) if step):
            place = at + step
            if 0 <= place < len(words):
                features += [f"{step:+d}:word={lower[place]}", f"{step:+d}:shape={shapes[place]}"]
            else:
                features.append(f"{step:+d}:none")
        found.append(features)
    return found


def shape_of(word: str) -> str:
    """Return the shape of a word: `X`, `x` and `d` for capitals, other letters and digits, at most two in a row."""
    shape: list[str] = []
    for character in word:
        mark = "d" if character.isdigit() else "X" if character.isupper() else "x" if character.isalpha() else character
        if shape[-2:] != [mark, mark]:
            shape.append(mark)
    return "".join(shape)


def best_tags(scores: Floats, transitions: Floats) -> npt.NDArray[np.int64]:
    """Return the likeliest tags of a sentence (Viterbi), shape (words,).

    Args:
        scores: score of each tag for each word, shape (words, tags).
        transitions: score of each tag after each tag, shape (tags, tags).
    """
    total = scores[0]
    back = np.zeros(scores.shape, dtype=np.int64)
    for at in range(1, len(scores)):
        each = total[:, None] + transitions
        back[at] = each.argmax(axis=0)
        total = each.max(axis=0) + scores[at]
    path = np.zeros(len(scores), dtype=np.int64)
    path[-1] = total.argmax()
    for at in range(len(scores) - 1, 0, -1):
        path[at - 1] = back[at, path[at]]
    return path


def marginals(scores: Floats, transitions: Floats) -> npt.NDArray[np.float64]:
    """Return the probability of each tag for each word (forward-backward), shape (words, tags); arguments as above."""
    scores, moves = scores.astype(np.float64), np.exp(transitions.astype(np.float64))
    forward, backward = np.zeros(scores.shape), np.zeros(scores.shape)
    forward[0] = scores[0]
    for at in range(1, len(scores)):
        forward[at] = _log_of(forward[at - 1], moves) + scores[at]
    for at in range(len(scores) - 2, -1, -1):
        backward[at] = _log_of(backward[at + 1] + scores[at + 1], moves.T)
    total = forward + backward
    found = np.exp(total - total.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _log_of(logs: npt.NDArray[np.float64], moves: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithm of exp(logs) times a matrix."""
    highest = logs.max()
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(logs - highest) @ moves) + highest)


class _Field(Fitted):
    def __init__(self, method: WordFeatures, names: Sequence[str], tensors: Mapping[str, Floats]) -> None:
        self._method = method
        self._names = list(names)
        self._place = {name: at for at, name in enumerate(names)}
        self._tensors = dict(tensors)
        self.n_parameters = self.n_trainable = sum(value.size for value in tensors.values())

    def predict(self, rows: Rows, bench: Bench) -> Floats:
        with bench.working("predict"):
            found = [np.zeros((0, bench.n_outputs), dtype=np.float32)]
            for words in self._method.described(rows):
                scores = self._scores(words)
                answers = marginals(scores, self._tensors["transitions"]) / 2
                answers[np.arange(len(words)), best_tags(scores, self._tensors["transitions"])] += 0.5
                found.append(answers.astype(np.float32))
            return np.concatenate(found)

    def _scores(self, words: list[list[str]]) -> Floats:
        """Return the score of each tag for each word, shape (words, tags); unknown features count nothing."""
        weights = self._tensors["weights"]
        known = [[self._place[name] for name in word if name in self._place] for word in words]
        return np.stack([weights[:, at].sum(axis=1) for at in known]) + self._tensors["bias"]

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return dict(self._tensors)

    def state(self) -> dict[str, Any]:
        return {"features": self._names}
