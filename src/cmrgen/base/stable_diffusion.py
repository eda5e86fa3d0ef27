"""Stable Diffusion 2.1 and 1.5 as frozen bases: from the hub, from a diffusers folder or from one
original file.

Reading an original file needs no network: the JSON configs are in assets/<kind>, and diffusers' own
conversion is given them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cmrgen.base.frozen import Base
from cmrgen.base.phases import EVEN, PAPER
from cmrgen.base.weights import (
    KINDS,
    SCHEDULE,
    STEMS,
    check_hash,
    json_configs,
    located,
    other_model,
    sampled_hash,
    tensor_files,
    tensors,
)

NETWORKS = {"vae": AutoencoderKL, "unet": UNet2DConditionModel}
IN_FILE = {"vae": "first_stage_model.", "unet": "model.diffusion_model."}
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
# open_clip's names and CLIPTextModel's; query, key and value are one matrix in the former
NAMES = (
    ("token_embedding", "embeddings.token_embedding"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("transformer.resblocks.", "encoder.layers."),
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    ("ln_final.", "final_layer_norm."),
)


def load_sd(
    weights: str | Path,
    *,
    kind: str = "sd21",
    allow_pickle: bool = False,
    sha256: str | None = None,
    configs: str | Path | None = None,
    channels: str = EVEN,
) -> Base:
    """Stable Diffusion as a base whose networks are read, into float32, when they are first used.

    Args:
        weights: a hub id, a diffusers folder (vae/, unet/, scheduler/, text_encoder/ with
            safetensors) or an original .ckpt or .safetensors.
        kind: of KINDS.
        allow_pickle: read a .ckpt that holds more than tensors, which may run code.
        sha256: what a single file should have, by default the published one of a .ckpt; another
            one warns.
        configs: a folder with the JSON configs of a single file, by default assets/<kind>.
        channels: how ED and ES become three, see cmrgen.base.phases.

    Raises:
        FileNotFoundError: where nothing complete is found.
        ValueError: for another model's weights or a refused .ckpt.
    """
    if kind not in KINDS:
        raise ValueError(
            f"base.kind={kind}: there are {', '.join(KINDS)} and folder (written by "
            "experiment=base)"
        )
    of, source = KINDS[kind], located(str(weights), kind)
    found = (
        _opened_file(source, kind, configs=configs, allow_pickle=allow_pickle, sha256=sha256)
        if source.is_file()
        else _opened_folder(source)
    )
    config = {
        part: json.loads((found.configs / part / "config.json").read_text()) for part in STEMS
    }
    if config["text_encoder"]["hidden_act"] != of.activation:
        raise other_model(source, kind)
    schedule = {"prediction_type": "epsilon", **json.loads((found.configs / SCHEDULE).read_text())}
    vae, side = config["vae"], config["unet"]["sample_size"]
    latent, factor = vae["latent_channels"], 2 ** (len(vae["block_out_channels"]) - 1)
    scaling = vae.get("scaling_factor", 0.18215)
    mark = sampled_hash(found.files, {**schedule, "scaling_factor": scaling, "sample_size": side})
    return Base(
        parts=found.parts,
        schedule=schedule,
        shift=torch.zeros(latent, 1, 1),
        scale=torch.full((latent, 1, 1), scaling),
        pixels=side * factor,
        factor=factor,
        tokens=config["text_encoder"]["max_position_embeddings"],
        fingerprint=f"{mark}{'' if channels == PAPER else f'-{channels}'}",
        pad=of.pad,
        channels=channels,
    )


def clip_to_open(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a CLIPTextModel as that of an open_clip TextTransformer; one that is so
    already stays as it is."""
    named = dict[str, Tensor]()
    for name, tensor in state.items():
        name = name.removeprefix("text_model.")
        for ours, theirs in NAMES:
            name = name.replace(theirs, ours)
        named[name] = tensor
    for query in [name for name in named if ".q_proj." in name]:
        block, leaf = query.split("q_proj.")
        named[f"{block}in_proj_{leaf}"] = torch.cat(
            [named.pop(f"{block}{p}_proj.{leaf}") for p in "qkv"]
        )
    return named


