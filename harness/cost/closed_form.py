"""Compute the cost of a cell by arithmetic: operations and bytes, before anything has run.

It is the only estimate when nothing was measured. Otherwise the ratio of two amounts carries a measured cost over to
another cell; most of the error cancels in the ratio.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.backbones import BackboneFiles
from harness.cost.launches import pass_launches, step_launches
from harness.cost.memory import NO_MEMORY, Memory, Regime, forward_memory, regime, training_memory
from harness.cost.optimising import bytes_of, optimiser_flops, trained_part
from harness.cost.shape import Shape, read_shape
from harness.cost.storage import Storage, storage_of
from harness.features import ENCODE_ROWS
from harness.measure import Device, logit_bytes, rows_of_pass
from harness.planning import PlannedCell
from harness.records import FORWARD, FORWARD_AND_BACKWARD, THROUGH, TrainedBytes, Workload
from harness.tasks import Reply, Source, Task

_SAMPLED_TEXTS = 200
_CHARACTERS_PER_TOKEN = 4.2
"""Characters per token of English under a vocabulary of about 30,000 pieces.

The ratio of another language or vocabulary cancels out as soon as something was measured.
"""

_ALWAYS_BYTES = 40e6
"""Buffers of libraries, and other memory outside tensors."""

_HEAPS = 27.0
"""Coefficient of Heaps' law: n tokens of English hold about 27 times the square root of n different ones. 10,000 tokens
of SST-2 hold 2,700."""

_FLOAT_BYTES = 4.0

PREDICT_ROWS = {"cpu": 32, "cuda": 256}
"""Maximum number of rows of a batch when predicting, as in `training`, which is not imported: it needs torch."""

_PLAIN_BYTES = 50e6
"""Memory of methods without a transformer."""

_WORDS_PER_CLASS = 2.0
"""Tokens with a distribution over the vocabulary for each class that a prompt may end in."""


@dataclass(frozen=True)
class Amount:
    """Work and memory of a cell, by the closed form.

    Attributes:
        train_flops: operations of encoding training rows, tuning and fitting.
        predict_flops: operations of encoding and predicting the test rows.
        train_rows: training rows, for methods without a transformer; each counts once.
        test_rows: rows to predict.
        peak_bytes: memory that the cell needs, with the weights that cells share.
        memory: the parts of `peak_bytes`.
        least: the same where batches of encoding and predicting are halved until they fit.
        train_launches, predict_launches: kernels that a GPU would be given for `train_flops` and `predict_flops`.
        light_steps: steps of a small network on frozen features, which take time but few operations.
    """

    train_flops: float
    predict_flops: float
    train_rows: float
    test_rows: float
    peak_bytes: float
    light_steps: float = 0.0
    train_launches: float = 0.0
    predict_launches: float = 0.0
    memory: Memory = NO_MEMORY
    least: Memory = NO_MEMORY

    @property
    def least_bytes(self) -> float:
        """Memory without which the cell fails."""
        return self.least.peak_bytes


def amount(planned: PlannedCell, task: Task, files: BackboneFiles | None, device: Device | None = None) -> Amount:
    """Return the work and memory of a cell, from its method's workload, its backbone's shape and its task's texts.

    Memory depends on `device`; None is a CPU without bfloat16.
    """
    cell, method = planned.cell, planned.method
    shape = read_shape(files.folder) if files is not None and cell.backbone is not None else None
    n_test = task.n_test
    if shape is None:
        least = Memory(other=_PLAIN_BYTES, during="nothing")
        return Amount(
            0.0, 0.0, float(max(1, cell.n_train)), float(n_test), _PLAIN_BYTES, memory=least, least=least
        )  # fmt: skip
    work = method.workload(cell.n_train, cell.budget, shape.n_blocks)
    trials = method.tune
    # Methods that read only pairs count both of a pair's texts.
    share = 0.5 if task.kind.compares_apart and method.needs_pairs else 1.0
    tokens, length, longest = (share * value for value in _tokens(task.train, task))
    each = shape.forward_flops(tokens, length)
    reply = _reply(planned, task)
    if reply is not None:  # each token has a distribution over the vocabulary
        each += 2.0 * tokens * shape.width * shape.vocabulary
    # Trials train on four fifths of the rows, for as many epochs (see `tuning`).
    n_fits = 1.0 if trials is None else 1.0 + 0.8 * trials
    a_step = work.texts_per_step * work.passes_per_text * each + optimiser_flops(method, work, shape)
    fitted = work.steps * a_step * n_fits
    n_scored = work.n_scored(len(task.kind.wordings_beside(task.prompt, task.label_words)))
    answered = n_scored * _texts_to_answer(work, reply, tokens) * shape.forward_flops(tokens, length)
    train_flops = work.encoded * each + fitted + answered
    if cell.budget.train_flops is not None:
        train_flops = min(train_flops, cell.budget.train_flops)
    test_tokens, test_length, longest_test = (share * value for value in _tokens(task.test, task))
    predict_flops = n_test * _texts_to_answer(work, reply, test_tokens) * shape.forward_flops(test_tokens, test_length)
    n_answer = None if reply is None else reply.max_new_tokens
    reads_only = files is not None and files.architecture == "encoder"
    texts = _Texts(
        tokens,
        longest,
        test_length,
        longest_test,
        n_answer,
        task.n_outputs,
        n_test,
        reads_only,
        _n_words(planned, task),
    )
    memory, least = _memory(planned, work, shape, texts, device)
    return Amount(
        train_flops,
        predict_flops,
        float(max(1, cell.n_train)),
        float(n_test),
        memory.peak_bytes,
        n_fits * work.steps if work.reads_features else 0.0,
        _train_launches(planned, work, shape, longest, device) * n_fits
        + _answer_launches(work, shape, n_scored, longest, length, n_answer, device),
        _predict_launches(work, shape, texts, device),
        memory,
        least,
    )


def _kind(device: Device | None) -> str:
    return device.kind if device is not None else "cpu"


def _train_launches(planned: PlannedCell, work: Workload, shape: Shape, longest: float, device: Device | None) -> float:
    checkpoints = bool(getattr(planned.method, "gradient_checkpointing", False))
    n_batches = math.ceil(work.encoded / rows_of_pass(_kind(device), ENCODE_ROWS[_kind(device)], math.ceil(longest)))
    found = pass_launches(n_batches, shape.n_blocks)
    if work.texts_per_step:
        blocks, through = _blocks_of(work, shape, checkpoints=checkpoints)
        found += work.steps * step_launches(work, blocks, through, checkpoints=checkpoints)
    return found


def _predict_launches(work: Workload, shape: Shape, texts: _Texts, device: Device | None) -> float:
    longest, mean = texts.longest_test, texts.mean_test
    return _answer_launches(work, shape, texts.n_test, longest, mean, texts.n_answer, device)


def _answer_launches(
    work: Workload, shape: Shape, n_rows: int, longest: float, mean: float, n_answer: int | None, device: Device | None
) -> float:
    """Return the kernels of answers to rows with texts of these lengths."""
    kind = _kind(device)
    most = ENCODE_ROWS[kind] if work.reads_features else PREDICT_ROWS[kind]
    length = longest + max(0.0, work.texts_per_answer - 1.0) * mean
    n_batches = math.ceil(n_rows / rows_of_pass(kind, most, math.ceil(length)))
    return pass_launches(n_batches, shape.n_blocks, work.additions, float(n_answer or 0))


def _reply(planned: PlannedCell, task: Task) -> Reply | None:
    """Return the settings of generation where the method's answers are written; other answers come from a head."""
    writes = planned.method.role == "prompting" or task.kind.form not in ("spans", "tags", "number", "labels")
    return task.reply if writes else None


