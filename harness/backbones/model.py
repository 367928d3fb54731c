"""A loaded backbone: a pristine copy of its weights that is never trained, its tokenizer, and its pooling."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.backbones.architecture import is_encoder_alone
from harness.backbones.decoding import GENERATION, START, settings_in
from harness.backbones.headers import read_headers
from harness.backbones.kept import KeptBackbones
from harness.backbones.layout import read_object
from harness.backbones.loading import check_behaviour, check_finite, load_weights, longest_input, read_config, skeleton
from harness.backbones.locate import BackboneFiles
from harness.backbones.tokenizer import check_tokens, read_tokenizer
from harness.support import HarnessError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.backbones.weights import Form

Weights = Literal["auto", "float32", "bfloat16"]
"""Storage of frozen weights.

`auto` stores matrices in bfloat16 where products are in bfloat16, and a vocabulary as its file does; `float32` rounds
nothing; `bfloat16` rounds the vocabulary too.
"""

_NO_LIMIT = 10**6
"""Minimum stated limit that means no limit."""

_ALWAYS_POOLED: Final = frozenset({"squeezebert", "layoutlm"})
"""Model types that call their pooler without checking that they have one."""


ALIKE: Final = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2"),
        *("gpt2", "gpt_neox", "opt", "bloom", "falcon"),
        *("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "modernbert"),
    )
)
"""Model types with identical blocks, so that a few blocks show the modules that can be adapted."""

_SHOWN: Final = 3
"""Number of blocks to build of such a model; the first of a ModernBERT lacks a norm."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A backbone in memory, shared by all cells of a worker; methods train only copies of it.

    Attributes:
        files: its files.
        pristine: the transformer without any task head, on the CPU, in evaluation mode; frozen. Its weights are stored
            as in the file (`weights`): float32, or matrices and vocabulary in bfloat16. For a sequence-to-sequence
            backbone it is the encoder's stack alone: pooled features and fine-tuning for classification read the
            encoder, and the decoder is only in `language_model`.
        tokenizer: its tokenizer.
        hidden_size: width of a hidden state.
        load_seconds: seconds to load it.
        language_models: its language model on the host, once it was read.
        seen: state of the shared weights at the first `check_untouched`.
    """

    files: BackboneFiles
    pristine: nn.Module
    tokenizer: Any
    hidden_size: int
    load_seconds: float
    language_models: list[nn.Module] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that positions and tokenizer allow; 512 if neither states a limit."""
        stated = (longest_input(self.pristine), int(self.tokenizer.model_max_length))
        return min((limit for limit in stated if limit is not None and 0 < limit < _NO_LIMIT), default=512)

    @property
    def pad_id(self) -> int:
        """Token id that pads a text."""
        return int(self.tokenizer.pad_token_id)

    @property
    def reads_segments(self) -> bool:
        """Whether it marks the two texts of a pair by token types, as BERT does."""
        n_types = int(getattr(self.pristine.config, "type_vocab_size", 0) or 0)
        return n_types > 1 and "token_type_ids" in self.tokenizer.model_input_names

    @property
    def is_bfloat16(self) -> bool:
        """Whether its file holds bfloat16 matrices; they are kept so."""
        return _is_bfloat16(self.files)

    @property
    def n_host_bytes(self) -> int:
        """Bytes of its weights on the host; what the transformer and a language model share counts once."""
        held = {p.data_ptr(): p.nbytes for model in (self.pristine, *self.language_models) for p in model.parameters()}
        return sum(held.values())

    def form(self, precision: Literal["fp32", "bf16"], weights: Weights = "auto", *, exact: bool = False) -> Form:
        """Return how frozen weights are stored where they are used.

        Args:
            precision: precision of the forward pass.
            weights: the user's choice.
            exact: whether matrices are used otherwise than in products, so that none may be rounded.

        Raises:
            UnsupportedError: bfloat16 weights are asked for where the forward pass is in float32.
        """
        if weights == "bfloat16" and precision == "fp32":
            raise UnsupportedError(
                "weights=bfloat16 stores rounded weights, and this device computes in float32. Use weights=auto, or "
                "precision=bf16."
            )
        if precision == "fp32" or weights == "float32" or (exact and not self.is_bfloat16):
            return "float32"
        return "bfloat16 with embeddings" if weights == "bfloat16" or self.is_bfloat16 else "bfloat16"

    def resident(
        self, device: torch.device, precision: Literal["fp32", "bf16"] = "fp32", weights: Weights = "auto"
    ) -> nn.Module:
        """Return the frozen transformer on `device` as it computes, in evaluation mode; never to be changed.

        It is made the first time, stays for later cells, and gives way to another backbone or form. Memory that it
        takes is put aside from all meters (`support.put_aside`).

        Args:
            device: where it runs.
            precision: precision of the forward pass.
            weights: storage.
        """
        from harness.backbones.residency import resident

        return resident(self, self.pristine, device, self.form(precision, weights))

    def shared(
        self,
        device: torch.device,
        precision: Literal["fp32", "bf16"],
        weights: Weights = "auto",
        *,
        exact: bool = False,
    ) -> nn.Module:
        """Return a copy to adapt whose modules are its own, and whose frozen parameters are those of `resident`.

        `residency.make_masters` gives parameters that will train their own float32 values.

        Args:
            device: where it runs.
            precision: precision of the forward pass.
            weights: storage.
            exact: as in `form`.
        """
        from harness.backbones.residency import resident, shared_copy

        frozen = resident(self, self.pristine, device, self.form(precision, weights, exact=exact))
        return _without_cache(shared_copy(frozen, device))

    def stored(self) -> nn.Module:
        """Return a copy to adapt on the host, whose frozen parameters are those of `pristine`, as stored."""
        import torch

        from harness.backbones.residency import shared_copy

        return _without_cache(shared_copy(self.pristine, torch.device("cpu")))

    def frozen_bytes(self, precision: Literal["fp32", "bf16"], weights: Weights = "auto") -> int:
        """Return the bytes of the resident transformer's weights and buffers, from their shapes."""
        from harness.backbones.weights import types_in

        types = types_in(self.pristine, self.form(precision, weights))
        weights_bytes = sum(value.numel() * types[id(value)].itemsize for value in self.pristine.parameters())
        return weights_bytes + sum(value.nbytes for value in self.pristine.buffers())

    def fresh(self, device: torch.device) -> nn.Module:
        """Return a copy of the pretrained weights to train: float32, on `device`, all requiring gradients."""
        from harness.backbones.residency import trainable_copy

        return _to_adapt(trainable_copy(self, self.pristine, device))

    def check_untouched(self) -> None:
        """Check that nothing has written to the weights that cells share.

        Raises:
            HarnessError: something has; the process must not run another cell with them.
        """
        from harness.backbones.residency import was_written_to

        if was_written_to(self):
            raise HarnessError(
                f"A method wrote to the shared weights of backbone '{self.files.name}', which later cells would read. "
                "Methods may change only parameters that `select_trainable` yields."
            )

    def random(self, device: torch.device) -> nn.Module:
        """Return the same architecture with random weights from torch's generator, to train: float32, on `device`."""
        import torch

        model = model_class(self.files).from_config(read_config(self.files), dtype=torch.float32)
        return _to_adapt(_without_extras(model, self.files)).to(device)

    def fresh_language_model(self, device: torch.device) -> nn.Module:
        """Return a copy of the pretrained language model to train, as `fresh` does.

        Raises:
            UsageError: as `language_model`.
        """
        from harness.backbones.language import host_language_model
        from harness.backbones.residency import trainable_copy

        return _to_adapt(trainable_copy(self, host_language_model(self).model, device))

    def shared_language_model(
        self,
        device: torch.device,
        precision: Literal["fp32", "bf16"],
        weights: Weights = "auto",
        *,
        exact: bool = False,
    ) -> nn.Module:
        """Return a copy of the language model to adapt, as `shared` does.

        Raises:
            UsageError: as `language_model`.
        """
        from harness.backbones.language import host_language_model
        from harness.backbones.residency import resident, shared_copy

        host = host_language_model(self).model
        frozen = resident(self, host, device, self.form(precision, weights, exact=exact))
        return _without_cache(shared_copy(frozen, device))

    def stored_language_model(self) -> nn.Module:
        """Return a copy of the language model to adapt on the host, as `stored` does.

        Raises:
            UsageError: as `language_model`.
        """
        import torch

        from harness.backbones.language import host_language_model
        from harness.backbones.residency import shared_copy

        return _without_cache(shared_copy(host_language_model(self).model, torch.device("cpu")))

    def random_language_model(self, device: torch.device) -> nn.Module:
        """Return the same language model with random weights, as `random` does."""
        import torch

        config = whole_config(self.files)
        model: nn.Module = language_model_class(self.files).from_config(config, dtype=torch.float32)
        return _to_adapt(model).to(device)

    def language_model(
        self, device: torch.device, precision: Literal["fp32", "bf16"] = "fp32", weights: Weights = "auto"
    ) -> LanguageModel:
        """Return the same files with their language-modelling head, on `device`, as `resident` does.

        A causal model shares the resident transformer, and only its head is read from the files.

        Raises:
            UsageError: the backbone is an encoder, or its files hold no such head.
        """
        from harness.backbones.language import language_model

        return language_model(self, device, self.form(precision, weights))


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A backbone that gives probabilities of tokens; shared by all cells of a worker, never trained.

    Attributes:
        model: returns `logits` for token ids; in evaluation mode, frozen. A causal model shares the backbone's
            transformer (`Backbone.resident`), so only the head needs more memory.
        load_seconds: seconds to load it; a method that uses it charges them to its "load" phase.
    """

    model: nn.Module
    load_seconds: float


def _to_adapt(model: nn.Module) -> nn.Module:
    return _without_cache(model).requires_grad_(True)


def _without_cache(model: nn.Module) -> nn.Module:
    config: Any = model.config
    if getattr(config, "use_cache", False):
        config.use_cache = False  # keys and values are not reused
    return model


def _without_extras(model: Any, files: BackboneFiles) -> nn.Module:
    """Return the part that the protocol's one head reads: no next-sentence pooler, no decoder behind an encoder."""
    from torch import nn

    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity() if files.model_type in _ALWAYS_POOLED else None
    stack: nn.Module = model.get_encoder() if _has_two_stacks(files) else model
    return stack


