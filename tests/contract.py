"""Methods as the contract tests make and look at them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from harness.backbones.locate import BackboneFiles
from harness.methods import methods
from harness.methods.base import Method

BRIEF: dict[str, Any] = {"min_steps": 6, "epochs": 1, "n_pairs": 1, "max_steps": 6}


def configured(name: str, **settings: Any) -> Method:
    cls = methods.get(name)
    return cls(**{key: value for key, value in settings.items() if key in cls.model_fields})


def unsupported(method: Method, files: BackboneFiles) -> bool:
    """Whether the method says that it cannot serve this backbone here; its record must then say so too."""
    return method.why_unsupported("classification", files, "cpu") is not None


def state_hash(module: torch.nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, value in module.state_dict().items()
    }
