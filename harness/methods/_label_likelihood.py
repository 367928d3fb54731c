"""Log-likelihood of replies, such as each class's words, after a prompt under a language model.

Three parts are computed once: the keys and values of tokens that all prompts share (causal), those of a prompt for
all its replies, and the encoder's states for all replies.

Prompts of similar lengths form a batch, padded on the right. A causal model never looks to the right, so padding needs
no mask, and every token keeps its position. A reply's further tokens continue the places that are real in all rows of
the batch: the rest of a prompt is read again with each reply.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from harness.features import lengths_of, pad
from harness.measure import BatchLimit, Device, Precision, most_places, show_progress
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training import Past

_MOST_ROWS = {"cpu": 16, "cuda": 64}
"""Maximum number of prompts in a batch, by kind of device."""

_MOST_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Maximum number of padded tokens in a batch of several prompts."""

_CALL_TOKENS = {"cpu": 32, "cuda": 512}
"""Cost of a forward pass apart from its tokens, in tokens: reading the weights, starting kernels."""

Replies = Sequence["Sequence[int] | Ints"]
"""Token ids of the replies that one prompt may have."""

_Reply = tuple[int, int, "Sequence[int] | Ints"]
"""A reply in a batch: the row of its prompt, its position among the prompt's replies, its token ids."""

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the log-likelihoods of some replies in a batch.

    Attributes:
        rows: row of each reply's prompt, shape (replies,).
        replies: position of each among the replies of its prompt.
        values: log-likelihoods, on the device.
    """

    rows: Ints
    replies: Ints
    values: torch.Tensor

    @classmethod
    def of(cls, some: Sequence[_Reply], values: torch.Tensor) -> _Part:
        """Return the part of these replies."""
        rows, replies = np.array([(row, at) for row, at, _ in some], dtype=np.int64).T
        return cls(rows, replies, values)


class LabelLikelihood:
    """Scores the classes of prompts, or each prompt's own replies.

    Args:
        model: a language model on `device`.
        labels: token ids of each class's words, at least one each.
        is_causal: whether the words continue the prompt; otherwise the prompt is the encoder's input.
        normalise: take the mean over a label's tokens instead of the sum.
        device: device of the model.
        precision: precision of the forward passes; likelihoods are added up in float32.

    Attributes:
        n_tokens: number of tokens, without padding, that passed through the model so far.
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
        self._model = cast("Any", model)
        self._labels = labels
        self._is_causal = is_causal
        self._normalise = normalise
        self._device = device
        self._precision = precision
        self._head = self._model.get_output_embeddings()
        self._vocabulary = int(self._model.config.get_text_config().vocab_size)
        self.n_tokens = 0

    def score(self, prompts: Sequence[Ints], shared: Ints) -> Floats:
        """Return log-likelihoods of the classes, shape (prompts, classes); arguments as for `score_replies`."""
        scores = self.score_replies(prompts, [self._labels] * len(prompts), shared)
        return scores.reshape(len(prompts), len(self._labels)).astype(np.float32)

    def score_replies(
        self, prompts: Sequence[Ints], replies: Sequence[Replies], shared: Ints
    ) -> npt.NDArray[np.float64]:
        """Return the log-likelihood of each reply of each prompt, shape (replies of all prompts,).

        Args:
            prompts: token ids of each prompt.
            replies: replies of each prompt; one without tokens scores 0.
            shared: token ids at the start of (nearly) all prompts, computed once; other prompts are run whole. A
                sequence-to-sequence model ignores them: its encoder attends in both directions.
        """
        starts = np.concatenate([[0], np.cumsum(lengths_of(replies))])
        scores = np.zeros(starts[-1])
        n_shared = len(shared) if self._is_causal else 0
        shared = shared[:n_shared]
        begins = np.array([len(ids) > n_shared and np.array_equal(ids[:n_shared], shared) for ids in prompts])
        found: list[tuple[Ints, torch.Tensor]] = []  # read at the end: each reading waits for the device
        with self._running():
            for use in sorted(set(begins.tolist()), reverse=True):
                members: Ints = np.flatnonzero(begins == use)
                past = self._remember(shared) if use and n_shared else None
                rest = [prompts[row][n_shared if use else 0 :] for row in members.tolist()]
                own = [replies[row] for row in members.tolist()]
                n_further = int(np.mean([sum(len(reply) > 1 for reply in several) for several in own]))

                def run(rows: Ints, rest: Any = rest, own: Any = own, past: Any = past) -> list[_Part]:
                    return self._score_batch([rest[row] for row in rows], [own[row] for row in rows], past)

                for rows, parts in self._each_batch(lengths_of(rest), run, n_further=n_further):
                    for part in parts:
                        at = starts[members[rows[part.rows]]] + part.replies
                        found.append((at, part.values))
        for positions, values in found:
            scores[positions] += values.cpu().numpy()
        lengths = np.array([len(reply) for several in replies for reply in several])
        return scores / np.maximum(lengths, 1) if self._normalise else scores

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        import torch

        from harness.training import grouped_heads

        kind = self._device.kind
        autocast = torch.autocast(kind, dtype=torch.bfloat16, enabled=self._precision == "bf16")
        with torch.inference_mode(), autocast, grouped_heads(kind):
            yield

    def _each_batch(
        self, lengths: Ints, run: Callable[[Ints], _T], *, n_places: int = 1, n_further: int = 0
    ) -> Iterator[tuple[Ints, _T]]:
        """Yield the rows of each batch and what `run` returns for them; memory that runs out halves a batch.

        Args:
            lengths: tokens of each row.
            run: function of the positions of a batch's rows.
            n_places: maximum places of a row whose logits are computed.
            n_further: as for `batches_of_like_length`.
        """
        kind = self._device.kind
        most_rows = min(_MOST_ROWS[kind], max(1, most_places(kind, self._vocabulary) // n_places))
        limit = BatchLimit("score", most_rows)
        waiting = batches_of_like_length(
            lengths, limit.rows, _MOST_TOKENS[kind], call_tokens=_CALL_TOKENS[kind], n_further=n_further
        )[::-1]
        results: list[_T] = []
        while waiting:
            rows = waiting.pop()
            if len(rows) > limit.rows:
                waiting += [rows[limit.rows :], rows[: limit.rows]]
            elif limit.holds(len(rows), lambda rows=rows: results.append(run(rows))):  # type: ignore[misc]
                show_progress()
                yield rows, results.pop()
            else:
                waiting.append(rows)

    def _tensor(self, values: npt.ArrayLike) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.asarray(values, dtype=np.int64)).to(self._device.torch_device())

    def _padded(self, rows: Sequence[Sequence[int] | Ints]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and their mask; the padding is any token, since nothing reads it."""
        ids, mask = pad([np.asarray(row) for row in rows], 0)
        self.n_tokens += int(mask.sum())
        return self._tensor(ids), self._tensor(mask)

    def _remember(self, shared: Ints) -> Past:
        """Return the keys and values of the shared tokens, as a batch of one."""
        from harness.training import continuing_cache, count_kept_layers, kept_keys

        cache = continuing_cache(count_kept_layers(self._model), None, keeps=True)
        ids, _ = self._padded([shared])
        self._logits([[len(shared) - 1]], input_ids=ids, past_key_values=cache, use_cache=True)
        return kept_keys(cache)

    def _score_batch(self, rows: Sequence[Ints], replies: Sequence[Replies], past: Past | None) -> list[_Part]:
        """Return parts of the log-likelihoods of replies, which add up.

        Args:
            rows: token ids of each prompt, after the shared ones.
            replies: replies of each prompt.
            past: keys and values of the shared tokens, if any.
        """
        some = [
            (row, at, reply) for row, several in enumerate(replies) for at, reply in enumerate(several) if len(reply)
        ]
        if not some:
            return []
        further = [one for one in some if len(one[2]) > 1]
        run = self._read if self._is_causal else self._encode
        logits, go_on = run(rows, past, goes_on=bool(further))
        first = logits.float().log_softmax(-1)
        values = first[self._tensor([row for row, *_ in some]), self._tensor([reply[0] for *_, reply in some])]
        parts = [_Part.of(some, values)]
        n_common = min(len(row) for row in rows) if self._is_causal else 0
        tails = [[*(rows[row][n_common:] if self._is_causal else ()), *reply[:-1]] for row, _, reply in further]

        def run_further(members: Ints) -> _Part:
            these = [further[member] for member in members]
            return _Part.of(these, self._further([tails[member] for member in members], these, go_on))

        n_places = max((len(reply) - 1 for *_, reply in further), default=1)
        parts += [part for _, part in self._each_batch(lengths_of(tails), run_further, n_places=n_places)]
        return parts

    def _further(
        self,
        tails: Sequence[Sequence[int]],
        these: Sequence[_Reply],
        go_on: Callable[[torch.Tensor], dict[str, Any]],
    ) -> torch.Tensor:
        """Return the log-likelihood of each reply's tokens after its first, shape (replies,).

        Args:
            tails: tokens to read: the end of the prompt, where it is read again, and the reply without its last token.
            these: row and tokens of each reply.
            go_on: inputs of the model for continuing these rows.
        """
        ids, _ = self._padded(tails)
        wanted, real = pad([np.asarray(reply[1:]) for _, _, reply in these], 0)
        n_before = lengths_of(tails) - real.sum(1)
        places = np.minimum(n_before[:, None] + np.arange(wanted.shape[1]), ids.shape[1] - 1)
        name = "input_ids" if self._is_causal else "decoder_input_ids"
        inputs = go_on(self._tensor([row for row, _, _ in these]))
        logits = self._logits(places, **{name: ids}, use_cache=True, **inputs)
        each = logits.float().log_softmax(-1).gather(2, self._tensor(wanted).unsqueeze(2)).squeeze(2)
        return (each * self._tensor(real)).sum(1)

    def _read(
        self, rows: Sequence[Ints], past: Past | None, *, goes_on: bool
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], dict[str, Any]]]:
        """Run prompts of a causal model; return the logits behind each, and a function for `_further`."""
        from harness.training import continuing_cache, count_kept_layers, kept_keys

        cache = (
            continuing_cache(count_kept_layers(self._model), past, keeps=goes_on)
            if goes_on or past is not None
            else None
        )
        lengths = lengths_of(rows)
        ids, _ = self._padded(rows)
        logits = self._logits(
            lengths[:, None] - 1, input_ids=ids, past_key_values=cache, use_cache=cache is not None
        )[:, 0]  # fmt: skip
        if not goes_on or cache is None:
            return logits, lambda _: {}
        own = kept_keys(cache, int(lengths.min()))

        def go_on(chosen: torch.Tensor) -> dict[str, Any]:
            return {"past_key_values": continuing_cache(len(own), past, own, rows=chosen)}

        return logits, go_on

    def _encode(
        self, rows: Sequence[Ints], _: Past | None, *, goes_on: bool
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], dict[str, Any]]]:
        """Run prompts through the encoder, and the decoder's first token; return as `_read` does."""
        from transformers.cache_utils import DynamicCache
        from transformers.modeling_outputs import BaseModelOutput

        from harness.training import continuing_cache, count_kept_layers, decoder_start_id, kept_keys, with_encoder

        ids, mask = self._padded(rows)
        states = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        start = self._tensor(np.full((len(rows), 1), decoder_start_id(self._model)))
        cross = DynamicCache()
        own = continuing_cache(count_kept_layers(self._model), None, keeps=True) if goes_on else None
        logits = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=start,
            past_key_values=with_encoder(own, cross) if own is not None else None,
            use_cache=own is not None,
        ).logits[:, -1]
        if own is None:
            return logits, lambda _: {}
        begun = kept_keys(own)

        def go_on(chosen: torch.Tensor) -> dict[str, Any]:
            return {
                "encoder_outputs": BaseModelOutput(last_hidden_state=states[chosen]),
                "attention_mask": mask[chosen],
                "past_key_values": with_encoder(continuing_cache(len(begun), None, begun, rows=chosen), cross, chosen),
            }

        return logits, go_on

    def _logits(self, places: npt.ArrayLike, **inputs: Any) -> torch.Tensor:
        """Return the model's logits at some places of each row, shape (rows, places, vocabulary).

        The states of other places do not reach the output layer, whose logits take much memory.
        """
        wanted = self._tensor(places)
        n_rows, n_tokens = inputs["input_ids" if self._is_causal else "decoder_input_ids"].shape
        picked = []

        def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not args or tuple(args[0].shape[:-1]) != (n_rows, n_tokens):
                return None
            picked.append(True)
            return (_take(args[0], wanted), *args[1:])

        hook = self._head.register_forward_pre_hook(pick) if self._head is not None else None
        try:
            logits = self._model(**inputs).logits
        finally:
            if hook is not None:
                hook.remove()
        return cast("torch.Tensor", logits if picked else _take(logits, wanted))


def batches_of_like_length(
    lengths: Ints, most_rows: int, most_tokens: int, *, call_tokens: int, n_further: int = 0
) -> list[Ints]:
    """Return the rows of each batch such that padding and calls together cost least.

    Args:
        lengths: tokens of each row.
        most_rows: maximum number of rows in a batch.
        most_tokens: maximum number of padded tokens in a batch of several rows.
        call_tokens: cost of a batch apart from its tokens, in tokens.
        n_further: how often a row reads its tokens again that are behind the shortest row's end.
    """
    order: Ints = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    costs = np.zeros(len(order) + 1)
    begins = np.zeros(len(order) + 1, dtype=np.int64)
    for end in range(1, len(order) + 1):
        longest = int(ordered[end - 1])
        first = max(0, end - most_rows, end - max(1, most_tokens // max(1, longest)))
        n_rows = end - np.arange(first, end)
        cost = costs[first:end] + call_tokens + n_rows * (longest + n_further * (longest - ordered[first:end]))
        best = int(cost.argmin())
        costs[end], begins[end] = cost[best], first + best
    batches: list[Ints] = []
    end = len(order)
    while end > 0:
        batches.append(order[begins[end] : end])
        end = int(begins[end])
    return batches[::-1]


def _take(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))
