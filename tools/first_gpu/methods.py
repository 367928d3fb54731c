"""Every method in small: which fail, which wait in their steps, what they hide or leave on the device."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from typing import Any, Final

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from harness.backbones import Architecture, load_backbone
from harness.measure.meters import Meters
from harness.methods import methods
from harness.records import Budget
from harness.tasks import kinds
from harness.testing import lab
from tools.first_gpu.trial import Trial

BRIEF: Final[dict[str, Any]] = {"min_steps": 6, "epochs": 1, "n_pairs": 1, "max_steps": 6}
CASES: Final[tuple[tuple[str, Architecture], ...]] = (
    *(("classification", "encoder"), ("classification", "causal"), ("generation", "causal")),
    *(("question-answering", "encoder"), ("multiple-choice", "encoder"), ("translation", "sequence-to-sequence")),
)


@dataclasses.dataclass
class Watch:
    """Waits in the steps of one cell, by place, and bytes on the device when its meters start."""

    waits: dict[str, int] = dataclasses.field(default_factory=dict)
    at_baseline: int = 0
    _seen: list[warnings.WarningMessage] = dataclasses.field(default_factory=list)
    _since: int | None = None

    def step(self, *_: object) -> None:
        """Count the waits since the last step; torch warns of each."""
        for warning in self._seen[self._since :] if self._since is not None else ():
            if "synchroniz" in str(warning.message).lower():
                place = f"{'/'.join(warning.filename.split('/')[-2:])}:{warning.lineno}"
                self.waits[place] = self.waits.get(place, 0) + 1
        self._since = len(self._seen)

    def report(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Leave out this step: a point of the curve waits for its loss."""
        self._since = None


def watched(trial: Trial, run: Any) -> tuple[Any, Watch]:
    """Run a cell under a watch; `run` takes the function that gets progress."""
    enter = Meters.__enter__

    def enter_and_look(self: Meters) -> Meters:
        enter(self)
        watch.at_baseline = trial.allocated()
        return self

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        watch = Watch(_seen=seen)
        hook = register_optimizer_step_post_hook(watch.step)
        Meters.__enter__ = enter_and_look  # type: ignore[method-assign]
        if trial.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            return run(watch.report), watch
        finally:
            if trial.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
            hook.remove()
            Meters.__enter__ = enter  # type: ignore[method-assign]


def methods_in_small(trial: Trial) -> None:
    """Run every method on tiny backbones of each architecture and some kinds."""
    until = time.perf_counter() + (3600 if trial.is_dry else 85)
    failed, waiting, hiding, left = [], {}, {}, {}
    n_cells = 0
    names = methods.names() if not trial.is_dry else ["full", "lora", "linear-probe", "few-shot", "majority"]
    for kind, architecture in CASES[:1] if trial.is_dry else CASES:
        worker = trial.worker()
        task, files = lab().task(kinds.get(kind)), lab().backbone(architecture)
        for name in names:
            if time.perf_counter() > until:
                failed.append("time was up")
                break
            settings: dict[str, Any] = {
                key: value for key, value in BRIEF.items() if key in methods.get(name).model_fields
            }
            planned = trial.plan(task, files, name, size="24", **settings)
            if planned.unsupported is not None:
                continue
            n_cells += 1
            case = f"{kind}/{architecture}/{name}"
            record, watch = watched(trial, functools.partial(worker.run, trial.job(planned, files), task))
            if record.status != "ok":
                failed.append(f"{case}: {record.status}: {(record.error or '').splitlines()[0][:200]}")
            if watch.waits:
                waiting[case] = watch.waits
            hidden = watch.at_baseline - (record.cost.shared_weights_bytes or 0)
            if hidden > 4096 and methods.get(name).serves:  # torch rounds each allocation up to 512 bytes
                hiding[case] = hidden
            left[case] = trial.allocated()
    trial.say("every method", cells=n_cells, failed=failed, most_left_bytes=max(left.values(), default=0))
    trial.say("waits inside steps", cells=len(waiting), where=waiting)
    trial.say("bytes before the meter that no record counts", cells=len(hiding), which=hiding)
    trial.say("bytes left after full", bytes={case: n for case, n in left.items() if case.endswith("/full")})


def same_again(trial: Trial) -> None:
    """Fit the same cell twice; encode the same rows in another order, and on the host."""
    files, worker = trial.shape("minilm-like"), trial.worker()
    task = trial.task(256, 64, 32)
    steps = Budget(steps=4 if trial.is_dry else 32)
    losses = [[point.train_loss for point in trial.run(worker, task, files, "full", budget=steps).curve] for _ in "ab"]
    backbone = load_backbone(files)
    model = backbone.resident(trial.there, trial.device.precision("auto"))
    ids = torch.randint(5, 60, (64, 32))
    order = torch.randperm(len(ids))

    def states(rows: torch.Tensor, on: Any, device: torch.device) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=on is model):
            out = on(input_ids=rows.to(device), attention_mask=torch.ones_like(rows).to(device)).last_hidden_state
        mean: torch.Tensor = out.mean(1).float().cpu()
        return mean

    one, other = states(ids, model, trial.there), states(ids[order], model, trial.there)
    exact = states(ids, backbone.pristine, torch.device("cpu"))
    apart = max((abs((a or 0.0) - (b or 0.0)) for a, b in zip(*losses, strict=True)), default=None)
    trial.say(
        "the same again",
        fit_bit_for_bit=losses[0] == losses[1],
        losses_apart=apart,
        order_matters=not torch.equal(one[order], other),
        against_host=float((one - exact).norm() / exact.norm()),
    )
