import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from cmrcls import network
from cmrcls.arms import Arms, prediction_table
from cmrcls.classifier import Classifier, augment, mean_recall, start_from, to_input
from cmrcls.mitigation.last_layer import last_linear, refit_last_layer
from cmrcls.mitigation.sampling import GroupBalanced
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrstudy.training import tell_compiling
from support.fake_cohort import FakeCohort, fake_set

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    return prepare(FakeCohort(), root)


@pytest.fixture(scope="module")
def made(root: Path, store: Store) -> Store:
    return fake_set(root / "synthetic", store, count=72)


def arm(root: Path, **options) -> Arms:
    arms = Arms(**{"cohort": FakeCohort(), "root": root, "batch_size": 32, **options})
    arms.prepare_data()
    arms.setup("fit")
    return arms


def linear(**options) -> Classifier:
    """The classifier around the smallest network that can learn."""
    model = Classifier(pixels=16, **options)
    model.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    return model


# network


@pytest.mark.parametrize(
    "backbone", ["resnet18", "densenet121", "resnet10t", "convnext_atto", "efficientnet_b0"]
)
def test_a_backbone_gives_one_logit_per_class(backbone):
    with torch.device("meta"):  # shapes only
        net = network.build_network(backbone, weights=None, classes=2)
        logits = net(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 2) and last_linear(net).out_features == 2


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match="'resnet19' is unknown; choose one of resnet18, densenet121, .*of timm"
    ):
        network.build_network("resnet19", weights=None, classes=2)
    with pytest.raises(ValueError, match="'convnext_tinny' is unknown; .*convnext_tiny"):
        network.build_network("convnext_tinny", weights=None, classes=2)
    with pytest.raises(
        ValueError, match="coatnet_0_224: No pretrained weights exist .* Set weights=null"
    ):
        network.build_network("coatnet_0_224", weights="imagenet", classes=2)
    with pytest.raises(ValueError, match="'imagnet' are unknown"):
        network.build_network("resnet18", weights="imagnet", classes=2)


def test_offline_imagenet_weights_become_random_ones_with_a_warning(monkeypatch):
    real = network.get_model

    def offline(name, weights=None):
        if weights:
            raise URLError("no route to host")
        return real(name)

    monkeypatch.setattr(network, "get_model", offline)
    with pytest.warns(UserWarning, match="no route to host.*starts from random weights") as caught:
        net = network.build_network("resnet18", weights="imagenet", classes=2)
    assert net.fc.out_features == 2
    assert "\n" not in str(caught[0].message)


def test_offline_weights_of_timm_become_random_ones_too(monkeypatch):
    real = network.timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise FileNotFoundError("an error happened while trying to locate the file on the Hub")
        return real(name, **options)

    monkeypatch.setattr(network.timm, "create_model", offline)
    with pytest.warns(UserWarning, match="resnet10t: .*on the Hub.*starts from random weights"):
        network.build_network("resnet10t", weights="imagenet", classes=2)


# module


def test_flips_keep_shape_and_noise_is_reproducible():
    images = torch.rand(400, 2, 8, 8)
    plain = augment(images, flips=0, noise_std=0)
    assert torch.equal(plain, images)
    mirrored = augment(images, flips=1, noise_std=0)
    assert torch.equal(mirrored, images.flip(-1, -2))
    once, again, other = (
        augment(images, flips=0.5, noise_std=0.05, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert once.shape == images.shape and torch.equal(once, again) and not torch.equal(once, other)
    L.seed_everything(5, verbose=False)
    globally = augment(images, flips=0.5, noise_std=0.05)
    L.seed_everything(5, verbose=False)
    assert torch.equal(globally, augment(images, flips=0.5, noise_std=0.05))


def test_half_the_images_get_noise_and_both_phases_flip_together():
    images = torch.rand(1000, 1, 6, 6).expand(-1, 2, -1, -1)
    noise = (
        augment(images, flips=0, noise_std=0.05, generator=torch.Generator().manual_seed(0))
        - images
    )
    noisy = noise.flatten(1).abs().sum(1) > 0
    assert 0.44 < noisy.float().mean() < 0.56
    assert noise[noisy].std().item() == pytest.approx(0.05, rel=0.02)
    flipped = augment(images, flips=0.5, noise_std=0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flipped[:, 0], flipped[:, 1])
    assert 0.2 < (flipped == images).flatten(1).all(1).float().mean() < 0.3  # neither axis: 1/4


def test_network_input_is_ed_es_ed_scaled_and_normalised():
    images = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])[None]
    x = to_input(images, pixels=20)
    assert x.shape == (1, 3, 20, 20)
    assert torch.allclose(x[0], torch.tensor([-2.0, 2.0, -2.0])[:, None, None])
    assert to_input(images, pixels=4).shape == (1, 3, 4, 4)


