"""Stable Diffusion as a base: the same from every kind of file, complete or refused, and the text
as transformers embeds it."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from cmrdata.batch import LatentBatch
from cmrgen.base.frozen import Base
from cmrgen.base.stable_diffusion import NETWORKS, clip_to_open, clip_tower, open_to_clip
from cmrgen.base.weights import ASSETS, KINDS
from cmrgen.training.controlnet import ControlNetModule
from support.fake_sd import load, same, words, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("sd"))


def seen(base: Base) -> list[Tensor]:
    """What all three networks make of fixed inputs."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 64, 64), dtype=torch.uint8, generator=draw)
    context, moments = base.embed(words()[:2]), base.moments(images)
    x = torch.randn(2, *base.latent_shape, generator=draw)
    noise = base.unet(x, torch.tensor([1, 500]), encoder_hidden_states=context).sample
    return [context, moments, noise, base.images(x).float()]


@pytest.mark.parametrize(
    ("kind", "unet", "text"),
    [("sd21", 865_910_724, 340_387_840), ("sd15", 859_520_964, 123_060_480)],
)
def test_shipped_configs_have_the_published_numbers_of_parameters(kind, unet, text):
    with torch.device("meta"):
        networks = [
            n.from_config(n.load_config(str(ASSETS / kind / part))) for part, n in NETWORKS.items()
        ]
        networks.append(
            clip_tower(json.loads((ASSETS / kind / "text_encoder" / "config.json").read_text()))
        )
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == [83_653_863, unet, text]


@pytest.mark.slow  # large networks
@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_both_single_files_are_the_same_base(models, kind):
    bases = [
        load(models[kind] / name, kind) for name in ("diffusers", "whole.safetensors", "whole.ckpt")
    ]
    expected = seen(bases[0])
    assert all(value.std() > 0 for value in expected)
    for base in bases:
        assert (base.pixels, base.factor, base.latent_shape, base.prediction) == (
            64,
            8,
            (4, 8, 8),
            "epsilon",
        )
        assert base.scale.unique().item() == pytest.approx(0.18215) and not base.shift.any()
        assert all(
            p.dtype == torch.float32
            for part in ("vae", "unet", "text")
            for p in base.part(part).parameters()
        )
        assert all(same(base.part(part), bases[0].part(part)) for part in ("vae", "unet", "text"))
        for found, wanted in zip(seen(base), expected, strict=True):
            # where memory is aligned moves the last bit
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_networks_are_read_when_used_and_each_alone(models, monkeypatch):
    used = []
    for part, network in NETWORKS.items():
        read = network.from_single_file
        monkeypatch.setattr(
            network,
            "from_single_file",
            lambda *a, part=part, read=read, **k: used.append(part) or read(*a, **k),
        )
    base = load(models["sd21"] / "whole.safetensors", "sd21")
    assert used == []
    base.to("cpu", unet=torch.bfloat16).embed(["healthy"])
    assert used == [] and base.unet.dtype == torch.bfloat16
    assert used == ["unet"]


@pytest.mark.slow  # seconds
def test_half_precision_is_read_into_float32(models, tmp_path):
    state = load_file(models["sd21"] / "whole.safetensors")
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "half.safetensors")
    variant = shutil.copytree(models["sd21"] / "diffusers", tmp_path / "diffusers")
    for path in list(variant.rglob("*.safetensors")):
        save_file(
            {k: v.half() for k, v in load_file(path).items()}, path.with_suffix(".fp16.safetensors")
        )
        path.unlink()
    whole = seen(load(models["sd21"] / "diffusers", "sd21"))
    for path in (tmp_path / "half.safetensors", variant):
        base = load(path, "sd21")
        assert (
            base.unet.dtype
            == base.vae.dtype
            == base.text.positional_embedding.dtype
            == torch.float32
        )
        for half, full in zip(seen(base)[:3], whole[:3], strict=True):
            assert 0 < (half - full).abs().max() < 0.02 * full.abs().max()


def test_averaged_weights_are_taken_where_a_file_has_both(models, tmp_path):
    state = load_file(models["sd15"] / "whole.safetensors")
    unet = [k for k in state if k.startswith("model.diffusion_model.")]
    averaged = {"model_ema." + k.removeprefix("model.").replace(".", ""): state[k] for k in unet}
    save_file(
        state | {k: torch.zeros_like(state[k]) for k in unet} | averaged,
        tmp_path / "full.safetensors",
    )
    found = load(tmp_path / "full.safetensors", "sd15", configs=models["sd15"] / "diffusers")
    expected = load(models["sd15"] / "diffusers", "sd15")
    assert same(found.unet, expected.unet)


@pytest.mark.parametrize("part", ["vae", "unet", "text"])
def test_a_missing_tensor_is_never_left_random(models, tmp_path, part):
    state = load_file(models["sd21"] / "whole.safetensors")
    prefix = {
        "vae": "first_stage_model.",
        "unet": "model.diffusion_model.",
        "text": "cond_stage_model.model.ln_final",
    }
    del state[next(k for k in state if k.startswith(prefix[part]) and k.endswith("weight"))]
    save_file(state, tmp_path / "partial.safetensors")
    base = load(tmp_path / "partial.safetensors", "sd21", configs=models["sd21"] / "diffusers")
    with pytest.raises(ValueError, match=f"tensors of the {part}"):
        base.part(part)


