"""Generate text with a language model, with the task's settings and not those of the backbone's files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from harness.features import TokenIds, lengths_of, pad
from harness.measure import BatchLimit, Device, Precision, show_progress
from harness.support import UnsupportedError
from harness.tasks import Ints, Reply
from harness.training.blocks import transformers_model
from harness.training.generative import GenerativeModel, decoder_start_id
from harness.training.shared_keys import (
    Past,
    continuing_cache,
    count_kept_layers,
    grouped_heads,
    kept_keys,
    left_padded,
    roomy_cache,
)

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
    shared: TokenIds | None = None,
) -> tuple[list[str], int]:
    """Return the model's answer to each prompt, and the number of answers that were cut off.

    `transformers` generates, with the settings of `decoding` alone. Prompts of like length are batched, padded on the
    left (causal) or the right (sequence to sequence).

    Args:
        model: of either kind.
        prompts: token ids of each prompt.
        tokenizer: the backbone's.
        reply: the task's settings.
        device: where the model is.
        precision: precision of the forward passes.
        shared: token ids at the start of (nearly) all prompts, which a causal model then reads once.

    Raises:
        OutOfMemoryError: a single prompt does not fit in memory.
        FloatingPointError: a score of a token is not a number; generation would take the first of the vocabulary.
    """
    from transformers import LogitsProcessorList

    there = device.torch_device()
    answers = [""] * len(prompts)
    n_cut = 0
    transformer: Any = model.transformer
    ends = _ends(model, tokenizer, reply)
    options: dict[str, Any] = {"generation_config": decoding(model, tokenizer, reply)}
    _forget_settings(transformer)
    model.eval()
    is_broken = torch.zeros((), dtype=torch.bool, device=there)

    def watch(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        is_broken.logical_or_(scores.isnan().any())  # read at the end: each reading would wait for the accelerator
        return scores

    options["logits_processor"] = LogitsProcessorList([watch])
    autocast = torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    limit = BatchLimit("write", GENERATE_ROWS[device.kind])
    with (
        torch.no_grad(), autocast, grouped_heads(device.kind), warnings.catch_warnings(), _showing_progress(transformer)
    ):  # fmt: skip
        warnings.simplefilter("ignore")  # of transformers, about lengths
        for members, past in _runs(model, prompts, shared, there):
            at = 0
            while at < len(members):
                rows = members[at : at + limit.rows]
                written: list[Ints] = []

                def run(rows: Ints = rows, past: Past | None = past, written: list[Ints] = written) -> None:
                    some = [prompts[row] for row in rows]
                    written.append(_generate(model, some, past, tokenizer, reply, there, options))

                if not limit.holds(len(rows), run):
                    continue
                at += len(rows)
                for row, tokens in zip(rows, written[0], strict=True):
                    ended = bool(np.isin(tokens, ends).any())
                    if reply.end_ids and ended:  # such a token need not be a special one
                        tokens = tokens[: int(np.isin(tokens, ends).argmax())]
                    text, stopped = _until(str(tokenizer.decode(tokens, skip_special_tokens=True)), reply.stop)
                    answers[row] = text.strip()
                    n_cut += not ended and not stopped and len(tokens) >= reply.max_new_tokens
    if bool(is_broken):
        raise FloatingPointError("The language model gives scores that are not a number.")
    return answers, n_cut


def _runs(
    model: GenerativeModel, prompts: Sequence[TokenIds], shared: TokenIds | None, device: torch.device
) -> Iterator[tuple[Ints, Past | None]]:
    """Yield prompts by length, with the keys and values of the tokens that they share: those that do, then the others.

    Nothing is shared where the model keeps something else, or where fewer than two prompts would gain.
    """
    order: Ints = np.argsort(lengths_of(prompts), kind="stable")
    if shared is None or not len(shared) or not model.is_causal:
        yield order, None
        return
    n_shared = len(shared)
    begins = np.array(
        [len(prompts[row]) > n_shared and np.array_equal(prompts[row][:n_shared], shared) for row in order]
    )
    if begins.sum() < 2:
        yield order, None
        return
    try:
        cache = continuing_cache(count_kept_layers(model.transformer), None, keeps=True)
    except UnsupportedError:
        yield order, None
        return
    ids = torch.from_numpy(np.asarray(shared, dtype=np.int64)[None]).to(device)
    model.transformer(input_ids=ids, past_key_values=cache, use_cache=True, **model.some_logits(1))
    yield order[np.flatnonzero(begins)], kept_keys(cache)
    yield order[np.flatnonzero(begins == 0)], None


def _generate(
    model: GenerativeModel,
    prompts: Sequence[TokenIds],
    past: Past | None,
    tokenizer: PreTrainedTokenizerBase,
    reply: Reply,
    device: torch.device,
    options: dict[str, Any],
) -> Ints:
    """Return the tokens written after each prompt of a batch, shape (rows, at most the task's number).

    Args:
        model: of either kind.
        prompts: token ids of each.
        past: keys and values of the tokens that all of them begin with, if any.
        tokenizer: the backbone's.
        reply: the task's settings.
        device: where the model is.
        options: arguments of `transformers`' `generate`.
    """
    from transformers import StoppingCriteriaList

    ids, mask = pad(prompts, int(tokenizer.pad_token_id), left=model.is_causal)
    n_given = ids.shape[1] if model.is_causal else 1
    if reply.stop:
        stops = EndsAt(reply.stop, tokenizer, n_given, reads_tails=reply.num_beams == 1)
        options = {**options, "stopping_criteria": StoppingCriteriaList([stops])}
    cache = _cache(model, past, reply)
    if cache is not None:
        options = {**options, "past_key_values": cache}
    if past is not None:
        _read_rest(model, prompts, past, cache, device)
        if reply.num_beams > 1:
            cache.batch_repeat_interleave(reply.num_beams)
    transformer: Any = model.transformer
    written = transformer.generate(
        input_ids=torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device), **options
    )
    return np.asarray(written[:, n_given:].cpu().numpy(), dtype=np.int64)


def _cache(model: GenerativeModel, past: Past | None, reply: Reply) -> Any:
    """Return an empty cache, with room for the answers of a causal model; None where `transformers` makes its own.

    Beams change places, which copies a cache anyway.
    """
    try:
        n_layers = count_kept_layers(model.transformer)
    except UnsupportedError:
        return None
    if model.is_causal and reply.num_beams == 1:
        return roomy_cache(n_layers, reply.max_new_tokens + (past is not None))
    return None if past is None else DynamicCache()


def _read_rest(
    model: GenerativeModel, prompts: Sequence[TokenIds], past: Past, cache: Any, device: torch.device
) -> None:
    """Read prompts behind the tokens they share, up to the last one, into an empty cache, padded on the left.

    Padding on the right needs no mask while they are read, and keeps every token's position.
    """
    n_shared = past[0][0].shape[2]
    rest = [ids[n_shared:-1] for ids in prompts]
    lengths = [len(row) for row in rest]
    own = None
    if max(lengths) > 0:
        reading = continuing_cache(len(past), past, keeps=True)
        ids, _ = pad(rest, 0)
        model.transformer(
            input_ids=torch.from_numpy(ids).to(device), past_key_values=reading, use_cache=True, **model.some_logits(1)
        )
        own = kept_keys(reading)
    left_padded(cache, past, own, lengths)


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
        eos_token_id=_ends(model, tokenizer, reply) or None,
        **start,
    )


def _ends(model: GenerativeModel, tokenizer: PreTrainedTokenizerBase, reply: Reply) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's, else those of `config.json`, and the reply's own."""
    stated = tokenizer.eos_token_id
    if stated is None:
        stated = getattr(transformers_model(model.transformer).config, "eos_token_id", None)
    own = [] if stated is None else [int(token) for token in np.atleast_1d(stated)]
    return list(dict.fromkeys([*own, *reply.end_ids]))


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


class EndsAt:
    """Criterion of `transformers` that marks the rows whose answer contains a stop text.

    It decodes what is written: `transformers`' own criterion works on vocabularies, and fails on some tokenizers.
    After each token it decodes a few tokens at the end of each row, and all of a row only where a stop seems to be.

    Args:
        stops: texts.
        tokenizer: decodes.
        n_given: tokens of each row that the model has not written.
        reads_tails: whether the ends are enough, because the criterion sees each row after each of its tokens. Beams
            change places.
    """

    def __init__(
        self, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, n_given: int, *, reads_tails: bool
    ) -> None:
        self._stops = stops
        self._tokenizer = tokenizer
        self._n_given = n_given
        # A token may be a single byte of a character. Some give no text at all.
        self._n_tail = max(len(stop.encode()) for stop in stops) + _SPARE_TOKENS if reads_tails else None

    def __call__(self, ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Return whether each row has ended, shape (rows,)."""
        written = ids[:, self._n_given :].cpu()
        n_tail = written.shape[1] if self._n_tail is None else self._n_tail
        ended = self._contain(written[:, -n_tail:])
        if n_tail < written.shape[1] and any(ended):
            rows = [row for row, seems in enumerate(ended) if seems]
            for row, does in zip(rows, self._contain(written[rows]), strict=True):
                ended[row] = does
        return torch.tensor(ended, dtype=torch.bool, device=ids.device)

    def _contain(self, tokens: torch.Tensor) -> list[bool]:
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [any(stop in text for stop in self._stops) for text in texts]


_SPARE_TOKENS = 8
"""Further tokens to decode before those that a stop may have."""


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first of the stops, and whether there was one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
