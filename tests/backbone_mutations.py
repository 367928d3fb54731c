"""Damaged copies of a backbone's folder, made from a seed: what a user's disk, scripts or mistakes make of it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
HUGE = (10**9, 2**31, 10**18, 10**30, -1, 0)
ODD = (None, True, "x", "", [], {}, -1, 0, 1.5, 10**9, 10**30, [1, 2], {"a": 1}, "bert", "gpt2", "t5")


def _files(folder: Path, random_: random.Random) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return random_.choice(files)


def truncate(folder: Path, random_: random.Random) -> str:
    """Cut a file off."""
    path = _files(folder, random_)
    content = path.read_bytes()
    path.write_bytes(content[: random_.randrange(len(content) or 1)])
    return path.name


def flip_bits(folder: Path, random_: random.Random) -> str:
    """Flip bits of a file."""
    path = _files(folder, random_)
    content = bytearray(path.read_bytes())
    for _ in range(random_.choice((1, 1, 4, 64))):
        if content:
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    path.write_bytes(bytes(content))
    return path.name


def flip_header_bits(folder: Path, random_: random.Random) -> str:
    """Flip a bit in the first bytes of the weights: lengths, names, shapes and offsets."""
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[random_.randrange(200)] ^= 1 << random_.randrange(8)
    path.write_bytes(bytes(content))
    return path.name


def delete_file(folder: Path, random_: random.Random) -> str:
    """Delete a file."""
    path = _files(folder, random_)
    path.unlink()
    return path.name


def replace_file(folder: Path, random_: random.Random) -> str:
    """Put a folder, a pipe, a link to nothing, an endless device or other text in a file's place."""
    path = _files(folder, random_)
    path.unlink()
    how = random_.choice(("folder", "pipe", "broken link", "device", "deep", "text", "list"))
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "broken link":
        path.symlink_to("absent")
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "deep":
        path.write_text("[" * 100_000 + "]" * 100_000)
    else:
        path.write_text("[]" if how == "list" else "no JSON")
    return f"{path.name}: {how}"


def _json(folder: Path, random_: random.Random) -> Path:
    return random_.choice(sorted(folder.rglob("*.json")))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every entry, at any depth, except within long lists and mappings."""
    found: list[tuple[Any, Any]] = []
    entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, content in entries[:40]:
        found.append((value, key))
        if isinstance(content, dict | list):
            found += _places(content)
    return found


def change_json(folder: Path, random_: random.Random) -> str:
    """Delete an entry of a JSON file, or give it another type or a huge number."""
    path = _json(folder, random_)
    value = json.loads(path.read_text(encoding="utf-8"))
    container, key = random_.choice(_places(value))
    if random_.random() < 0.25:
        del container[key]
        told = f"{path.name}: {key} deleted"
    else:
        container[key] = random_.choice(ODD if random_.random() < 0.6 else HUGE)
        told = f"{path.name}: {key} = {container[key]!r}"
    path.write_text(json.dumps(value), encoding="utf-8")
    return told


def change_config(folder: Path, random_: random.Random) -> str:
    """Change an entry of config.json, or add one that has a meaning to transformers."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    added: dict[str, Any] = {
        "auto_map": {"AutoModel": "evil.Model"},
        "quantization_config": {"quant_method": "gptq", "bits": 4},
        "num_labels": 10**9,
        "transformers_weights": "../other.safetensors",
        "attn_implementation": "some-lab/kernel",
        "is_decoder": True,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "num_hidden_layers": 10**6,
        "vocab_size": 10**9,
        "dtype": "int8",
        "text_config": {"vocab_size": 10**9},
        "pruned_heads": {"0": [0]},
        "layer_types": ["full_attention"] * 3,
        "rope_parameters": {"rope_type": "yarn", "factor": 10**9},
    }
    key = random_.choice(sorted({**added, **config}))
    config[key] = added[key] if key in added and random_.random() < 0.7 else random_.choice(ODD + HUGE)
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"config.json: {key} = {config[key]!r}"


