"""Read the settings of generation that version 0.1 took from a backbone's files; now only the task sets them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.backbones.layout import read_object
from harness.support import UsageError

GENERATION: Final = "generation_config.json"

START: Final = "decoder_start_token_id"
"""The only setting that is still read from generation_config.json, if config.json does not state it."""

_NEUTRAL: Final[dict[str, object]] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "guidance_scale"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("diversity_penalty", "penalty_alpha"), 0),
    "num_beam_groups": 1,
    **dict.fromkeys(
        (
            *("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "constraints"),
            *("begin_suppress_tokens", "sequence_bias", "remove_invalid_values", "force_words_ids", "stop_strings"),
            *("exponential_decay_length_penalty", "early_stopping", "renormalize_logits", "watermarking_config"),
            *("prompt_lookup_num_tokens", "token_healing", "dola_layers", "max_time", "forced_decoder_ids"),
        ),
        None,
    ),
}
"""Settings that change greedy answers or beams, with their neutral values."""


def settings_in(path: Path, name: str) -> dict[str, Any]:
    """Return the settings in a generation_config.json; none if transformers could not read them either.

    Args:
        path: the file.
        name: the backbone, for messages.
    """
    try:
        return read_object(path, name)
    except UsageError:
        return {}


def changed_answers_in_version_0_1(stated: Mapping[str, Any]) -> bool:
    """Return whether version 0.1 let these settings change what a language model writes.

    Args:
        stated: content of `generation_config.json`, or of `config.json`, from which transformers takes them otherwise.
    """
    return any(_changes(stated.get(key), neutral) for key, neutral in _NEUTRAL.items())


def _changes(value: object, neutral: object) -> bool:
    if value is None or value is False or value == []:  # 0 is a token's id
        return False
    return neutral is None or value != neutral
