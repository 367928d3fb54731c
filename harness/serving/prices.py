"""Prices of served models' tokens and of machines, from a small YAML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.backbones import Price
from harness.data import read_yaml
from harness.support import UsageError

VARIABLE = "HARNESS_PRICES"
"""Environment variable that names the file of prices."""

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelPrices(BaseModel):
    """Prices of one model.

    Attributes:
        prompt_per_million: price of a million prompt tokens.
        cached_prompt_per_million: price of those that the server reads from its cache; None is the full price.
        completion_per_million: price of a million written tokens.
        per_hour: price of an hour of the machine that serves the model; None where tokens are charged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_per_million: _Amount = 0.0
    cached_prompt_per_million: _Amount | None = None
    completion_per_million: _Amount = 0.0
    per_hour: _Amount | None = None


class Prices(BaseModel):
    """Content of a file of prices.

    Attributes:
        currency: currency of all amounts, such as `EUR`.
        models: prices of served models, by the names that servers use.
        machines: price of an hour of each machine by the name of its device; `default` is that of all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(min_length=1, max_length=16)
    models: dict[str, ModelPrices] = Field(default_factory=dict)
    machines: dict[str, _Amount] = Field(default_factory=dict)

    def of(self, model: str) -> Price | None:
        """Return the price of a model's tokens; None where the file states none."""
        found = self.models.get(model)
        if found is None:
            return None
        return Price(
            self.currency, found.prompt_per_million, found.completion_per_million, found.cached_prompt_per_million
        )


def read_prices(path: str | Path | None = None) -> Prices | None:
    """Return the prices of a file; None takes the file that HARNESS_PRICES names, and returns None without one.

    Raises:
        UsageError: the file cannot be read, or is no valid file of prices; the message names the key.
    """
    named = os.environ.get(VARIABLE) if path is None else path
    if not named:
        return None
    where = Path(named).expanduser()
    try:
        content = read_yaml(where.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file of prices {where} cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        raise UsageError(f"The file of prices {where} is not YAML ({error}).") from None
    if not isinstance(content, dict):
        raise UsageError(f"The file of prices {where} holds no mapping; expected currency, models and machines.")
    try:
        return Prices.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg'].lower()}" for one in error.errors()[:5]
        )
        raise UsageError(f"The file of prices {where} is not valid: {problems}.") from None
