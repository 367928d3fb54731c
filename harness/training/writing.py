"""Generate text with a language model, with the task's settings and not those of the backbone's files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from harness.features import TokenIds, lengths_of, pad
from harness.measure import Device, Precision, show_progress
from harness.tasks import Ints, Reply
from harness.training.blocks import transformers_model
from harness.training.generative import GenerativeModel, decoder_start_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERATE_ROWS = {"cpu": 16, "cuda": 64}
"""Rows of a batch when writing: each keeps its keys and values."""


def write(
    model: GenerativeModel,
    prompts: Sequence[TokenIds],
    tokenizer: PreTrainedTokenizerBase,
    reply: Reply,
    device: Device,
    precision: Precision,
) -> tuple[list[str], int]:
    """Return the model's answer to each prompt, and the number of answers that were cut off.

    `transformers` generates, with the settings of `decoding` alone. Prompts of like length are batched, padded on the
    left (causal) or the right (sequence to sequence).

    Raises:
        FloatingPointError: a score of a token is not a number; generation would take the first of the vocabulary.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    there = device.torch_device()
    pad_id = int(tokenizer.pad_token_id)
    order: Ints = np.argsort(lengths_of(prompts), kind="stable")
    answers = [""] * len(prompts)
    n_cut = 0
    transformer: Any = model.transformer
    ends = _ends(model, tokenizer)
    options: dict[str, Any] = {"generation_config": decoding(model, tokenizer, reply)}
    _forget_settings(transformer)
    model.eval()
    is_broken = torch.zeros((), dtype=torch.bool, device=there)

    def watch(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        is_broken.logical_or_(scores.isnan().any())  # read at the end: each reading would wait for the accelerator
        return scores

    options["logits_processor"] = LogitsProcessorList([watch])
    autocast = torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.no_grad(), autocast, warnings.catch_warnings(), _showing_progress(transformer):
        warnings.simplefilter("ignore")  # of transformers, about lengths
        for at in range(0, len(order), GENERATE_ROWS[device.kind]):
            members = order[at : at + GENERATE_ROWS[device.kind]]
            rows = [prompts[row] for row in members]
            ids, mask = pad(rows, pad_id, left=model.is_causal)
            if reply.stop:
                n_given = ids.shape[1] if model.is_causal else 1
                options["stopping_criteria"] = StoppingCriteriaList([_ends_at(reply.stop, tokenizer, n_given)])
            written = transformer.generate(
                input_ids=torch.from_numpy(ids).to(there), attention_mask=torch.from_numpy(mask).to(there), **options
            )
            new = written[:, ids.shape[1] if model.is_causal else 1 :].cpu().numpy()
            for member, tokens in zip(members, new, strict=True):
                ended = bool(np.isin(tokens, ends).any())
                text, stopped = _until(str(tokenizer.decode(tokens, skip_special_tokens=True)), reply.stop)
                answers[member] = text.strip()
                n_cut += not ended and not stopped and len(tokens) >= reply.max_new_tokens
    if bool(is_broken):
        raise FloatingPointError("The language model gives scores that are not a number.")
    return answers, n_cut


def decoding(model: GenerativeModel, tokenizer: PreTrainedTokenizerBase, reply: Reply) -> Any:
    """Return the settings of generation: the task's, and ids of special tokens; the backbone's others are ignored.

    Args:
        model: of either kind.
        tokenizer: its end of text ends an answer; its padding fills batches.
        reply: the task's settings.
    """
    from transformers import GenerationConfig

    start = {} if model.is_causal else {"decoder_start_token_id": decoder_start_id(model.transformer)}
    return GenerationConfig(
        max_new_tokens=reply.max_new_tokens,
        num_beams=reply.num_beams,
        do_sample=False,
        use_cache=True,
        pad_token_id=int(tokenizer.pad_token_id),
        eos_token_id=_ends(model, tokenizer) or None,
        **start,
    )


def _ends(model: GenerativeModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's, else those of `config.json`; none if neither says."""
    stated = tokenizer.eos_token_id
    if stated is None:
        stated = getattr(transformers_model(model.transformer).config, "eos_token_id", None)
    return [] if stated is None else [int(token) for token in np.atleast_1d(stated)]


def _forget_settings(transformer: Any) -> None:
    """Drop the settings that came with a model: `generate` would fill in those that the given ones leave open."""
    from transformers import GenerationConfig

    for part in (transformer, transformers_model(transformer)):  # peft keeps settings of its own
        part.generation_config = GenerationConfig()


@contextlib.contextmanager
def _showing_progress(module: nn.Module) -> Iterator[None]:
    """Show progress with each forward pass, since a batch of long texts takes hundreds."""
    hook = module.register_forward_hook(lambda *_: show_progress())
    try:
        yield
    finally:
        hook.remove()


def _ends_at(stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, n_given: int) -> Any:
    """Return a criterion that marks the rows whose answer contains a stop text.

    It decodes what is written: `transformers`' own criterion works on vocabularies, and fails on some tokenizers.

    Args:
        stops: texts.
        tokenizer: decodes.
        n_given: tokens of each row that the model has not written.
    """

    def criterion(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        texts = tokenizer.batch_decode(ids[:, n_given:], skip_special_tokens=True)
        ended = [any(stop in text for stop in stops) for text in texts]
        return torch.tensor(ended, dtype=torch.bool, device=ids.device)

    return criterion


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first of the stops, and whether there was one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
