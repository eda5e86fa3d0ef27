"""Training within little memory: caches that survive a kill, networks that stay away, presets,
several processes."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import yaml
from diffusers import ControlNetModel, UNet2DConditionModel
from torch.utils.data import DataLoader

import cmrgen.training.controlnet
from cmrdata.batch import as_fetched
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.diffusion import denoise
from cmrgen.render.sampler import Sampler
from cmrgen.training.controlnet import ControlNetModule, Memory
from cmrgen.training.latents import EvenDraws, Latents
from cmrgen.training.preview import PreviewGrid
from support import ROOT

COHORT = Phantom(subjects=40, hf_scale=20, pixels=32, controls_per_case=0.5)


def module_on(base: Path, **options) -> ControlNetModule:
    torch.manual_seed(0)
    return ControlNetModule(base={"weights": str(base)}, **{"lr": 1e-3, **options})


def trainer(folder: Path, *callbacks, **options) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        **{"devices": 1, **options},
    )


def some_batch(
    *, images: int = 4, latent: int = 8, pixels: int = 32, tokens: int = 20, width: int = 32
) -> dict:
    draws = torch.Generator().manual_seed(5)
    return {
        "moments": torch.randn((images, 8, latent, latent), generator=draws),
        "control": torch.randint(0, 4, (images, 3, pixels, pixels), generator=draws) / 3,
        "context": torch.randn((images, tokens, width), generator=draws),
    }


class Batches(torch.utils.data.Dataset):
    """The same batch twice."""

    def __init__(self, batch: dict) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 2 * len(self.batch["moments"])

    def __getitems__(self, at: list[int]) -> dict:
        return self.batch


def loader(batch: dict) -> DataLoader:
    return DataLoader(Batches(batch), batch_size=len(batch["moments"]), collate_fn=as_fetched)


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """A ControlNet whose zero convolutions have left zero, as after training."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draws))
    return network


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def presets() -> dict[str, dict]:
    """Every file of conf/memory, with what it inherits."""
    files = {
        path.stem: yaml.safe_load(path.read_text())
        for path in sorted((ROOT / "conf" / "memory").glob("*.yaml"))
    }

    def whole(name: str) -> dict:
        values = dict(files[name])
        return {
            key: value
            for parent in values.pop("defaults", [])
            for key, value in whole(parent).items()
        } | values

    return {name: whole(name) for name in files}


# caches


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def latents(tiny_base, root) -> Callable[..., Latents]:
    """A function from options to a DataModule on its own base; all share one store."""

    def made(**options) -> Latents:
        return Latents(
            cohort=COHORT,
            root=str(root),
            **{
                "base": load_base(weights=str(tiny_base)),
                "batch_size": 4,
                "val_images": 4,
                **options,
            },
        )

    return made


def cached(data: Latents) -> dict[str, bytes]:
    """Contents of the caches of moments and masks by kind, finished or not."""
    return {
        "".join(path.suffixes): path.read_bytes() for path in data.store.folder.glob("*moments-*")
    }


def test_moved_copies_continue_to_the_same_bytes(latents, monkeypatch):
    monkeypatch.setattr("cmrgen.training.latents.ENCODED_IMAGES", 16)
    encode, calls = Base.moments, []

    def twice(base, images):
        calls.append(len(images))
        if len(calls) == 8:  # the copies have begun
            raise KeyboardInterrupt
        return encode(base, images)

    monkeypatch.setattr(Base, "moments", twice)
    data = latents(copies=2, val_images=0)
    with pytest.raises(KeyboardInterrupt):
        data.prepare_data()
    begun = cached(data)
    assert sorted(begun) == [".f16.begun", ".masks.begun"] and all(begun.values())
    del calls[:]
    data.prepare_data()
    resumed = cached(data)
    assert sum(calls) == len(data._caches()[0]) - 7 * 16 and sorted(resumed) == [".f16", ".masks"]
    for path in data.store.folder.glob("moments-*"):
        path.unlink()
    monkeypatch.setattr(Base, "moments", encode)
    data.prepare_data()
    assert cached(data) == resumed


def test_another_base_gets_its_own_caches(latents, tiny_base):
    other = load_base(weights=str(tiny_base))
    other.fingerprint = "another"
    before = set((data := latents(fields=("bmi",))).store.folder.glob("[mp]*-*"))
    data.prepare_data()
    first = set(data.store.folder.glob("[mp]*-*")) - before
    latents(base=other, fields=("bmi",)).prepare_data()
    second = set(data.store.folder.glob("[mp]*-*")) - before - first
    assert (
        {path.suffix for path in first}
        == {path.suffix for path in second}
        == {".f16", ".safetensors"}
    )


