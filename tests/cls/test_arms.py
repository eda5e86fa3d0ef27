"""Arms: other diseases than heart failure, and harmonised synthetic images."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest

from cmrcls.arms import Arms
from cmrdata.prepare import prepare
from support.biased_cohort import QUIET, BiasedCohort, Sick, arm, small
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_one_other_disease_is_told_from_its_absence(root):
    arms = arm(root, cohort=Sick(), labels=["mi"])
    for batch in arms.train_dataloader():
        told = arms.index.subject[batch["row"].numpy()].str[3:].astype(int) % 3 == 0
        assert batch["label"].tolist() == told.tolist()
    assert small(arms).outputs == 2


def test_several_diseases_are_scored_by_those_that_validation_has(root):
    with pytest.warns(
        UserWarning, match="have label 0 for af; val_balanced_accuracy leaves it out"
    ):
        arms = arm(root, cohort=Sick(), labels=["hf", "mi", "af"])
    logged = L.Trainer(**QUIET).validate(small(arms), arms, verbose=False)[0]
    assert np.isnan(logged["val_balanced_accuracy_af"])
    parts = [logged["val_balanced_accuracy_hf"], logged["val_balanced_accuracy_mi"]]
    assert logged["val_balanced_accuracy"] == pytest.approx(np.mean(parts))


def test_wrong_labels_are_refused(root):
    for wrong in ([], ["hf", "hf"], ["copd"], "hf"):
        with pytest.raises(ValueError, match="give a list of one or more of hf, mi, ihd, af"):
            Arms(cohort=Sick(), root=root, labels=wrong)
    with pytest.raises(
        ValueError, match="nobody in the training split has ihd; leave it out of labels="
    ):
        arm(root, cohort=Sick(), labels=["hf", "ihd"])


def test_an_unknown_budget_is_refused(root):
    with pytest.raises(ValueError, match="budget='hours' is unknown; choose one of epochs, steps"):
        Arms(cohort=BiasedCohort(), root=root, budget="hours")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    cohort = prepare(FakeCohort(count=288), folder, workers=1)
    return folder, cohort, fake_set(folder / "set", cohort, count=72)


def test_an_arm_is_harmonised_in_its_synthetic_training_images_alone(study, capsys):
    folder, cohort, made = study
    how = {"cohort": FakeCohort(count=288), "root": folder, "synthetic_set": made.folder}

    def arm(**settings) -> tuple[np.ndarray, np.ndarray]:
        data = Arms(**how, **settings)
        data.setup()
        rows = np.arange(len(data.index))
        return data._images_of(rows).__getitems__(rows.tolist())[
            "image"
        ].numpy(), data.index.real.to_numpy(bool)

    (plain, real), (matched, _) = arm(synthetic=36), arm(synthetic=36, harmonise=True)
    assert np.array_equal(matched[real], plain[real]) and (~real).sum() == 36
    assert (matched[~real] != plain[~real]).mean() > 0.01 and np.array_equal(
        arm(synthetic=36, harmonise=True)[0], matched
    )
    assert not capsys.readouterr().out
    assert np.array_equal(arm(harmonise=True)[0], arm()[0])
    assert "harmonise=true changes nothing" in capsys.readouterr().out
    with pytest.raises(ValueError, match="harmonise='yes': it takes true or false"):
        Arms(**how, harmonise="yes")
