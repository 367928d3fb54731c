"""Settings of LoRA and its relatives: initial values, steps, adapted layers and their ranks."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from harness.methods._lora_targets import Targets, chosen_layers, mean_rank, widths
from harness.methods._peft import LowRankMethod
from harness.records import FORWARD, THROUGH, Budget, Workload
from harness.support import UnsupportedError

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings
    from harness.methods.bench import Bench
    from harness.training import AdaptedModel, Batch, Batches, Hooks, Inputs, ParameterGroup

Init = Literal[
    "default", "gaussian", "orthogonal", "pissa", "pissa-niter-16", "olora", "mica", "eva", "corda", "lora-ga", "loftq"
]
"""Initialisations of A and B."""

_AT_ONCE: Final = frozenset({"default", "gaussian"})
"""Initialisations that peft makes when it adds the matrices."""

_CHANGING: Final = frozenset({"pissa", "pissa-niter-16", "olora", "corda", "lora-ga"})
"""Initialisations whose product is not 0 at first, so that it is subtracted again."""

_READING: Final = {"eva": 1.0, "corda": 1.0, "lora-ga": 3.0}
"""Cost of a training text that an initialisation reads, in forward passes."""

_ADDED_LATER: Final = {"orthogonal": "orthogonal_init", "mica": "mica_init", "lora-ga": "lora_ga_init"}
"""Functions of peft's layers that older versions lack, by initialisation."""

_MOST_SHARE: Final = 0.5
"""Share of a budget of seconds after which no further texts are read."""


