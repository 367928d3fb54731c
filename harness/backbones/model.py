"""A loaded backbone: a pristine copy of its weights that is never trained, its tokenizer, and its pooling."""

from __future__ import annotations

import contextlib
import copy
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.backbones.locate import BackboneFiles, Pooling
from harness.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Backbone:
    """A backbone in memory, shared by all cells of a worker: methods train copies of it, never itself.

    Attributes:
        files: what it was loaded from.
        pristine: the transformer without any task head, float32, on the CPU, in evaluation mode; frozen. Of a
            sequence-to-sequence backbone it is the encoder's stack alone: pooled features and fine-tuning for
            classification read the encoder, and the decoder is only in `language_model`.
        tokenizer: its tokenizer.
        hidden_size: width of a hidden state.
        load_seconds: seconds that reading it took.
    """

    files: BackboneFiles
    pristine: nn.Module
    tokenizer: Any
    hidden_size: int
    load_seconds: float

    @property
    def max_length(self) -> int:
        """Longest input in tokens that the positions allow; where any would do (T5), what the tokenizer says or 512."""
        config: Any = self.pristine.config
        positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            positions -= 2  # RoBERTa's positions start behind the padding index
        limits = [limit for limit in (positions, int(self.tokenizer.model_max_length)) if 0 < limit < 10**6]
        return min(limits, default=512)

    @property
    def reads_segments(self) -> bool:
        """Whether it tells the two texts of a pair apart by a type of their tokens, as BERT does."""
        n_types = int(getattr(self.pristine.config, "type_vocab_size", 0) or 0)
        return n_types > 1 and "token_type_ids" in self.tokenizer.model_input_names

    def resident(self, device: torch.device) -> nn.Module:
        """The frozen transformer on `device`, kept there: what features are encoded with."""
        return self.pristine if device.type == "cpu" else _resident(self, device)

    def fresh(self, device: torch.device) -> nn.Module:
        """A copy of the pretrained weights to adapt: float32, on `device`, all parameters requiring gradients."""
        model = copy.deepcopy(self.pristine).to(device)
        return _to_adapt(model)

    def random(self, device: torch.device) -> nn.Module:
        """The same architecture with random weights from torch's generator, to train: float32, on `device`."""
        import torch
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(self.files.folder, trust_remote_code=False)
        model = AutoModel.from_config(config, dtype=torch.float32)  # whatever type the files were saved in
        return _to_adapt(_without_extras(model, self.files)).to(device)

    def fresh_language_model(self, device: torch.device) -> nn.Module:
        """A copy of the pretrained language model to adapt: float32, on `device`, all parameters requiring gradients.

        Raises:
            UsageError: as `language_model`.
        """
        import torch

        return _to_adapt(copy.deepcopy(self.language_model(torch.device("cpu")).model).to(device))

    def random_language_model(self, device: torch.device) -> nn.Module:
        """The same architecture with random weights from torch's generator, to train: float32, on `device`."""
        import torch
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.files.folder, trust_remote_code=False)
        model: nn.Module = _language_model_class(self.files).from_config(config, dtype=torch.float32)
        return _to_adapt(model).to(device)

    def language_model(self, device: torch.device) -> LanguageModel:
        """The same files with their language-modelling head, on `device`; read once per process and device.

        Raises:
            UsageError: the backbone is an encoder, or its files hold no such head.
        """
        return _language_model(self, device)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A backbone that gives probabilities of tokens; shared by all cells of a worker, never trained.

    Attributes:
        model: called with token ids, gives `logits`; float32, in evaluation mode, frozen. A causal one's transformer
            is the backbone's own (`Backbone.resident`), so that only the head takes further memory.
        load_seconds: seconds that reading it took; a method that uses it charges them to its "load" phase.
    """

    model: nn.Module
    load_seconds: float


def _to_adapt(model: nn.Module) -> nn.Module:
    config: Any = model.config
    if getattr(config, "use_cache", False):
        config.use_cache = False  # keys and values that nobody will read again
    return model.requires_grad_(True)


def _without_extras(model: Any, files: BackboneFiles) -> nn.Module:
    """The part that the protocol's one head reads: no next-sentence pooler, no decoder behind an encoder."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    stack: nn.Module = model.get_encoder() if files.architecture == "sequence-to-sequence" else model
    return stack


@functools.cache
def _resident(backbone: Backbone, device: torch.device) -> nn.Module:
    return copy.deepcopy(backbone.pristine).to(device)


def _language_model_class(files: BackboneFiles) -> Any:
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
    with contextlib.suppress(ValueError, TypeError), torch.device("meta"):
        build.from_config(backbone.pristine.config)  # importing its module is no cell's cost
    started = time.perf_counter()
    try:
        if files.has_weights:
            model, loading = build.from_pretrained(
                files.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        else:
            model, loading = build.from_config(backbone.pristine.config, dtype=torch.float32), {"missing_keys": ()}
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"Backbone '{files.name}' could not be loaded as a language model: {first}") from error
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        raise UsageError(
            f"Backbone '{files.name}' has no weights for {', '.join(sorted(loading['missing_keys'])[:3])}: its files "
            "were saved without the language-modelling head. Expected them as save_pretrained of the whole model."
        )
    if files.architecture == "causal":
        _share_transformer(model, backbone.resident(device))
    model = model.eval().requires_grad_(False).to(device)
    return LanguageModel(model, time.perf_counter() - started)


def _share_transformer(model: Any, transformer: nn.Module) -> None:
    """Have a language model use `transformer`, which has the same weights, in place of its own."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    setattr(model, model.base_model_prefix, transformer)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight


@functools.cache
def load_backbone(files: BackboneFiles) -> Backbone:
    """Load a backbone with transformers; once per process.

    Raises:
        UsageError: transformers cannot build it, or it has no fast tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    _import_architecture(files)
    started = time.perf_counter()
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
        if files.has_weights:
            model = AutoModel.from_pretrained(
                files.folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        else:  # to find out what cells cost, which does not depend on the values of weights
            model = AutoModel.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"Backbone '{files.name}' ({files.origin}) could not be loaded by transformers: {first}"
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(f"Backbone '{files.name}' has no tokenizer.json; expected a fast tokenizer.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # decoders often have none; padding is masked everywhere
    model = _without_extras(model, files)
    model.eval().requires_grad_(False)
    return Backbone(
        files=files,
        pristine=model,
        tokenizer=tokenizer,
        hidden_size=int(config.hidden_size),
        load_seconds=time.perf_counter() - started,
    )


def _import_architecture(files: BackboneFiles) -> None:
    """Have transformers import the model's and the tokenizer's modules: importing a library is no cell's cost."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    with contextlib.suppress(OSError, ValueError, KeyError, ImportError, TypeError), torch.device("meta"):
        AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
        AutoModel.from_config(AutoConfig.from_pretrained(files.folder, trust_remote_code=False))


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One float32 vector per row from the hidden states of its real tokens.

    Args:
        hidden: last hidden states, shape (rows, length, width).
        mask: 1 for real tokens and 0 for padding, shape (rows, length).
        pooling: which tokens are read.

    Returns:
        Shape (rows, width).
    """
    states = hidden.float()  # sums over tokens are made in full precision, whatever the transformer ran in
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    if pooling == "cls":
        first = mask.argmax(1)  # the first real token, wherever the padding is
        return states[_row_index(states), first]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return states[_row_index(states), last]


def _row_index(states: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(states.shape[0], device=states.device)
