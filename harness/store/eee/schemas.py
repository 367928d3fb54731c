"""Check values against the pinned schemas of Every Eval Ever."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, Final, Literal

from harness.support import MissingResourceError, StoreError

VERSION: Final = "0.3.0"
"""Version of the schema that exported files have."""

Name = Literal["eval", "instance_level_eval"]
"""Name of a schema: of a run's results, or of the answers to single rows."""


@functools.cache
def _validator(name: Name) -> Any:
    try:
        import jsonschema
    except ImportError:
        raise MissingResourceError(
            "The export to Every Eval Ever checks each file against its schema, which needs the package jsonschema. "
            "Install it: pip install jsonschema"
        ) from None
    text = resources.files("harness.store.eee").joinpath("schema", f"{name}.schema.json").read_text("utf-8")
    schema = json.loads(text)
    return jsonschema.validators.validator_for(schema)(schema)


def check_schema(value: Any, name: Name, where: str) -> None:
    """Refuse a value that does not match a schema.

    Raises:
        StoreError: the message names the field and the rule.
    """
    fault = next(iter(_validator(name).iter_errors(value)), None)
    if fault is not None:
        field = ".".join(str(one) for one in fault.absolute_path) or "the file"
        raise StoreError(f"{where} does not match the schema of Every Eval Ever {VERSION}: {field}: {fault.message}")