def open_to_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an open_clip text tower as that of a CLIPTextModel, named as the published
    weights are."""
    named = dict[str, Tensor]()
    for name, tensor in state.items():
        if name in ("text_projection", "logit_scale", "attn_mask"):
            continue  # a CLIPTextModel has none
        for ours, theirs in NAMES:
            name = name.replace(ours, theirs)
        block, fused, leaf = f"text_model.{name}".partition("in_proj_")
        if fused:
            named |= {
                f"{block}{p}_proj.{leaf}": t.clone()
                for p, t in zip("qkv", tensor.chunk(3), strict=True)
            }
        else:
            named[block] = tensor
    return named


def clip_tower(config: Mapping[str, Any]) -> TextTransformer:
    """An open_clip text tower, weights random, of the shape a CLIPTextModel's config.json gives.

    It ends with the last layer that is read: for SD 2.1 the penultimate of OpenCLIP ViT-H-14's 24,
    then ln_final.
    """
    return TextTransformer(
        context_length=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        layers=config["num_hidden_layers"],
        mlp_ratio=config["intermediate_size"] / config["hidden_size"],
        act_layer=ACTIVATIONS[config["hidden_act"]],
        output_dim=None,
    )


class _Opened(NamedTuple):
    """Where a model's networks are read from."""

    parts: dict[str, Callable[[], nn.Module]]
    configs: Path  # folder of their JSON configs
    files: Mapping[str, Path]  # that hold their weights


def _opened_file(
    file: Path, kind: str, *, configs: str | Path | None, allow_pickle: bool, sha256: str | None
) -> _Opened:
    """An original .ckpt or .safetensors, whose hash is compared."""
    folder = json_configs(kind, configs)
    parts = _parts_of_file(file, folder, kind, allow_pickle=allow_pickle)
    check_hash(file, sha256 or (KINDS[kind].sha256 if file.suffix == ".ckpt" else ""))
    return _Opened(parts, folder, {"file": file})


def _opened_folder(folder: Path) -> _Opened:
    """A diffusers folder."""
    files = tensor_files(folder)
    return _Opened(_parts_of_folder(folder, files), folder, files)


def _parts_of_file(
    file: Path, configs: Path, kind: str, *, allow_pickle: bool
) -> dict[str, Callable[[], nn.Module]]:
    def under(*prefixes: str) -> dict[str, Tensor]:
        every = tensors(file, allow_pickle=allow_pickle)
        return {name: tensor for name, tensor in every.items() if name.startswith(prefixes)}

    def network(part: str) -> nn.Module:
        state = under(IN_FILE[part], "model_ema.")
        with _shapes_of(part), _Uninitialised():
            loaded = NETWORKS[part].from_single_file(
                state,
                config=str(configs),
                subfolder=part,
                local_files_only=True,
                low_cpu_mem_usage=False,
                extract_ema=True,  # where a file has both; so have the published folders
            )
        # diffusers does not say what the file lacks
        _check_complete(
            part, sum(name.startswith(IN_FILE[part]) for name in state), len(loaded.state_dict())
        )
        return loaded

    def text() -> nn.Module:
        return _filled(configs, {name.removeprefix(prefix): t for name, t in under(prefix).items()})

    prefix, names = KINDS[kind].text, list(tensors(file, allow_pickle=allow_pickle))
    for part, start in {**IN_FILE, "text": prefix}.items():
        if not any(name.startswith(start) for name in names):
            raise other_model(file, kind, has=f"no {part} weights ({start}*)")
    return {"vae": partial(network, "vae"), "unet": partial(network, "unet"), "text": text}


def _parts_of_folder(folder: Path, files: Mapping[str, Path]) -> dict[str, Callable[[], nn.Module]]:
    def network(part: str) -> nn.Module:
        loaded, report = NETWORKS[part].from_pretrained(
            folder / part,
            variant="fp16" if ".fp16" in files[part].suffixes else None,
            use_safetensors=True,
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
        total = len(loaded.state_dict())
        _check_complete(part, total - len(report["missing_keys"]), total)
        return loaded

    def text() -> nn.Module:
        return _filled(folder, tensors(files["text_encoder"], allow_pickle=False))

    return {"vae": partial(network, "vae"), "unet": partial(network, "unet"), "text": text}


def _filled(configs: Path, state: Mapping[str, Tensor]) -> TextTransformer:
    config, state = (
        json.loads((configs / "text_encoder" / "config.json").read_text()),
        clip_to_open(state),
    )
    with _Uninitialised():
        tower = clip_tower(config)
    wanted = {name: state[name] for name in tower.state_dict() if name in state}
    _check_complete("text", len(wanted), len(tower.state_dict()))
    with _shapes_of("text"):
        tower.load_state_dict(wanted)
    return tower


class _Uninitialised(TorchFunctionMode):
    """Networks made inside are not filled with random numbers: a minute of one core for what is
    overwritten at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_complete(part: str, present: int, wanted: int) -> None:
    if present < wanted:
        raise ValueError(
            f"base.weights: {present} of the {wanted} tensors of the {part} are there: damaged or "
            "another model"
        )


@contextmanager
def _shapes_of(part: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise ValueError(
            f"base.weights: the {part}'s tensors do not fit its config.json: {error}"
        ) from error