def _texts_to_answer(work: Workload, reply: Reply | None, tokens: float) -> float:
    """Return the passes of texts of `tokens` tokens to answer a row: those that it reads, and the answer's tokens."""
    n_written = 0.0 if reply is None else reply.max_new_tokens / max(1.0, tokens)
    return work.texts_per_answer + n_written


def _blocks_of(work: Workload, shape: Shape, *, checkpoints: bool) -> tuple[float, float]:
    """Return the number of trained blocks, and of fixed blocks that gradients pass through."""
    through = work.passes_per_text - (FORWARD if checkpoints else 0.0) - FORWARD_AND_BACKWARD * work.share_trained
    return work.share_trained * shape.n_blocks, max(0.0, through) / THROUGH * shape.n_blocks


def _memory(
    planned: PlannedCell,
    work: Workload,
    shape: Shape,
    texts: _Texts,
    device: Device | None,
) -> tuple[Memory, Memory]:
    """Return the memory of a cell at its peak, and the memory that it needs at least.

    Batches of encoding and predicting are halved until they fit, so at least a single row passes; a step is as asked.
    """
    method, config = planned.method, planned.method.config()
    kind = _kind(device)
    bits16 = device is not None and device.precision(config.get("precision", "fp32")) == "bf16"
    how = regime(shape, kind, bits16=bits16)
    weights = config.get("weights", "auto")
    if getattr(method, "rounds_nothing", False) and not shape.is_bfloat16:
        weights = "float32"
    storage = storage_of(shape, bits16=bits16, weights=weights, matrix_bytes=method.quantised_bytes)
    each = bytes_of(method)
    blocks = work.share_trained * shape.n_blocks
    added = method.n_added(shape.width, shape.n_blocks)

    def passing(during: str, most_rows: int, length: float, **more: Any) -> Callable[[bool], Memory]:
        def run(is_least: bool) -> Memory:
            n_rows = 1.0 if is_least else rows_of_pass(kind, most_rows, math.ceil(length))
            return forward_memory(
                shape, how, n_rows=n_rows, length=length, during=during, blocks=blocks, added=added, storage=storage,
                each=each, n_kept_tokens=n_rows * more.get("n_kept", 0.0),
                logit_bytes=logit_bytes(n_rows * more.get("n_logits", 0.0), shape.vocabulary, kind),
                language_model=more.get("language_model", False),
            )  # fmt: skip

        return run

    passes = [_predicting(planned, work, texts, kind, passing)]
    if work.encoded:
        passes.append(passing("encoding", ENCODE_ROWS[kind], texts.longest))
    peaks, least = [run(False) for run in passes], [run(True) for run in passes]
    if work.encoded and texts.n_words and kind == "cpu":
        # The vectors lie on the host, once in the table of the split and once in the order of the rows.
        kept = 2.0 * _FLOAT_BYTES * texts.n_words * shape.width
        peaks, least = ([dataclasses.replace(one, kept=one.kept + kept) for one in found] for found in (peaks, least))
    if work.texts_per_step:
        step = _step(planned, work, shape, texts, how, storage, each, added)
        peaks.append(step)
        least.append(step)
    return _biggest(peaks), _biggest(least)


