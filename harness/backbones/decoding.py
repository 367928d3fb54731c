"""Settings of generation that version 0.1 took from a backbone's files; the task alone decides now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.backbones.layout import read_object
from harness.errors import UsageError

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
"""Settings that change greedy answers or beams, with the value that changes nothing."""


def changed_answers_in_version_0_1(folder: Path, config: Mapping[str, Any], name: str) -> bool:
    """Return whether version 0.1 let a backbone's files change what a language model writes.

    Args:
        folder: the transformer's; its `generation_config.json` counts, else what `config.json` says.
        config: content of `config.json`.
        name: the backbone, for messages.
    """
    path = folder / "generation_config.json"
    try:
        stated = read_object(path, name) if path.is_file() else config
    except UsageError:  # transformers fell back on the configuration too
        stated = config
    start = stated.get("decoder_start_token_id")
    if start is not None and start != config.get("decoder_start_token_id"):
        return True
    return any(_changes(stated.get(key), neutral) for key, neutral in _NEUTRAL.items())


def _changes(value: object, neutral: object) -> bool:
    if value is None or value is False or value == []:  # 0 is a token's id
        return False
    return neutral is None or value != neutral
