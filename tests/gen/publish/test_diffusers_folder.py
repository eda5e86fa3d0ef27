"""An exported generator in stock diffusers and transformers: same words, same latents, same
images."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
)
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

import cmrgen.publish.diffusers_folder
from cmrgen.base.frozen import Base, as_control, as_rgb
from cmrgen.base.load import load_base
from cmrgen.prompts import DISEASE, FIELDS
from cmrgen.publish.diffusers_folder import export, folded
from cmrgen.render.generator import Generator
from cmrgen.render.sampler import SAMPLERS, Sampler
from cmrgen.training import small_base
from cmrgen.training.controlnet import CONDITIONING_CHANNELS
from support import ROOT

PHANTOM_BASE = ROOT / "assets" / "phantom-base"
PROMPTS = [
    "Male, age in 70s, normal BMI, with heart failure",
    "Female, age in 50s, obese BMI, healthy",
]
SEEDS = [3, 14]
SUBJECTS = ["SYN0001", "SYN0002"]
FACTS = {
    "base": {"kind": "folder", "weights": "/home/someone/base"},
    "base_fingerprint": "84d21530eae07465",
    "cohort": "phantom-b3b20381",
    "fields": list(FIELDS),
    "training_images": 720,
    "fingerprint": "c0b0fcb3ead6b62a",
    "groups": {"M, 70+, normal, hf": 31, "F, <60, obese, healthy": 3},
    "subjects": SUBJECTS,
    "path": "/data/SYN0001",
}


def awake(base: Base) -> ControlNetModel:
    """A ControlNet whose zero convolutions have left zero, as after training."""
    torch.manual_seed(0)
    channels = CONDITIONING_CHANNELS[base.factor]
    network = ControlNetModel.from_unet(
        base.unet, conditioning_embedding_out_channels=channels
    ).requires_grad_(False)
    for name, parameter in network.named_parameters():
        if not parameter.any():
            parameter.copy_((5 if "cond_embedding" in name else 0.3) * torch.randn(parameter.shape))
    return network.eval()


@pytest.fixture(scope="module")
def base(tiny_base) -> Base:
    return load_base(weights=str(tiny_base))


@pytest.fixture(scope="module")
def generator(base) -> Generator:
    return Generator(base=base, controlnet=awake(base), facts=FACTS)


@pytest.fixture(scope="module")
def folder(generator, tmp_path_factory) -> Path:
    metrics = {"val_loss": 0.12345678, "finished": "SYN0002", "best": True}
    place = tmp_path_factory.mktemp("export") / "model"
    return export(
        generator,
        place,
        command="python train.py experiment=controlnet",
        metrics=metrics,
        sampler=Sampler(guidance=3.0),
    )


@pytest.fixture(scope="module")
def pipe(folder) -> StableDiffusionControlNetPipeline:
    return stock(folder)


def stock(folder: Path) -> StableDiffusionControlNetPipeline:
    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def hearts(pixels: int) -> Tensor:
    """Two subjects' masks (2, 2, P, P) uint8, of different size and place."""
    y, x = np.mgrid[:pixels, :pixels] / pixels - 0.5
    masks = [
        [
            np.select(
                [
                    (x - c) ** 2 + y**2 < r**2 / k,
                    (x - c) ** 2 + y**2 < r**2,
                    (x + 0.2) ** 2 + y**2 < 0.02,
                ],
                [1, 2, 3],
            )
            for k in (2, 4)
        ]
        for c, r in ((0.0, 0.2), (0.1, 0.3))
    ]
    return torch.from_numpy(np.array(masks, np.uint8))


def drawn(
    generator: Generator, *, masks: Tensor, prompts: list[str], guidance: float, sampler: str
) -> Tensor:
    """Our images (2, 2, P, P) in [0, 1]."""
    how = {"guidance": [guidance] * 2, "sampler": Sampler(sampler, steps=5)}
    return (generator.images(masks, prompts=prompts, seeds=SEEDS, **how) / 255).clamp(0, 1)


def drawn_by(
    pipe: StableDiffusionControlNetPipeline, *, masks: Tensor, guidance: float, output: str
) -> Tensor:
    """The pipeline's images (2, 3, P, P) in [0, 1], or latents."""
    control = as_control(masks, masks.shape[-1])
    noise = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe(
        PROMPTS,
        image=control,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=noise,
        output_type=output,
    ).images


def merged(rgb: Tensor) -> Tensor:
    """(B, 3, P, P) to (B, 2, P, P): the third channel is the mean of the others."""
    return rgb[:, :2] + (rgb[:, 2:] - rgb[:, :2].mean(1, keepdim=True)) / 3


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


