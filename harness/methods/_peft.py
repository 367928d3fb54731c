"""Base classes of methods that add parameters to a fixed transformer with peft."""

from __future__ import annotations

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import Field

from harness.backbones import BackboneFiles
from harness.measure import is_out_of_memory
from harness.methods._fine_tuning import FineTuning, Surroundings
from harness.methods._gradient import save_too
from harness.methods._modules import projections
from harness.methods._weights import FrozenWeights
from harness.methods.base import Choice, Range, SearchSpace
from harness.methods.bench import Bench
from harness.records import Budget, Workload
from harness.support import UnsupportedError
from harness.tasks import Form, Rows

if TYPE_CHECKING:
    from torch import nn

    from harness.training import AdaptedModel

RATE_AND_EPOCHS: SearchSpace = {
    "learning_rate": Range(3e-4, 1e-1, log=True),
    "epochs": Choice((4.0, 8.0, 16.0)),
}
"""Search space of methods that train few parameters, which need larger steps than a whole transformer."""


_NAMED_BY_PEFT: Final = frozenset(
    (
        *("t5", "mt5", "bart", "gpt2", "bloom", "blip-2", "opt", "gptj", "gpt_neox", "gpt_neo", "bert", "roberta"),
        *("xlm-roberta", "electra", "deberta-v2", "deberta", "layoutlm", "llama", "llama4", "chatglm", "gpt_bigcode"),
        *("mpt", "falcon", "codegen", "mistral", "mixtral", "stablelm", "phi", "gemma", "gemma2", "gemma3_text"),
        *("gemma4", "qwen2", "qwen3", "nemotron_h", "rwkv", "rwkv7"),
    )
)
"""Model types whose layers peft 0.21 names; version 1 refused the others where no setting named the layers."""


class PeftMethod(FrozenWeights, FineTuning):
    """Train the parameters that peft adds, and the output layer; the transformer itself stays fixed."""

    search_space: ClassVar[SearchSpace] = RATE_AND_EPOCHS

    share_trained: ClassVar[float] = 0.0

    learning_rate: float = Field(default=3e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def warm_up(self) -> None:
        """Import peft too, which takes seconds."""
        super().warm_up()
        import peft  # noqa: F401

    keeps: ClassVar[tuple[str, ...]] = ()
    """Parts of names of tensors that are saved although they do not train: what a decomposition of the weights found,
    since another machine may find other signs, and what was read from training rows."""

    refused_without_names: ClassVar[bool] = True
    """Whether version 1 refused the model types whose layers peft does not name."""

    def version_on(self, files: BackboneFiles | None, form: Form) -> int:
        """Return a later version where version 1 refused: cells that can now run need another id than its records."""
        version = super().version_on(files, form)
        names_layers = getattr(self, "targets", "attention") != "attention"
        if files is None or names_layers or not self.refused_without_names or files.model_type in _NAMED_BY_PEFT:
            return version
        return max(version, self.version + 1)

    @classmethod
    def later_versions(cls) -> str:
        """Return a line that lists the model types with a later version."""
        named = super().later_versions()
        if not cls.refused_without_names:
            return named
        by_default = " with the default targets" if "targets" in cls.model_fields else ""
        where = f"version {cls.version + 1}{by_default} on model types whose layers peft does not name"
        return f"{named}; {where}" if named else where

    @abstractmethod
    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return the `peft.PeftConfig` of the added parameters.

        If its `target_modules` is None, `default_targets` supplies them.
        """

    def adapt(self, transformer: nn.Module, bench: Surroundings) -> nn.Module:
        """Return the transformer wrapped by peft."""
        from peft import get_peft_model

        with warnings.catch_warnings():  # peft uses a name that transformers deprecates
            warnings.simplefilter("ignore")
            try:
                config = self.peft_config(transformer, bench)
                if getattr(config, "target_modules", ()) is None:
                    config.target_modules = self.default_targets(transformer, str(config.peft_type.value))
                if bench.kind.form == "text":
                    config.task_type = "CAUSAL_LM" if bench.files.architecture == "causal" else "SEQ_2_SEQ_LM"
                wrapped: nn.Module = get_peft_model(transformer, config)
            except (TypeError, ValueError, NotImplementedError) as error:  # a layer or a size that peft cannot adapt
                if isinstance(error, NotImplementedError) and "target modules" not in str(error):
                    raise  # by torch: a plan's modules have no values to read
                raise UnsupportedError(
                    f"peft cannot put '{self.name}' into a {type(transformer).__name__}: "
                    f"{self.in_own_words(str(error)).rstrip('.')}. Try other settings of '{self.name}', or another "
                    "method: lora, bitfit or full."
                ) from None
        return wrapped

    def in_own_words(self, message: str) -> str:
        """Return a message of peft with the names that settings have here; by default, unchanged."""
        return message

    def default_targets(self, transformer: nn.Module, peft_type: str) -> list[str] | str | None:
        """Return the modules to adapt where no setting names them.

        The default is peft's own choice where it knows the architecture, else the layers of queries and values.

        Returns:
            Names of modules, or a pattern of names; None leaves the choice to peft.

        Raises:
            UnsupportedError: peft does not know the architecture, and attention has no such layers.
        """
        from peft.utils import constants

        known: dict[str, Any] = getattr(constants, f"TRANSFORMERS_MODELS_TO_{peft_type}_TARGET_MODULES_MAPPING", {})
        theirs = known.get(model_type_of(transformer))
        if isinstance(theirs, str):
            return None
        names = [name for name, _ in transformer.named_modules()]
        if theirs and any(f".{name}".endswith(f".{end}") for end in theirs for name in names):
            return None
        found = projections(transformer, "qv")
        if not found:
            raise no_projections(self, transformer, "queries and values")
        return found

    def lora_targets(self, transformer: nn.Module) -> list[str] | str:
        """Return the modules that LoRA adapts by default, also where the choice of them is peft's own."""
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

        found = PeftMethod.default_targets(self, transformer, "LORA")
        if found is not None:
            return found
        theirs = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[model_type_of(transformer)]
        return theirs if isinstance(theirs, str) else list(theirs)

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """Yield the parameters that peft added and marked as trained."""
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                yield parameter

    def prepare(self, model: AdaptedModel) -> None:
        """Have the tensors that `keeps` names saved with the trained ones."""
        super().prepare(model)
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if any(part in name for part in self.keeps):
                save_too(value)


def model_type_of(transformer: nn.Module) -> str:
    """Return the name that transformers gives the architecture."""
    return str(getattr(transformer.config, "model_type", ""))


def no_projections(method: PeftMethod, transformer: nn.Module, which: str) -> UnsupportedError:
    """Return the error for attention without linear layers (XLNet, Mamba), with alternatives to try."""
    others = "bitfit, prompt-tuning or full"
    instead = f"targets=all-linear, or {others}" if "targets" in type(method).model_fields else others
    return UnsupportedError(
        f"'{method.name}' adapts the linear layers that make {which} in attention; a {type(transformer).__name__} has "
        f"no such layers. Use {instead}."
    )


class LowRankMethod(PeftMethod):
    """Settings of methods that learn an addition to weight matrices.

    Attributes:
        rank: rank of the addition.
        alpha: scale of the addition, which is multiplied by `alpha / rank`.
        targets: matrices to adapt: `attention` (peft's default for the architecture, mostly queries and values) or
            `all-linear`.
    """

    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "rank": Choice((4, 8, 16))}

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    targets: Literal["attention", "all-linear"] = "attention"

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload; the inputs of each adapted matrix are kept: two matrices, or all (one is wide)."""
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(whole, additions=2.0 if self.targets == "attention" else 9.0)

    def n_added(self, width: int, n_blocks: int) -> float:
        """Return the parameters of two matrices of this rank for each adapted one, as wide as its input."""
        return 2.0 * self.rank * self.workload(1, Budget(), n_blocks).additions * width * n_blocks

    def target_modules(self) -> str | None:
        """Return the targets in peft's form; None leaves the choice to `default_targets`."""
        return "all-linear" if self.targets == "all-linear" else None