def test_augmentation_only_in_training(monkeypatch):
    model = linear(flips=1.0, noise_std=0.0)
    image = torch.randint(0, 256, (4, 2, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "label": torch.tensor([0, 1, 0, 1]), "row": torch.arange(4)}
    used = []
    monkeypatch.setattr(
        model, "_loss", lambda given, _: (used.append(given["image"]), torch.tensor(0.0))[::-1]
    )
    model.train()
    model.training_step(model.on_after_batch_transfer(batch, 0), 0)
    model.eval()
    seen = model.on_after_batch_transfer(batch, 0)
    assert torch.equal(used[0], seen["image"].flip(-1, -2))
    assert torch.equal(seen["label"], batch["label"])
    assert torch.allclose(seen["image"], (image[:, [0, 1, 0]] / 255 - 0.5) / 0.25)


def test_augmentation_is_a_function_of_seed_step_batch_and_process(monkeypatch):
    """Not of what was drawn before: a continued training augments as an uninterrupted one."""
    used: list[torch.Tensor] = []

    def augmented(
        seed: int = 0, step: int = 0, batch_idx: int = 0, rank: int = 0, before: int = 0
    ) -> torch.Tensor:
        model = linear(seed=seed)
        monkeypatch.setattr(
            model, "_loss", lambda given, _: (used.append(given["image"]), torch.tensor(0.0))[::-1]
        )
        monkeypatch.setattr(Classifier, "global_step", step)
        monkeypatch.setattr(Classifier, "global_rank", rank)
        torch.rand(before)
        model.training_step(
            {"image": torch.full((3, 2, 16, 16), 9, dtype=torch.uint8), "label": torch.zeros(3)},
            batch_idx,
        )
        return used[-1]

    first = augmented()
    assert torch.equal(augmented(before=7), first)
    for other in ({"seed": 1}, {"step": 1}, {"batch_idx": 1}, {"rank": 1}):
        assert not torch.equal(augmented(**other), first), other


@pytest.mark.parametrize("seed", range(20))
def test_mean_recall_is_the_balanced_accuracy_of_sklearn(seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 2, (2, rng.integers(4, 60)))
    confusion = torch.zeros(2, 2, dtype=torch.long)
    np.add.at(confusion.numpy(), (true, predicted), 1)
    score = mean_recall(confusion).item()
    if len(set(true)) == 1:
        assert np.isnan(score)
    else:
        assert score == pytest.approx(balanced_accuracy_score(true, predicted))


def test_validation_pools_the_epoch(root, store):
    """Equal to sklearn on all validation subjects at once, not the mean over batches."""
    arms = arm(root, batch_size=5)
    model = linear()
    trainer = L.Trainer(**QUIET)
    logged = trainer.validate(model, arms, verbose=False)[0]["val_balanced_accuracy"]
    table = prediction_table(arms.index, trainer.predict(model, arms))
    val = table[table.split == "val"]
    assert len(val) == (store.index.split == "val").sum()
    assert logged == pytest.approx(
        balanced_accuracy_score(val.label, val.probability > 0.5), abs=1e-6
    )


def test_logits_reach_cross_entropy_without_a_softmax():
    """A softmax before cross-entropy bounds the loss below by 0.31; logits of a sure network give
    0."""
    model = Classifier(pixels=16)
    model.network = nn.Identity()  # the batch below holds the logits
    batch = {
        "image": torch.tensor([[40.0, 0.0], [0.0, 40.0]]),
        "label": torch.tensor([0, 1]),
        "row": torch.arange(2),
        "group": torch.zeros(2, dtype=torch.long),
    }
    loss, logits = model._loss(batch, "training")
    assert loss.item() < 1e-6 and logits.max() == 40
    assert model.predict_step(batch, 0)["probability"].tolist() == pytest.approx([0, 1])


def test_learning_rate_halves_after_three_epochs_without_improvement(root, store):
    class Watch(L.Callback):
        def __init__(self):
            self.rates = []

        def on_train_epoch_start(self, trainer, pl_module):
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, images):
            return self.weight * torch.zeros(len(images), 2)

    model = linear(lr=8e-4)
    model.network = Constant()
    L.Trainer(max_epochs=8, limit_train_batches=1, callbacks=[watch := Watch()], **QUIET).fit(
        model, arm(root)
    )
    assert watch.rates == pytest.approx([8e-4, 8e-4, 8e-4, 8e-4, 4e-4, 4e-4, 4e-4, 2e-4])


