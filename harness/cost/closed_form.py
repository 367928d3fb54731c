"""What a cell costs by arithmetic: operations and bytes, before anything has run.

It is what is known when nothing has been measured, and the ratio by which what was measured of one cell is carried over
to another: most of its error cancels there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from harness.backbones.locate import BackboneFiles
from harness.cost.shape import Shape, read_shape
from harness.plan import PlannedCell
from harness.tasks.base import Source, Task

_SAMPLED_TEXTS = 200
_CHARACTERS_PER_TOKEN = 4.2
"""Of English under a vocabulary of some 30,000 pieces; another language's or vocabulary's ratio cancels out wherever
something has been measured."""

_PREDICTED_AT_ONCE = 64
_BYTES = 4


@dataclass(frozen=True)
class Amount:
    """What a cell comes to.

    Attributes:
        train_flops: operations of encoding training rows, tuning and fitting.
        predict_flops: operations of encoding and predicting the test rows.
        train_rows: the same without a transformer: rows that are read in training, however often.
        test_rows: rows that are predicted.
        peak_bytes: above what the process held before.
    """

    train_flops: float
    predict_flops: float
    train_rows: float
    test_rows: float
    peak_bytes: float


def amount(planned: PlannedCell, task: Task, files: BackboneFiles | None) -> Amount:
    """What a cell comes to by its method's workload, its backbone's shape and its task's texts."""
    cell, method = planned.cell, planned.method
    shape = read_shape(files.folder) if files is not None and cell.backbone is not None else None
    n_test = task.n_test
    if shape is None:
        return Amount(0.0, 0.0, float(max(1, cell.n_train)), float(n_test), 50e6)
    work = method.workload(cell.n_train, cell.budget, shape.n_blocks)
    trials = method.tune
    tokens, length = _tokens(task.train, task)
    each = shape.forward_flops(tokens, length)
    if task.reply is not None:  # every token's distribution over the vocabulary
        each += 2.0 * tokens * shape.width * shape.vocabulary
    # Trials see four fifths of the rows, for as many epochs: `tuning`.
    n_fits = 1.0 if trials is None else 1.0 + 0.8 * trials
    fitted = work.steps * work.texts_per_step * work.passes_per_text * each * n_fits
    train_flops = work.encoded * each + fitted
    if cell.budget.train_flops is not None:
        train_flops = min(train_flops, cell.budget.train_flops)
    test_tokens, test_length = _tokens(task.test, task)
    n_read = work.texts_per_answer + (0.0 if task.reply is None else task.reply.max_new_tokens / max(1.0, test_tokens))
    predict_flops = n_test * n_read * shape.forward_flops(test_tokens, test_length)
    return Amount(
        train_flops,
        predict_flops,
        float(max(1, cell.n_train)),
        float(n_test),
        _peak_bytes(work.texts_per_step / max(1, work.pieces), work.share_trained, work.copies, shape, tokens),
    )


def _peak_bytes(rows: float, share: float, copies: float, shape: Shape, tokens: float) -> float:
    """Bytes at the moment that most are held.

    That is a copy of the weights, gradients and two moments of what is trained of it, and what the backward pass needs
    of a piece; or what encoding some rows at once takes.
    """
    weights = shape.n_parameters * _BYTES
    held = copies * weights + 3.0 * share * weights + shape.activation_bytes(rows * tokens)
    encoding = _PREDICTED_AT_ONCE * tokens * shape.width * 8.0 * _BYTES
    return 50e6 + max(held, encoding)


@functools.lru_cache(maxsize=256)
def _tokens(source: Source, task: Task) -> tuple[float, float]:
    """Mean tokens of a row, and mean length of the sequences that it is read in."""
    limit = task.spec.max_length
    step = max(1, len(source) // _SAMPLED_TEXTS)
    counts = []
    for position in range(0, len(source), step):
        text = str(source.texts[position])
        counts.append(2.0 + (len(text) if source.characters else len(text) / _CHARACTERS_PER_TOKEN))
    if not counts:
        return 1.0, 1.0
    if task.kind.form == "spans":  # long contexts are read in windows, so that nothing is cut off
        mean = sum(counts) / len(counts)
        return mean, min(mean, float(limit))
    cut = [min(count, float(limit)) for count in counts]
    mean = sum(cut) / len(cut)
    if task.kind.form == "choices":  # each choice is read with the question
        return mean * max(1.0, 0.6 * task.n_outputs), mean
    return mean, mean