def _has_two_stacks(files: BackboneFiles) -> bool:
    return files.architecture == "sequence-to-sequence" or is_encoder_alone(_stated(files))


def _stated(files: BackboneFiles) -> dict[str, Any]:
    return read_object(files.folder / "config.json", files.name)


def model_class(files: BackboneFiles) -> Any:
    """Return transformers' class for the backbone without a language-modelling head."""
    from transformers import AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if is_encoder_alone(_stated(files)) else AutoModel


@functools.cache
def _is_bfloat16(files: BackboneFiles) -> bool:
    if files.has_weights:
        return read_headers(files.folder, files.name).are_bfloat16
    stated = _stated(files)
    return stated.get("dtype", stated.get("torch_dtype")) == "bfloat16"


def language_model_class(files: BackboneFiles) -> Any:
    """Return transformers' class for the backbone with its language-modelling head.

    Raises:
        UsageError: the backbone is an encoder.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if files.architecture == "encoder":
        raise UsageError(
            f"Backbone '{files.name}' is an encoder, which has no language-modelling head; expected a causal or "
            "sequence-to-sequence one."
        )
    return AutoModelForCausalLM if files.architecture == "causal" else AutoModelForSeq2SeqLM


def whole_config(files: BackboneFiles) -> Any:
    """Return the configuration, with the first token of answers from generation_config.json if only that states it."""
    config = read_config(files)
    path = files.folder / GENERATION
    if getattr(config, START, None) is None and files.architecture == "sequence-to-sequence" and path.is_file():
        setattr(config, START, settings_in(path, files.name).get(START))
    return config


@functools.cache
def read_without_weights(files: BackboneFiles) -> Backbone:
    """Return a backbone without weights, which can tokenize and states its limits.

    Raises:
        UsageError: transformers cannot build it, or its tokenizer is missing, slow or another model's.
    """
    started = time.perf_counter()
    files.require_tokenizer()
    model = skeleton(model_class(files), read_config(files), files)
    return Backbone(files, model, read_tokenizer(files), 0, time.perf_counter() - started)


def without_values(build: Any, config: Any, files: BackboneFiles) -> nn.Module:
    """Return a model with random weights, stored as those of the files would be; for measuring costs."""
    import torch

    from harness.backbones.weights import store_bfloat16

    if not _is_bfloat16(files):
        made: nn.Module = build.from_config(config, dtype=torch.float32)
        return made
    return store_bfloat16(build.from_config(config, dtype=torch.bfloat16))


def _drop(backbone: Backbone) -> None:
    """Free the resident weights of a backbone, which imports torch."""
    from harness.backbones.residency import drop_backbone

    drop_backbone(backbone)


def _load(files: BackboneFiles) -> Backbone:
    """Load a backbone with transformers; it stays loaded while there is room (`KeptBackbones`).

    Raises:
        UsageError: transformers cannot build it; its weights are not those of its architecture; or its tokenizer is
            missing, slow, or another model's.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    files.require_tokenizer()
    build, config = model_class(files), read_config(files)
    skeleton(build, config, files)  # importing a library is not charged to a cell
    read_tokenizer(files)
    started = time.perf_counter()
    tokenizer = read_tokenizer(files)
    if files.has_weights:
        model = load_weights(build, config, files, lambda whole: _without_extras(whole, files))
    else:  # for measuring costs, which do not depend on the values of weights
        model = without_values(build, config, files)
    model = _without_extras(model, files).eval().requires_grad_(False)
    seconds = time.perf_counter() - started
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    n_rows = int(embeddings.weight.shape[0])
    check_tokens(tokenizer, n_rows, files)
    width = getattr(config.get_text_config(), "hidden_size", None)
    if files.has_weights:
        check_finite(model, files)
        width = check_behaviour(model, files, n_rows)
    if not isinstance(width, int):
        raise UsageError(
            f"Backbone '{files.name}': config.json states no hidden_size; expected the width of its states."
        )
    return Backbone(files=files, pristine=model, tokenizer=tokenizer, hidden_size=width, load_seconds=seconds)


