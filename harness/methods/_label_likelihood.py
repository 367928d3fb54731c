"""Log-likelihood of each class's words after a prompt, under a causal or a sequence-to-sequence language model.

Three parts are computed once: the keys and values of tokens that all prompts share (causal), those of a prompt for
all classes, and the encoder's states for all classes. Prompts of one length form a batch, without padding.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.measure import Device, Precision, show_progress
from harness.support import UnsupportedError
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    import torch
    from torch import nn

_MOST_ROWS = {"cpu": 16, "cuda": 64}
"""Maximum number of prompts in a batch, by kind of device."""


class LabelLikelihood:
    """Scores the classes of prompts.

    Args:
        model: a language model on `device`.
        labels: token ids of each class's words, at least one each.
        is_causal: whether the words continue the prompt; otherwise the prompt is the encoder's input.
        normalise: take the mean over a label's tokens instead of the sum.
        device: device of the model.
        precision: precision of the forward passes; likelihoods are added up in float32.

    Attributes:
        n_tokens: number of tokens that passed through the model so far.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Sequence[Sequence[int]],
        *,
        is_causal: bool,
        normalise: bool,
        device: Device,
        precision: Precision,
    ) -> None:
        self._model: Any = model
        self._labels = labels
        self._is_causal = is_causal
        self._normalise = normalise
        self._device = device
        self._precision = precision
        # Logits of the last position are enough for the first token of every label, where the model offers that.
        offered = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if offered else {}
        self.n_tokens = 0

    def score(self, prompts: Sequence[Ints], shared: Ints) -> Floats:
        """Return log-likelihoods of shape (prompts, classes).

        Args:
            prompts: token ids of each prompt.
            shared: token ids at the start of (nearly) all prompts, computed once; other prompts are run whole. A
                sequence-to-sequence model ignores them: its encoder attends in both directions.
        """
        scores = np.empty((len(prompts), len(self._labels)), dtype=np.float32)
        with self._running():
            use_shared = self._is_causal and len(shared) > 0 and len(prompts) > 0
            prefix = self._remember(shared) if use_shared else None
            for begins, members in _batches(prompts, shared, _MOST_ROWS[self._device.kind]):
                use = prefix is not None and begins
                ids = self._tensor([prompts[row][len(shared) if use else 0 :] for row in members])
                scores[members] = self._score_batch(ids, prefix if use else None).cpu().numpy()
                show_progress()
        return scores

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        import torch

        kind = self._device.kind
        autocast = torch.autocast(kind, dtype=torch.bfloat16, enabled=self._precision == "bf16")
        with torch.inference_mode(), autocast:
            yield

    def _tensor(self, rows: Sequence[Ints]) -> torch.Tensor:
        import torch

        ids = torch.from_numpy(np.stack(rows)).to(self._device.torch_device())
        self.n_tokens += ids.numel()
        return ids

    def _remember(self, shared: Ints) -> Any:
        """Return the keys and values of the shared tokens, as a batch of one."""
        return _past(self._model(input_ids=self._tensor([shared]), use_cache=True, **self._last_only))

    def _score_batch(self, ids: torch.Tensor, prefix: Any) -> torch.Tensor:
        """Return scores of shape (rows, classes) for token ids of shape (rows, length) after the prefix."""
        import torch

        given: dict[str, Any]
        if self._is_causal:
            cache = None if prefix is None else _fork(prefix, len(ids))
            given = {}
            outputs = self._model(input_ids=ids, past_key_values=cache, use_cache=True, **self._last_only)
        else:
            from harness.training import decoder_start_id

            given = {"encoder_outputs": self._model.get_encoder()(input_ids=ids)}
            start = torch.full((len(ids), 1), decoder_start_id(self._model), dtype=torch.long, device=ids.device)
            outputs = self._model(decoder_input_ids=start, use_cache=True, **given)
        first = outputs.logits[:, -1].float().log_softmax(-1)
        columns = []
        for label in self._labels:
            likelihood = first[:, label[0]]
            if len(label) > 1:
                likelihood = likelihood + self._rest(label, _past(outputs), len(ids), given)
            columns.append(likelihood / len(label) if self._normalise else likelihood)
        return torch.stack(columns, 1)

    def _rest(self, label: Sequence[int], cache: Any, n_rows: int, given: dict[str, Any]) -> torch.Tensor:
        """Return the log-likelihood of a label's tokens after its first, shape (rows,)."""
        import torch

        there = self._tensor([np.asarray(label, dtype=np.int64)] * n_rows)
        self.n_tokens -= n_rows  # the last token is predicted, and never run
        name = "input_ids" if self._is_causal else "decoder_input_ids"
        forked = _fork(cache, n_rows)
        logits = self._model(**{name: there[:, :-1]}, past_key_values=forked, use_cache=True, **given).logits
        each = logits.float().log_softmax(-1).gather(2, there[:, 1:].unsqueeze(2))
        return torch.sum(each, dim=(1, 2))


def _batches(prompts: Sequence[Ints], shared: Ints, n_rows: int) -> Iterator[tuple[bool, list[int]]]:
    """Yield batches of prompts of one length: whether they begin with the shared tokens, and their positions."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for row, ids in enumerate(prompts):
        begins = len(ids) > len(shared) and bool(np.array_equal(ids[: len(shared)], shared))
        groups.setdefault((len(ids), begins), []).append(row)
    for (_, begins), members in sorted(groups.items()):
        for at in range(0, len(members), n_rows):
            yield begins, members[at : at + n_rows]


def _past(outputs: Any) -> Any:
    """Return the cache of a forward pass, for the next tokens.

    Raises:
        UnsupportedError: the model keeps something other than keys and values, such as recurrent states.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache

    cache = getattr(outputs, "past_key_values", None)
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    layers = getattr(own, "layers", None)
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        kept = f"{type(layers[0]).__name__} in its cache" if layers else "no cache of keys and values"
        raise UnsupportedError(
            f"This backbone keeps {kept} of a prompt; scoring classes needs a transformer that keeps the keys and "
            "values of its attention."
        )
    return cache


def _fork(cache: Any, n_rows: int) -> Any:
    """Return a cache for a batch of `n_rows` that continues another one without changing it.

    A dynamic layer appends by concatenation into new tensors, so a fork may share the existing ones. A batch of one
    is expanded to a view.
    """
    from transformers.cache_utils import EncoderDecoderCache

    if isinstance(cache, EncoderDecoderCache):  # the encoder's keys and values are only read
        return EncoderDecoderCache(_fork(cache.self_attention_cache, n_rows), cache.cross_attention_cache)
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in forked.layers:
        if layer.is_initialized and layer.keys.shape[0] != n_rows:
            layer.keys = layer.keys.expand(n_rows, -1, -1, -1)
            layer.values = layer.values.expand(n_rows, -1, -1, -1)
    return forked