def test_the_best_epoch_predicts_and_not_the_last(root, store, tmp_path):
    """As train.py does: keep the best validation score, load it before predicting."""

    class Spoilt(Classifier):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                with torch.no_grad():  # from here on nothing but "healthy"
                    self.network[1].bias.copy_(torch.tensor([1e4, -1e4]))

    L.seed_everything(0, verbose=False)
    arms, model = arm(root), linear(lr=1e-3)
    model.__class__ = Spoilt
    keep = ModelCheckpoint(tmp_path, filename="best", monitor="val_balanced_accuracy", mode="max")
    trainer = L.Trainer(max_epochs=4, callbacks=[keep], **{**QUIET, "enable_checkpointing": True})
    trainer.fit(model, arms)
    assert trainer.callback_metrics["val_balanced_accuracy"] == 0.5
    assert not prediction_table(arms.index, trainer.predict(model, arms)).predicted.any()
    best = prediction_table(
        arms.index,
        trainer.predict(model, arms, ckpt_path=tmp_path / "best.ckpt", weights_only=True),
    )
    val = best[best.split == "val"]
    found = balanced_accuracy_score(val.label, val.predicted)
    assert found == pytest.approx(float(keep.best_model_score)) and found > 0.9
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] < 2


def test_the_training_loss_is_the_mean_over_an_epochs_images(root, store, monkeypatch):
    losses: list[tuple[int, float]] = []
    step = Classifier.training_step

    def noted(model: Classifier, batch: dict, batch_idx: int) -> torch.Tensor:
        loss = step(model, batch, batch_idx)
        losses.append((len(batch["label"]), loss.item()))
        return loss

    monkeypatch.setattr(Classifier, "training_step", noted)
    arms = arm(root, batch_size=8, images_per_epoch=44)
    trainer = L.Trainer(max_epochs=2, limit_val_batches=1, **QUIET)
    trainer.fit(linear(lr=1e-2), arms)
    last = losses[6:]  # five whole batches and a rest
    assert len(last) == 6 and sum(n for n, _ in last) == 44
    wanted = sum(n * loss for n, loss in last) / 44
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("decay", "smaller"), [(0.0, False), (0.5, True)])
def test_weight_decay_is_decoupled_and_none_by_default(decay, smaller):
    model = linear(lr=0.1, weight_decay=decay)
    before = model.network[1].weight.detach().clone()
    optimiser = model.configure_optimizers()["optimizer"]
    # the weights have no gradient, the bias has
    model.network(torch.zeros(1, 3, 16, 16)).sum().backward()
    optimiser.step()
    assert torch.allclose(model.network[1].weight, before * (0.95 if smaller else 1))


