"""Train the last blocks on outputs of the frozen lower blocks, which are computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.backbones import BackboneFiles
from harness.measure import long_step
from harness.methods._by_depth import ByDepth
from harness.methods._masters import OwnWeights
from harness.methods._weights import FrozenWeights
from harness.methods.base import Choice, Range, SearchSpace, method
from harness.methods.bench import Bench
from harness.records import Budget, Workload

if TYPE_CHECKING:
    from torch import nn

    from harness.training import AdaptedModel, Examples, Inputs


@method
class LastLayers(FrozenWeights, ByDepth, OwnWeights):
    """Train the last `k` blocks of the transformer (and a norm that follows them), and the new output layer.

    The blocks F_1 to F_(L-k) stay frozen, and the last k train:

        h = F_(L-k)(... F_1(x)),  stored once;    p = head(F_L(... F_(L-k+1)(h)))

    Outputs of the lower blocks never change. Each training text passes through them once, and every step starts from
    the stored outputs. Frozen blocks then run in evaluation mode, without dropout. If an architecture cannot start in
    the middle, the whole model runs in every step, and the record says so. ALBERT's blocks share their weights, so it
    is not supported.

    Attributes:
        k: number of blocks to train.
    """

    name = "last-layers"
    family = "partial fine-tuning"
    share_trained = 1.0  # of the blocks that a step runs
    trains = "the last k blocks, and the output layer"
    source = "Yosinski et al., 2014, arXiv:1411.1792; Lee et al., 2019, arXiv:1911.03090"
    can: ClassVar[frozenset[str]] = frozenset({"vllm"})
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(3e-5, 1e-3, log=True),
        "k": Choice((1, 2, 3)),
        "epochs": Choice((4.0, 8.0)),
    }

    k: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also a backbone with fewer than k blocks."""
        reason = super().why_unsupported(kind, files, device)
        known = files.n_blocks if files is not None else None
        if reason is None and files is not None and known is not None and self.k > known:
            return f"'{self.name}' trains the last {self.k} blocks here; backbone '{files.name}' has {known}."
        return reason

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each text passes once through the lower blocks, and the last run in every step."""
        share = min(1.0, self.k / n_blocks)
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(
            whole,
            encoded=(1.0 - share) * n_train,
            passes_per_text=share * whole.passes_per_text,
            share_trained=share,
        )

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters of the last k blocks and of modules after them."""
        from harness.training import Stack

        for parameters in Stack(transformer).parameters_by_depth()[-self.k :]:
            yield from parameters

    def make_inputs(self, model: AdaptedModel, examples: Examples, bench: Bench) -> Inputs:
        """Return hidden states before the first trained block, if the architecture can start there."""
        from harness.training import PREDICT_ROWS, BlockInputs

        if not bench.form.enters_blocks:
            bench.ledger.remarks["frozen_blocks"] = f"run in every step: so it is for {bench.kind.form}"
            return super().make_inputs(model, examples, bench)
        rows = examples.sequences
        pad_id = int(bench.some_backbone.tokenizer.pad_token_id)
        with bench.clock.paused(), long_step():
            fits = BlockInputs.fits(model, rows, self.k, pad_id, bench.device)
        model.train()
        if not fits:
            said = "run in every step: this architecture cannot be entered in the middle"
            bench.ledger.remarks["frozen_blocks"] = said
            return super().make_inputs(model, examples, bench)
        with bench.working("encode"):
            inputs = BlockInputs(
                model,
                rows,
                n_trained=self.k,
                pad_id=pad_id,
                device=bench.device,
                precision=bench.precision(self.precision),
            )
        model.train()
        key = f"{self.name}/lower blocks/{self.k}/{bench.some_backbone.files.fingerprint}"
        lower = bench.flops_model(key, inputs.encoding_flops)
        bench.ledger.train_flops += lower.rows([len(row) for row in rows], PREDICT_ROWS[bench.device.kind])
        bench.ledger.train_tokens += sum(len(row) for row in rows)
        return inputs