class LoraSettings(LowRankMethod):
    """Settings of methods that learn A and B.

    Attributes:
        targets: layers to adapt: `attention` (peft's default for the architecture, mostly queries and values), `mlp`
            (the linear layers of a block outside attention), `all-linear`, or names such as `[query,value]`: the ends
            of names of linear layers in blocks.
        layers: blocks to adapt, from 0 for the first or from -1 for the last, such as `[0,1,-1]`; None for all. In an
            encoder with a decoder, those of both. peft calls it `layers_to_transform`.
        rank_pattern: ranks of some layers, such as `[query:4,value:16]`, by ends of names or regular expressions for
            them; the first that fits counts, and other layers have `rank`. The scale follows each layer's own rank.
        init: initial values of A and B. `default`: A is uniform (Kaiming), B is 0. `gaussian`: A is normal with
            deviation 1/r. `orthogonal`: orthogonal halves whose product is 0. `pissa`: the first singular vectors and
            values of W (`pissa-niter-16` approximates them). `olora`: the first columns of its QR decomposition.
            `mica`: B is the last left singular vectors of W and stays fixed, A starts at 0. `eva`: A is the first
            principal components of the layer's inputs; every layer keeps its rank. `corda`: as `pissa`, of W times the
            covariance of the inputs. `lora-ga`: singular vectors of the loss's gradient by W. The last three read
            training texts, within the budget. Where the first product is not 0, it is kept and subtracted, so that
            training starts from the pretrained function and W stays as it is.
        init_rows: number of training rows that `eva`, `corda` and `lora-ga` read, in whole batches; at most one pass.
        update: how A and B take a step: `plain`; `riemannian` multiplies each gradient by the inverse of the other
            matrix's products; `lora-fa` keeps A fixed, and gives B the gradient that comes nearest to that of W.
        b_rate_ratio: learning rate of B over that of A (LoRA+, where 16 is usual with a lower learning rate).
    """

    newer_settings: ClassVar[frozenset[str]] = frozenset(
        {"layers", "rank_pattern", "init", "init_rows", "update", "b_rate_ratio"}
    )
    keeps: ClassVar[tuple[str, ...]] = (
        "lora_",
    )  # with matrices that stay fixed, which the backbone's files do not give
    inits: ClassVar[frozenset[str]] = frozenset(get_args(Init)) - {"loftq"}
    """Initialisations that the method can have."""

    targets: Targets = "attention"  # type: ignore[assignment]
    layers: tuple[int, ...] | None = None
    rank_pattern: tuple[str, ...] = ()
    init: Init = "default"
    init_rows: int = Field(default=256, ge=1)
    update: Literal["plain", "riemannian", "lora-fa"] = "plain"
    b_rate_ratio: float = Field(default=1.0, gt=0)

    # ---- what is given

    @field_validator("targets", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        is_name = isinstance(value, str) and value not in ("attention", "all-linear", "mlp")
        return (value,) if is_name else value

    @field_validator("layers", mode="before")
    @classmethod
    def _one_block(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("rank_pattern", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, dict):
            return tuple(f"{name}:{rank}" for name, rank in value.items())
        return value

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if isinstance(self.targets, tuple) and not all(name.strip() for name in self.targets or ("",)):
            raise ValueError("targets needs names of layers, such as [query,value], or attention, mlp or all-linear")
        if self.layers is not None and len(set(self.layers)) != max(1, len(self.layers)):
            raise ValueError("layers needs different numbers of blocks, such as [0,1,-1]; leave it out for all blocks")
        self.ranks  # noqa: B018 - refuses what cannot be read
        return self

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.init not in self.inits:
            raise ValueError(f"init={self.init} does not fit '{self.name}'{self._why_no_init()}")
        if self.init == "orthogonal" and any(rank % 2 for rank in (self.rank, *self.ranks.values())):
            raise ValueError("init=orthogonal needs even ranks; it splits them into two halves")
        if self.init_rows != 256 and self.init not in _READING:
            raise ValueError(f"init_rows is for init={', '.join(_READING)}; init={self.init} reads no rows")
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.init == "mica" and (self.update != "plain" or self.b_rate_ratio != 1.0):
            raise ValueError("init=mica trains A alone; leave update and b_rate_ratio out")
        if self.update == "lora-fa" and self.b_rate_ratio != 1.0:
            raise ValueError("update=lora-fa trains B alone; leave b_rate_ratio out, and set learning_rate")
        return self

    def _why_no_init(self) -> str:
        """Return the end of the message that refuses an initialisation."""
        if self.init == "loftq":
            return ": it makes up for what quantising lost. Use qlora[init=loftq]"
        return f". Use one of {', '.join(init for init in get_args(Init) if init in self.inits)}"

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks by pattern.

        Raises:
            ValueError: a pattern has no rank, or is no regular expression.
        """
        found = {}
        for text in self.rank_pattern:
            name, _, rank = text.rpartition(":")
            if not name.strip() or not rank.strip().isdigit() or int(rank) < 1:
                raise ValueError(f"rank_pattern has '{text}'; expected NAME:RANK, such as [query:4,value:16]")
            try:
                re.compile(name.strip())
            except re.error as error:
                raise ValueError(f"rank_pattern has '{name}', which is no regular expression: {error}") from None
            found[name.strip()] = int(rank)
        return found

    # ---- plans

    @property
    def plans_modules(self) -> bool:
        """Whether settings depend on the modules of a backbone."""
        names = not isinstance(self.targets, str) or self.targets == "mlp"
        return names or self.layers is not None or bool(self.rank_pattern) or self.init not in _AT_ONCE

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload, with the texts that the initialisation reads; their cost is in forward passes."""
        kept, _ = widths(self.targets)
        share = 0.25 if self.update == "lora-fa" else 1.0  # without the inputs of A, dropout's masks remain
        n_read = min(n_train, math.ceil(self.init_rows / self.batch_size) * self.batch_size)
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(
            whole,
            passes_per_text=whole.passes_per_text - (THROUGH - FORWARD) * self._share_below(n_blocks),
            additions=kept * share * self._share_of_blocks(n_blocks),
            encoded=_READING.get(self.init, 0.0) * n_read,
        )

    def n_added(self, width: int, n_blocks: int) -> float:
        """Return the added parameters; a fixed one counts a quarter, as it has neither gradient nor moments."""
        _, size = widths(self.targets)
        share = self._share_of_blocks(n_blocks)
        rank = mean_rank(self.rank, self.ranks, self.targets, n_blocks * share)
        each = 1.0
        if self.update == "lora-fa" or self.init == "mica":
            each = 0.5 * (1.0 + 0.25)
        if self.init in _CHANGING:
            each += 0.25
        return 2.0 * each * rank * size * width * n_blocks * share

    def _share_below(self, n_blocks: int) -> float:
        """Return the share of blocks below the first adapted one, which gradients do not pass."""
        if self.layers is None or n_blocks == 0:
            return 0.0
        return max(0, min(at if at >= 0 else n_blocks + at for at in self.layers)) / n_blocks

    def _share_of_blocks(self, n_blocks: int) -> float:
        return 1.0 if self.layers is None or n_blocks == 0 else min(1.0, len(self.layers) / n_blocks)

    # ---- the adapted model

    def lora_config(self, transformer: nn.Module, **more: Any) -> Any:
        """Return peft's configuration of LoRA."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self.layers_to_adapt(transformer),
            rank_pattern=self.ranks,
            init_lora_weights="gaussian" if self.init == "gaussian" else True,
            **more,
        )

    def layers_to_adapt(self, transformer: nn.Module) -> list[str] | str | None:
        """Return the layers to adapt in peft's form; None leaves the choice to `default_targets`."""
        if self.layers is None and self.targets in ("attention", "all-linear"):
            return self.target_modules()
        default = self.lora_targets(transformer) if self.targets == "attention" else None
        return chosen_layers(transformer, self.targets, self.layers, default)

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer wrapped by peft, with a second pair where the first product is subtracted."""
        from harness.training import START

        wrapped: Any = super().adapt(transformer, bench)
        self._check_ranks(wrapped)
        if self.init in _CHANGING:
            config = copy.deepcopy(wrapped.peft_config[wrapped.active_adapter])
            config.lora_dropout, config.init_lora_weights = 0.0, True
            trained = wrapped.active_adapter
            wrapped.add_adapter(START, config)
            wrapped.base_model.set_adapter([trained, START])
        return wrapped  # type: ignore[no-any-return]

    def _check_ranks(self, wrapped: nn.Module) -> None:
        """Refuse patterns that fit no layer, and ranks that a layer is too small for."""
        from harness.training import lora_layers

        layers = lora_layers(wrapped)
        for pattern in self.ranks:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in layers):
                some = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
                raise UnsupportedError(
                    f"rank_pattern names '{pattern}'; no adapted layer's name ends like that. Adapted are {some}."
                )
        if self.init in _AT_ONCE:
            return
        for name, layer in layers.items():
            if not hasattr(layer, _ADDED_LATER.get(self.init, "lora_A")):
                raise UnsupportedError(f"init={self.init} needs a later version of peft: `pip install -U peft`.")
            least, rank = min(layer.in_features, layer.out_features), layer.r["default"]
            most = least // 2 if self.init == "lora-ga" else least
            if rank > most and self.init != "orthogonal":
                raise UnsupportedError(
                    f"init={self.init} takes {rank} directions of layer '{name}', which has {most} to give. Use a rank "
                    f"of at most {most}, or init=default."
                )

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters of the trained pair; without A for `lora-fa`, and without B for `mica`."""
        from harness.training import START

        fixed = {"lora-fa": "lora_A"}.get(self.update, "lora_B" if self.init == "mica" else START)
        for name, parameter in transformer.named_parameters():
            if "lora_" in name and START not in name.split(".") and fixed not in name.split("."):
                yield parameter

    # ---- the fit

    def begin(self, model: AdaptedModel, inputs: Inputs, batches: Batches, bench: Bench) -> None:
        """Set the initial values; texts that are read, and their operations, are the fit's."""
        import torch

        from harness.training import LowRankStart

        if self.init in _AT_ONCE:
            return
        device = bench.device.torch_device()
        start, training = LowRankStart(model.transformer, self.init), model.training
        model.eval()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(bench.seeded("initial values"))
            if self.init in _READING:
                for part in self._texts_to_read(batches, bench):
                    self._charge(part, start.n_weights, inputs, bench)
                    start.read(lambda part=part: self._loss(part, inputs, bench), part.inputs[1])  # type: ignore[misc]
            start.apply(self.original_matrices(bench))
        model.train(training)

    def original_matrices(self, bench: Bench) -> Any:
        """Return the function from a layer's name to its matrix before it was quantised; None where none was."""
        return None

    def _texts_to_read(self, batches: Batches, bench: Bench) -> Iterator[Batch]:
        """Yield the pieces of the first batches of training, until enough rows are read or half of the time is over."""
        n_read, limit = 0, bench.budget.train_seconds
        for batch in batches.epoch(0):
            yield from batch.parts(self.accumulation)
            n_read += batch.n_rows
            is_late = limit is not None and bench.clock.train_seconds > _MOST_SHARE * limit
            if n_read >= self.init_rows or is_late:
                break
        bench.ledger.remarks["init"] = f"{self.init} read {n_read} rows"

    def _loss(self, part: Batch, inputs: Inputs, bench: Bench) -> Any:
        import torch

        is_bf16 = bench.precision(self.precision) == "bf16"
        with torch.autocast(bench.device.torch_device().type, dtype=torch.bfloat16, enabled=is_bf16):
            outputs = inputs.forward(part)
        return bench.form.loss(outputs.float(), part.targets, 0.0)

    def _charge(self, part: Batch, n_weights: int, inputs: Inputs, bench: Bench) -> None:
        """Enter the tokens and operations of one piece; those of decompositions are not counted."""
        key, has_gradients = self.flops_key(bench), self.init == "lora-ga"
        if has_gradients:
            flops = bench.flops_model(key, inputs.count_flops)
        else:
            flops = bench.flops_model(f"{key}/forward", lambda: inputs.count_flops(backward=False))
        n_texts = part.n_rows * part.texts_per_row
        spent = flops.batch(n_texts, part.length, part.n_outputs)
        bench.ledger.train_flops += spent + (2.0 * n_weights * n_texts * part.length if has_gradients and spent else 0)
        bench.ledger.train_tokens += part.n_tokens

    def parameter_groups(self, model: AdaptedModel) -> list[ParameterGroup]:
        """Return the parameters with their learning rates: vectors and B in a group of their own, as peft has them."""
        if self.b_rate_ratio == 1.0:
            return super().parameter_groups(model)
        named = [(name, value) for name, value in model.transformer.named_parameters() if value.requires_grad]
        is_b = {name: "lora_B" in name or value.ndim == 1 for name, value in named}
        first, head = self.groups([v for name, v in named if not is_b[name]], list(model.head.parameters()))
        second = dataclasses.replace(
            first,
            parameters=[value for name, value in named if is_b[name]],
            learning_rate=first.learning_rate * self.b_rate_ratio,
        )
        return [first, second, head]

    def make_hooks(self, model: AdaptedModel, bench: Bench) -> Hooks | None:
        """Return hooks that change the gradients, if `update` does."""
        if self.update == "plain":
            return None
        from harness.training import LowRankSteps, low_rank_pairs

        return LowRankSteps(low_rank_pairs(model.transformer), self.update)