def test_another_model_is_told_apart(models, tmp_path):
    for name in ("whole.safetensors", "diffusers"):
        with pytest.raises(
            ValueError, match="is not Stable Diffusion 2.1-base; there is base=sd15"
        ):
            load(models["sd15"] / name, "sd21")
        with pytest.raises(ValueError, match="is not Stable Diffusion 1.5; there is base=sd21"):
            load(models["sd21"] / name, "sd15")
    with pytest.raises(ValueError, match="the unet's tensors do not fit its config.json"):
        load(models["sd21"] / "whole.safetensors", "sd21", configs=ASSETS / "sd21").part("unet")
    with pytest.raises(ValueError, match="base.kind=sd3"):
        load(models["sd21"] / "whole.ckpt", "sd3")
    with pytest.raises(FileNotFoundError, match="JSON configs"):
        load(models["sd21"] / "whole.ckpt", "sd21", configs=tmp_path)


def clip_vocabulary(folder: Path, tokenizer: Any) -> Path:
    """open_clip's vocabulary in the files of transformers' CLIPTokenizer."""
    folder.mkdir()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): number for word, number in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(m) for m in tokenizer.bpe_ranks)])
    )
    return folder


def agree(config: dict[str, Any], kind: str, tmp_path: Path, base: Base) -> None:
    """`base` and transformers, given the same text weights, embed the project's prompts alike at
    all 77 positions."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    save_file(
        open_to_clip(base.text.state_dict()),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    CLIPTextConfig(**config).save_pretrained(tmp_path)
    theirs, report = CLIPTextModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    back = clip_to_open(theirs.state_dict())
    assert back.keys() == base.text.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in base.text.state_dict().items())
    # the pad_token in the published tokenizer folders
    filling = {"sd21": "!", "sd15": "<|endoftext|>"}[kind]
    tokenizer = CLIPTokenizer.from_pretrained(
        clip_vocabulary(tmp_path / "words", base.tokenizer), pad_token=filling
    )
    ids = tokenizer(
        words(), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    assert ids.shape == (4, 77) and (ids[:, -1] == KINDS[kind].pad).all()
    with torch.no_grad():
        expected = theirs.eval()(ids).last_hidden_state
    found = base.embed(words())
    assert found.shape == expected.shape == (4, 77, config["hidden_size"])
    assert (found - expected).abs().max() < 1e-4
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_both_text_routes_embed_alike(models, tmp_path, kind):
    config = json.loads((models[kind] / "diffusers" / "text_encoder" / "config.json").read_text())
    agree(config, kind, tmp_path, load(models[kind] / "whole.safetensors", kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_both_text_routes_embed_alike_at_full_size(models, tmp_path, kind):
    config = json.loads((ASSETS / kind / "text_encoder" / "config.json").read_text())
    base = load(models[kind] / "diffusers", kind)
    base._parts["text"] = lambda: clip_tower(config)
    agree(config, kind, tmp_path, base)


def test_the_layer_read_of_an_original_sd21_file_is_the_penultimate(models):
    assert any("resblocks.2." in name for name in load_file(models["sd21"] / "whole.safetensors"))
    assert len(load(models["sd21"] / "whole.safetensors", "sd21").text.transformer.resblocks) == 2


@pytest.mark.slow  # seconds
def test_sd15_composes_and_takes_a_training_step(models):
    file = models["sd15"] / "whole.safetensors"
    with initialize_config_dir(str(ASSETS.parent / "conf"), version_base="1.3"):
        cfg = compose(
            "train", overrides=["experiment=controlnet", "base=sd15", f"base.weights={file}"]
        )
    model = OmegaConf.to_container(cfg.model, resolve=True)
    assert model.pop("_target_") == "cmrgen.training.controlnet.ControlNetModule" and model.pop(
        "_convert_"
    )
    model["base"] |= {"configs": str(models["sd15"] / "diffusers")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = ControlNetModule(**model | {"lr": 1e-2, "warmup": 0})
        assert (module.base.pad, module.base.prediction) == (49407, "epsilon")
        before = {k: v.clone() for k, v in module.controlnet.state_dict().items()}
        frozen = {k: v.clone() for k, v in module.base.unet.state_dict().items()}
        batch = LatentBatch(
            moments=module.base.moments(torch.randint(0, 256, (1, 2, 64, 64), dtype=torch.uint8)),
            control=torch.rand(1, 3, 64, 64),
            context=module.base.embed(words()[:1]),
        )
        trainer = L.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader([batch], batch_size=None))
    moved = [k for k, v in module.controlnet.state_dict().items() if not torch.equal(v, before[k])]
    assert any("controlnet_down_blocks" in k for k in moved)
    assert all(torch.equal(v, frozen[k]) for k, v in module.base.unet.state_dict().items())
