"""Where the attention of the package flash-attn can be used."""

from __future__ import annotations

import importlib.util

from harness.measure import PrecisionPolicy
from harness.methods._bitsandbytes import unless_elsewhere


def why_no_flash_attention(attention: str, precision: PrecisionPolicy, device: str) -> str | None:
    """Return why `attention` cannot be used here, and what to use instead; None if it can.

    Args:
        attention: setting of the method; all but `flash_attention_2` can be used everywhere.
        precision: setting of the method.
        device: kind of the device.
    """
    if attention != "flash_attention_2":
        return None
    instead = "use attention=auto, which takes torch's own flash kernels where no mask is needed."
    if device == "cpu":
        return f"attention=flash_attention_2 needs a GPU, and this cell runs on a CPU; {instead}"
    if precision == "fp32":
        return f"attention=flash_attention_2 computes in 16 bits, and precision is fp32; {instead}"
    if importlib.util.find_spec("flash_attn") is None:
        return unless_elsewhere(
            f"attention=flash_attention_2 needs the package flash-attn, which is not installed; {instead}"
        )
    return None
