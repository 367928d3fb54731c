"""The layout of a saved model's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.data import short
from harness.records import encode
from harness.support import UsageError

FORMAT: Final = 2
ENSEMBLE_FORMAT: Final = 3
DESCRIPTION: Final = "model.json"
TRANSFORMER: Final = "transformer"
ADAPTER: Final = "adapter"
WEIGHTS: Final = "model.safetensors"
CARD: Final = "README.md"
MEMBERS: Final = "members"
IN_MODEL: Final = "transformer."
"""Prefix of the transformer's parameters in an adapted model."""

_MOST_BYTES: Final = 2**26
"""Maximum size of a description; 100,000 classes need less."""


class SavedFile(BaseModel):
    """A file of a saved model, as it was written.

    Attributes:
        bytes: its size.
        sha256: SHA-256 of its contents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SavedReply(BaseModel):
    """Settings with which a language model writes its answers (`harness.tasks.Reply`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_new_tokens: int = Field(ge=1)
    num_beams: int = Field(ge=1)
    stop: tuple[str, ...]


class SavedEndpoint(BaseModel):
    """The endpoint of a served model, and how it was asked; the key itself is nowhere.

    Attributes:
        url: base URL of the API.
        model: name of the model, as the server calls it.
        revision: revision that the user declared.
        key: name of the environment variable that holds the key.
        concurrency: maximum number of requests at a time.
        timeout: seconds after which a request is sent again.
        offer: abilities of the server that affect answers (`harness.backbones.Offer.identity`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: str = Field(min_length=1)
    model: str = Field(min_length=1)
    revision: str | None
    key: str = Field(min_length=1)
    concurrency: int = Field(ge=1)
    timeout: float = Field(gt=0)
    offer: dict[str, Any]


class Description(BaseModel):
    """The description of a saved model. Every key must be present: a missing one is damage, not a default.

    Only models that answer prompts have `prompt` and `reply`.

    Attributes:
        format: version of the layout; version 1 has none of `transformer`, `files` and `digest`.
        kind: kind of the task.
        task: name of the task.
        labels: names of the classes, labels or tags, in the order of their indices; empty where answers are numbers.
        label_words: each of them in words.
        max_length: maximum number of tokens read from a text.
        truncation_side: end at which a text is cut.
        characters: whether a backbone reads the characters of a text as words.
        method: label of the configured method.
        backbone: name of the backbone that was adapted; None for methods without one.
        weights: fingerprint of the backbone's files, before it was adapted.
        merged: whether trained parameters of the transformer lie among its own weights, in `transformer/`.
        prefix: prefix of their names there.
        seed: seed of the fit.
        transformer: fingerprint of the folder `transformer/` as a backbone; None for methods without one.
        files: every file that predicting reads, by its path in the folder.
        digest: SHA-256 of this description without `digest`.
        prompt: template of prompts, whose fields name the kind's roles; None without one.
        reply: settings of generation; None where nothing is written.
        endpoint: endpoint of the served model that is asked; None for all other methods.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1, 2]
    kind: str
    task: str
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    max_length: int = Field(ge=1)
    truncation_side: Literal["right", "left", "input"]
    characters: bool
    method: str
    backbone: str | None
    weights: str | None
    merged: bool
    prefix: str
    seed: int
    transformer: str | None = None
    files: dict[str, SavedFile] | None = None
    digest: str | None = None
    prompt: str | None = Field(default=None, min_length=1)
    reply: SavedReply | None = None
    endpoint: SavedEndpoint | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("two classes have the same name")
        if len(self.label_words) != len(self.labels):
            raise ValueError(f"there are {len(self.labels)} labels and {len(self.label_words)} label_words")
        if (self.backbone is None) != (self.weights is None) or (self.merged and self.backbone is None):
            raise ValueError("backbone, weights and merged contradict each other")
        if self.format == 1 and (self.transformer, self.files, self.digest) != (None, None, None):
            raise ValueError("format 1 has none of transformer, files and digest")
        is_inside = self.backbone is not None and self.endpoint is None
        if self.format == 2 and (self.transformer is not None) != is_inside:
            raise ValueError("backbone and transformer contradict each other")
        if self.format == 2 and self.digest != self.digest_of_the_rest():
            raise ValueError("digest is not that of the other keys: the file was changed after it was saved")
        if self.format == 2 and not self.files:
            raise ValueError("files is missing")
        return self

    def digest_of_the_rest(self) -> str:
        """Return the SHA-256 of everything but `digest`."""
        stated = self.model_dump(mode="json", exclude={"digest", *self._unstated})
        return hashlib.sha256(encode(stated).encode()).hexdigest()

    @property
    def _unstated(self) -> set[str]:
        """Keys that are left out where they are None."""
        return {name for name in ("prompt", "reply", "endpoint") if getattr(self, name) is None}

    def to_text(self) -> str:
        """Return the description as it is written to a file."""
        return self.model_dump_json(indent=1, exclude=self._unstated)

    def sealed(self) -> Description:
        """Return the same description with its `digest`."""
        return Description.model_validate({**dict(self), "digest": self.digest_of_the_rest()})


