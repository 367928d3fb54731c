"""A loaded backbone: a pristine copy of its weights that is never trained, its tokenizer, and its pooling."""

from __future__ import annotations

import copy
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.backbones.architecture import is_encoder_alone
from harness.backbones.decoding import GENERATION, START, settings_in
from harness.backbones.layout import read_object
from harness.backbones.loading import check_behaviour, check_finite, load_weights, longest_input, read_config, skeleton
from harness.backbones.locate import BackboneFiles
from harness.backbones.tokenizer import check_tokens, read_tokenizer
from harness.support import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

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
        pristine: the transformer without any task head, float32, on the CPU, in evaluation mode; frozen. For a
            sequence-to-sequence backbone it is the encoder's stack alone: pooled features and fine-tuning for
            classification read the encoder, and the decoder is only in `language_model`.
        tokenizer: its tokenizer.
        hidden_size: width of a hidden state.
        load_seconds: seconds to load it.
    """

    files: BackboneFiles
    pristine: nn.Module
    tokenizer: Any
    hidden_size: int
    load_seconds: float

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

    def resident(self, device: torch.device) -> nn.Module:
        """Return the frozen transformer on `device`, where it stays, for encoding features."""
        return self.pristine if device.type == "cpu" else _resident(self, device)

    def fresh(self, device: torch.device) -> nn.Module:
        """Return a copy of the pretrained weights to adapt: float32, on `device`, all requiring gradients."""
        model = copy.deepcopy(self.pristine).to(device)
        return _to_adapt(model)

    def random(self, device: torch.device) -> nn.Module:
        """Return the same architecture with random weights from torch's generator, to train: float32, on `device`."""
        import torch

        model = model_class(self.files).from_config(read_config(self.files), dtype=torch.float32)
        return _to_adapt(_without_extras(model, self.files)).to(device)

    def fresh_language_model(self, device: torch.device) -> nn.Module:
        """Return a copy of the pretrained language model to adapt, as `fresh` does.

        Raises:
            UsageError: as `language_model`.
        """
        import torch

        return _to_adapt(copy.deepcopy(self.language_model(torch.device("cpu")).model).to(device))

    def random_language_model(self, device: torch.device) -> nn.Module:
        """Return the same language model with random weights, as `random` does."""
        import torch

        config = _whole_config(self.files)
        model: nn.Module = _language_model_class(self.files).from_config(config, dtype=torch.float32)
        return _to_adapt(model).to(device)

    def language_model(self, device: torch.device) -> LanguageModel:
        """Return the same files with their language-modelling head, on `device`; read once per process and device.

        Raises:
            UsageError: the backbone is an encoder, or its files hold no such head.
        """
        return _language_model(self, device)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A backbone that gives probabilities of tokens; shared by all cells of a worker, never trained.

    Attributes:
        model: returns `logits` for token ids; float32, in evaluation mode, frozen. A causal model shares the backbone's
            transformer (`Backbone.resident`), so only the head needs more memory.
        load_seconds: seconds to load it; a method that uses it charges them to its "load" phase.
    """

    model: nn.Module
    load_seconds: float


def _to_adapt(model: nn.Module) -> nn.Module:
    config: Any = model.config
    if getattr(config, "use_cache", False):
        config.use_cache = False  # keys and values are not reused
    return model.requires_grad_(True)


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
def _resident(backbone: Backbone, device: torch.device) -> nn.Module:
    return copy.deepcopy(backbone.pristine).to(device)


def _language_model_class(files: BackboneFiles) -> Any:
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


@functools.cache
def _language_model(backbone: Backbone, device: torch.device) -> LanguageModel:
    import torch

    files = backbone.files
    build = _language_model_class(files)
    config = backbone.pristine.config
    if files.architecture == "sequence-to-sequence":
        config = _whole_config(files)  # an encoder's own configuration says that it is one
    skeleton(build, config, files)  # importing its module is not charged to a cell
    started = time.perf_counter()
    if files.has_weights:
        model = load_weights(build, config, files, lambda whole: whole)
    else:
        model = build.from_config(config, dtype=torch.float32)
    checking = time.perf_counter()
    check_finite(model, files)
    started += time.perf_counter() - checking  # checks are not charged to a cell
    if files.architecture == "causal":
        _share_transformer(model, backbone.resident(device))
    model = model.eval().requires_grad_(False).to(device)
    return LanguageModel(model, time.perf_counter() - started)


def _whole_config(files: BackboneFiles) -> Any:
    """Return the configuration, with the first token of answers from generation_config.json if only that states it."""
    config = read_config(files)
    path = files.folder / GENERATION
    if getattr(config, START, None) is None and files.architecture == "sequence-to-sequence" and path.is_file():
        setattr(config, START, settings_in(path, files.name).get(START))
    return config


def _share_transformer(model: Any, transformer: nn.Module) -> None:
    """Replace a language model's transformer by `transformer`, which has the same weights."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    setattr(model, model.base_model_prefix, transformer)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight


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


@functools.cache
def load_backbone(files: BackboneFiles) -> Backbone:
    """Load a backbone with transformers; once per process.

    Raises:
        UsageError: transformers cannot build it; its weights are not those of its architecture; or its tokenizer is
            missing, slow, or another model's.
    """
    import torch
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
        model = build.from_config(config, dtype=torch.float32)
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


@functools.lru_cache(maxsize=4)
def outline_backbone(files: BackboneFiles, *, language_model: bool) -> nn.Module | None:
    """Return the modules that a backbone's config.json describes, with parameters without values.

    A model whose blocks are all alike is returned with its first three.

    Args:
        files: the backbone's files; its weights are not read.
        language_model: whether it has the head, and the decoder; otherwise it is the part that gives pooled features.

    Returns:
        A transformers model on torch's meta device, to be copied before it is changed; None if transformers cannot
        build it there.
    """
    try:
        config = read_config(files)
        if files.model_type in ALIKE:
            shorten(config)
        if language_model:
            return skeleton(_language_model_class(files), config, files)
        return _without_extras(skeleton(model_class(files), config, files), files)
    except Exception:  # noqa: BLE001 - some architectures compute with numbers as they are built; loading tells more
        return None


def shorten(config: Any) -> None:
    """Remove all but the first few blocks from a configuration."""
    if config.num_hidden_layers > _SHOWN:
        config.num_hidden_layers = _SHOWN
        if isinstance(getattr(config, "layer_types", None), list):
            config.layer_types = config.layer_types[:_SHOWN]