# images


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("sampler", ["unipc", "ddim"])
def test_the_stock_pipeline_draws_our_images(generator, pipe, sampler, guidance):
    pipe = copy.copy(pipe)
    if sampler != "unipc":  # what it was exported with
        pipe.scheduler = SAMPLERS[sampler].from_config(pipe.scheduler.config)
    masks = hearts(32)
    latents = drawn_by(pipe, masks=masks, guidance=guidance, output="latent")
    # a random decoder leaves [-1, 1], where the order of merging and clamping matters
    with torch.no_grad():
        theirs = (
            merged(pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample) / 2 + 0.5
        ).clamp(0, 1)
    how = {"guidance": guidance, "sampler": sampler}
    # 59 is 8-bit rounding alone
    assert psnr(drawn(generator, masks=masks, prompts=PROMPTS, **how), theirs) > 55
    assert psnr(drawn(generator, masks=masks.flip(0), prompts=PROMPTS, **how), theirs) < 50
    assert psnr(drawn(generator, masks=masks, prompts=PROMPTS[::-1], **how), theirs) < 50


@pytest.mark.slow  # seconds
def test_the_stock_pipeline_draws_what_the_phantom_base_draws(tmp_path):
    base = load_base(weights=str(PHANTOM_BASE))
    generator = Generator(base=base, controlnet=awake(base), facts={})
    pipe, masks = stock(export(generator, tmp_path / "model", sampler=Sampler())), hearts(64)
    for guidance in (1.0, 3.0):
        theirs = merged(drawn_by(pipe, masks=masks, guidance=guidance, output="pt"))
        how = {"prompts": PROMPTS, "guidance": guidance, "sampler": "unipc"}
        ours = drawn(generator, masks=masks, **how).clamp(0, 1)  # as the pipeline's are
        other = drawn(generator, masks=masks.flip(0), **how).clamp(0, 1)
        # the pipeline cuts each channel off at black and white before they are merged here: 52 dB,
        # not 59
        assert psnr(ours, theirs) > 50 and psnr(other, theirs) < 46 and ours.std() > 0.1


