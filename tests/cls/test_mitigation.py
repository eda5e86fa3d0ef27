"""Each rival on a small problem that is biased on purpose, where its effect is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fairlearn.metrics import equalized_odds_difference
from scipy.stats import chisquare
from torch import nn

from cmrcls import mitigation
from cmrcls.arms import Arms, predictions
from cmrcls.classifier import Classifier
from cmrcls.draws import Draws
from cmrdata.prepare import prepare
from cmrdata.protocol import Stacks
from support import ROOT
from support.fake_cohort import FakeCohort, fake_set

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
CONF = ROOT / "conf" / "mitigation"
NONE = yaml.safe_load((CONF / "none.yaml").read_text())
ALL = {
    path.stem: {**NONE, **yaml.safe_load(path.read_text())} for path in sorted(CONF.glob("*.yaml"))
}


@dataclass
class BiasedCohort(FakeCohort):
    """Ten of eleven training women are healthy and as many men ill; in the other splits sex tells
    nothing.

    The middle of the image shows the disease faintly (its sign and noise as strong), a corner each
    shows the sexes.
    """

    name: str = "biased"
    # per sex: as the bias has it, against it
    counts = {"train": (200, 20), "val": (40, 40), "test": (150, 150)}

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows = [
            {"split": split, "sex": sex, "diagnosis": ("healthy", "hf")[(sex == "M") == follows]}
            for split, (typical, against) in self.counts.items()
            for sex in "FM"
            for follows, count in ((True, typical), (False, against))
            for _ in range(count)
        ]
        table = pd.DataFrame(rows).sample(frac=1, random_state=self.seed).reset_index(drop=True)
        table = table.assign(
            subject=[f"SYN{k:04d}" for k in range(len(table))],
            source="fake",
            age=np.nan,
            bmi=np.nan,
        )
        return table, pd.DataFrame({"subject": [], "reason": []}, dtype=object)

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        images = []
        for row in subjects.itertuples():
            rng = np.random.default_rng(int(row.subject[3:]))
            image = rng.normal(128, 8, (2, self.pixels, self.pixels))
            image[:, 4:12, 4:12] += 24 * ((1 if row.diagnosis == "hf" else -1) + rng.normal())
            corner = slice(0, 4) if row.sex == "F" else slice(12, 16)
            image[:, corner, corner] += 60
            images.append(image.clip(0, 255).astype(np.uint8))
        index = pd.DataFrame(
            {
                "subject": subjects.subject.to_list(),
                "slice": 0,
                "frame": 0,
                "central": True,
                "flags": "",
            }
        )
        pixels = np.stack(images)
        return Stacks(
            pixels,
            np.zeros_like(pixels),
            index,
            pd.DataFrame({"subject": [], "reason": []}, dtype=object),
        )


class Sick(FakeCohort):
    """With infarctions (every third), and fibrillation in one training subject only, whose age is
    unknown."""

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table, rejected = super().subjects()
        table["conditions"] = np.where(np.arange(len(table)) % 3 == 0, "mi", "")
        table["split"] = np.resize(["train"] * 8 + ["val"] * 5 + ["test"] * 5, len(table))
        table.loc[0, ["conditions", "age"]] = "mi;af", np.nan
        return table, rejected


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def made(root: Path):
    return fake_set(root / "synthetic", prepare(FakeCohort(), root), count=72)


def arm(root: Path, **options) -> Arms:
    arms = Arms(**{"cohort": BiasedCohort(), "root": root, "batch_size": 64, **options})
    arms.prepare_data()
    arms.setup("fit")
    return arms


def small(arms: Arms, chosen: dict, **options) -> Classifier:
    """The classifier of a mitigation around eight hidden units."""
    model = Classifier(
        width=8,
        pixels=16,
        loss=chosen["loss"],
        heads=chosen["heads"],
        groups=arms.groups,
        **{"eta": chosen["eta"], "lr": 3e-3, "flips": 0.0, "labels": arms.labels, **options},
    )
    model.network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 8),
        nn.Tanh(),
        nn.Linear(8, model.outputs * model.domains),
    )
    return model


def study(
    root: Path, name: str, *, steps: int, eta: float | None = None, **options
) -> pd.DataFrame:
    """Predictions of a mitigation, put together as train.py does."""
    chosen = ALL[name] if eta is None else {**ALL[name], "eta": eta}
    L.seed_everything(0, verbose=False)
    arms = arm(root, sampling=chosen["sampling"], **options)
    model, trainer = small(arms, chosen), L.Trainer(max_steps=steps, limit_val_batches=1, **QUIET)
    trainer.fit(model, arms)
    if chosen["after"] == "last_layer":
        mitigation.refit_last_layer(model, trainer, arms, seed=0)
    table = predictions(arms.index, trainer.predict(model, arms), labels=arms.labels)
    if chosen["after"] == "thresholds":
        table = mitigation.group_thresholds(
            table, attribute=chosen["attribute"], constraint=chosen["constraint"], seed=0
        )
    return table


def worst(table: pd.DataFrame) -> float:
    """Accuracy in the worst group of the test split."""
    test = table[table.split == "test"]
    return (test.predicted == test.label).groupby(test.group).mean().min()


@pytest.fixture(scope="module")
def plain(root: Path) -> pd.DataFrame:
    return study(root, "none", steps=150)


def test_the_problem_is_biased(plain):
    test = plain[plain.split == "test"]
    assert worst(plain) < 0.6 < 0.7 < (test.predicted == test.label).mean()
    found = (test.predicted == test.label).groupby(test.group).mean()
    assert max(found["F/hf"], found["M/healthy"]) + 0.2 < min(found["F/healthy"], found["M/hf"])


@pytest.mark.parametrize(
    ("name", "eta"),
    [
        ("oversample", None),
        ("reweight", None),
        ("groupdro", 0.1),
        ("domain_independent", None),
        ("last_layer", None),
    ],
)
def test_the_worst_group_gains(root, plain, name, eta):
    table = study(root, name, steps=150, eta=eta)
    assert worst(table) > worst(plain) + 0.15
    assert ((table.probability > 0.5) == table.predicted).all()


def gap(table: pd.DataFrame, attribute: str = "sex") -> float:
    test = table[table.split == "test"]
    return equalized_odds_difference(test.label, test.predicted, sensitive_features=test[attribute])


def test_thresholds_close_the_gap_and_leave_the_probabilities(plain, root):
    table = mitigation.group_thresholds(plain, attribute="sex", seed=0)
    assert gap(table) < 0.5 * gap(plain)
    assert table.probability.equals(plain.probability) and not table.predicted.equals(
        plain.predicted
    )
    # seeded, from training to the last decision
    assert study(root, "thresholds", steps=150).equals(table)


def scores(count: int = 4000) -> pd.DataFrame:
    """Predictions of a classifier that finds men likelier ill; of the fourth band nobody in
    validation is."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(count)],
            "split": rng.choice(["val", "test"], count),
            "disease": "hf",
            "label": rng.integers(0, 2, count),
            "sex": rng.choice(["F", "M"], count),
            "age_band": rng.choice(["<60", "60-70", "70+", None], count),
            "bmi_band": None,
        }
    )
    table.loc[(table.age_band == "70+") & (table.split == "val"), "label"] = 0
    table["probability"] = rng.normal(
        0.35 + 0.15 * table.label + 0.25 * (table.sex == "M"), 0.1
    ).clip(0, 1)
    return table.assign(predicted=(table.probability > 0.5).astype(int))