load_backbone = KeptBackbones(_load, _drop)


@functools.lru_cache(maxsize=4)
def outline_backbone(files: BackboneFiles, *, language_model: bool, whole: bool = False) -> nn.Module | None:
    """Return the modules that a backbone's config.json describes, with parameters without values.

    A model whose blocks are all alike is returned with its first three, unless the whole is asked for.

    Args:
        files: the backbone's files; its weights are not read.
        language_model: whether it has the head, and the decoder; otherwise it is the part that gives pooled features.
        whole: whether all blocks are needed.

    Returns:
        A transformers model on torch's meta device, to be copied before it is changed; None if transformers cannot
        build it there.
    """
    try:
        config = read_config(files)
        if files.model_type in ALIKE and not whole:
            shorten(config)
        if language_model:
            return skeleton(language_model_class(files), config, files)
        return _without_extras(skeleton(model_class(files), config, files), files)
    except Exception:  # noqa: BLE001 - some architectures compute with numbers as they are built; loading tells more
        return None


def shorten(config: Any) -> None:
    """Remove all but the first few blocks from a configuration."""
    if config.num_hidden_layers > _SHOWN:
        config.num_hidden_layers = _SHOWN
        if isinstance(getattr(config, "layer_types", None), list):
            config.layer_types = config.layer_types[:_SHOWN]