def _biggest(found: list[Memory]) -> Memory:
    return dataclasses.replace(max(found, key=lambda memory: memory.peak_bytes), other=_ALWAYS_BYTES)


def _predicting(
    planned: PlannedCell,
    work: Workload,
    texts: _Texts,
    kind: str,
    passing: Callable[..., Callable[[bool], Memory]],
) -> Callable[[bool], Memory]:
    """Return the function from whether a single row passes to the memory of predicting."""
    if work.reads_features or (texts.reads_only and planned.method.role == "prompting"):
        return passing("encoding", ENCODE_ROWS[kind], texts.longest_test)
    rows = max(1, min(PREDICT_ROWS[kind], texts.n_test))
    written = 0.0 if texts.n_answer is None else texts.n_answer
    if planned.method.role == "prompting":  # the prompt may show other rows
        length = texts.longest_test + max(0.0, work.texts_per_answer - 1.0) * texts.mean_test
        n_logits = written or _WORDS_PER_CLASS * texts.n_outputs
        return passing("predicting", rows, length, n_kept=length + written, n_logits=n_logits, language_model=True)
    is_written = texts.n_answer is not None
    return passing(
        "predicting",
        rows,
        texts.longest_test,
        n_kept=texts.longest_test + written if is_written else 0.0,
        n_logits=1.0 if is_written else 0.0,
        language_model=is_written,
    )