@pytest.mark.parametrize("constraint", mitigation.CONSTRAINTS)
def test_every_constraint_is_met(constraint):
    before = scores()
    after = mitigation.group_thresholds(before, constraint=constraint, seed=0)

    def rates(table: pd.DataFrame) -> pd.Series:
        test = table[table.split == "test"]
        kept = {"true_positive_rate_parity": 1, "false_positive_rate_parity": 0}.get(constraint)
        return (test if kept is None else test[test.label == kept]).groupby("sex").predicted.mean()

    if constraint == "equalized_odds":
        assert gap(after) < 0.06 < 0.3 < gap(before)
    else:
        assert np.ptp(rates(after)) < 0.06 < 0.2 < np.ptp(rates(before))
    assert (after.predicted == after.label).mean() > (before.predicted == before.label).mean()


def test_a_group_without_both_classes_keeps_the_common_threshold_and_is_named():
    before = scores()
    with pytest.warns(UserWarning, match=r"age_band 70\+, unknown keep the common threshold 0.5"):
        after = mitigation.group_thresholds(before, attribute="age_band", seed=0)
    kept = before.age_band.isna() | (before.age_band == "70+")
    assert (after.predicted == before.predicted)[kept].all() and (
        after.predicted != before.predicted
    )[~kept].any()
    with pytest.warns(UserWarning, match="bmi_band unknown keeps .* two groups or more"):
        assert mitigation.group_thresholds(before, attribute="bmi_band", seed=0).equals(before)


