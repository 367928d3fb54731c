"""Kernels: how many a step launches, which attention runs, and what a replayed graph would take."""

from __future__ import annotations

from typing import Any

import torch

from harness.records import Budget
from tools.first_gpu.trial import Trial

ATTENTION = ("flash", "fmha", "efficient_attention", "cudnn")


def launches(trial: Trial) -> None:
    """Count kernels of a fit with torch's profiler."""
    if not trial.on_gpu:
        trial.say("launches", skipped="no GPU")
        return
    from torch.profiler import ProfilerActivity, profile

    files, worker = trial.shape("minilm-like"), trial.worker()
    task = trial.task(512, 8, 32)
    trial.run(worker, task, files, "full", budget=Budget(steps=3))
    for name in ("full", "lora"):
        counts = []
        for steps in (10, 30):  # the difference is that of 20 steps
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                trial.run(worker, task, files, name, budget=Budget(steps=steps))
            events: list[Any] = list(seen.events() or ())
            there = [event for event in events if event.device_type.name == "CUDA"]
            counts.append((len(there), sum(event.device_time for event in there)))
        names = {event.name for event in there}
        trial.say(
            f"launches of a step, minilm-like, {name}",
            kernels=(counts[1][0] - counts[0][0]) / 20,
            kernel_ms=(counts[1][1] - counts[0][1]) / 20e3,
            attention=sorted(one[:60] for one in names if any(word in one.lower() for word in ATTENTION))[:4],
        )


def replayed(trial: Trial) -> None:
    """Time an eager step of a MiniLM and the same step replayed as a graph."""
    if not trial.on_gpu or trial.is_dry:
        trial.say("replayed graph", skipped="needs a GPU")
        return
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(trial.shape("minilm-like").folder)
    model: Any = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa").cuda().train()
    model.pooler = None
    trained = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=torch.tensor(1e-4, device="cuda"), fused=True, capturable=True)
    ids = torch.randint(5, 60, (16, 32), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = model(input_ids=ids).last_hidden_state.float().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)

    eager = trial.milliseconds(step)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    trial.say("replayed graph", eager_ms=eager, replayed_ms=trial.milliseconds(graph.replay))