def example(folder: Path) -> str:
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_the_cards_example_runs_and_draws_our_image(generator, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found: dict = {}
    exec(example(folder), found)
    masks = torch.from_numpy(np.stack([found["ed"], found["es"]])[None])
    how = {"seeds": [0], "guidance": [3.0], "sampler": Sampler(steps=8)}
    ours = generator.images(masks, prompts=[PROMPTS[0]], **how)[0] / 255
    theirs = torch.from_numpy(np.stack([found["ed_image"], found["es_image"]]))
    assert set(masks.unique().tolist()) == {0, 1, 2, 3} and found["ed_image"].shape == (32, 32)
    inside = ((found["image"] > 0) & (found["image"] < 1)).all(
        -1
    )  # a random decoder's channels, which the pipeline clips
    assert inside.any() and psnr(ours[:, inside], theirs[:, inside]) > 50


# parts


def test_a_controlnet_alone_names_the_base_to_join(generator, folder, tmp_path, monkeypatch):
    facts = {**FACTS, "base": {"kind": "sd21", "weights": "someone/sd21"}}
    alone = export(
        Generator(base=generator.base, controlnet=generator.controlnet, facts=facts),
        tmp_path / "alone",
        sampler=Sampler(),
    )
    assert sorted(path.name for path in alone.iterdir()) == ["README.md", "controlnet", "scheduler"]
    assert '"someone/sd21"' in example(alone)
    results: list[dict] = [{}, {}]
    for place, found in zip((alone, folder), results, strict=True):
        monkeypatch.chdir(place)
        exec(
            example(place)
            .replace("someone/sd21", str(folder))
            .replace("guidance_scale=2.0", "guidance_scale=3.0"),
            found,
        )
    np.testing.assert_allclose(results[0]["image"], results[1]["image"], atol=1e-5)


def test_the_controlnet_is_the_trained_one(generator, folder):
    found, before = (
        ControlNetModel.from_pretrained(folder, subfolder="controlnet"),
        generator.controlnet.state_dict(),
    )
    after = found.state_dict()
    assert after.keys() == before.keys() and all(
        torch.equal(after[name], before[name]) for name in before
    )


def test_the_scheduler_is_the_one_asked_for(generator, tmp_path):
    place = export(generator, tmp_path / "model", sampler=Sampler("ddim", steps=20, guidance=4.0))
    assert json.loads((place / "model_index.json").read_text())["scheduler"] == [
        "diffusers",
        "DDIMScheduler",
    ]
    found = DDIMScheduler.from_pretrained(place, subfolder="scheduler")
    assert torch.equal(
        found.alphas_cumprod, DDIMScheduler.from_config(generator.base.schedule).alphas_cumprod
    )
    assert "num_inference_steps=20" in example(place) and "guidance_scale=4.0" in example(place)


SENTENCES = [
    *PROMPTS,
    "",
    "age in 40s",
    "Male, " * 30,
    "Female, age in 60s, overweight BMI, healthy",
    *(f"with {a}, {b}" for a, b in itertools.combinations(DISEASE.values(), 2)),
]


def embedded(folder: Path, sentences: list[str]) -> Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    with torch.no_grad():
        return tower(
            tokenizer(
                sentences, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
        )[0]


def test_words_embed_as_ours(base, folder):
    assert (embedded(folder, SENTENCES) - base.embed(SENTENCES)).abs().max() < 1e-4


def test_words_filled_up_with_the_end_token_and_quick_gelu_embed_as_ours(base, tmp_path):
    torch.manual_seed(5)
    tower = TextTransformer(**small_base.TEXT, act_layer=QuickGELU)  # as in SD 1.5
    other = small_base.assemble(
        base.vae,
        base.unet,
        tower,
        pixels=32,
        images=torch.zeros(2, 2, 32, 32, dtype=torch.uint8),
        channels="paper",  # ES is one channel, whatever the pipeline clips
    )
    zero = other.embed(SENTENCES)
    other.pad, other.shift, other.scale = (
        49407,
        torch.zeros(4, 1, 1),
        torch.full((4, 1, 1), 0.18215),
    )
    assert (other.embed(SENTENCES) - zero).abs().max() > 0.01
    facts = {"base": {"kind": "sd15", "weights": "/disk/sd15.safetensors"}, "fields": ["diagnosis"]}
    generator = Generator(base=other, controlnet=awake(other), facts=facts)
    place = export(generator, tmp_path / "model", parts="pipeline", sampler=Sampler())
    assert (embedded(place, SENTENCES) - other.embed(SENTENCES)).abs().max() < 1e-4
    pipe, masks = stock(place), hearts(32)
    assert pipe.vae.config.scaling_factor == pytest.approx(0.18215)
    ours = drawn(generator, masks=masks, prompts=PROMPTS, guidance=3.0, sampler="unipc")
    theirs = drawn_by(pipe, masks=masks, guidance=3.0, output="pt")
    assert psnr(ours[:, 1], theirs[:, 1]) > 50
    header = yaml.safe_load((place / "README.md").read_text().split("---")[1])
    assert (
        header["license"] == "creativeml-openrail-m"
        and "/disk" not in (place / "README.md").read_text()
    )
    assert header["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize("with_convolutions", [True, False])
def test_folding_the_latents_standardisation_is_exact(base, with_convolutions):
    torch.manual_seed(2)
    use = {"use_quant_conv": with_convolutions, "use_post_quant_conv": with_convolutions}
    vae = AutoencoderKL.from_config({**base.vae.config, **use}).requires_grad_(False).eval()
    shift, scale = torch.randn(4, 1, 1), torch.rand(4, 1, 1) * 2 + 0.3
    images = as_rgb(torch.randint(0, 256, (2, 2, 32, 32), dtype=torch.uint8), 32, channels="even")
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    found = folded(vae, shift=shift, scale=scale)
    assert (
        found.config.scaling_factor == 1
        and found.config.use_quant_conv
        and found.config.use_post_quant_conv
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())
    with torch.no_grad():
        old, new = vae.encode(images).latent_dist, found.encode(images).latent_dist
        z = torch.randn(2, 4, 8, 8)
        decoded = found.decode(z).sample, vae.decode(z / scale + shift).sample
    torch.testing.assert_close(new.mean, (old.mean - shift) * scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(new.std, old.std * scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(*decoded, atol=1e-5, rtol=0)


# card and folder


def test_the_card_says_what_it_was_made_of_and_nothing_of_anyone(folder):
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert (
        header["library_name"] == "diffusers"
        and header["license"] == "other"
        and "base_model" not in header
    )
    for wanted in (
        "phantom-b3b20381",
        "| training images | 720 |",
        "sex, age, bmi, diagnosis",
        "M, 70+, normal, hf | 31 |",
        "0.12346",
        "F, <60, obese, healthy | fewer than 10 |",
        "experiment=controlnet",
        "Apache-2.0",
        "Not a medical device",
    ):
        assert wanted in text, wanted
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for kept in (*SUBJECTS, "/home/someone", str(folder.parent.parent)):
        assert kept.encode() not in written, kept
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".txt", ".md", ".safetensors"}


def test_a_full_folder_is_refused_and_an_unfinished_export_is_not(
    generator, folder, tmp_path, monkeypatch
):
    with pytest.raises(FileExistsError, match="is not empty; remove it"):
        export(generator, folder, sampler=Sampler())
    place = tmp_path / "model"
    place.mkdir()
    beside = tmp_path / ".model.unfinished" / "vae"
    beside.mkdir(parents=True)
    (beside / "half.safetensors").write_bytes(b"killed here")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr(
            cmrgen.publish.diffusers_folder,
            "card_of_generator",
            lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")),
        )
        export(generator, place, sampler=Sampler())
    assert list(place.iterdir()) == [] and list(tmp_path.iterdir()) == [place]
    assert (
        not list(export(generator, place, sampler=Sampler()).rglob("half*"))
        and (place / "model_index.json").exists()
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"parts": "unet"}, "parts is 'unet'; it takes"),
        ({"parts": "controlnet"}, "is not published; use parts=pipeline"),
    ],
)
def test_what_cannot_be_exported_is_named(generator, tmp_path, asked, told):
    with pytest.raises(ValueError, match=told):
        export(generator, tmp_path / "model", sampler=Sampler(), **asked)
    assert list(tmp_path.iterdir()) == []