def test_unknown_choices_are_refused_before_training(root):
    mitigation.check_after("nothing", attribute="sex", constraint="equalized_odds")
    for wrong in ({"after": "retrain"}, {"attribute": "height"}, {"constraint": "parity"}):
        (key, value), given = (
            next(iter(wrong.items())),
            {"after": "nothing", "attribute": "sex", **wrong},
        )
        with pytest.raises(
            ValueError, match=f"mitigation.{key}='{value}' is unknown; choose one of"
        ):
            mitigation.check_after(
                given["after"],
                attribute=given["attribute"],
                constraint=given.get("constraint", "equalized_odds"),
            )
    for key, value in (("loss", "focal"), ("heads", "two")):
        with pytest.raises(ValueError, match=f"{key}='{value}' is unknown; choose one of"):
            Classifier(**{key: value})
    with pytest.raises(ValueError, match="the groups are missing"):
        Classifier(loss="groupdro")
    with pytest.raises(ValueError, match="of one domain"):
        Classifier(heads="per_group", groups=[{"name": "hf", "domain": "", "weight": 1.0}])
    for key, value in (("sampling", "some"), ("budget", "hours")):
        with pytest.raises(ValueError, match=f"{key}='{value}' is unknown; choose one of"):
            Arms(cohort=BiasedCohort(), root=root, **{key: value})


# sampling


def drawn(arms: Arms, *, epoch: int = 0) -> pd.DataFrame:
    sampler = arms.train_dataloader().sampler
    sampler.set_epoch(epoch)
    train = arms.index[arms.index.split == "train"]
    return train.iloc[list(sampler)]


def test_balanced_draws_are_balanced_and_as_many(root):
    arms = arm(root, sampling="balanced", images_per_epoch=4000)
    rows = drawn(arms)
    assert len(rows) == 4000
    assert chisquare(rows.group.value_counts()).pvalue > 0.001 and rows.group.nunique() == 4
    assert chisquare(rows.label.value_counts()).pvalue > 0.001
    unbalanced = drawn(arm(root, images_per_epoch=4000))
    assert chisquare(unbalanced.group.value_counts()).pvalue < 1e-6
    assert (
        len(arm(root, sampling="balanced").train_dataloader().sampler)
        == 440
        == len(arm(root).index.query("split=='train'"))
    )


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(root, sampling):
    first = [drawn(arms := arm(root, sampling=sampling), epoch=0).index, drawn(arms, epoch=1).index]
    assert drawn(arm(root, sampling=sampling), epoch=1).index.equals(first[1]) and not first[
        0
    ].equals(first[1])
    assert not drawn(arm(root, sampling=sampling, seed=1)).index.equals(first[0])


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_processes_divide_one_order(root, sampling, monkeypatch):
    images = arm(root, sampling=sampling).train_dataloader().dataset
    chances = np.arange(1, len(images) + 1) / len(images) if sampling == "balanced" else None
    whole = list(Draws(images, count=101, seed=0, chances=chances))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(list(sampler := Draws(images, count=101, seed=0, chances=chances)))
        assert len(sampler) == len(parts[-1]) == 51
    together = [k for pair in zip(*parts, strict=True) for k in pair]
    assert together == [*whole, whole[0]]


def test_matched_arms_draw_real_images_of_the_same_groups(root, made):
    options = {"cohort": FakeCohort(), "synthetic": 50, "synthetic_set": made.folder}
    real, synthetic = arm(root, cohort=FakeCohort()).index, arm(root, **options)
    arms = arm(root, sampling="matched", **options)
    assert arms.index.real.all() and len(arms.index) == len(synthetic.index)
    more = arms.index.iloc[len(real) :]
    pd.testing.assert_frame_equal(arms.index.iloc[: len(real)], real)
    assert (more.split == "train").all() and set(more.stored) <= set(
        real.stored[real.split == "train"]
    )
    wanted = synthetic.index[~synthetic.index.real].group.value_counts()
    pd.testing.assert_series_equal(more.group.value_counts().sort_index(), wanted.sort_index())
    assert arms.synthetic_fingerprint == synthetic.synthetic_fingerprint == made.fingerprint
    assert len(arms.train_dataloader().sampler) == len(synthetic.train_dataloader().sampler)
    again = arm(root, sampling="matched", **options).index
    pd.testing.assert_frame_equal(arms.index, again)
    assert not arm(root, sampling="matched", seed=1, **options).index.equals(again)


