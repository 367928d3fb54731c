"""Compute the cost of a cell by arithmetic: operations and bytes, before anything has run.

It is the only estimate when nothing was measured. Otherwise the ratio of two amounts carries a measured cost over to
another cell; most of the error cancels in the ratio.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from harness.backbones import BackboneFiles
from harness.cost.memory import Trained, encoding_memory, regime, training_memory
from harness.cost.shape import Shape, read_shape
from harness.features import ENCODE_ROWS
from harness.measure import Device
from harness.planning import PlannedCell
from harness.records import FORWARD, FORWARD_AND_BACKWARD, THROUGH, Workload
from harness.tasks import Source, Task

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


@dataclass(frozen=True)
class Amount:
    """Work and memory of a cell, by the closed form.

    Attributes:
        train_flops: operations of encoding training rows, tuning and fitting.
        predict_flops: operations of encoding and predicting the test rows.
        train_rows: training rows, for methods without a transformer; each counts once.
        test_rows: rows to predict.
        peak_bytes: peak memory above the process's baseline.
        light_steps: steps of a small network on frozen features, which take time but few operations.
    """

    train_flops: float
    predict_flops: float
    train_rows: float
    test_rows: float
    peak_bytes: float
    light_steps: float = 0.0


def amount(planned: PlannedCell, task: Task, files: BackboneFiles | None, device: Device | None = None) -> Amount:
    """Return the work and memory of a cell, from its method's workload, its backbone's shape and its task's texts.

    Memory depends on `device`; None is a CPU without bfloat16.
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
    if task.reply is not None:  # each token has a distribution over the vocabulary
        each += 2.0 * tokens * shape.width * shape.vocabulary
    # Trials train on four fifths of the rows, for as many epochs (see `tuning`).
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
    """Return the peak bytes: of a training step on the longest texts, or of encoding."""
    kind = device.kind if device is not None else "cpu"
    bits16 = device is not None and device.precision(planned.cell.config.get("precision", "fp32")) == "bf16"
    how = regime(shape, kind, bits16=bits16)
    encoding = encoding_memory(shape, how, n_rows=ENCODE_ROWS[kind], length=longest)
    if not work.texts_per_step:
        return _ALWAYS_BYTES + encoding
    checkpoints = bool(planned.cell.config.get("gradient_checkpointing", False))
    through = work.passes_per_text - (FORWARD if checkpoints else 0.0) - FORWARD_AND_BACKWARD * work.share_trained
    parameters = work.share_trained * shape.n_blocks * shape.block_parameters
    if work.share_trained >= 1.0:  # only the embedding's rows that occur are trained
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
        n_rows=max(1.0, work.texts_per_step / max(1, work.pieces)),  # a piece has at least one row
        length=longest,
        n_logits=n_logits,
        pieces=work.pieces,
    )
    # States of frozen blocks are kept for every training text. If all is trained, only vectors were encoded before.
    keeps_states = bool(work.encoded) and work.share_trained < 1.0
    states = _FLOAT_BYTES * planned.cell.n_train * tokens * shape.width if keeps_states else 0.0
    return _ALWAYS_BYTES + max(memory.peak_bytes + states, encoding)


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
    if task.kind.form == "spans":  # long contexts are read in windows, so that nothing is cut off
        mean = sum(counts) / len(counts)
        return mean, min(mean, float(limit)), min(max(counts), float(limit))
    cut = [min(count, float(limit)) for count in counts]
    mean = sum(cut) / len(cut)
    if task.kind.form == "choices":  # each choice is read with the question
        return mean * max(1.0, 0.6 * task.n_outputs), mean, max(cut)
    return mean, mean, max(cut)
