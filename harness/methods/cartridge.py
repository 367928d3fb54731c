"""Cartridges: a trained cache of keys and values that starts from training texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from harness.backbones import Architecture
from harness.methods.base import method
from harness.methods.bench import Bench
from harness.methods.prefix_tuning import PrefixTuning
from harness.support import UnsupportedError
from harness.tasks import Rows

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings
    from harness.training import AdaptedModel


@method
class Cartridge(PrefixTuning):
    """Learn keys and values that every block attends to, which start as those of training texts.

    The first n tokens of the training texts, read in one sequence, give the keys and values P of each block. The first
    token stays as it is; the others train:

        attention = softmax(q [P_k; K]^T / sqrt(d)) [P_v; V]
    """

    name = "cartridge"
    trains = "a cache of keys and values, and the output layer"
    source = "Eyuboglu et al., 2025, arXiv:2506.06266; peft"
    serves: ClassVar[frozenset[Architecture]] = frozenset({"causal"})

    keeps: ClassVar[tuple[str, ...]] = ("frozen_embedding",)

    n_virtual_tokens: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)

    def check(self, transformer: nn.Module) -> None:
        """Refuse a cache that is as long as a sliding window, which would cut it."""
        super().check(transformer)
        window = getattr(transformer.config, "sliding_window", None)
        if window is not None and self.n_virtual_tokens >= window:
            raise UnsupportedError(
                f"'{self.name}' was given n_virtual_tokens={self.n_virtual_tokens}; blocks of this "
                f"{type(transformer).__name__} keep a sliding window of {window}. Use fewer than {window}."
            )

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of a cartridge with one frozen token."""
        from peft import CartridgeConfig

        sizes = self.sizes(transformer)
        return CartridgeConfig(
            task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.n_virtual_tokens, num_frozen_tokens=1, **sizes
        )

    def initialise(self, model: AdaptedModel, rows: Rows, bench: Bench) -> None:
        """Set the cache to that of the first tokens of the training texts, read by the pretrained model.

        Raises:
            UnsupportedError: the training texts have fewer tokens than the cache.
        """
        import torch
        from peft import initialize_kv_prefix_from_past_key_values

        super().initialise(model, rows, bench)
        with bench.working("fit"), torch.no_grad():
            ids = [token for row in bench.token_rows(rows, "encode") for token in row][: self.n_virtual_tokens]
            if len(ids) < self.n_virtual_tokens:
                raise UnsupportedError(
                    f"'{self.name}' starts from {self.n_virtual_tokens} tokens of the training texts, which have "
                    f"{len(ids)}. Set n_virtual_tokens lower, or use prefix-tuning."
                )
            wrapped: Any = model.transformer
            read = torch.tensor([ids], device=bench.device.torch_device())
            training = model.training
            model.eval()  # without dropout
            cache = wrapped.get_base_model()(input_ids=read, use_cache=True).past_key_values
            model.train(training)
            initialize_kv_prefix_from_past_key_values(wrapped, past_key_values=cache)
