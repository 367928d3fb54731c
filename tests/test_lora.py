"""`lora` against peft on its own."""

from __future__ import annotations

import pytest

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import FineTuning
from harness.tasks import Task
from tests.toys import make_bench


@pytest.mark.parametrize("rank", [2, 8])
def test_trainable_count_is_pefts_own(rank: int, toy: Task, minilm: BackboneFiles, cpu: Device) -> None:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    theirs = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(minilm.folder, num_labels=toy.n_outputs),
        LoraConfig(r=rank, lora_alpha=16, task_type=TaskType.SEQ_CLS),
    )
    method = methods.get("lora")(rank=rank)
    assert isinstance(method, FineTuning)
    model = method.build(make_bench(toy, minilm, cpu))
    ours = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert ours == theirs.get_nb_trainable_parameters()[0]
    assert ours == 6 * 2 * 2 * 384 * rank + 385 * toy.n_outputs