def change_tensors(folder: Path, random_: random.Random) -> str:
    """Drop, rename, reshape, damage or retype a tensor, or add one."""
    import numpy as np

    path = folder / WEIGHTS
    tensors = load_file(path)
    name = random_.choice(sorted(tensors))
    how = random_.choice(
        ("drop", "rename", "transpose", "nan", "inf", "int8", "int64", "empty", "add", "wrap", "float64")
    )
    value = tensors[name]
    if how == "drop":
        del tensors[name]
    elif how == "rename":
        new = random_.choice(
            (name + "x", name.replace("weight", "w"), "x." + name, name.replace("0", "7"), "module." + name)
        )
        tensors[new] = tensors.pop(name)
    elif how == "transpose":
        tensors[name] = np.ascontiguousarray(value.reshape(-1)[: max(1, value.size // 2)])
    elif how in ("nan", "inf"):
        changed = value.copy()
        changed.reshape(-1)[random_.randrange(changed.size)] = float(how)
        tensors[name] = changed
    elif how in ("int8", "int64", "float64"):
        tensors[name] = value.astype(how)
    elif how == "empty":
        tensors[name] = value[:0]
    elif how == "add":
        tensors[
            random_.choice((name.replace("0", "1").replace("1", "5"), name + ".lora_A.weight", "lm_head.weight"))
        ] = value
    else:
        tensors = {
            f"{random_.choice(('module.', '_orig_mod.', 'module._orig_mod.'))}{key}": v for key, v in tensors.items()
        }
    save_file(tensors, path, metadata={"format": "pt"})
    return f"{name}: {how}"


def shard(folder: Path, random_: random.Random) -> str:
    """Write an index over shards, with one missing, misnamed, elsewhere or complete."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    half = len(names) // 2
    parts = {"a.safetensors": names[:half], "b.safetensors": names[half:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    weight_map: dict[str, Any] = {name: file for file, members in parts.items() for name in members}
    how = random_.choice(("complete", "absent", "elsewhere", "number", "unlisted", "extra"))
    if how == "absent":
        (folder / "b.safetensors").unlink()
    elif how == "elsewhere":
        weight_map[names[0]] = "../a.safetensors"
    elif how == "number":
        weight_map[names[0]] = 7
    elif how == "unlisted":
        weight_map = dict.fromkeys(names[:half], "a.safetensors")
    elif how == "extra":
        weight_map["no.such.tensor"] = "a.safetensors"
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return f"shards: {how}"


def add_file(folder: Path, random_: random.Random) -> str:
    """Add a file that would change what is read."""
    content, name = random_.choice(
        (
            ({"base_model_name_or_path": "some-lab/other", "peft_type": "LORA"}, "adapter_config.json"),
            ([{"idx": 0, "path": "../..", "type": "x.Transformer"}], "modules.json"),
            ([{"idx": 0, "path": "", "type": "x.WordEmbeddings"}], "modules.json"),
            ({}, "modules.json"),
            (
                [{"idx": 0, "path": "", "type": "x.Transformer"}, {"idx": 1, "path": "9", "type": "x.Pooling"}],
                "modules.json",
            ),
            ({"pooling_mode": ["cls", "mean"]}, "1_Pooling/config.json"),
            ({"pooling_mode": 3}, "1_Pooling/config.json"),
            ({"pooling_mode_cls_token": "yes"}, "1_Pooling/config.json"),
            ({"repetition_penalty": "x", "eos_token_id": {}}, "generation_config.json"),
            ({"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "tokenizer_config.json"),
        )
    )
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return f"{name} added"


MUTATIONS: tuple[Callable[[Path, random.Random], str], ...] = (
    *(truncate, flip_bits, flip_header_bits, delete_file, replace_file, change_json, change_json, change_config),
    *(change_config, change_tensors, change_tensors, shard, add_file),
)


def mutated(source: Path, target: Path, seed: int) -> str:
    """Copy a folder, damage the copy as the seed says, and return what was done."""
    random_ = random.Random(seed)
    shutil.copytree(source, target)
    return MUTATIONS[seed % len(MUTATIONS)](target, random_)