def test_matched_arms_need_a_number(root, made):
    for synthetic in (0, "only"):
        with pytest.raises(ValueError, match=f"synthetic={synthetic} with sampling=matched"):
            Arms(
                cohort=FakeCohort(),
                root=root,
                synthetic=synthetic,
                synthetic_set=made.folder,
                sampling="matched",
            )


def test_matched_groups_without_preferred_rows_take_others_and_without_any_are_named():
    train = pd.DataFrame({"group": list("aaabb")}, index=[3, 5, 6, 8, 9])
    preferred = pd.Series(False, index=range(12))
    preferred[[3, 5]] = True
    with pytest.warns(
        UserWarning, match=r"no real training image of c \(2\); as many are left out"
    ):
        rows = mitigation.matched_rows(
            pd.Series(list("aaaaabbbcc")), train, preferred=preferred, seed=0
        )
    assert np.bincount(rows, minlength=10)[[3, 5]].tolist() in ([2, 3], [3, 2])
    assert sorted(np.bincount(rows, minlength=10)[[8, 9]]) == [1, 2] and len(rows) == 8


def test_budget_by_steps_gives_every_arm_the_real_arms_steps(root, made):
    def steps(**options) -> int:
        return len(
            arm(
                root, cohort=FakeCohort(), synthetic_set=made.folder, batch_size=8, **options
            ).train_dataloader()
        )

    arms = (
        {},
        {"synthetic": 36},
        {"synthetic": "only"},
        {"synthetic": 36, "sampling": "balanced"},
        {"synthetic": 36, "sampling": "matched"},
    )
    real = steps()
    assert {steps(budget="steps", **options) for options in arms} == {real}
    by_pass = [steps(**options) for options in arms]
    assert by_pass[1] == by_pass[3] == by_pass[4] > real > by_pass[2] == 9
    assert {steps(budget="steps", images_per_epoch=80, **options) for options in arms} == {10}


# losses


def test_group_weights_give_every_group_equal_mass(root):
    arms = arm(root)
    facts, train = arms.groups, arms.index[arms.index.split == "train"]
    assert [fact["name"] for fact in facts] == ["F/healthy", "F/hf", "M/healthy", "M/hf"]
    assert [fact["domain"] for fact in facts] == ["F", "F", "M", "M"]
    weight = train.group.map({fact["name"]: fact["weight"] for fact in facts})
    assert weight.mean() == pytest.approx(1)
    assert weight.groupby(train.group).sum().to_numpy() == pytest.approx(110)
    balanced = arm(root, sampling="balanced").groups
    assert [fact["weight"] for fact in balanced] == pytest.approx([1, 1, 1, 1])  # once is enough
    losses, group = (
        torch.rand(len(train)),
        torch.from_numpy(pd.factorize(train.group, sort=True)[0]),
    )
    ours = mitigation.weighted_mean(
        losses, group, weight=torch.tensor([fact["weight"] for fact in facts])
    )
    assert ours.item() == pytest.approx(
        pd.Series(losses.numpy()).groupby(group.numpy()).mean().mean(), rel=1e-5
    )


def test_the_robust_loss_follows_the_worst_group():
    losses, group = torch.tensor([1.0, 3.0, 2.0], requires_grad=True), torch.tensor([0, 2, 2])
    start = torch.tensor([0.2, 0.3, 0.5])
    loss, weight = mitigation.robust_mean(losses, group, weight=start, eta=0.1)
    expected = np.array([0.2 * np.exp(0.1), 0.3, 0.5 * np.exp(0.25)])
    expected /= expected.sum()
    assert weight.tolist() == pytest.approx(expected) and not weight.requires_grad
    assert loss.item() == pytest.approx(expected[0] * 1 + expected[2] * 2.5)
    loss.backward()
    assert losses.grad.tolist() == pytest.approx([expected[0], expected[2] / 2, expected[2] / 2])
    for _ in range(300):
        weight = mitigation.robust_mean(losses.detach(), group, weight=weight, eta=0.1)[1]
    assert weight[2] > 0.99


