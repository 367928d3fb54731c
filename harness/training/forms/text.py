"""Texts that a language model writes, or finds likely; its own head is the only one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.measure import Device, FlopsModel, Precision
from harness.tasks import Answers, Floats, Ints, Labels, Likelihoods, Rows, TextAnswers
from harness.training.forms.base import AnswerForm, Examples, Scores, Workbench, sizes_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.training.inputs import Inputs
    from harness.training.language import AskedModel, CausalBatches, DecoderBatches
    from harness.training.loop import Batches
    from harness.training.model import AdaptedModel

TokenIds = npt.NDArray[np.int32]


class GeneratedText(AnswerForm):
    """A causal model goes on from a prompt; a sequence-to-sequence model reads it with its encoder and writes anew.

    The loss is over the tokens of the answer and its end, the prompt's are given. Where a text's likelihood is asked
    for, all of its tokens but the first are predicted.
    """

    enters_blocks = False

    def pretrained(self, bench: Workbench, device: torch.device) -> nn.Module:
        """A fresh copy of the whole language model."""
        return bench.some_backbone.fresh_language_model(device)

    def random(self, bench: Workbench, device: torch.device) -> nn.Module:
        """The same with random weights."""
        return bench.some_backbone.random_language_model(device)

    def head(self, width: int, n_outputs: int, dropout: float) -> nn.Module:
        """None: the language model has its own."""
        from torch import nn

        return nn.Identity()

    def model(self, transformer: nn.Module, head: nn.Module, bench: Workbench) -> AdaptedModel:
        """The language model."""
        from harness.training.language import AskedModel

        return AskedModel(transformer, is_causal=is_causal(bench))

    def examples(self, rows: Rows, bench: Workbench, reserved: int) -> Examples:
        """An item is a row. Targets: causal, the tokens that are given; otherwise the token ids of the answer."""
        prompts = bench.token_rows(rows, "encode", reserved)
        assert bench.reply is not None
        if bench.reply.wants_likelihood:
            given = np.ones(len(prompts), dtype=np.int64)
            return Examples(prompts, given, lambda positions: positions, sizes_of(prompts))
        with bench.working("encode"):
            replies = reply_ids(rows, bench)
            if not is_causal(bench):
                targets = np.empty(len(replies), dtype=object)
                targets[:] = replies
                lengths = sizes_of(prompts) + sizes_of(replies)
                return Examples(prompts, targets, lambda positions: positions, lengths)
            limit = bench.some_backbone.max_length - reserved
            given = np.minimum(sizes_of(prompts), limit - 1)
            # What the positions have no room for is cut off the end of the answer, and noted.
            whole = [
                np.concatenate([prompt[:kept], reply])[:limit]
                for prompt, kept, reply in zip(prompts, given, replies, strict=True)
            ]
            n_cut = int(sum(len(p) + len(r) > limit for p, r in zip(prompts, replies, strict=True)))
            if n_cut:
                bench.ledger.remarks["truncated_replies"] = f"{n_cut} of {len(whole)}"
            return Examples(whole, given, lambda positions: positions, sizes_of(whole))

    def inputs(self, model: AdaptedModel, examples: Examples, bench: Workbench, *, compact: bool) -> Inputs:
        """Texts, or pairs of input and answer."""
        return LanguageInputs(model, examples.sequences, bench)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Mean cross-entropy over the tokens that are to be predicted."""
        from torch.nn import functional

        from harness.training.language import IGNORED

        return functional.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    def validate(
        self,
        inputs: Inputs,
        examples: Examples,
        rows: Ints,
        labels: Labels,
        bench: Workbench,
        precision: Precision,
    ) -> Scores:
        """Minus the mean loss over the batches of these rows."""
        from harness.training.inputs import mean_loss

        return (-mean_loss(inputs, rows, examples.targets[rows], self.loss, bench.device, precision),)

    def count_flops(self, model: AdaptedModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
        """By rows, length and places predicted."""
        from harness.training.language import count_language_flops

        return count_language_flops(language_model(model), device, backward=backward)

    def predict(
        self, model: AdaptedModel, rows: Rows, bench: Workbench, precision: Precision, reserved: int
    ) -> Answers:
        """What the model writes, or how likely it finds the texts."""
        prompts = bench.token_rows(rows, "predict", reserved)
        with bench.working("predict"):
            return answer(language_model(model), prompts, bench, precision)


def language_model(model: nn.Module) -> AskedModel:
    """The model that `GeneratedText.model` made."""
    from harness.training.language import AskedModel

    assert isinstance(model, AskedModel)
    return model


def is_causal(bench: Workbench) -> bool:
    """Whether answers continue the prompt."""
    return bench.some_backbone.files.architecture == "causal"


def answer(model: AskedModel, prompts: Sequence[TokenIds], bench: Workbench, precision: Precision) -> Answers:
    """What a language model says to prompts: a text each, or the likelihood of each."""
    from harness.training.language import likelihoods
    from harness.training.writing import write

    assert bench.reply is not None
    tokenizer = bench.some_backbone.tokenizer
    if bench.reply.wants_likelihood:
        given = np.ones(len(prompts), dtype=np.int64)
        pad_id = int(tokenizer.pad_token_id)
        return Likelihoods(*likelihoods(model, prompts, given, pad_id, bench.device, precision))
    texts, n_cut = write(model, prompts, tokenizer, bench.reply, bench.device, precision)
    if n_cut:
        bench.ledger.remarks["cut_answers"] = f"{n_cut} of {len(texts)} reached {bench.reply.max_new_tokens} tokens"
    return TextAnswers(texts, n_cut=n_cut)


def reply_ids(rows: Rows, bench: Workbench) -> list[TokenIds]:
    """Token ids of the answers as they continue their prompts, or as a decoder writes them; their end included."""
    tokenizer: Any = bench.some_backbone.tokenizer
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    found = []
    prompts = rows.source.prompts
    for position, reply in zip(rows.index, rows.known_labels, strict=True):
        if not is_causal(bench):
            ids = list(tokenizer(text_target=reply)["input_ids"])
        else:
            prompt = prompts[position] if prompts is not None else ""
            # As running text, whole: each token is the one that the model sees there.
            before = list(tokenizer(prompt)["input_ids"])
            ids = list(tokenizer(prompt + joint(prompt) + reply)["input_ids"])
            ids = ids[_n_common(before, ids) :]
        found.append(np.array(ids if ids[-1:] == end else ids + end, dtype=np.int32))
    return found


def joint(prompt: str) -> str:
    """What stands between a prompt and its answer: a space, unless the prompt ends in white space or is empty."""
    return "" if not prompt or prompt[-1].isspace() else " "


def _n_common(one: list[int], other: list[int]) -> int:
    n_common = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n_common += 1
    return n_common


class LanguageInputs:
    """Texts of which a part is predicted, or inputs with the answers to them; see `training.inputs.Inputs`."""

    def __init__(self, model: AdaptedModel, sequences: list[TokenIds], bench: Workbench) -> None:
        self._model = model
        self._sequences = sequences
        self._is_causal = is_causal(bench)
        self._pad_id = int(bench.some_backbone.tokenizer.pad_token_id)
        self._device = bench.device.torch_device()

    def batches(self, positions: Ints, targets: Any, *, batch_size: int, seed: int) -> Batches:
        """Batches of the rows at `positions`."""
        from harness.training.language import CausalBatches, DecoderBatches, decoder_start_id

        sequences = [self._sequences[position] for position in positions]
        shape: dict[str, Any] = {
            "pad_id": self._pad_id,
            "batch_size": batch_size,
            "seed": seed,
            "device": self._device,
        }
        if self._is_causal:
            causal: CausalBatches = CausalBatches(sequences, targets, **shape)
            return causal
        decoder: DecoderBatches = DecoderBatches(
            sequences, targets, start_id=decoder_start_id(self._model.transformer), **shape
        )
        return decoder

    def forward(self, batch: Any) -> torch.Tensor:
        """Logits of the places that are predicted, shape (rows, places, vocabulary)."""
        logits: torch.Tensor = self._model(*batch.inputs)
        return logits

    def logits(self, positions: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """There are none of a row: answers are texts."""
        raise TypeError("A language model has no scores of a row.")

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """By rows, length and places predicted."""
        from harness.training.language import count_language_flops

        return count_language_flops(language_model(self._model), self._device, backward=backward)

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        self._model.train(not on)

    def close(self, decay: float) -> None:
        """Nothing was changed."""
