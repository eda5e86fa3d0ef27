"""The ControlNet's training, its data and its images, on a random base of 32 pixels."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import cmrgen.training.latents as data_module
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrgen.base.frozen import Base, as_control, as_rgb
from cmrgen.base.load import load_base
from cmrgen.base.small import save_base
from cmrgen.diffusion import denoise
from cmrgen.prompts import prompts
from cmrgen.render.generator import Generator, load_generator, save_generator
from cmrgen.render.sampler import Sampler, embedded_once
from cmrgen.training import small_base
from cmrgen.training.controlnet import ControlNetModule
from cmrgen.training.latents import Latents, jitter
from cmrstudy import runs

COHORT = Phantom(subjects=200, hf_scale=20, pixels=32, controls_per_case=0.5)


@pytest.fixture(scope="module")
def base(tiny_base) -> Base:
    return load_base(weights=str(tiny_base))


@pytest.fixture(scope="module")
def latents(base, tmp_path_factory):
    """A function from options to a DataModule; all share one store. A trainer does the setup
    itself."""
    root = tmp_path_factory.mktemp("data")

    def made(*, ready: bool = True, **options) -> Latents:
        data = Latents(
            cohort=COHORT,
            root=str(root),
            **{"base": base, "batch_size": 4, "val_images": 8, **options},
        )
        if ready:
            data.prepare_data()
            data.setup()
        return data

    return made


def module_on(tiny_base: Path, *, init: int = 0, **options) -> ControlNetModule:
    torch.manual_seed(init)
    return ControlNetModule(base={"weights": str(tiny_base)}, **{"lr": 1e-3, **options})


def trainer(folder: Path, *callbacks, **options) -> L.Trainer:
    """As conf/trainer/auto.yaml, silent."""
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        **options,
    )


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    return sorted(
        name
        for name in a.keys() | b.keys()
        if name not in a or name not in b or not torch.equal(a[name], b[name])
    )


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """A ControlNet whose zero convolutions have left zero, as after training."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draws))
    return network.eval()


# base


def test_a_base_survives_its_folder(tmp_path):
    torch.manual_seed(3)
    vae = small_base.AutoencoderModule(channels=(8, 8, 16)).vae
    unet = small_base.UnetModule(channels=(16, 16, 32), latent=8).unet
    images = torch.randint(0, 256, (4, 2, 32, 32), dtype=torch.uint8)
    made = small_base.assemble(vae, unet, small_base.text_tower(0), pixels=32, images=images)

    def outputs(base: Base) -> dict[str, torch.Tensor]:
        words = base.embed(["Male, age in 70s", "", "Male, age in 70s"])
        x = torch.randn((3, *base.latent_shape), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            v = base.unet(x, torch.tensor(500), encoder_hidden_states=words).sample
        return {
            "words": words,
            "v": v,
            "moments": base.moments(images[:3]),
            "images": base.images(x).float() / 255,
        }

    before = outputs(made)  # in single precision; saving rounds to half
    save_base(made, tmp_path, text_config=small_base.TEXT)
    found = load_base(weights=str(tmp_path))
    for name, value in outputs(found).items():
        torch.testing.assert_close(
            value, before[name], atol=2e-2, rtol=2e-2, msg=lambda m, name=name: f"{name}: {m}"
        )
    torch.testing.assert_close(found.shift, made.shift)
    torch.testing.assert_close(found.scale, made.scale)
    assert found.latent_shape == made.latent_shape == (4, 8, 8) and found.factor == 4
    assert found.prediction == "v_prediction" and torch.equal(found.alphas, made.alphas)
    latents = (found.moments(images).chunk(2, 1)[0] - found.shift) * found.scale
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)
    frozen = [p for network in (found.vae, found.unet, found.text) for p in network.parameters()]
    assert not any(p.requires_grad for p in frozen)


def test_a_missing_base_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"base.weights=.*nowhere: no base.json.*experiment=base"
    ):
        load_base(weights=str(tmp_path / "nowhere"))