class SoftPrompt(PeftMethod):
    """Settings of methods that put virtual tokens before the text; only real tokens are pooled.

    Attributes:
        n_virtual_tokens: number of virtual tokens; they take positions from the text.
    """

    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "epochs": Choice((6.0, 12.0, 24.0)),
        "n_virtual_tokens": Choice((5, 10, 20)),
    }
    refused_without_names: ClassVar[bool] = False

    n_virtual_tokens: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=3e-2, gt=0)
    epochs: float = Field(default=10, gt=0)

    def reserved_tokens(self) -> int:
        """Return the number of virtual tokens."""
        return self.n_virtual_tokens

    def sizes(self, transformer: nn.Module) -> dict[str, Any]:
        """Return the sizes for peft's configuration, since peft reads them from few architectures itself.

        Only the width of the embeddings matters for virtual tokens before the text.
        """
        embedding: Any = transformer.get_input_embeddings()  # type: ignore[operator]
        return {"token_dim": int(embedding.embedding_dim), "num_layers": 1, "num_attention_heads": 1}

    def initialise(self, model: AdaptedModel, rows: Rows, bench: Bench) -> None:
        """Refuse a transformer that cannot read virtual tokens, before anything is trained."""
        import torch

        from harness.training import Stack

        soft: Any = model.transformer
        there = bench.device.torch_device()
        # peft would copy them to the device in each step.
        soft.prompt_tokens = {name: tokens.to(there) for name, tokens in soft.prompt_tokens.items()}
        stack = Stack(model.transformer)
        decodes = bench.kind.form == "text" and bench.files.architecture == "sequence-to-sequence"
        training = model.training
        try:
            with torch.no_grad():
                model.eval().transformer(**stack.short_text(decodes=decodes))
        except (TypeError, ValueError, IndexError, AttributeError, AssertionError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise UnsupportedError(
                f"A {type(stack.module).__name__} cannot read the virtual tokens of '{self.name}': {error}. Use lora, "
                "bitfit or full."
            ) from None
        finally:
            model.train(training)