# what is loaded when


@pytest.fixture
def used(monkeypatch) -> list[str]:
    """Names of the networks that are asked for, in order."""
    names: list[str] = []
    part = Base.part
    monkeypatch.setattr(Base, "part", lambda base, name: names.append(name) or part(base, name))
    return names


def test_training_on_caches_loads_neither_vae_nor_text_and_a_preview_the_vae_alone(
    tiny_base, latents, tmp_path, used, monkeypatch
):
    latents(fields=("sex",), val_images=3).prepare_data()
    assert {"vae", "text"} <= set(used)
    del used[:]
    released: list[str] = []
    release = Base.release
    monkeypatch.setattr(
        Base, "release", lambda base, *names: released.extend(names) or release(base, *names)
    )
    module = module_on(tiny_base)
    data = latents(base=module.base, fields=("sex",), val_images=3)
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, datamodule=data)
    assert set(used) == {"unet"}
    preview = PreviewGrid(tmp_path, sampler=Sampler(steps=1, guides="both"))
    del used[:], released[:]
    trainer(tmp_path, preview).validate(module, datamodule=data, verbose=False)
    assert set(used) == {"unet", "vae"} and released[-1] == "vae"
    assert list(tmp_path.glob("epoch-*"))


def test_images_are_encoded_where_the_trainer_is(latents, monkeypatch):
    seen = []
    encode = Base.moments
    monkeypatch.setattr(
        Base, "moments", lambda base, images: seen.append(base.device) or encode(base, images)
    )
    data = latents(copies=3, val_images=2)
    data.store  # noqa: B018
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu", 0)))
    data.prepare_data()
    assert set(seen) == {torch.device("cpu", 0)}


# memory


def test_defaults_are_the_plain_preset_and_presets_only_tighten_it():
    found = presets()
    assert Memory() == Memory(**found["plain"]) and {"plain", "half", "tight", "tightest"} <= set(
        found
    )
    assert found["tightest"] == {**found["tight"], "optimizer": "adamw8bit"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": "float16"}, "memory.frozen is 'float16'; it takes float32 or bfloat16"),
        ({"optimizer": "sgd"}, "memory.optimizer is 'sgd'; it takes adamw or adamw8bit"),
    ],
)
def test_an_unknown_option_is_named_with_those_there_are(options, message):
    with pytest.raises(ValueError, match=message):
        Memory(**options)


def test_eight_bit_adam_needs_its_package(monkeypatch):
    monkeypatch.setattr(cmrgen.training.controlnet, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match="needs the package bitsandbytes.*pip install bitsandbytes"
    ):
        Memory(optimizer="adamw8bit")