def _step(
    planned: PlannedCell,
    work: Workload,
    shape: Shape,
    texts: _Texts,
    how: Regime,
    storage: Storage,
    each: TrainedBytes,
    added: float,
) -> Memory:
    """Return the memory of a training step on the longest texts."""
    checkpoints = bool(getattr(planned.method, "gradient_checkpointing", False))
    blocks, through = _blocks_of(work, shape, checkpoints=checkpoints)
    outside = 0.0
    if work.share_trained >= 1.0:  # only the embedding's rows that occur are trained
        n_words = min(float(shape.vocabulary), _HEAPS * math.sqrt(planned.cell.n_train * texts.tokens))
        outside = n_words * shape.width
    trained = trained_part(
        planned.method,
        work,
        shape,
        blocks=blocks,
        through=through,
        added=added,
        outside=outside,
        checkpoints=checkpoints,
    )
    n_rows = max(1.0, work.texts_per_step / max(1, work.pieces))  # a piece has at least one row
    n_logits = 0.0 if texts.n_answer is None else min(texts.longest, float(texts.n_answer))
    memory = training_memory(
        shape,
        trained,
        how,
        n_rows=n_rows,
        length=texts.longest,
        logit_bytes=logit_bytes(n_rows * n_logits, shape.vocabulary, "cpu" if how.mask_bytes > 1 else "cuda"),
        pieces=work.pieces,
        storage=storage,
        each=each,
        language_model=texts.n_answer is not None,
    )
    # States of frozen blocks are kept for every training text. If all is trained, only vectors were encoded before.
    keeps_states = bool(work.encoded) and work.share_trained < 1.0
    states = _FLOAT_BYTES * planned.cell.n_train * texts.tokens * shape.width if keeps_states else 0.0
    return dataclasses.replace(memory, kept=memory.kept + states)


@dataclass(frozen=True)
class _Texts:
    """Lengths in tokens of a task's texts, and what their answers are.

    Attributes:
        tokens: mean tokens of a training row, in all its sequences.
        longest: longest sequence of a training row.
        mean_test, longest_test: mean and longest sequence of a test row.
        n_answer: most tokens of an answer that is a text; None for other answers.
        n_outputs: number of classes or choices.
        n_test: number of test rows.
        reads_only: whether the backbone is an encoder, which writes nothing.
        n_words: words of the training and test rows, where a vector of each word may be kept; 0 for other tasks.
    """

    tokens: float
    longest: float
    mean_test: float
    longest_test: float
    n_answer: int | None
    n_outputs: int
    n_test: int
    reads_only: bool
    n_words: float = 0.0


def _n_words(planned: PlannedCell, task: Task) -> float:
    """Return the words of the cell's training and test rows where words are tagged, from the mean of a row; else 0."""
    if task.kind.form != "tags":
        return 0.0
    means = [
        sum(map(len, found)) / max(1, len(found)) for found in (s.fields["tokens"] for s in (task.train, task.test))
    ]
    return planned.cell.n_train * means[0] + task.n_test * means[1]


@functools.lru_cache(maxsize=256)
def _tokens(source: Source, task: Task) -> tuple[float, float, float]:
    """Return the mean tokens of a row, the mean length of its sequences, and the longest length."""
    limit = task.spec.max_length
    step = max(1, len(source) // _SAMPLED_TEXTS)
    counts = []
    for position in range(0, len(source), step):
        text = str(source.texts[position])
        counts.append(2.0 + (len(text) if source.characters else len(text) / _CHARACTERS_PER_TOKEN))
    if not counts:
        return 1.0, 1.0, 1.0
    if task.kind.form in ("spans", "tags"):  # long texts are read in windows, so that nothing is cut off
        mean = sum(counts) / len(counts)
        return mean, min(mean, float(limit)), min(max(counts), float(limit))
    cut = [min(count, float(limit)) for count in counts]
    mean = sum(cut) / len(cut)
    if task.kind.form == "choices":  # each choice is read with the question
        return mean * max(1.0, 0.6 * task.n_outputs), mean, max(cut)
    return mean, mean, max(cut)
