"""Ways to damage a saved model: each changes a copy of its folder."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.saved.files import list_files

Damage = Callable[[Path, random.Random, Path], str]
"""Called with (folder, source of chance, folder of another model); returns what it did."""

OTHER_TYPES: tuple[Any, ...] = (None, "x", 7, -1, 1.5, True, [], {}, [[]], {"a": 1}, 10**30, "")


def make_format_1(folder: Path) -> None:
    """Turn a folder into one as version 0.1 wrote it: without a manifest."""
    path = folder / "model.json"
    described = json.loads(path.read_text())
    del described["transformer"], described["files"], described["digest"]
    path.write_text(json.dumps({**described, "format": 1}))


def remake_manifest(folder: Path) -> None:
    """Write sizes, hashes and digest anew, as somebody would who wants the damage to pass."""
    if not all(stat.S_ISREG(found.stat().st_mode) or found.is_dir() for found in folder.rglob("*") if found.exists()):
        return
    path = folder / "model.json"
    try:
        described = json.loads(path.read_text())
        described["files"] = {name: file.model_dump() for name, file in list_files(folder).items()}
        rest = {name: value for name, value in described.items() if name != "digest"}
        encoded = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        described["digest"] = hashlib.sha256(encoded.encode()).hexdigest()
        path.write_text(json.dumps(described))
    except Exception:  # noqa: BLE001 - some damage leaves nothing to describe
        return


def tensor_files(folder: Path) -> list[Path]:
    """Return the files of tensors that predicting reads."""
    return [
        path for path in (folder / "adapted.safetensors", folder / "transformer/model.safetensors") if path.exists()
    ]


def json_files(folder: Path) -> list[Path]:
    """Return the harness's own JSON files."""
    return [folder / "model.json", folder / "adapted.json"]


def any_file(folder: Path, chance: random.Random) -> Path:
    """Return one of the files without which a model cannot be."""
    needed = ["transformer/config.json", "transformer/tokenizer.json"]
    there = [
        *json_files(folder),
        *tensor_files(folder),
        *(folder / name for name in needed if (folder / name).exists()),
    ]
    return chance.choice([path for path in there if path.is_file()])


# ---- whole files