def test_equal_prompts_embed_equally_and_different_ones_do_not(base):
    words = [
        "Male, age in 70s, obese BMI",
        "",
        "Female, age in 70s, obese BMI",
        "Male, age in 70s, obese BMI",
    ]
    embedded = base.embed(words)
    assert embedded.shape[0] == 4 and torch.equal(embedded[0], embedded[3])
    torch.testing.assert_close(base.embed(words[:1])[0], embedded[0], atol=1e-5, rtol=1e-5)
    assert min((embedded[a] - embedded[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-2


# data


def test_moments_control_and_context_are_the_rows_own(tiny_base, latents):
    # one that has not seen the cached embeddings
    data, base = latents(), load_base(weights=str(tiny_base))
    at = [0, 5, int(data.train_rows[-1]), int(data.val_rows[0])]
    batch, rows = data.dataset.__getitems__(at), data.rows[at]
    images = torch.from_numpy(data.store.images[rows])
    wanted = base.vae.encode(as_rgb(images, 32, channels=base.channels)).latent_dist.parameters
    torch.testing.assert_close(batch["moments"], wanted, atol=2e-3, rtol=2e-3)
    assert torch.equal(batch["control"], as_control(torch.from_numpy(data.store.masks[rows]), 32))
    assert (batch["control"] * 3 - (batch["control"] * 3).round()).abs().max() < 1e-6 and batch[
        "control"
    ].max() == 1
    words = prompts(data.store.index.iloc[rows])
    torch.testing.assert_close(batch["context"], base.embed(words.tolist()), atol=1e-5, rtol=1e-5)
    assert set(data.table.split.iloc[data.train_rows]) == {"train"} and set(
        data.table.split.iloc[data.val_rows]
    ) == {"val"}
    assert len(data.val_rows) == 8


def test_images_and_prompts_are_encoded_once(tiny_base, latents, monkeypatch):
    folder = latents().store.folder

    def files() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for kind in ("*moments-*", "*prompts-*")
            for path in folder.glob(kind)
        }

    before = files()
    assert {path.name.split("-")[0] for path in before} == {"moments", "prompts"}
    monkeypatch.setattr(Base, "part", lambda _, name: pytest.fail(f"{name} loaded again"))
    fresh = load_base(weights=str(tiny_base))
    latents(base=fresh)
    assert files() == before
    # known without the tower
    assert fresh.embed(["", "Male, age in 70s, normal BMI, healthy"]).shape == (2, 20, 32)


def test_images_take_their_masks_from_the_store(latents):
    data = latents()
    assert isinstance(data.dataset.masks, np.memmap) and not list(data.store.folder.glob("*.masks"))


def test_every_group_is_drawn_equally_often(latents):
    data = latents(images_per_epoch=6000)
    sampler = data.train_dataloader().sampler
    groups = data.table.group.iloc[data.train_rows].to_numpy()
    names = sorted(set(groups))
    mass = [float(sampler.weights[torch.from_numpy(groups == name)].sum()) for name in names]
    assert np.ptp(mass) < 1e-9 and len(names) > 20
    drawn = groups[list(sampler)]
    counts = np.array([(drawn == name).sum() for name in names])
    expected = 6000 / len(names)
    assert (
        counts.sum() == 6000
        and ((counts - expected) ** 2 / expected).sum() < len(names) + 5 * (2 * len(names)) ** 0.5
    )
    assert np.ptp(np.unique(groups, return_counts=True)[1]) > 18  # the cohort itself is uneven


def test_copies_move_image_and_mask_together_and_keep_the_first(base, latents, monkeypatch):
    moved = []

    def spy(images, masks, rng):
        out = jitter(images, masks, rng)
        moved.append(out)
        return out

    monkeypatch.setattr(data_module, "jitter", spy)
    plain, data = latents(), latents(copies=2)
    n, val = len(plain.train_rows), len(plain.val_rows)
    assert len(data.train_rows) == 2 * n and len(data.dataset) == 2 * n + val
    masks, moments = data.dataset.masks, data.dataset.moments
    own = data.store.masks[plain.rows]
    assert np.array_equal(masks[:n], own[:n]) and np.array_equal(masks[2 * n :], own[n:])
    np.testing.assert_allclose(moments[:n], plain.dataset.moments[:n], atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(moments[2 * n :], plain.dataset.moments[n:], atol=5e-3, rtol=5e-3)
    images, labels = (torch.cat(part) for part in zip(*moved, strict=True))
    assert len(images) == n and np.array_equal(masks[n : 2 * n], labels.numpy())
    np.testing.assert_allclose(
        moments[n : n + 16], base.moments(images[:16]).numpy(), atol=5e-3, rtol=5e-3
    )
    assert (masks[n : 2 * n] != masks[:n]).any((1, 2, 3)).mean() > 0.9
    assert (data.table.prompt[:n].to_numpy() == data.table.prompt[n : 2 * n].to_numpy()).all()


def test_jitter_moves_an_image_as_its_mask(latents):
    masks = torch.from_numpy(np.array(latents().store.masks[:60]))
    images = (masks > 0).to(torch.uint8) * 255  # gamma leaves black and white alone
    moved, labels = jitter(images, masks, np.random.default_rng(1))
    assert moved.dtype == labels.dtype == torch.uint8 and set(labels.unique().tolist()) <= {
        0,
        1,
        2,
        3,
    }
    together, apart = (((x > 127) != (labels > 0)).float().mean() for x in (moved, images))
    assert together < apart / 3


# module


@pytest.fixture
def batch(latents):
    data = latents()
    return data.dataset.__getitems__(data.train_rows[:4].tolist())


def test_an_untrained_controlnet_changes_nothing(tiny_base, batch):
    module = module_on(tiny_base)
    x, t = torch.randn((4, *module.base.latent_shape)), torch.tensor([1, 300, 700, 999])
    with torch.no_grad():
        steered = denoise(
            module.base.unet,
            module.controlnet,
            x,
            t,
            context=batch["context"],
            control=batch["control"],
        )
        alone = module.base.unet(x, t, encoder_hidden_states=batch["context"]).sample
        awake(module.controlnet)
        trained = denoise(
            module.base.unet,
            module.controlnet,
            x,
            t,
            context=batch["context"],
            control=batch["control"],
        )
    torch.testing.assert_close(steered, alone, atol=1e-6, rtol=0)
    assert (trained - alone).abs().max() > 1e-3


def test_a_step_moves_the_controlnet_and_never_the_base(tiny_base, latents, tmp_path):
    module = module_on(tiny_base, ema=0.9)
    networks = {name: getattr(module.base, name) for name in ("vae", "unet", "text")}
    before = {name: tensors(network) for name, network in networks.items()}
    control, average = tensors(module.controlnet), tensors(module.average)
    fitter = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitter.fit(module, datamodule=latents(ready=False))
    assert fitter.global_step == 1
    for name, network in networks.items():
        assert changed(before[name], tensors(network)) == [], name
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    after = tensors(module.controlnet)
    assert changed(control, after)
    decay = min(0.9, 2 / 11)
    for name, value in tensors(module.average).items():
        torch.testing.assert_close(
            value, decay * average[name] + (1 - decay) * after[name], atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_holds_the_controlnet_only_and_loads_without_hydra(
    tiny_base, latents, tmp_path, ema
):
    module = module_on(tiny_base, ema=ema, gamma=5.0)
    fitter = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitter.fit(module, datamodule=latents(ready=False))
    path = tmp_path / "a.ckpt"
    fitter.save_checkpoint(path)
    keys = torch.load(path, weights_only=True)["state_dict"]
    kinds = {key.split(".")[0] for key in keys}
    assert kinds == ({"controlnet", "average"} if ema else {"controlnet"})
    found = ControlNetModule.load_from_checkpoint(path, weights_only=True)
    assert found.hparams == module.hparams and found.base.fingerprint == module.base.fingerprint
    assert changed(tensors(found.best), tensors(module.best)) == []
    if ema:  # what was loaded is ready to use
        assert (
            trainer(tmp_path).validate(found, datamodule=latents(ready=False), verbose=False)[0][
                "val_loss"
            ]
            > 0
        )


def test_validation_repeats_to_the_last_digit(tiny_base, latents, tmp_path):
    module = module_on(tiny_base, ema=0.9)
    awake(module.average)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(
            trainer(tmp_path).validate(
                module, datamodule=latents(ready=False, seed=seed), verbose=False
            )[0]["val_loss"]
        )
    assert losses[0] == losses[1] > 0


def test_dropped_prompts_leave_no_trace(tiny_base, batch):
    module = module_on(tiny_base)
    module.on_fit_start()
    other = {**batch, "context": module.base.embed(["Female, obese BMI"] * 4)}

    def loss(batch, dropout):
        return module._loss(batch, torch.Generator().manual_seed(1), dropout=dropout).item()

    assert loss(batch, 1.0) == loss(other, 1.0)
    assert loss(batch, 0.0) != loss(other, 0.0)
    empty = {**batch, "context": module.empty.expand_as(batch["context"])}
    assert loss(batch, 1.0) == pytest.approx(loss(empty, 0.0), rel=1e-6)


class Kill(L.Callback):
    """Ends the process, as it were, within the second epoch."""

    def on_train_batch_end(self, runner: L.Trainer, *_: object) -> None:
        if runner.current_epoch == 1:
            raise ConnectionAbortedError


def test_a_resumed_training_equals_an_uninterrupted_one(tiny_base, latents, tmp_path):
    def fit(folder: Path, *callbacks: L.Callback, init: int = 0) -> ControlNetModule:
        module = module_on(tiny_base, init=init, ema=0.9, gamma=5.0)
        keep = ModelCheckpoint(
            folder, filename="best", save_last=True, enable_version_counter=False
        )
        last = folder / "last.ckpt"
        trainer(folder, keep, *callbacks, max_epochs=2, accumulate_grad_batches=2).fit(
            module,
            datamodule=latents(ready=False, images_per_epoch=12, val_images=4),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
        return module

    whole = fit(tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        fit(tmp_path / "parts", Kill())
    resumed = fit(tmp_path / "parts", init=5)
    assert changed(tensors(resumed.controlnet), tensors(whole.controlnet)) == []
    assert changed(tensors(resumed.average), tensors(whole.average)) == []


def test_epochs_differ_in_their_draws_and_seeds_do(latents):
    samplers = [
        latents(seed=seed, images_per_epoch=24).train_dataloader().sampler for seed in (0, 1)
    ]

    def drawn(seed: int, epoch: int) -> list[int]:
        samplers[seed].set_epoch(epoch)
        return list(samplers[seed])

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


# images


@pytest.fixture(scope="module")
def generator(tiny_base) -> Generator:
    module = module_on(tiny_base)
    return Generator(base=module.base, controlnet=awake(module.controlnet), facts={})


@pytest.fixture(scope="module")
def requests(latents):
    store = latents().store
    words = ["Male, age in 70s", "Female, obese BMI", "", "Male, with heart failure"]
    return {
        "masks": torch.from_numpy(store.masks[[0, 40, 90, 140]]),
        "prompts": words,
        "seeds": [3, 1, 4, 15],
        "guidance": [2.0, 2.0, 1.0, 4.0],
    }


def some(requests: dict, rows: list[int]) -> dict:
    return {
        name: values[rows] if name == "masks" else [values[k] for k in rows]
        for name, values in requests.items()
    }


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """At most one grey level apart on 99.9 % of pixels."""
    return bool(((a.int() - b.int()).abs() <= 1).float().mean() >= 0.999)


@pytest.mark.parametrize(
    ("sampler", "guides"), [("unipc", "both"), ("ddim", "prompt"), ("dpmpp", "prompt")]
)
def test_an_image_is_the_same_whatever_its_batch(generator, requests, sampler, guides):
    how = {"sampler": Sampler(sampler, steps=3, guides=guides)}
    together = generator.images(**requests, **how)
    assert (
        together.shape == (4, 2, 32, 32) and together.dtype == torch.float32 and together.std() > 5
    )
    assert torch.equal(generator.images(**requests, **how), together)
    for rows in ([0], [2], [3, 1], [2, 0, 3]):
        assert close(generator.images(**some(requests, rows), **how), together[rows]), rows


def test_rows_without_a_mask_are_the_bases_own(generator, requests):
    x, t = torch.randn((3, *generator.base.latent_shape)), torch.tensor(500)
    context, control = (
        generator.embed(requests["prompts"][:3]),
        as_control(requests["masks"][:3], generator.base.pixels),
    )
    networks = (generator.base.unet, generator.controlnet)
    steered, sees = torch.tensor([0, 2]), torch.tensor([True, False, True])
    with torch.no_grad():
        mixed = denoise(*networks, x, t, context=context, control=control[steered], steered=steered)
        with_mask = denoise(*networks, x, t, context=context, control=control)
        alone = denoise(*networks, x, t, context=context, control=None)
    torch.testing.assert_close(
        mixed, torch.where(sees.view(-1, 1, 1, 1), with_mask, alone), atol=1e-5, rtol=0
    )
    assert (with_mask - alone).abs().max() > 1e-3


def test_guidance_towards_both_pushes_the_mask_too_once_it_steers(generator, requests, tiny_base):
    def drawn(made: Generator, **changes) -> torch.Tensor:
        asked = {**requests, "prompts": [""] * 4, "guidance": [4.0] * 4, **changes}
        return made.images(**asked, sampler=Sampler(steps=2, guides="both"))

    asleep = Generator(base=generator.base, controlnet=module_on(tiny_base).controlnet, facts={})
    plain = asleep.images(
        **{**requests, "prompts": [""] * 4, "guidance": [1.0] * 4}, sampler=Sampler(steps=2)
    )
    # an untrained ControlNet and no prompt: nothing to push towards
    assert close(drawn(asleep), plain)
    assert not close(drawn(generator), drawn(generator, guidance=[1.0] * 4))


@pytest.mark.parametrize("what", ["masks", "prompts", "seeds", "guidance"])
def test_an_image_depends_on_its_own_mask_prompt_seed_and_guidance(generator, requests, what):
    before = generator.images(**requests, sampler=Sampler(steps=3))
    other = {
        "masks": torch.zeros_like(requests["masks"]),
        "prompts": ["healthy"] * 4,
        "seeds": [9] * 4,
        "guidance": [7.0] * 4,
    }
    second = {**requests, what: requests[what].clone() if what == "masks" else list(requests[what])}
    second[what][1] = other[what][1]
    after = generator.images(**second, sampler=Sampler(steps=3))
    assert (before[1] != after[1]).any()
    assert close(before[[0, 2, 3]], after[[0, 2, 3]])


def test_strength_zero_switches_the_mask_off(generator, requests):
    blank = {**requests, "masks": torch.zeros_like(requests["masks"])}
    off = [generator.images(**r, strength=0.0, sampler=Sampler(steps=2)) for r in (requests, blank)]
    assert torch.equal(*off)


def test_drawing_leaves_the_network_as_it_was(generator, requests):
    embedding, before = (
        generator.controlnet.controlnet_cond_embedding,
        tensors(generator.controlnet),
    )
    generator.images(**requests, sampler=Sampler(steps=1))
    assert generator.controlnet.controlnet_cond_embedding is embedding
    with pytest.raises(ValueError, match="sampler.name is 'euler'"):
        generator.images(**requests, sampler=Sampler(name="euler"))
    assert generator.controlnet.controlnet_cond_embedding is embedding
    assert changed(before, tensors(generator.controlnet)) == []


def test_the_mask_embedded_once_steers_as_the_mask_itself(generator, requests):
    control = as_control(requests["masks"], 32)
    x, t = torch.randn((4, *generator.base.latent_shape)), torch.tensor(500)
    how = {"context": generator.base.embed(requests["prompts"])}
    with torch.no_grad():
        direct = denoise(generator.base.unet, generator.controlnet, x, t, control=control, **how)
        with embedded_once(generator.controlnet, control) as ready:
            once = denoise(generator.base.unet, generator.controlnet, x, t, control=ready, **how)
    assert torch.equal(direct, once)
    with pytest.raises(KeyError), embedded_once(generator.controlnet, control):
        raise KeyError
    with torch.no_grad():
        assert torch.equal(
            denoise(generator.base.unet, generator.controlnet, x, t, control=control, **how), direct
        )


def test_a_generator_survives_its_run_folder_and_its_base_may_not_change(
    generator, requests, tiny_base, tmp_path
):
    weights, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_base, weights)
    facts = {
        "base": {"weights": str(weights)},
        "base_fingerprint": generator.base.fingerprint,
        "fields": ["sex"],
    }
    mark = save_generator(copy.deepcopy(generator.controlnet), run / "controlnet", facts)
    with pytest.raises(FileNotFoundError, match="no finished run there"):
        load_generator(run)
    runs.finish(run)
    found = load_generator(run)
    assert found.facts["fingerprint"] == mark and found.facts["fields"] == ["sex"]
    assert close(
        found.images(**requests, sampler=Sampler(steps=2)),
        generator.images(**requests, sampler=Sampler(steps=2)),
    )
    half = load_generator(run, precision="bf16-mixed").images(**requests, sampler=Sampler(steps=2))
    assert not torch.equal(half, found.images(**requests, sampler=Sampler(steps=2)))
    assert (
        half.int() - found.images(**requests, sampler=Sampler(steps=2)).int()
    ).abs().float().mean() < 8
    with pytest.raises(
        ValueError, match="precision is 'half'; it takes 32-true, bf16-mixed, 16-mixed"
    ):
        load_generator(run, precision="half")
    moved = tmp_path / "moved"
    weights.rename(moved)
    with pytest.raises(
        FileNotFoundError,
        match=r"base is none \(no base.json there\). Give the place where it lies now with base.weights=",
    ):
        load_generator(run)
    again = load_generator(run, base_weights=str(moved))
    assert close(
        again.images(**requests, sampler=Sampler(steps=2)),
        found.images(**requests, sampler=Sampler(steps=2)),
    )
    with pytest.raises(FileNotFoundError, match="its base is not there: [^;]*other is none"):
        load_generator(run, base_weights=str(tmp_path / "other"))


@pytest.mark.parametrize(
    "file", ["text/model.safetensors", "base.json", "scheduler/scheduler_config.json"]
)
def test_a_base_of_which_anything_has_changed_is_another(generator, tiny_base, tmp_path, file):
    weights, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_base, weights)
    facts = {
        "base": {"weights": str(weights)},
        "base_fingerprint": generator.base.fingerprint,
        "fields": ["sex"],
    }
    save_generator(copy.deepcopy(generator.controlnet), run / "controlnet", facts)
    runs.finish(run)
    path = weights / file
    if path.suffix == ".json":
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"_note": "a library's"}, indent=3))
        load_generator(run)
        key = next(key for key, value in config.items() if isinstance(value, float | list))
        value = (
            config[key] * 1.01
            if isinstance(config[key], float)
            else [x * 1.01 for x in config[key]]
        )
        path.write_text(json.dumps(config | {key: value}))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        FileNotFoundError, match="has changed since, or is another.*train the ControlNet again"
    ):
        load_generator(run)


def test_repeats_are_capped_in_both_trainings(latents):
    data = latents(copies=2, max_repeats=1.5)
    weights = data.train_dataloader().sampler.weights
    # of all versions of an image together
    assert float(weights.max()) * len(data.train_rows) == pytest.approx(1.5)
    assert 2 * len(data.training) == len(data.train_rows)
    assert data.training.index.tolist() == data.rows[data.train_rows[: len(data.training)]].tolist()
    images = small_base.StoreImages(
        data.store, splits=["train"], steps=3, batch_size=4, seed=0, max_repeats=1.5
    )
    images.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1)
    weights = images.train_dataloader().sampler.weights
    assert float(weights.max()) * len(weights) == pytest.approx(1.5)
