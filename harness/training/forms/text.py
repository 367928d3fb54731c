"""Texts that a language model writes, or their likelihoods; it uses its own head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backbones import chat_answer_ids, chat_frame
from harness.features import TokenIds, lengths_of
from harness.measure import Precision
from harness.tasks import Answers, Rows
from harness.training.forms.base import AnswerForm, Examples, Workbench

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.backbones import Weights
    from harness.training.generative import GenerativeModel
    from harness.training.inputs import Inputs
    from harness.training.model import AdaptedModel


class GeneratedText(AnswerForm):
    """A causal model continues a prompt; a sequence-to-sequence model reads it with its encoder and writes an answer.

    The loss is over the tokens of the answer and its end; the prompt's are given. Where the task asks for the
    likelihood of a text, all of its tokens but the first are predicted.
    """

    enters_blocks = False

    def pretrained(self, bench: Workbench, device: torch.device) -> nn.Module:
        """Return a fresh copy of the whole language model, float32."""
        return bench.some_backbone.fresh_language_model(device)

    def shared(
        self, bench: Workbench, device: torch.device, precision: Precision, weights: Weights, *, exact: bool = False
    ) -> nn.Module:
        """Return a copy of the whole language model, whose frozen weights are those that all cells share."""
        return bench.some_backbone.shared_language_model(device, precision, weights, exact=exact)

    def stored(self, bench: Workbench) -> nn.Module:
        """Return a copy of the whole language model on the host, as stored."""
        return bench.some_backbone.stored_language_model()

    def random(self, bench: Workbench, device: torch.device) -> nn.Module:
        """Return the same language model with random weights."""
        return bench.some_backbone.random_language_model(device)

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """Return an identity, since the language model has its own head."""
        from torch import nn

        return nn.Identity()

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """Return the language model."""
        from harness.training.generative import GenerativeModel

        return GenerativeModel(transformer, is_causal=_is_causal(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """Return one item a row, with the targets that `GenerativeModel.batch` reads."""
        prompts = bench.token_rows(rows, "encode", reserved)
        assert bench.reply is not None
        if bench.reply.wants_likelihood:
            return Examples(prompts, np.ones(len(prompts), dtype=np.int64), lengths_of(prompts))
        with bench.working("encode"):
            replies = _reply_ids(rows, bench)
            if not _is_causal(bench):
                targets = np.empty(len(replies), dtype=object)
                targets[:] = replies
                return Examples(prompts, targets, lengths_of(prompts) + lengths_of(replies))
            limit = bench.some_backbone.max_length - reserved
            given = np.minimum(lengths_of(prompts), limit - 1)
            # An answer that the positions have no room for loses its end, and the record notes it.
            whole = [
                np.concatenate([_with_its_end(prompt, kept, bench), reply])[:limit]
                for prompt, kept, reply in zip(prompts, given, replies, strict=True)
            ]
            n_cut = int((lengths_of(prompts) + lengths_of(replies) > limit).sum())
            if n_cut:
                bench.ledger.remarks["truncated_replies"] = f"{n_cut} of {len(whole)}"
            return Examples(whole, given, lengths_of(whole))

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Return texts, or inputs of an encoder with their answers."""
        from harness.training.generative import GenerativeInputs

        there, pad_id = bench.device.torch_device(), bench.some_backbone.pad_id
        return GenerativeInputs(_generative(model), examples.sequences, pad_id=pad_id, compact=False, device=there)

    def loss(self, outputs: Any, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Return the mean cross-entropy over the tokens to be predicted; `outputs` are logits, or pending ones."""
        from torch.nn import functional

        from harness.training.generative import IGNORED
        from harness.training.heads import PendingLogits

        if isinstance(outputs, PendingLogits):
            return outputs.mean_loss(targets, label_smoothing)
        return functional.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """Return the texts that the model writes, or the likelihoods of the texts."""
        prompts = bench.token_rows(rows, "predict", reserved)
        with bench.working("predict"):
            return _generative(model).answer(prompts, bench, precision)


def _generative(model: nn.Module) -> GenerativeModel:
    from harness.training.generative import GenerativeModel

    assert isinstance(model, GenerativeModel)
    return model


def _is_causal(bench: Workbench) -> bool:
    return bench.some_backbone.files.architecture == "causal"


def _with_its_end(prompt: TokenIds, n_kept: int, bench: Workbench) -> TokenIds:
    """Return the last tokens of a prompt, behind its initial special token (BOS): the end of it asks the question."""
    if len(prompt) <= n_kept:
        return prompt
    n_special = min(n_kept, int(prompt[0] in bench.some_backbone.tokenizer.all_special_ids))
    return np.concatenate([prompt[:n_special], prompt[len(prompt) - n_kept + n_special :]])


def _reply_ids(rows: Rows, bench: Workbench) -> list[TokenIds]:
    """Return the token ids of answers as they continue their prompts, or as a decoder writes them; with their end."""
    tokenizer: Any = bench.some_backbone.tokenizer
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    found = []
    prompts = rows.source.prompts
    if bench.chat and prompts is not None:
        frame = chat_frame(tokenizer)
        answers = zip(rows.index, rows.known_labels, strict=True)
        turns = [chat_answer_ids(tokenizer, frame, prompts[at], str(answer)) for at, answer in answers]
        return [np.array(ids, dtype=np.int32) for ids in turns]
    for position, reply in zip(rows.index, rows.known_labels, strict=True):
        if not _is_causal(bench):
            ids = list(tokenizer(text_target=reply)["input_ids"])
        else:
            prompt = prompts[position] if prompts is not None else ""
            # Tokenised as one text: each token is the one that the model sees there.
            before = list(tokenizer(prompt)["input_ids"])
            ids = list(tokenizer(prompt + joint(prompt) + reply)["input_ids"])
            ids = ids[_n_common(before, ids) :]
        found.append(np.array(ids if ids[-1:] == end else ids + end, dtype=np.int32))
    return found


def joint(prompt: str) -> str:
    """Return the text between a prompt and its answer: a space, unless the prompt is empty or ends in white space."""
    return "" if not prompt or prompt[-1].isspace() else " "


def _n_common(one: list[int], other: list[int]) -> int:
    n_common = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n_common += 1
    return n_common
