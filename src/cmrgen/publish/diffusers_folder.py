"""A trained generator as a folder that stock diffusers loads as it is, with a model card that says
what it was made of.

Nothing of ours is needed to use it: what our base does differently (latents standardised per
channel, an open_clip text tower) is folded into the weights and files that
`StableDiffusionControlNetPipeline` knows.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import AutoencoderKL
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

from cmrdata.disk import sync_entries
from cmrgen.base.frozen import Base
from cmrgen.base.stable_diffusion import open_to_clip
from cmrgen.publish.model_card import LICENCES, card_of_generator
from cmrgen.render.generator import Generator
from cmrgen.render.sampler import Sampler

# transformers' names of open_clip's last two tokens
START, END = "<|startoftext|>", "<|endoftext|>"


def export(
    generator: Generator,
    folder: Path,
    *,
    command: str = "",
    metrics: Mapping[str, Any] | None = None,
    parts: Literal["controlnet", "pipeline"] | None = None,
    sampler: Sampler,
) -> Path:
    """Write `folder`: the ControlNet, its scheduler, a model card, and with parts="pipeline" the
    whole base too.

    Safetensors and JSON only; written beside and renamed, so the folder is either whole or absent.

    Args:
        generator: the trained one.
        folder: of the export.
        command: how the ControlNet was trained, for the card.
        metrics: floats for the card.
        parts: by default a published base (Stable Diffusion: 5 GB) is only named, and a small one
            is included.
        sampler: what the card recommends.

    Returns:
        `folder`.

    Raises:
        FileExistsError: when the folder holds something.
        ValueError: for parts that cannot be used alone.
    """
    chosen = _exported_parts(generator, parts)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; remove it or export to another folder")
    beside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        _write_controlnet(generator, beside, sampler=sampler)
        if chosen == "pipeline":
            _write_base(generator.base, beside, sampler=sampler)
        text = card_of_generator(
            generator.facts,
            pixels=generator.base.pixels,
            channels=generator.base.channels,
            whole=chosen == "pipeline",
            sampler=sampler,
            command=command,
            metrics=metrics or {},
        )
        (beside / "README.md").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_entries(folder.parent)
    return folder


def _exported_parts(generator: Generator, parts: str | None) -> str:
    """ "controlnet" or "pipeline": what is asked for, or else what the base calls for. Raises
    ValueError."""
    kind = generator.facts.get("base", {}).get("kind", "folder")
    parts = parts or ("controlnet" if kind in LICENCES else "pipeline")
    if parts not in ("controlnet", "pipeline"):
        raise ValueError(f"parts is {parts!r}; it takes controlnet or pipeline")
    if parts == "controlnet" and kind not in LICENCES:
        raise ValueError(
            "parts=controlnet needs a base that others can get, and this one is not published; "
            "use parts=pipeline"
        )
    return parts


def _write_controlnet(generator: Generator, folder: Path, *, sampler: Sampler) -> None:
    sampler.scheduler(generator.base.schedule).save_pretrained(folder / "scheduler")
    _write_network(generator.controlnet, folder / "controlnet")


def _write_base(base: Base, folder: Path, *, sampler: Sampler) -> None:
    _write_network(base.unet, folder / "unet")
    _write_network(folded(base.vae, shift=base.shift, scale=base.scale), folder / "vae")
    _write_tower(base.text, folder / "text_encoder", pad=base.pad)
    _write_tokenizer(base.tokenizer, folder / "tokenizer", pad=base.pad)
    parts: dict[str, Any] = {
        "_class_name": "StableDiffusionControlNetPipeline",
        "_diffusers_version": diffusers.__version__,
        "controlnet": ["diffusers", "ControlNetModel"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],  # trained on photographs
        "scheduler": ["diffusers", sampler.solver().__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", parts)


def _write_network(network: Any, folder: Path) -> None:
    """As diffusers saves it, without the place on our disk where it was loaded from."""
    network.save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    _write_json(folder / "config.json", {k: v for k, v in config.items() if k != "_name_or_path"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@torch.no_grad()
def folded(vae: AutoencoderKL, *, shift: Tensor, scale: Tensor) -> AutoencoderKL:
    """A copy of a VAE whose own latents, times its scaling_factor, are (z - shift) * scale of the
    given one.

    shift, scale: (C, 1, 1), scale > 0. Both 1x1 convolutions beside the latent are affine, so mean'
    = (mean - shift) * scale and logvar' = logvar + 2 log(scale) go into quant_conv, z = z' / scale
    + shift into post_quant_conv; exact but for log-variances that diffusers clamps to [-30, 20].
    """
    vae = copy.deepcopy(vae)
    shift, scale = (x.detach().flatten().to("cpu", torch.float64) for x in (shift, scale))
    if not shift.any() and (scale == scale[0]).all():  # Stable Diffusion's one number
        vae.register_to_config(scaling_factor=float(scale[0].float()), shift_factor=None)
        return vae
    n, like = len(scale), next(vae.parameters())
    quant, post = vae.quant_conv or _identity(2 * n), vae.post_quant_conv or _identity(n)
    quant, post = quant.to("cpu", torch.float64), post.to("cpu", torch.float64)
    rows = torch.cat([scale, torch.ones_like(scale)])
    quant.weight.mul_(rows.view(-1, 1, 1, 1))
    quant.bias.copy_(
        torch.cat([(quant.bias[:n] - shift) * scale, quant.bias[n:] + 2 * scale.log()])
    )
    post.bias.add_(post.weight[:, :, 0, 0] @ shift)
    post.weight.div_(scale.view(1, -1, 1, 1))
    vae.quant_conv, vae.post_quant_conv = (
        quant.to(like.device, like.dtype),
        post.to(like.device, like.dtype),
    )
    vae.register_to_config(
        use_quant_conv=True, use_post_quant_conv=True, scaling_factor=1.0, shift_factor=None
    )
    return vae


def _identity(channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, channels, 1).requires_grad_(False)
    nn.init.dirac_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution


def _write_tower(tower: Any, folder: Path, *, pad: int) -> None:
    """An open_clip text tower as transformers' CLIPTextModel; needs no transformers."""
    folder.mkdir()
    blocks = tower.transformer.resblocks
    config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": tower.token_embedding.num_embeddings,
        "hidden_size": tower.token_embedding.embedding_dim,
        "projection_dim": tower.token_embedding.embedding_dim,
        "intermediate_size": blocks[0].mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "max_position_embeddings": len(tower.positional_embedding),
        "hidden_act": {"GELU": "gelu", "QuickGELU": "quick_gelu"}[
            type(blocks[0].mlp.gelu).__name__
        ],
        "layer_norm_eps": tower.ln_final.eps,
        "bos_token_id": tower.token_embedding.num_embeddings - 2,
        "eos_token_id": tower.token_embedding.num_embeddings - 1,
        "pad_token_id": pad,
    }
    _write_json(folder / "config.json", config)
    named = {
        name: tensor.cpu().contiguous() for name, tensor in open_to_clip(tower.state_dict()).items()
    }
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(tokenizer: SimpleTokenizer, folder: Path, *, pad: int) -> None:
    """open_clip's vocabulary in the files of transformers' CLIPTokenizer; prompts are filled up
    with token `pad`."""
    folder.mkdir()
    words = dict(
        zip([*list(tokenizer.encoder)[:-2], START, END], tokenizer.encoder.values(), strict=True)
    )
    merges = "".join(f"{a} {b}\n" for a, b in tokenizer.bpe_ranks)
    special = {
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": next(word for word, number in words.items() if number == pad),
    }
    _write_json(folder / "vocab.json", words)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": tokenizer.context_length,
            "do_lower_case": True,
            "add_prefix_space": False,
        },
    )