def test_the_robust_loss_is_the_same_in_two_processes():
    losses, group, start = (
        torch.rand(8),
        torch.tensor([0, 1, 1, 3, 0, 3, 3, 3]),
        torch.full((4,), 0.25),
    )
    loss, weight = mitigation.robust_mean(losses, group, weight=start, eta=0.5)
    halves = [(losses[k::2], group[k::2]) for k in (0, 1)]
    sums = sum(torch.zeros(4).index_add(0, g, x) for x, g in halves)
    counts = sum(torch.bincount(g, minlength=4).float() for _, g in halves)
    parts = []
    for x, g in halves:
        answers = iter([counts, sums, torch.tensor([2.0])])
        parts.append(
            mitigation.robust_mean(
                x, g, weight=start, eta=0.5, total=lambda _, told=answers: next(told)
            )
        )
    assert (parts[0][0] + parts[1][0]).item() / 2 == pytest.approx(loss.item())
    assert all(torch.allclose(part[1], weight) for part in parts)


def test_group_weights_are_in_the_checkpoint(root, tmp_path):
    arms = arm(root, sampling="balanced")
    model = Classifier(width=8, pixels=16, loss="groupdro", eta=0.1, groups=arms.groups)
    trainer = L.Trainer(max_steps=2, limit_val_batches=1, **QUIET)
    trainer.fit(model, arms)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert model.group_weight.std() > 1e-4 and model.group_weight.sum() == pytest.approx(1)
    loaded = Classifier.load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu")
    assert torch.equal(loaded.group_weight, model.group_weight)


def test_a_head_learns_from_its_own_domain_and_predictions_take_the_mean(root):
    arms = arm(root)
    model = small(arms, ALL["domain_independent"])
    batch = next(iter(arms.train_dataloader()))
    women = torch.tensor([fact["domain"] == "F" for fact in arms.groups])[batch["group"]]
    batch = {key: value[women] for key, value in batch.items()}
    batch["image"] = model.seen(batch["image"])
    model._loss(batch, "training")[0].backward()
    grad = model.network[-1].weight.grad.view(2, 2, -1)
    assert grad[0].abs().max() > 0 and grad[1].abs().max() == 0
    logits = model.network(batch["image"])
    assert torch.allclose(model(batch["image"]), (logits[:, :2] + logits[:, 2:]) / 2)


@pytest.mark.parametrize("synthetic", [0, 36, "only"])
@pytest.mark.parametrize("name", ALL)
def test_every_mitigation_goes_with_every_arm(root, made, name, synthetic):
    if name == "oversample_matched" and synthetic != 36:
        pytest.skip("has no meaning, see above")
    table = study(
        root, name, steps=2, cohort=FakeCohort(), synthetic=synthetic, synthetic_set=made.folder
    )
    assert (
        table.probability.between(0, 1).all()
        and set(table.predicted) <= {0, 1}
        and set(table.disease) == {"hf"}
    )


# last layer


def test_the_refitted_layer_is_the_mean_of_regressions(root):
    arms = arm(root)
    model, trainer = small(arms, NONE), L.Trainer(**QUIET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mitigation.refit_last_layer(model, trainer, arms, seed=3)
    changed = [
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed == ["network.3.weight", "network.3.bias"]
    once = model.network[3].weight.detach().clone()
    assert torch.allclose(once[0], -once[1])
    # from what it left: the features are the same
    mitigation.refit_last_layer(model, trainer, arms, seed=3)
    assert torch.equal(once, model.network[3].weight)
    test = predictions(arms.index, trainer.predict(model, arms)).query("split == 'test'")
    assert test.groupby("sex").predicted.mean().between(0.3, 0.7).all()


def test_all_heads_become_the_refitted_one(root):
    arms = arm(root)
    model = small(arms, ALL["domain_independent"])
    mitigation.refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    assert torch.equal(*model.network[-1].weight.detach().view(2, 2, -1))


def test_a_network_without_a_last_linear_layer_is_not_refitted(root):
    arms = arm(root)
    model = small(arms, NONE)
    model.network = nn.Sequential(model.network, nn.Softplus())
    with pytest.raises(ValueError, match="are not those of one last linear layer"):
        mitigation.refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    model.network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    with pytest.raises(ValueError, match="no linear layer"):
        mitigation.refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)


# several diseases


@pytest.mark.parametrize(
    "name", ["none", "groupdro", "domain_independent", "last_layer", "thresholds"]
)
def test_several_diseases_are_predicted_side_by_side(root, name):
    table = study(root, name, steps=3, cohort=Sick(), labels=["hf", "mi"])
    hf, mi = (table[table.disease == disease].reset_index(drop=True) for disease in ("hf", "mi"))
    assert (
        len(hf) == len(mi) == 80
        and hf.subject.equals(mi.subject)
        and not hf.probability.equals(mi.probability)
    )
    assert (hf.label == hf.group.str.endswith("/hf")).all()
    assert (mi.label == (mi.subject.str[3:].astype(int) % 3 == 0)).all()


def test_one_other_disease_is_told_from_its_absence(root):
    arms = arm(root, cohort=Sick(), labels=["mi"])
    for batch in arms.train_dataloader():
        told = arms.index.subject[batch["row"].numpy()].str[3:].astype(int) % 3 == 0
        assert batch["label"].tolist() == told.tolist()
    assert small(arms, NONE).outputs == 2


def test_several_diseases_are_scored_by_those_that_validation_has(root):
    with pytest.warns(
        UserWarning, match="have label 0 for af; val_balanced_accuracy leaves it out"
    ):
        arms = arm(root, cohort=Sick(), labels=["hf", "mi", "af"])
    logged = L.Trainer(**QUIET).validate(small(arms, NONE), arms, verbose=False)[0]
    assert np.isnan(logged["val_balanced_accuracy_af"])
    parts = [logged["val_balanced_accuracy_hf"], logged["val_balanced_accuracy_mi"]]
    assert logged["val_balanced_accuracy"] == pytest.approx(np.mean(parts))
    with pytest.warns(UserWarning, match="no case of af, or only cases"):
        model = small(arms, NONE)
        mitigation.refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)