def describe(**facts: Any) -> Description:
    """Return a description of the present format, with its digest.

    Args:
        facts: values of all attributes but `format` and `digest`.
    """
    unsealed = Description.model_construct(format=FORMAT, digest=None, **facts)  # some attributes have defaults
    return unsealed.sealed()


class Member(BaseModel):
    """A saved model inside an ensemble.

    Attributes:
        folder: name of its folder inside `members/`.
        method: label of its method.
        weight: share of its probabilities in those of the ensemble.
        temperature: divisor of the logarithms of its probabilities, before they are averaged.
        digest: digest of its description, which lists the SHA-256 of its files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    folder: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    method: str
    weight: float = Field(gt=0, le=1)
    temperature: float = Field(gt=0, allow_inf_nan=False)
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class EnsembleDescription(BaseModel):
    """The description of an ensemble: a weighted mean of the calibrated class probabilities of saved models.

    Attributes:
        format: version of the layout.
        kind: kind of the task.
        task: name of the task.
        labels: names of the classes, in the order of their indices.
        method: what the ensemble is made of, in words.
        members: its saved models.
        digest: SHA-256 of this description without `digest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[3]
    kind: str
    task: str
    labels: tuple[str, ...] = Field(min_length=1)
    method: str
    members: tuple[Member, ...] = Field(min_length=2)
    digest: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len({member.folder for member in self.members}) < len(self.members):
            raise ValueError("two members have the same folder")
        if abs(sum(member.weight for member in self.members) - 1) > _WEIGHTS_OFF:
            raise ValueError("the weights of the members do not sum to 1")
        if self.digest != self.digest_of_the_rest():
            raise ValueError("digest is not that of the other keys: the file was changed after it was saved")
        return self

    def digest_of_the_rest(self) -> str:
        """Return the SHA-256 of everything but `digest`."""
        return hashlib.sha256(encode(self.model_dump(mode="json", exclude={"digest"})).encode()).hexdigest()


_WEIGHTS_OFF: Final = 1e-9


def describe_ensemble(**facts: Any) -> EnsembleDescription:
    """Return a description of an ensemble, with its digest.

    Args:
        facts: values of all attributes but `format` and `digest`.
    """
    unsealed = EnsembleDescription.model_construct(format=ENSEMBLE_FORMAT, digest=None, **facts)
    return EnsembleDescription.model_validate({**dict(unsealed), "digest": unsealed.digest_of_the_rest()})


def read_single(folder: Path) -> Description:
    """Read the description of a saved model that is no ensemble.

    Raises:
        UsageError: the folder holds none, or an invalid one.
    """
    described = read_description(folder)
    if isinstance(described, EnsembleDescription):
        raise UsageError(f"'{folder}' is an ensemble; expected the saved model of one method.")
    return described


def _is_ensemble(content: bytes) -> bool:
    """Return whether a file says that it describes an ensemble; a damaged file does not."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == ENSEMBLE_FORMAT


def read_description(folder: Path) -> Description | EnsembleDescription:
    """Read the description of a saved model or an ensemble.

    Raises:
        UsageError: the folder holds none, or an invalid one.
    """
    path = folder / DESCRIPTION
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"'{path}' is not a regular file. It is not a description of a saved model.")
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"'{path}' has {path.stat().st_size:,} bytes. It is not a description of a saved model.")
        content = path.read_bytes()
        described = EnsembleDescription if _is_ensemble(content) else Description
        return described.model_validate_json(content)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"'{folder}' holds no saved model: there is no {DESCRIPTION} in it. Expected a folder that "
            "`harness choose --save FOLDER` has written."
        ) from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        hint = ""
        if where == "format" and first["type"] == "literal_error":
            hint = (
                f" This version of the harness reads formats 1 to {ENSEMBLE_FORMAT}: a newer one may have saved the "
                "model."
            )
        raise UsageError(
            f"'{path}': {where}: {short(first['msg'])}. It is not a valid description of a saved model.{hint}"
        ) from None


def _three_lines(kind: str) -> str:
    """Return the Python code that uses a saved model of a kind of task, run in its folder."""
    inputs = {
        "text-pair": '[("a text", "its partner")]',
        "similarity": '[("a text", "its partner")]',
        "question-answering": '[("a question", "a text with its answer")]',
        "multiple-choice": '[("a question", ["one answer", "another"])]',
        "token-classification": '[["some", "words"], ["of", "sentences"]]',
    }.get(kind, '["a text", "another"]')
    return f'from harness import load_model\nmodel = load_model(".")\nmodel.predict({inputs})'


def card(description: Description | EnsembleDescription, facts: Mapping[str, Any]) -> str:
    """Return a README for people who find the folder: content, quality, cost and use.

    Args:
        description: description of the model.
        facts: facts in words, by subject (`data`, `score`, `training`).
    """
    lines = [f"# {description.task}: {description.method}", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    if isinstance(description, EnsembleDescription):
        return "\n".join([*lines, *_about_members(description), ""])
    based = f"`{description.backbone}`" if description.backbone else "none"
    lines += [f"- **backbone**: {based}", *_classes_and_use(description)]
    files = ["`adapted.safetensors`, `adapted.json`: what was trained, as `load_model` reads it."]
    endpoint = description.endpoint
    if endpoint is not None:
        files.append(
            f"Predictions ask the model `{endpoint.model}` at {endpoint.url}; another address is named by "
            f"`harness predict --endpoint URL`. A key is read from the environment variable {endpoint.key}, and is in "
            "no file here."
        )
    elif description.backbone is not None:
        how = "with the trained weights" if description.merged else "as it was before"
        files.append(
            f"`transformer/`: the transformer, {how}: `transformers.AutoModel.from_pretrained`. It may have a licence "
            "of its own."
        )
    return "\n".join([*lines, *(f"- {line}" for line in files), ""])


def _classes_and_use(description: Description | EnsembleDescription) -> list[str]:
    lines = _three_lines(description.kind)
    what = {"multi-label": "labels", "token-classification": "tags"}.get(description.kind, "classes")
    named = [f"- **{what}**: {', '.join(description.labels)}"] if description.labels else []
    return [*named, "", "```python", lines, "```", ""]


def _about_members(description: EnsembleDescription) -> list[str]:
    """Return the lines of a card that tell what an ensemble is made of."""
    parts = ", ".join(f"{member.method} ({member.weight:.2f})" for member in description.members)
    files = [
        f"`{MEMBERS}/{member.folder}/`: a saved model of its own ({member.method})." for member in description.members
    ]
    return [
        f"- **members, with their weights**: {parts}",
        *_classes_and_use(description),
        "A class has the weighted mean of the members' probabilities, each calibrated by a temperature.",
        "",
        *(f"- {line}" for line in files),
    ]