def test_eight_bit_adam_is_the_packages(tiny_base, monkeypatch):
    class AdamW8bit(torch.optim.AdamW):
        pass

    monkeypatch.setattr(
        cmrgen.training.controlnet, "find_spec", lambda name: name == "bitsandbytes"
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", SimpleNamespace(AdamW8bit=AdamW8bit))
    module = module_on(tiny_base, memory={"optimizer": "adamw8bit"}, weight_decay=0.3)
    made = module.configure_optimizers()["optimizer"]
    assert isinstance(made, AdamW8bit) and made.defaults["weight_decay"] == 0.3
    assert sum(p.numel() for g in made.param_groups for p in g["params"]) == sum(
        p.numel() for p in module.controlnet.parameters()
    )


def test_the_encoder_of_the_unet_keeps_no_graph(tiny_base):
    module = module_on(tiny_base)
    kept: dict[str, bool] = {}

    def note(name: str):
        def hook(_, __, output):
            flat = [output] if isinstance(output, torch.Tensor) else [output[0], *output[1]]
            kept[name] = any(tensor.requires_grad for tensor in flat)

        return hook

    unet = module.base.unet
    stages = {
        "conv_in": unet.conv_in,
        "mid": unet.mid_block,
        "time": unet.time_embedding,
        "out": unet.conv_out,
    }
    stages |= {
        f"{side}{k}": block
        for side, of in (("down", unet.down_blocks), ("up", unet.up_blocks))
        for k, block in enumerate(of)
    }
    for name, stage in stages.items():
        stage.register_forward_hook(note(name))
    batch = some_batch()
    x, t = torch.randn((4, *module.base.latent_shape)), torch.tensor([1, 300, 700, 999])
    denoise(unet, module.controlnet, x, t, context=batch["context"], control=batch["control"])
    assert {name for name, graph in kept.items() if graph} == {"up0", "up1", "up2", "out"}
    assert {"down0", "down2", "mid", "conv_in", "time"} <= kept.keys()


def loss_and_gradients(
    module: ControlNetModule, batch: dict
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """(loss, gradient of each weight, bytes kept for the backward pass) of a step without
    dropout."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    module.on_fit_start()
    weights = {
        p.untyped_storage().data_ptr()
        for n in (module.base.unet, module.controlnet)
        for p in n.parameters()
    }
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module._loss(batch, torch.Generator().manual_seed(3), dropout=0.0)
    loss.backward()
    gradients = {name: p.grad for name, p in module.controlnet.named_parameters()}
    return loss.detach(), gradients, sum(size for at, size in kept.items() if at not in weights)


@pytest.fixture(scope="module")
def plain_step(tiny_base) -> tuple:
    module = module_on(tiny_base)
    awake(module.controlnet)
    return loss_and_gradients(module, some_batch())


@pytest.mark.parametrize(
    ("memory", "tolerance"),
    [
        ({"checkpointing": True}, 0.0),
        ({"channels_last": True}, 1e-4),
        ({"frozen": "bfloat16"}, 0.05),
        ({"frozen": "bfloat16", "checkpointing": True, "channels_last": True}, 0.05),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else str(v),
)
def test_an_option_saves_memory_and_not_the_mathematics(tiny_base, plain_step, memory, tolerance):
    module = module_on(tiny_base, memory=memory)
    awake(module.controlnet)
    loss, gradients, kept = loss_and_gradients(module, some_batch())
    assert loss.dtype == torch.float32
    assert {p.dtype for p in module.controlnet.parameters()} == {torch.float32}
    assert module.base.unet.dtype == getattr(torch, memory.get("frozen", "float32"))
    wanted = plain_step[1]
    error = sum((gradients[k] - wanted[k]).square().sum() for k in wanted) / sum(
        g.square().sum() for g in wanted.values()
    )
    assert error.sqrt() <= tolerance and abs(loss - plain_step[0]) <= tolerance * plain_step[0]
    if "checkpointing" in memory:
        assert kept < 0.7 * plain_step[2]


def test_mixed_precision_keeps_weights_noise_and_loss_in_single(tiny_base, tmp_path, monkeypatch):
    module = module_on(tiny_base, memory={"frozen": "bfloat16"})
    before, losses, seen = tensors(module.controlnet), [], {}
    measure = Base.loss

    def watch(base, predict, batch, draws, **options):
        def spied(x, t, context):
            out = predict(x, t, context)
            seen.update(x=x.dtype, context=context.dtype, out=out.dtype)
            return out

        losses.append(measure(base, spied, batch, draws, **options))
        return losses[-1]

    monkeypatch.setattr(Base, "loss", watch)
    runner = trainer(tmp_path, precision="bf16-mixed", max_steps=1, limit_val_batches=0)
    runner.fit(module, train_dataloaders=loader(some_batch()))
    assert losses[0].dtype == torch.float32 and set(seen.values()) == {torch.float32}
    after = tensors(module.controlnet)
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in module.base.unet.parameters())


def test_a_network_in_channels_last_is_written_as_any_other(tiny_base, tmp_path):
    module = module_on(tiny_base, memory={"channels_last": True})
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(
        module, train_dataloaders=loader(some_batch())
    )
    module.best.save_pretrained(tmp_path / "controlnet", safe_serialization=True)
    found = tensors(
        ControlNetModel.from_pretrained(tmp_path / "controlnet", low_cpu_mem_usage=False)
    )
    assert all(torch.equal(value, found[name]) for name, value in tensors(module.best).items())


@pytest.mark.slow
def test_compiled_networks_learn_the_same(tiny_base, plain_step, monkeypatch):
    # the graphs as they are: turning them into machine code takes minutes here
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda network: compiled(network, backend="aot_eager")
    )
    module = module_on(tiny_base, memory={"compile": True})
    awake(module.controlnet)
    names = set(module.controlnet.state_dict())
    loss, gradients, _ = loss_and_gradients(module, some_batch())
    torch.testing.assert_close(loss, plain_step[0], rtol=1e-4, atol=0)
    for name, wanted in plain_step[1].items():
        torch.testing.assert_close(
            gradients[name], wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()) + 1e-7
        )
    assert set(module.controlnet.state_dict()) == names and not any(
        "_orig_mod" in name for name in names
    )


# several processes


class Witness(L.Callback):
    """What each process draws and ends with, in a file per process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, runner: L.Trainer, module: L.LightningModule) -> None:
        sampler, self.drawn = runner.train_dataloader.sampler, []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            self.drawn.append(list(sampler))
        sampler.set_epoch(0)

    def on_train_end(self, runner: L.Trainer, module: L.LightningModule) -> None:
        weights = torch.cat([p.detach().flatten() for p in module.controlnet.parameters()])
        torch.save(
            {"drawn": self.drawn, "weights": weights}, self.folder / f"{runner.global_rank}.pt"
        )


def test_two_processes_share_an_epochs_draws_and_end_with_one_network(tiny_base, latents, tmp_path):
    module = module_on(tiny_base)
    data = latents(base=module.base, images_per_epoch=16, batch_size=2)
    data.prepare_data()
    data.setup()
    alone = []
    sampler = EvenDraws(data.table.iloc[data.train_rows], draws=16, seed=0)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        alone.append(list(sampler))
    start = torch.cat([p.detach().flatten() for p in module.controlnet.parameters()])
    trainer(
        tmp_path,
        Witness(tmp_path),
        strategy="ddp_fork",
        devices=2,
        max_epochs=1,
        limit_val_batches=0,
    ).fit(module, datamodule=data)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for epoch in (0, 1):
        a, b = first["drawn"][epoch], second["drawn"][epoch]
        assert len(a) == len(b) == 8 and sorted(a + b) == sorted(alone[epoch])
    assert first["drawn"][0] != first["drawn"][1]
    assert torch.equal(first["weights"], second["weights"]) and not torch.equal(
        first["weights"], start
    )


def test_processes_draw_their_own_noise(tiny_base, monkeypatch):
    module, seeds = module_on(tiny_base), []
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(
        module, "_loss", lambda batch, draws, **_: seeds.append(draws.initial_seed())
    )
    for rank in (0, 1, 2):
        monkeypatch.setattr(ControlNetModule, "global_rank", rank)
        module.training_step(some_batch(), 0)
    assert len(set(seeds)) == 3


# full size


@pytest.mark.slow
def test_a_step_of_stable_diffusion_2_1_at_512_pixels(tmp_path, monkeypatch, capsys):
    """Random weights; minutes on two cores and about 15 GB."""
    config = json.loads((ROOT / "assets" / "sd21" / "unet" / "config.json").read_text())
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config)

    def absent() -> torch.nn.Module:
        pytest.fail("the VAE or the text tower was loaded")

    base = Base(
        parts={"unet": lambda: unet, "vae": absent, "text": absent},
        schedule=json.loads(
            (ROOT / "assets" / "sd21" / "scheduler" / "scheduler_config.json").read_text()
        ),
        shift=torch.zeros(4, 1, 1),
        scale=torch.full((4, 1, 1), 0.18215),
        pixels=512,
        factor=8,
        tokens=77,
        fingerprint="random",
    )
    base.contexts[""] = torch.randn((77, 1024), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(cmrgen.training.controlnet, "load_base", lambda **_: base)
    module = ControlNetModule(base={}, lr=1e-5)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert abs(sum(p.numel() for p in module.controlnet.parameters()) / 364e6 - 1) < 0.01
    batch = some_batch(images=1, latent=64, pixels=512, tokens=77, width=1024)
    x, t = torch.randn((1, *base.latent_shape)), torch.tensor([400])
    with torch.no_grad():
        steered = denoise(
            unet, module.controlnet, x, t, context=batch["context"], control=batch["control"]
        )
        assert torch.equal(steered, unet(x, t, encoder_hidden_states=batch["context"]).sample)
    frozen = [
        (p, p.detach().double().sum().item(), p.detach().abs().max().item())
        for p in unet.parameters()
    ]
    control = [p.detach().double().sum().item() for p in module.controlnet.parameters()]
    begun = time.perf_counter()
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(module, train_dataloaders=loader(batch))
    took, peak = (
        time.perf_counter() - begun,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    assert all(
        (p.detach().double().sum().item(), p.detach().abs().max().item()) == (a, b)
        for p, a, b in frozen
    )
    assert all(p.grad is None for p in unet.parameters())
    moved = [
        p.detach().double().sum().item() != was
        for p, was in zip(module.controlnet.parameters(), control, strict=True)
    ]
    assert any(moved)
    with capsys.disabled():
        print(
            f"\nSD 2.1 at 512 px, one optimiser step in float32: {took:.0f} s, peak {peak:.1f} GiB"
        )
    assert peak < 20