def truncate(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    kept = chance.choice([0, 1, 7, 8, path.stat().st_size // 2, path.stat().st_size - 1])
    path.write_bytes(path.read_bytes()[:kept])
    return f"{path.name} cut to {kept} bytes"


def remove(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    path.unlink()
    return f"{path.name} removed"


def make_folder(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    path.unlink()
    path.mkdir()
    return f"{path.name} is a folder"


def link(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    outside = folder.parent / f"outside-{path.name}"
    shutil.move(path, outside)
    path.symlink_to(chance.choice([outside, Path("/dev/zero"), Path("/nowhere"), path]))
    return f"{path.name} is a link to {path.readlink()}"


def make_pipe(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    path.unlink()
    os.mkfifo(path)
    return f"{path.name} is a pipe"


def add_file(folder: Path, chance: random.Random, _: Path) -> str:
    if not (folder / "transformer").exists():
        (folder / "transformer").mkdir()
    name = chance.choice(["adapter_config.json", "modeling_x.py", "pytorch_model.bin", "more.safetensors"])
    (folder / "transformer" / name).write_text(chance.choice(["", "{}", "raise SystemExit"]))
    return f"transformer/{name} added"


def write_pickle(folder: Path, chance: random.Random, _: Path) -> str:
    path = chance.choice(tensor_files(folder))
    marker = str(folder.parent / "executed").encode()
    path.write_bytes(b"cbuiltins\nopen\n(V" + marker + b"\nVw\ntR.")  # opens, and so makes, the marker
    return f"{path.name} is a pickle"


# ---- tensors


def rewrite_tensors(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Read all tensors, change them, and write them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})


def trained_file(folder: Path, chance: random.Random) -> tuple[Path, str]:
    """Return a file and the name of a tensor in it that was trained."""
    from safetensors import safe_open

    described = json.loads((folder / "model.json").read_text())
    paths = tensor_files(folder) if described["merged"] else tensor_files(folder)[:1]
    path = chance.choice(paths)
    with safe_open(path, framework="pt") as opened:
        names = [name for name in opened.keys() if path.parent == folder or _is_trained(name, folder)]  # noqa: SIM118
    return path, chance.choice(sorted(names))


def _is_trained(name: str, folder: Path) -> bool:
    method = json.loads((folder / "adapted.json").read_text())["method"]
    if "pooler" in name:  # no method reads it
        return False
    return method != "last-layers" or "layer." in name


def drop_tensor(folder: Path, chance: random.Random, _: Path) -> str:
    path, name = trained_file(folder, chance)
    rewrite_tensors(path, lambda tensors: tensors.pop(name))
    return f"{path.name}: {name} dropped"


def add_tensor(folder: Path, chance: random.Random, _: Path) -> str:
    import torch

    path = folder / "adapted.safetensors"
    new = chance.choice(["extra", "transformer.embeddings.word_embeddings.weight", "head.2.weight", ""])
    rewrite_tensors(path, lambda tensors: tensors.update({new: torch.zeros(3, 3)}))
    return f"{path.name}: '{new}' added"


def rename_tensor(folder: Path, chance: random.Random, _: Path) -> str:
    path, name = trained_file(folder, chance)
    new = chance.choice([name + "x", f"module.{name}", name.upper(), f"_orig_mod.{name}"])
    rewrite_tensors(path, lambda tensors: tensors.update({new: tensors.pop(name)}))
    return f"{path.name}: {name} renamed to {new}"


def reshape_tensor(folder: Path, chance: random.Random, _: Path) -> str:
    path, name = trained_file(folder, chance)
    changes: list[Callable[[Any], Any]] = [
        lambda value: value.unsqueeze(0),
        lambda value: value[:-1] if value.ndim and len(value) > 1 else value.unsqueeze(0),
        lambda value: value[:1].squeeze(0) if value.ndim and len(value) > 1 else value.unsqueeze(0),
        lambda value: value.flatten() if value.ndim > 1 else value.unsqueeze(-1),
        lambda value: value[:0],
    ]
    change = chance.choice(changes)
    rewrite_tensors(path, lambda tensors: tensors.update({name: change(tensors[name])}))
    return f"{path.name}: {name} of another shape"


def retype_tensor(folder: Path, chance: random.Random, _: Path) -> str:
    import torch

    path, name = trained_file(folder, chance)
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.float8_e4m3fn, torch.bool)

    def change(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors[name].to(chance.choice([t for t in types if t != tensors[name].dtype]))

    rewrite_tensors(path, change)
    return f"{path.name}: {name} of another type"


def break_number(folder: Path, chance: random.Random, _: Path) -> str:
    path, name = trained_file(folder, chance)
    value = chance.choice([float("nan"), float("inf"), float("-inf")])

    def change(tensors: dict[str, Any]) -> None:
        if tensors[name].is_floating_point():
            tensors[name].view(-1)[chance.randrange(tensors[name].numel())] = value
        else:
            del tensors[name]

    rewrite_tensors(path, change)
    return f"{path.name}: a number of {name} is {value}"


def break_header(folder: Path, chance: random.Random, _: Path) -> str:
    path = chance.choice(tensor_files(folder))
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    what = chance.choice(["length", "deep", "offsets", "shape", "negative", "dtype", "bytes", "twice"])
    if what == "length":
        path.write_bytes(struct.pack("<Q", chance.choice([2**40, 2**63, 99_000_000, len(raw)])) + raw[8:])
        return f"{path.name}: its header claims to be huge"
    if what == "offsets":
        header[name]["data_offsets"] = [0, 2**42]
    if what == "shape":
        header[name]["shape"] = [2**31, 2**31, 2**31]
    if what == "negative":
        header[name]["shape"] = [-1]
    if what == "dtype":
        header[name]["dtype"] = chance.choice(["F128", "", None])
    if what == "deep":
        header["__metadata__"] = "deep"
    text = json.dumps(header).encode()
    if what == "deep":
        text = text.replace(b'"deep"', b"[" * 100_000 + b"]" * 100_000)
    if what == "bytes":
        text = b"\xff\xfe" + text
    if what == "twice":
        text = (
            text[:-1] + b"," + json.dumps({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()[1:]
        )
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    return f"{path.name}: header with {what}"


# ---- JSON


def drop_key(folder: Path, chance: random.Random, _: Path) -> str:
    path = chance.choice(json_files(folder))
    value = json.loads(path.read_text())
    holder, key = _some_key(value, chance)
    del holder[key]
    path.write_text(json.dumps(value))
    return f"{path.name}: {key} dropped"


def change_type(folder: Path, chance: random.Random, _: Path) -> str:
    path = chance.choice(json_files(folder))
    value = json.loads(path.read_text())
    holder, key = _some_key(value, chance)
    before = holder[key]
    others = [new for new in OTHER_TYPES if type(new) is not type(before) and not (new is None and key == "tune")]
    holder[key] = chance.choice(others)
    path.write_text(json.dumps(value))
    return f"{path.name}: {key} is {holder[key]!r}, was {str(before)[:40]!r}"


def _some_key(value: Any, chance: random.Random) -> tuple[Any, Any]:
    """Return an object or list inside of a JSON value, and one of its keys."""
    holder, key = value, chance.choice(sorted(value))
    while isinstance(holder[key], dict | list) and holder[key] and chance.random() < 0.6:
        holder = holder[key]
        key = chance.choice(sorted(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    return holder, key


def replace_json(folder: Path, chance: random.Random, _: Path) -> str:
    path = chance.choice([*json_files(folder), *filter(Path.exists, [folder / "transformer/config.json"])])
    text = chance.choice(
        [
            "[" * 200_000,
            "{" * 5,
            "null",
            "[]",
            "{}",
            "\ufeff{}",
            '{"a":' * 50_000 + "1" + "}" * 50_000,
            "NaN",
            "9" * 10_000,
        ]
    )
    path.write_text(text)
    return f"{path.name} is {text[:8]}..."


def change_labels(folder: Path, chance: random.Random, _: Path) -> str:
    path = folder / "model.json"
    value = json.loads(path.read_text())
    what = chance.choice(["added", "removed", "doubled", "words"])
    if json.loads((folder / "adapted.json").read_text())["method"] in ("knn", "random-forest-probe"):
        what = "removed"  # they keep no number a class: one more is a class that no row has
    for name in ("labels", "label_words"):
        if what == "added":
            value[name].append("another")
        if what == "removed":
            value[name].pop()
        if what == "doubled":
            value[name][-1] = value[name][0]
    if what == "words":
        value["label_words"].pop()
    path.write_text(json.dumps(value))
    return f"labels {what}"


def claim_layers(folder: Path, _: random.Random, __: Path) -> str:
    path = folder / "transformer" / "config.json"
    if path.exists():
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 10**9}))
    else:
        path.parent.mkdir()
    return "config.json claims a billion layers"


# ---- what only a manifest can show


def flip(folder: Path, chance: random.Random, _: Path) -> str:
    path = any_file(folder, chance)
    raw = bytearray(path.read_bytes())
    at = chance.randrange(len(raw))
    raw[at] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(raw))
    return f"{path.name}: a bit of byte {at} flipped"


def swap_files(folder: Path, chance: random.Random, other: Path) -> str:
    path = any_file(folder, chance)
    theirs = other / path.relative_to(folder)
    if theirs.exists():
        shutil.copyfile(theirs, path)
    else:
        path.unlink()
    return f"{path.name} of {other.name}"


def reorder_labels(folder: Path, _: random.Random, __: Path) -> str:
    path = folder / "model.json"
    value = json.loads(path.read_text())
    value["labels"].reverse()
    path.write_text(json.dumps(value))
    return "labels reversed"


def edit_card(folder: Path, _: random.Random, __: Path) -> str:
    (folder / "README.md").write_text("# Mine\n")
    return "README.md edited"


def remove_optional(folder: Path, chance: random.Random, _: Path) -> str:
    paths = [path for path in (folder / "transformer").glob("*.json") if path.name.startswith(("tok", "special"))]
    path = chance.choice(paths) if paths else folder / "adapted.json"
    path.unlink()
    return f"{path.name} removed"


STRUCTURAL: tuple[Damage, ...] = (
    truncate, remove, make_folder, link, make_pipe, add_file, write_pickle, drop_tensor, add_tensor, rename_tensor,
    reshape_tensor, retype_tensor, break_number, break_header, drop_key, change_type, replace_json, change_labels,
    claim_layers, edit_card,
)  # fmt: skip
"""Damage that is found without a manifest."""

OTHER: tuple[Damage, ...] = (flip, swap_files, reorder_labels, remove_optional)
"""Damage that leaves a model of the right form: only hashes tell."""