def test_without_weight_decay_the_optimiser_is_adam():
    models = [linear(lr=0.01) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = models[0].configure_optimizers()["optimizer"]
    adam = torch.optim.Adam(models[1].parameters(), lr=0.01)
    for step in range(5):
        x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        for model, optimiser in zip(models, (ours, adam), strict=True):
            optimiser.zero_grad()
            model.network(x).square().mean().backward()
            optimiser.step()
    assert torch.equal(models[0].network[1].weight, models[1].network[1].weight)


def test_layout_in_memory_changes_the_speed_only():
    plain, last = (
        Classifier(width=8, pixels=32, channels_last=value).eval() for value in (False, True)
    )
    last.load_state_dict(plain.state_dict())
    image = torch.randint(0, 256, (3, 2, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "label": torch.zeros(3).long(), "row": torch.arange(3)}
    seen = last.on_after_batch_transfer(batch, 0)["image"]
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert last.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(
        last(seen), plain(plain.on_after_batch_transfer(batch, 0)["image"]), atol=1e-5
    )


@pytest.mark.parametrize("compiles", [False, True])
def test_a_network_that_is_compiled_in_its_first_step_is_told(compiles, capsys):
    model = Classifier(width=8, pixels=32, compile=compiles)
    tell_compiling(SimpleNamespace(is_global_zero=True), model)
    assert ("torch.compile: the first batch takes minutes" in capsys.readouterr().out) == compiles


@pytest.mark.slow
def test_a_compiled_network_predicts_the_same_and_is_refitted(root, store):
    plain, compiled = (Classifier(width=8, pixels=32, compile=value) for value in (False, True))
    compiled.load_state_dict(plain.state_dict())
    arms, trainer = arm(root), L.Trainer(**QUIET)
    for refit in (False, True):
        if refit:
            for model in (plain, compiled):
                refit_last_layer(model, trainer, arms, seed=0)
        one, two = (
            prediction_table(arms.index, trainer.predict(model, arms)).probability
            for model in (plain, compiled)
        )
        assert np.allclose(one, two, atol=1e-4)


def test_nan_loss_is_told_plainly():
    model = linear()
    batch = {
        "image": torch.full((2, 3, 16, 16), torch.nan),
        "label": torch.tensor([0, 1]),
        "row": torch.arange(2),
        "group": torch.zeros(2, dtype=torch.long),
    }
    with pytest.raises(
        FloatingPointError,
        match=r"training loss is nan at epoch 0, step 0; lower lr \(now 0.0001\)",
    ):
        model._loss(batch, "training")


def test_a_learnable_problem_is_learnt(root, store):
    L.seed_everything(0, verbose=False)
    arms, model = arm(root), linear(lr=1e-3)
    trainer = L.Trainer(max_steps=30, **QUIET)
    trainer.fit(model, arms)
    table = prediction_table(arms.index, trainer.predict(model, arms))
    test = table[table.split == "test"]
    assert balanced_accuracy_score(test.label, test.probability > 0.5) > 0.9
    assert list(table.columns) == [
        "subject",
        "row",
        "source",
        "split",
        "disease",
        "label",
        "probability",
        "predicted",
        "sex",
        "age_band",
        "bmi_band",
        "group",
    ]
    assert (table.disease == "hf").all() and (table.predicted == (table.probability > 0.5)).all()
    assert table.subject.is_unique and table.source.eq("fake").all()


def test_a_checkpoint_loads_without_hydra_and_without_a_download(
    root, store, tmp_path, monkeypatch
):
    real = network.get_model
    monkeypatch.setattr(network, "get_model", lambda name, weights=None: real(name))
    model = Classifier(weights="imagenet", pixels=16, flips=0.0, lr=3e-4)
    trainer = L.Trainer(
        max_steps=1, limit_val_batches=1, num_sanity_val_steps=0, default_root_dir=tmp_path, **QUIET
    )
    trainer.fit(model, arm(root, batch_size=4))
    trainer.save_checkpoint(tmp_path / "one.ckpt")

    def refuse(name, weights=None):
        assert weights is None, "loading a checkpoint downloads weights"
        return real(name)

    monkeypatch.setattr(network, "get_model", refuse)
    loaded = Classifier.load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu")
    assert (loaded.hparams.lr, loaded.hparams.flips, model.hparams.weights) == (
        3e-4,
        0.0,
        "imagenet",
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_a_training_starts_from_a_finished_runs_best_epoch_or_a_file(tmp_path, monkeypatch):
    kept, plain = (Classifier(width=8, pixels=32) for _ in range(2))
    kept.mean.fill_(0.25)
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    torch.save({"state_dict": kept.state_dict()}, best)
    asked = []
    monkeypatch.setattr("cmrcls.classifier.runs.facts", asked.append)
    marks = set()
    for source in (tmp_path / "run", best):
        module = Classifier(width=8, pixels=32)
        marks.add(start_from(module, source))
        ours, theirs = module.network.state_dict(), kept.network.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
        assert (module.mean == 0.25).all()  # what the weights have learnt with
    assert len(marks) == 1 and asked == [tmp_path / "run"]  # a file is no run
    own = Classifier(width=8, pixels=32, normalisation=[0.5, 0.5])
    start_from(own, best)
    assert (own.mean == 0.5).all()  # a setting wins
    best.unlink()
    with pytest.raises(FileNotFoundError, match="no classifier's run, checkpoints/best.ckpt is"):
        start_from(plain, tmp_path / "run")


def test_training_repeats_for_a_seed(root, store):
    def weights(seed: int) -> torch.Tensor:
        L.seed_everything(seed, verbose=False)
        model = linear(lr=1e-2)
        L.Trainer(max_steps=5, limit_val_batches=1, **QUIET).fit(model, arm(root, seed=seed))
        return model.network[1].weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# data


def test_real_arm_is_the_balanced_training_stacks(root, store):
    index = arm(root).index
    train = index[index.split == "train"]
    balanced = store.subjects[(store.subjects.split == "train") & store.subjects.balanced]
    assert (
        set(train.subject) == set(balanced.subject) and (train.groupby("subject").size() == 9).all()
    )
    assert train.real.all() and abs(train.label.mean() - 0.5) < 0.02
    held_out = index[index.split.isin(["val", "test"])]
    assert held_out.subject.is_unique and not set(held_out.subject) & set(train.subject)


def test_undersampling_drops_controls_only(tmp_path):
    cohort = FakeCohort()
    listed, rejected = cohort.subjects()
    listed.loc[listed.index % 8 != 1, "diagnosis"] = "healthy"
    cohort.subjects = lambda: (listed, rejected)
    index = arm(tmp_path, cohort=cohort).index
    assert index[index.split == "train"].drop_duplicates("subject").label.mean() == 0.5
    assert index[index.split == "test"].label.mean() < 0.25  # natural prevalence


def test_arms_are_nested_and_share_their_evaluation(root, store, made):
    arms = {n: arm(root, synthetic=n, synthetic_set=made.folder).index for n in (0, 36, 72, "only")}
    synthetic = {n: index[~index.real] for n, index in arms.items()}
    assert [len(rows) for rows in synthetic.values()] == [0, 36, 72, 72]
    assert synthetic[36].stored.tolist() == list(range(36))
    assert synthetic[72].stored.tolist()[:36] == synthetic[36].stored.tolist()
    assert (synthetic[36].group.value_counts() == 1).all() and synthetic[36].group.nunique() == 36
    for name in ("val", "test"):
        assert len({tuple(index.subject[index.split == name]) for index in arms.values()}) == 1
    only = arms["only"]
    assert not only[only.split == "train"].real.any() and only[only.split != "train"].real.all()
    assert list(only.columns) == list(arms[0].columns)


def test_every_arm_has_the_fingerprint_of_the_same_split(root, store, made, tmp_path):
    found = {
        arm(root, synthetic=n, synthetic_set=made.folder).split_fingerprint for n in (0, 36, "only")
    }
    found.add(arm(root, sampling=GroupBalanced(), seed=5).split_fingerprint)
    assert len(found) == 1
    assert arm(tmp_path, cohort=FakeCohort(seed=1)).split_fingerprint not in found


def test_a_batch_names_the_group_of_its_rows(root, store, made):
    arms = arm(root, synthetic="only", synthetic_set=made.folder)
    names = sorted(arms.index.group[arms.index.split == "train"].unique())
    assert [fact["name"] for fact in arms.groups] == names and len(names) == 36
    arms.index.loc[arms.index.split == "test", "group"] = "elsewhere"
    for loader in (arms.train_dataloader(), arms.val_dataloader(), arms.test_dataloader()):
        for batch in loader:
            told = [names[k] if k >= 0 else "elsewhere" for k in batch["group"].tolist()]
            assert told == arms.index.group[batch["row"].numpy()].tolist()


def test_a_batch_holds_the_rows_it_names(root, store, made):
    arms = arm(root, synthetic=36, synthetic_set=made.folder, batch_size=50)
    seen = []
    for batch in arms.train_dataloader():
        for image, label, row in zip(
            batch["image"].numpy(), batch["label"], batch["row"], strict=True
        ):
            known = arms.index.loc[int(row)]
            stored = (store if known.real else made).images[known.stored]
            assert np.array_equal(image, stored) and known.label == label
            seen.append(int(row))
    assert sorted(seen) == np.flatnonzero(arms.index.split == "train").tolist()
    assert (
        batch["image"].dtype == torch.uint8
        and batch["label"].dtype == batch["row"].dtype == torch.int64
    )


def test_workers_fetch_the_same(root, store):
    own, other = (arm(root, workers=n).val_dataloader() for n in (0, 1))
    for a, b in zip(own, other, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("images", [100, 2000])
def test_arms_take_equal_steps(root, store, made, images):
    options = {"images_per_epoch": images, "synthetic_set": made.folder}
    loaders = [arm(root, synthetic=n, **options).train_dataloader() for n in (0, 36, "only")]
    rows = [[batch["row"] for batch in loader] for loader in loaders]
    assert (
        [len(part) for part in rows]
        == [-(-images // 32)] * 3
        == [len(loader) for loader in loaders]
    )
    assert all(sum(map(len, part)) == images for part in rows)
    # 72 synthetic images: drawn equally often, within one
    counts = torch.bincount(torch.cat(rows[2]))[-72:]
    assert counts.max() - counts.min() <= 1


def test_order_is_seeded(root, store):
    def rows(seed: int) -> list[int]:
        return torch.cat(
            [batch["row"] for batch in arm(root, seed=seed).train_dataloader()]
        ).tolist()

    assert rows(0) == rows(0) != rows(1)


def test_unknown_attributes_stay_missing(tmp_path):
    arms = arm(tmp_path, cohort=FakeCohort(count=40, unknown=("sex", "age", "bmi")))
    trainer = L.Trainer(**QUIET)
    table = prediction_table(arms.index, trainer.predict(linear(), arms))
    assert table[["sex", "age_band", "bmi_band"]].isna().all(axis=None) and set(table.group) == {
        "healthy",
        "hf",
    }
    assert set(table.split) == {"val", "test"}


def test_wrong_arms_are_refused(root, store, made, tmp_path):
    with pytest.raises(
        ValueError, match=r"synthetic=4000: the set .* holds 72 images; .*plan.count=4000"
    ):
        arm(root, synthetic=4000, synthetic_set=made.folder)
    with pytest.raises(ValueError, match="synthetic=2000: synthetic_set is missing"):
        Arms(cohort=FakeCohort(), root=root, synthetic=2000)
    for wrong in ("all", -1):
        with pytest.raises(ValueError, match=f"synthetic={wrong!r}: give a number"):
            Arms(cohort=FakeCohort(), root=root, synthetic=wrong)
    with pytest.raises(ValueError, match="images_per_epoch=0"):
        Arms(cohort=FakeCohort(), root=root, images_per_epoch=0)
    with pytest.raises(FileNotFoundError, match="generate.py"):
        arm(root, synthetic=1, synthetic_set=tmp_path / "nowhere")
    other = fake_set(tmp_path / "large", store, count=2, pixels=32)
    with pytest.raises(ValueError, match="images have 32 pixels, those of cohort fake 16"):
        arm(root, synthetic="only", synthetic_set=other.folder)


def test_an_image_that_could_not_be_drawn_costs_its_arm_nothing_else(root, store, tmp_path, capsys):
    some = fake_set(tmp_path / "some", store, count=71, lost=1)  # row 0 of 72 is in failed.csv
    arms = arm(root, synthetic=72, synthetic_set=some.folder)
    assert (~arms.index.real).sum() == 71
    assert re.search(
        "synthetic=72: 1 images of the set .* could not be drawn .* has 71", capsys.readouterr().out
    )
    assert (
        ~arm(root, synthetic=71, synthetic_set=some.folder).index.real
    ).sum() == 71 and not capsys.readouterr().out
    with pytest.raises(
        ValueError, match="synthetic=73: the set .* holds 71 images; ask for at most that many"
    ):
        arm(root, synthetic=73, synthetic_set=some.folder)  # more than were planned
    many = fake_set(tmp_path / "many", store, count=60, lost=12)
    with pytest.raises(ValueError, match="synthetic=72: the set .* holds 60 images"):
        arm(root, synthetic=72, synthetic_set=many.folder)  # another arm than its name says


def test_one_class_arms_are_told(tmp_path):
    cohort = FakeCohort(count=40)
    listed, rejected = cohort.subjects()
    cohort.subjects = lambda: (listed, rejected)
    # a store opens unread: each table has its own
    roots = iter(tmp_path / str(k) for k in range(9))
    # val rows are healthy, test rows sick
    listed["split"] = np.resize(["train", "train", "val", "test"], len(listed))
    with pytest.warns(
        UserWarning, match="all 10 validation subjects have label 0; val_balanced_accuracy is NaN"
    ):
        arms = arm(next(roots), cohort=cohort)
    logged = L.Trainer(**QUIET).validate(linear(), arms, verbose=False)[0]
    assert np.isnan(logged["val_balanced_accuracy"]) and np.isfinite(logged["val_loss"])
    listed.loc[listed.split == "train", "diagnosis"] = "hf"
    with pytest.raises(ValueError, match="all 180 training images have label 1"):
        arm(next(roots), cohort=cohort)
    listed["split"] = np.resize(["train", "test"], len(listed))
    with pytest.raises(ValueError, match="the val split is empty"):
        arm(next(roots), cohort=cohort)
    listed["split"] = np.resize(["train", "val", "test"], len(listed))
    listed.loc[0, "diagnosis"] = None
    with pytest.raises(
        ValueError, match="1 subject of the train split without a diagnosis, first in row 0"
    ):
        arm(next(roots), cohort=cohort)


@dataclass
class Sited(FakeCohort):
    """With columns that only some cohorts have."""

    def subjects(self):
        listed, rejected = super().subjects()
        k = np.arange(len(listed))
        return listed.assign(
            site=np.array(["a", "b", None], object)[k % 3], code=[f"c{i}" for i in k], one="x"
        ), rejected


def test_what_else_a_cohort_knows_reaches_the_predictions_where_it_can_be_compared(tmp_path):
    arms = arm(tmp_path, cohort=Sited(count=72))
    made = fake_set(tmp_path / "set", arms.store, count=6)
    both = arm(tmp_path, cohort=Sited(count=72), synthetic=6, synthetic_set=made.folder)
    assert (
        arms.further == both.further == ["site"] and both.index.site[~both.index.real].isna().all()
    )
    outputs = [
        {
            "row": torch.from_numpy(np.flatnonzero(arms.index.split == "test")),
            "probability": torch.zeros(15),
        }
    ]
    outputs[0]["probability"] = torch.zeros(len(outputs[0]["row"]))
    table = prediction_table(arms.index, outputs)
    assert table.columns[-1] == "site" and set(table.site.dropna()) == {"a", "b"}
    pd.testing.assert_series_equal(
        table.set_index("subject").site,
        arms.store.subjects.set_index("subject").site[table.subject],
        check_dtype=False,
    )


def test_no_predictions_is_an_error():
    with pytest.raises(ValueError, match="no predictions were made"):
        prediction_table(pd.DataFrame(), [[], []])
