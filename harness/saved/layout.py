"""What lies where in the folder of a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.data.yaml_reader import short
from harness.errors import UsageError

FORMAT: Final = 1
DESCRIPTION: Final = "model.json"
TRANSFORMER: Final = "transformer"
ADAPTER: Final = "adapter"
WEIGHTS: Final = "model.safetensors"
CARD: Final = "README.md"
IN_MODEL: Final = "transformer."
"""What names of the transformer's parameters begin with, inside of an adapted model."""


class Description(BaseModel):
    """The file that tells what a folder holds.

    Attributes:
        format: version of the layout.
        kind: of the task.
        task: its name.
        labels: names of the classes, in the order of their indices.
        label_words: each class in words.
        max_length: tokens of a text that are read.
        truncation_side: at which end a text is cut.
        characters: whether a backbone reads the characters of a text as words.
        method: label of the configured method.
        backbone: name of the backbone that was adapted; None for methods without one.
        weights: fingerprint of its files, before it was adapted.
        merged: whether trained parameters of the transformer lie among its own weights, in `transformer/`.
        prefix: what their names begin with there.
        seed: of the fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    kind: str
    task: str
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    max_length: int
    truncation_side: Literal["right", "left"] = "right"
    characters: bool = False
    method: str
    backbone: str | None
    weights: str | None
    merged: bool = False
    prefix: str = ""
    seed: int = 0


def read_description(folder: Path) -> Description:
    """The description of a saved model.

    Raises:
        UsageError: the folder holds none, or one that makes no sense.
    """
    path = folder / DESCRIPTION
    try:
        return Description.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"'{folder}' holds no saved model: there is no {DESCRIPTION} in it. Expected a folder that "
            "`harness choose --save FOLDER` has written."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"'{path}': {where}: {short(first['msg'])}. It is no description of a saved model.") from None


def three_lines(folder: str) -> str:
    """How a saved model is used from Python."""
    return f'from harness import load_model\nmodel = load_model("{folder}")\nmodel.predict(["a text", "another"])'


def card(description: Description, facts: Mapping[str, Any]) -> str:
    """A README for people who find the folder: what it is, how good, what it took, how it is used.

    Args:
        description: of the model.
        facts: in words, by what they are of (`data`, `score`, `training`).
    """
    lines = [f"# {description.task}: {description.method}", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    based = f"`{description.backbone}`" if description.backbone else "none"
    lines += [f"- **backbone**: {based}", f"- **classes**: {', '.join(description.labels)}", ""]
    lines += ["```python", three_lines("."), "```", ""]
    files = ["`adapted.safetensors`, `adapted.json`: what was trained, as `load_model` reads it."]
    if description.backbone is not None:
        how = "with the trained weights" if description.merged else "as it was before"
        files.append(
            f"`transformer/`: the transformer, {how}: `transformers.AutoModel.from_pretrained`. It may have a licence "
            "of its own."
        )
    return "\n".join([*lines, *(f"- {line}" for line in files), ""])
