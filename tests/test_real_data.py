"""Real data from the mirror, the real backbone: figures against independent scripts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.tasks import Task
from tests.toys import plan_one, shorten


def embed(texts: list[str], minilm: BackboneFiles) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm.folder)
    model = AutoModel.from_pretrained(minilm.folder).eval()
    pooled = []
    for at in range(0, len(texts), 32):
        inputs = tokenizer(texts[at : at + 32], padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(pooled)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("auto", marks=pytest.mark.slow)])
def test_the_probe_is_a_ten_line_script(precision: str, sst2: Task, minilm: BackboneFiles, cpu: Device) -> None:
    """MiniLM, mean pooling, scikit-learn's logistic regression, on the same rows; 300 test rows to keep it short."""
    if precision == "auto" and not cpu.native_bf16:
        pytest.skip("auto is fp32 on this processor")
    some = shorten(sst2, n_test=300, max_length=128)
    worker = Worker(cpu, None)
    method = methods.get("linear-probe")(c=1.0, precision=precision)
    record = worker.run(Job(plan_one(some, minilm, method, size="128"), minilm, "tests"), some)
    rows = worker.training_rows(some, 128, 0, "stratified")
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(embed(rows.texts, minilm), rows.known_labels)
    expected = theirs.score(embed(list(some.test.texts), minilm), some.test_labels)
    assert record.score is not None
    # In bfloat16 a text beside the boundary may fall on its other side.
    assert record.score.value == pytest.approx(expected, abs=0.005 if precision == "fp32" else 0.01)


def test_copies_of_test_rows_are_dropped(sst2: Task) -> None:
    assert sst2.provenance["n_dropped_from_training"] == 3
    assert not {" ".join(text.split()) for text in sst2.train.texts} & {
        " ".join(text.split()) for text in sst2.test.texts
    }
    assert len(sst2.test) == 1821
    assert sst2.provenance["content_as_pinned"] is True
