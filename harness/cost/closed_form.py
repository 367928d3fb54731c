"""What a cell costs by arithmetic: operations and bytes, before anything has run.

It is what is known when nothing has been measured, and the ratio by which what was measured of one cell is carried over
to another: most of its error cancels there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from harness.backbones import BackboneFiles
from harness.cost.memory import Trained, encoding_memory, regime, training_memory
from harness.cost.shape import Shape, read_shape
from harness.features import BATCH_ROWS
from harness.measure import Device
from harness.planning import PlannedCell
from harness.records import FORWARD, FORWARD_AND_BACKWARD, THROUGH, Workload
from harness.tasks import Source, Task

_SAMPLED_TEXTS = 200
_CHARACTERS_PER_TOKEN = 4.2
"""Of English under a vocabulary of some 30,000 pieces; another language's or vocabulary's ratio cancels out wherever
something has been measured."""

_ALWAYS_BYTES = 40e6
"""Buffers of libraries, and what is not of any tensor."""

_HEAPS = 27.0
"""Of n tokens of English about 27 times the square root of n are different ones (Heaps' law; 10,000 tokens of SST-2
have 2,700)."""

_FLOAT_BYTES = 4.0


@dataclass(frozen=True)
class Amount:
    """What a cell comes to.

    Attributes:
        train_flops: operations of encoding training rows, tuning and fitting.
        predict_flops: operations of encoding and predicting the test rows.
        train_rows: the same without a transformer: rows that are read in training, however often.
        test_rows: rows that are predicted.
        peak_bytes: above what the process held before.
        light_steps: steps of a small network on frozen features: seconds, and next to no operations.
    """

    train_flops: float
    predict_flops: float
    train_rows: float
    test_rows: float
    peak_bytes: float
    light_steps: float = 0.0


def amount(planned: PlannedCell, task: Task, files: BackboneFiles | None, device: Device | None = None) -> Amount:
    """What a cell comes to by its method's workload, its backbone's shape and its task's texts.

    `device` is where it runs: its memory depends on that; None is a processor without bfloat16.
    """
    cell, method = planned.cell, planned.method
    shape = read_shape(files.folder) if files is not None and cell.backbone is not None else None
    n_test = task.n_test
    if shape is None:
        return Amount(0.0, 0.0, float(max(1, cell.n_train)), float(n_test), 50e6)
    work = method.workload(cell.n_train, cell.budget, shape.n_blocks)
    trials = method.tune
    tokens, length, longest = _tokens(task.train, task)
    each = shape.forward_flops(tokens, length)
    if task.reply is not None:  # every token's distribution over the vocabulary
        each += 2.0 * tokens * shape.width * shape.vocabulary
    # Trials see four fifths of the rows, for as many epochs: `tuning`.
    n_fits = 1.0 if trials is None else 1.0 + 0.8 * trials
    fitted = work.steps * work.texts_per_step * work.passes_per_text * each * n_fits
    train_flops = work.encoded * each + fitted
    if cell.budget.train_flops is not None:
        train_flops = min(train_flops, cell.budget.train_flops)
    n_logits = 0.0 if task.reply is None else min(longest, float(task.reply.max_new_tokens))
    test_tokens, test_length, _ = _tokens(task.test, task)
    n_read = work.texts_per_answer + (0.0 if task.reply is None else task.reply.max_new_tokens / max(1.0, test_tokens))
    predict_flops = n_test * n_read * shape.forward_flops(test_tokens, test_length)
    return Amount(
        train_flops,
        predict_flops,
        float(max(1, cell.n_train)),
        float(n_test),
        _peak_bytes(planned, work, shape, tokens, longest, n_logits, device),
        n_fits * work.steps if work.reads_features else 0.0,
    )


def _peak_bytes(
    planned: PlannedCell,
    work: Workload,
    shape: Shape,
    tokens: float,
    longest: float,
    n_logits: float,
    device: Device | None,
) -> float:
    """Bytes at the moment that most are held: of a training step on the longest texts, or of encoding."""
    kind = device.kind if device is not None else "cpu"
    bits16 = device is not None and device.precision(planned.cell.config.get("precision", "fp32")) == "bf16"
    how = regime(shape, kind, bits16=bits16)
    encoding = encoding_memory(shape, how, n_rows=BATCH_ROWS[kind], length=longest)
    if not work.texts_per_step:
        return _ALWAYS_BYTES + encoding
    checkpoints = bool(planned.cell.config.get("gradient_checkpointing", False))
    through = work.passes_per_text - (FORWARD if checkpoints else 0.0) - FORWARD_AND_BACKWARD * work.share_trained
    parameters = work.share_trained * shape.n_blocks * shape.block_parameters
    if work.share_trained >= 1.0:  # of the embedding, only what occurs is trained
        n_words = min(float(shape.vocabulary), _HEAPS * math.sqrt(planned.cell.n_train * tokens))
        parameters += n_words * shape.width
    memory = training_memory(
        shape,
        Trained(
            blocks=work.share_trained * shape.n_blocks,
            blocks_through=max(0.0, through) / THROUGH * shape.n_blocks,
            parameters=parameters,
            additions=work.additions,
            checkpoints=checkpoints,
        ),
        how,
        n_rows=max(1.0, work.texts_per_step / max(1, work.pieces)),  # no piece is less than a row
        length=longest,
        n_logits=n_logits,
        pieces=work.pieces,
    )
    # What frozen blocks gave of every training text; where all is trained, only vectors were encoded before.
    keeps_states = bool(work.encoded) and work.share_trained < 1.0
    states = _FLOAT_BYTES * planned.cell.n_train * tokens * shape.width if keeps_states else 0.0
    return _ALWAYS_BYTES + max(memory.peak_bytes + states, encoding)


@functools.lru_cache(maxsize=256)
def _tokens(source: Source, task: Task) -> tuple[float, float, float]:
    """Mean tokens of a row, mean length of the sequences that it is read in, and the longest of them."""
    limit = task.spec.max_length
    step = max(1, len(source) // _SAMPLED_TEXTS)
    counts = []
    for position in range(0, len(source), step):
        text = str(source.texts[position])
        counts.append(2.0 + (len(text) if source.characters else len(text) / _CHARACTERS_PER_TOKEN))
    if not counts:
        return 1.0, 1.0, 1.0
    if task.kind.form == "spans":  # long contexts are read in windows, so that nothing is cut off
        mean = sum(counts) / len(counts)
        return mean, min(mean, float(limit)), min(max(counts), float(limit))
    cut = [min(count, float(limit)) for count in counts]
    mean = sum(cut) / len(cut)
    if task.kind.form == "choices":  # each choice is read with the question
        return mean * max(1.0, 0.6 * task.n_outputs), mean, max(cut)
    return mean, mean, max(cut)
