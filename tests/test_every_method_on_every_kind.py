"""Every method on every kind of task: it serves it, or says when planned that it does not; it never fails half-way.

Slow: `test_kinds.py` runs a few methods of each family by default.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.methods._fitted_model import FittedModel
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.running.worker import Worker
from harness.support.errors import UnreadableError
from harness.tasks import Rows, Task
from harness.testing.laboratory import state_hash
from harness.testing.method_checks import BRIEF, check_what_moved, configured, same
from tests.toy_kinds import TOYS, architectures_of
from tests.toys import make_bench

CASES = [(name, architecture) for name in TOYS for architecture in architectures_of(name)]


@pytest.mark.slow
@pytest.mark.parametrize("method_name", methods.names())
@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_serves_or_says_that_it_does_not(
    name: str,
    architecture: str,
    method_name: str,
    toy_kinds: dict[str, Task],
    tiny_backbones: dict[str, BackboneFiles],
    cpu: Device,
    tmp_path: Path,
) -> None:
    task, files = toy_kinds[name], tiny_backbones[architecture]
    method = configured(methods.get(method_name), **BRIEF)
    reason = method.why_not(task, files, "cpu")
    if reason is not None:
        assert method_name in reason or "language model" in reason
        return
    bench = make_bench(task, files if method.serves else None, cpu)
    start, trained = {}, set()
    if isinstance(method, FineTuning):
        before = method.build(bench)
        start = state_hash(before)
        trained = {key for key, value in before.named_parameters() if value.requires_grad}
    rows = Worker(cpu, None).training_rows(task, 24 if method.uses_labels else 0, 0, "stratified")
    fitted = method.fit(rows, bench)
    test = Rows(task.test, np.arange(12))
    try:
        answers = fitted.predict(test, bench)
    except UnreadableError:
        assert (method_name, task.kind.form) == ("zero-shot", "number")  # random weights write no numbers
        return
    task.kind.check(task, answers, task.kind.n_answers(test))
    if isinstance(fitted, FittedModel):
        check_what_moved(fitted, start, trained, all_of_it=False)
    assert save_artifact(fitted, method, tmp_path / "saved", bench) == artifact_size_bytes(fitted, method)
    another = make_bench(task, files if method.serves else None, cpu, seed=7)
    _, restored = load_artifact(tmp_path / "saved", another)
    assert same(restored.predict(test, another), answers)