def test_several_diseases_are_binary_losses():
    logits, label = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    expected = -(label * logits.sigmoid().log() + (1 - label) * (1 - logits.sigmoid()).log())
    assert torch.allclose(
        mitigation.sample_losses(logits, label, reduction="none"), expected.mean(1), atol=1e-6
    )
    assert torch.allclose(mitigation.sample_losses(logits, label), expected.mean(), atol=1e-6)


def test_wrong_labels_are_refused(root):
    for wrong in ([], ["hf", "hf"], ["copd"], "hf"):
        with pytest.raises(ValueError, match="give a list of one or more of hf, mi, ihd, af"):
            Arms(cohort=Sick(), root=root, labels=wrong)
    with pytest.raises(
        ValueError, match="nobody in the training split has ihd; leave it out of labels="
    ):
        arm(root, cohort=Sick(), labels=["hf", "ihd"])


# cohorts whose attributes nobody knows


def people(**known: object) -> pd.DataFrame:
    """Rows of an arm, half of them ill, of whom nothing but `known` is known."""
    table = pd.DataFrame({"split": ["train"] * 4 + ["val"] * 4, "diagnosis": ["healthy", "hf"] * 4})
    return table.assign(**{"sex": None, "age_band": None, "bmi_band": None, **known})


@pytest.mark.parametrize(
    "name", ["groupdro", "reweight", "oversample", "domain_independent", "last_layer"]
)
def test_without_groups_a_mitigation_is_refused(name):
    for known, why in (
        ({}, "nobody's sex, age or BMI is known"),
        ({"sex": "F"}, "all training images are of one group, F"),
    ):
        with pytest.raises(
            ValueError, match=f"mitigation={name}: in cohort acdc {why}.*choose mitigation=none, or"
        ):
            mitigation.check_groups(name, choices=ALL[name], index=people(**known), cohort="acdc")
    mitigation.check_groups(
        name, choices=ALL[name], index=people(sex=["F", "M"] * 4), cohort="acdc"
    )


def test_thresholds_need_an_attribute_that_differs_in_validation():
    def check(**known):
        mitigation.check_groups(
            "thresholds", choices=ALL["thresholds"], index=people(**known), cohort="acdc"
        )

    with pytest.raises(
        ValueError, match="sex is known for nobody in the validation split.*choose mitigation=none"
    ):
        check()
    with pytest.raises(
        ValueError,
        match="sex is F for everybody .*choose mitigation.attribute=age_band, mitigation=none",
    ):
        check(sex="F", age_band=["<60", "70+"] * 4)
    check(sex=["F", "M"] * 4)


@pytest.mark.parametrize("name", ["none", "oversample_matched"])
def test_what_needs_no_groups_goes_on_without(name):
    mitigation.check_groups(name, choices=ALL[name], index=people(), cohort="acdc")
