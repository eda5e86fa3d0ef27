"""Random models of Stable Diffusion's topology with few channels: as a diffusers folder and as the
original single files."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.base.stable_diffusion import NETWORKS, clip_to_open, clip_tower, open_to_clip
from cmrgen.base.weights import ASSETS, KINDS
from cmrgen.prompts import prompts

SIDES = {
    "sd21": {"hidden_size": 16, "num_attention_heads": 2},
    "sd15": {"hidden_size": 8, "num_attention_heads": 1},
}
BLOCK = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)


def words() -> list[str]:
    """Prompts of the project, the empty one among them."""
    people = pd.DataFrame(
        {
            "sex": ["M", "F", None, "F"],
            "age": [71.0, 45.0, float("nan"), 62.0],
            "bmi_band": ["normal", "obese", None, "overweight"],
            "diagnosis": ["hf", "healthy", None, "reduced_ef"],
            "conditions": ["", "", None, "mi;af"],
        }
    )
    return list(prompts(people))


def write_models(root: Path) -> dict[str, Path]:
    """kind -> a folder with diffusers/, whole.safetensors and whole.ckpt of the same weights."""
    made = {}
    for kind in KINDS:
        made[kind] = root / kind
        made[kind].mkdir()
        state = original(write_folder(made[kind] / "diffusers", kind), kind)
        save_file({k: v.contiguous() for k, v in state.items()}, made[kind] / "whole.safetensors")
        torch.save({"state_dict": state, "global_step": 3}, made[kind] / "whole.ckpt")
    return made


def tiny_configs(folder: Path, kind: str) -> Path:
    """The shipped configs with few channels: all that differs is size."""
    shutil.copytree(ASSETS / kind, folder)
    text = SIDES[kind] | {
        "intermediate_size": 4 * SIDES[kind]["hidden_size"],
        "num_hidden_layers": 2,
    }
    heads = [2, 2, 4, 4] if kind == "sd21" else 2
    for part, smaller in {
        "unet": {
            "block_out_channels": [8, 8, 16, 16],
            "norm_num_groups": 4,
            "attention_head_dim": heads,
            "cross_attention_dim": text["hidden_size"],
            "sample_size": 8,
        },
        "vae": {"block_out_channels": [4, 4, 8, 8], "norm_num_groups": 4},
        "text_encoder": text,
    }.items():
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | smaller))
    return folder


def write_folder(folder: Path, kind: str) -> Path:
    """A diffusers folder of random weights (also those that diffusers initialises with zeros or
    ones)."""
    torch.manual_seed(0)
    tiny_configs(folder, kind)
    for part, network in NETWORKS.items():
        model = network.from_config(network.load_config(str(folder / part)))
        for value in model.parameters():
            value.data.add_(0.05 * torch.randn_like(value))
        model.save_pretrained(folder / part)
    tower = clip_tower(json.loads((folder / "text_encoder" / "config.json").read_text()))
    save_file(open_to_clip(tower.state_dict()), folder / "text_encoder" / "model.safetensors")
    return folder


def original(folder: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a diffusers folder under the names of the original single file."""
    vae, unet = (
        load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in NETWORKS
    )
    text = load_file(folder / "text_encoder" / "model.safetensors")
    if kind == "sd21":
        text = clip_to_open(text)
        last = {
            k.replace("resblocks.1.", "resblocks.2."): -v
            for k, v in text.items()
            if "resblocks.1." in k
        }
        # none of it is read
        text |= last | {"text_projection": torch.randn(16, 16), "logit_scale": torch.tensor(4.6)}
    else:
        text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return {
        **{f"model.diffusion_model.{unet_name(k)}": v for k, v in unet.items()},
        **{
            f"first_stage_model.{vae_name(k)}": v[..., None, None] if convolves(k) else v
            for k, v in vae.items()
        },
        **{KINDS[kind].text + k: v for k, v in text.items()},
    }


def unet_name(name: str) -> str:
    where, _, rest = name.partition(".")
    simple = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for theirs, ours in simple.items():
        if name.startswith(theirs + "."):
            return name.replace(theirs, ours)
    for theirs, ours in BLOCK if "resnets" in name else ():
        rest = rest.replace(theirs, ours)
    if where == "mid_block":
        part, number, leaf = rest.split(".", 2)
        return f"middle_block.{1 if part == 'attentions' else 2 * int(number)}.{leaf}"
    block, part, number, leaf = rest.split(".", 3)
    k, layer = int(block), int(number)
    if where == "down_blocks":
        if part == "downsamplers":
            return f"input_blocks.{3 * k + 3}.0.op.{leaf.removeprefix('conv.')}"
        return f"input_blocks.{3 * k + layer + 1}.{int(part == 'attentions')}.{leaf}"
    if part == "upsamplers":  # behind the attention, which the first block lacks
        return f"output_blocks.{3 * k + 2}.{2 if k else 1}.{leaf}"
    return f"output_blocks.{3 * k + layer}.{int(part == 'attentions')}.{leaf}"


def vae_name(name: str) -> str:
    parts = name.split(".")
    if parts[1] in ("down_blocks", "up_blocks"):
        level = int(parts[2]) if parts[1] == "down_blocks" else 3 - int(parts[2])
        part = {
            "resnets": f"block.{parts[4]}",
            "downsamplers": "downsample",
            "upsamplers": "upsample",
        }[parts[3]]
        name = ".".join([parts[0], parts[1].removesuffix("_blocks"), str(level), part, *parts[5:]])
    for theirs, ours in (
        ("mid_block.attentions.0", "mid.attn_1"),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        name = name.replace(theirs, ours)
    return name


def convolves(name: str) -> bool:
    """The original VAE's attention is made of 1 x 1 convolutions."""
    return "attentions" in name and ".to_" in name and name.endswith("weight")


def load(path: Path, kind: str, **options: Any) -> Base:
    if path.is_file():
        options = {"configs": path.parent / "diffusers", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hash is not the published one
        return load_base(weights=str(path), kind=kind, **options)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
