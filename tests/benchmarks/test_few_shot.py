"""Few-shot classification against lm-evaluation-harness: the same model, prompts, words and rows, in one process.

Both sides read the prompts that the method writes, and time tokenising them. The other side runs in the precision
of this device, and takes the faster of two sizes of batch. Its predictions in float32 are compared too, on fewer rows.

`pip install lm_eval`. HARNESS_CAUSAL_MODEL names the model, a folder or a name in the mirror.
HARNESS_BENCHMARK_ROWS sets another number of rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._in_context import FittedPrompt
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks import Rows, Task
from tests.toys import make_bench

MODEL = os.environ.get("HARNESS_CAUSAL_MODEL", "HuggingFaceTB/SmolLM2-135M")
N_ROWS, N_SHOWN, N_PARTS = int(os.environ.get("HARNESS_BENCHMARK_ROWS", "300")), 8, 3
SIZES = (16, 32) if N_ROWS >= 32 else (N_ROWS,)
TEMPLATE = "Review: {text}\nSentiment:"
AT_LEAST, EQUAL = 3.0, 0.99


@pytest.fixture
def causal(mirror: Path) -> BackboneFiles:
    """The language model."""
    try:
        return locate_backbone(MODEL, mirror)
    except UsageError as error:
        pytest.skip(f"HARNESS_CAUSAL_MODEL names no model that is here: {error}")


class Rival:
    """The language model of lm-evaluation-harness, which scores our prompts."""

    def __init__(self, folder: Path, dtype: str, fitted: FittedPrompt, words: Sequence[str]) -> None:
        hflm = pytest.importorskip("lm_eval.models.huggingface").HFLM
        self.lm: Any = hflm(pretrained=str(folder), dtype=dtype, device="cpu", batch_size=SIZES[0])
        self._fitted = fitted
        self._words = words

    def likelihoods(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the log-likelihoods of the classes, shape (rows, classes)."""
        make = pytest.importorskip("lm_eval.api.instance").Instance
        prompts = [self._fitted._writer.write(text, self._fitted.demonstrations).written for text in texts]
        asked = [
            make("loglikelihood", {}, (prompt, f" {word}"), row)
            for row, prompt in enumerate(prompts)
            for word in self._words
        ]
        found = self.lm.loglikelihood(asked, disable_tqdm=True)
        return np.array([likelihood for likelihood, _ in found]).reshape(len(texts), len(self._words))

    def check_tokens(self, text: str) -> None:
        """The other side splits prompt and word into the same tokens."""
        prompt = self._fitted._writer.write(text, self._fitted.demonstrations)
        for word, label in zip(self._words, self._fitted._writer.labels, strict=True):
            assert self.lm._encode_pair(prompt.written, f" {word}") == (prompt.ids.tolist(), label)


@pytest.mark.timeout(7200)
def test_few_shot_against_lm_evaluation_harness(
    benchmark: BenchmarkFixture, sst2: Task, causal: BackboneFiles, cpu: Device
) -> None:
    bench = make_bench(sst2, causal, cpu)
    method = methods.get("few-shot")(k=N_SHOWN, template=TEMPLATE)  # type: ignore[call-arg]
    fitted = method.fit(Worker(cpu, None).training_rows(sst2, 64, 0, "stratified"), bench)
    assert isinstance(fitted, FittedPrompt)
    dtype = "bfloat16" if cpu.precision("auto") == "bf16" else "float32"
    rival = Rival(causal.folder, dtype, fitted, bench.label_words)
    parts = np.array_split(np.arange(N_ROWS), N_PARTS)
    texts = [[sst2.test.texts[row] for row in part] for part in parts]
    rival.check_tokens(texts[0][0])

    tried: dict[int, float] = {}
    for size in SIZES:
        rival.lm.batch_size_per_gpu = size
        tried[size] = timed(lambda: rival.likelihoods(texts[0][: max(SIZES)]))[0]
    rival.lm.batch_size_per_gpu = min(tried, key=lambda size: tried[size])
    fitted.predict(Rows(sst2.test, parts[0][:8]), bench)

    ours, theirs, chosen, expected = [], [], [], []

    def both() -> None:  # in turn, so that a busy neighbour slows both
        for part, some in zip(parts, texts, strict=True):
            seconds, found = timed(lambda some=some: rival.likelihoods(some))
            theirs.append(seconds)
            expected.append(found.argmax(1))
            seconds, answers = timed(lambda part=part: fitted.predict(Rows(sst2.test, part), bench))
            ours.append(seconds)
            chosen.append(np.asarray(answers).argmax(1))

    benchmark.pedantic(both, rounds=1)
    exact = Rival(causal.folder, "float32", fitted, bench.label_words).likelihoods(texts[0]).argmax(1)
    ratio = sum(theirs) / sum(ours)
    equal = float((np.concatenate(chosen) == np.concatenate(expected)).mean())
    benchmark.extra_info.update(
        {
            "ours_seconds": round(sum(ours), 1),
            "lm_eval_seconds": round(sum(theirs), 1),
            "lm_eval_batch_size": rival.lm.batch_size_per_gpu,
            "lm_eval_tried_seconds": {size: round(seconds, 1) for size, seconds in tried.items()},
            "ratio": round(ratio, 2),
            "ratios": [round(their / our, 2) for their, our in zip(theirs, ours, strict=True)],
            "equal": equal,
            "equal_to_float32": float((chosen[0] == exact).mean()),
            "accuracy": round(float((np.concatenate(chosen) == sst2.test_labels[:N_ROWS]).mean()), 4),
        }
    )
    print(benchmark.extra_info)
    assert ratio >= AT_LEAST
    assert equal >= EQUAL


def timed(run: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


@pytest.mark.timeout(3600)
def test_zero_shot_predicts_what_lm_evaluation_harness_does(sst2: Task, causal: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(sst2, causal, cpu)
    method = methods.get("zero-shot")(template=TEMPLATE, precision="fp32")  # type: ignore[call-arg]
    rows = Rows(sst2.test, np.arange(min(N_ROWS, 100)))
    fitted = method.fit(rows.take(np.arange(0)), bench)
    assert isinstance(fitted, FittedPrompt)
    expected = Rival(causal.folder, "float32", fitted, bench.label_words).likelihoods(rows.texts)
    found = np.asarray(fitted.predict(rows, bench))
    assert (found.argmax(1) == expected.argmax(1)).mean() >= EQUAL
    scaled = np.exp(expected - expected.max(1, keepdims=True))
    np.testing.assert_allclose(found, scaled / scaled.sum(1, keepdims=True), atol=1e-3)
