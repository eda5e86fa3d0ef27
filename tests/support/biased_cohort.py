"""Problems that are biased on purpose, and a mitigation's training on one, as train.py does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import yaml
from fairlearn.metrics import equalized_odds_difference
from hydra.utils import instantiate
from torch import nn

from cmrcls.arms import Arms
from cmrcls.classifier import Classifier
from cmrdata.protocol import Stacks
from cmrdata.subjects import group_names
from support import ROOT
from support.fake_cohort import FakeCohort

QUIET: dict[str, Any] = {
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


def arm(root: Path, **options) -> Arms:
    arms = Arms(**{"cohort": BiasedCohort(), "root": root, "batch_size": 64, **options})
    arms.prepare_data()
    arms.setup("fit")
    return arms


def small(arms: Arms, choice: dict[str, Any] = NONE, **options: Any) -> Classifier:
    """The classifier of a mitigation around eight hidden units."""
    loss, heads = (instantiate(choice[key], groups=arms.groups) for key in ("loss", "heads"))
    given = {"lr": 3e-3, "flips": 0.0, "labels": arms.labels, **options}
    model = Classifier(width=8, pixels=16, loss=loss, heads=heads, **given)
    model.network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 8),
        nn.Tanh(),
        nn.Linear(8, model.outputs * model.heads.domains),
    )
    return model


def study(
    root: Path, name: str, *, steps: int, eta: float | None = None, **options: Any
) -> pd.DataFrame:
    """Predictions of a mitigation, put together as train.py does."""
    choice = ALL[name] if eta is None else {**ALL[name], "loss": {**ALL[name]["loss"], "eta": eta}}
    L.seed_everything(0, verbose=False)
    arms = arm(root, sampling=instantiate(choice["sampling"]), **options)
    model, trainer = small(arms, choice), L.Trainer(max_steps=steps, limit_val_batches=1, **QUIET)
    trainer.fit(model, arms)
    return instantiate(choice["after"]).predict(model, trainer, arms, seed=0)


def worst(table: pd.DataFrame) -> float:
    """Accuracy in the worst group of the test split."""
    test = table[table.split == "test"]
    return (test.predicted == test.label).groupby(test.group).mean().min()


def gap(table: pd.DataFrame, attribute: str = "sex") -> float:
    test = table[table.split == "test"]
    return equalized_odds_difference(test.label, test.predicted, sensitive_features=test[attribute])


def people(**known: object) -> pd.DataFrame:
    """Rows of an arm, half of them ill, of whom nothing but `known` is known."""
    table = pd.DataFrame({"split": ["train"] * 4 + ["val"] * 4, "diagnosis": ["healthy", "hf"] * 4})
    table = table.assign(**{"sex": None, "age_band": None, "bmi_band": None, **known})
    return table.assign(group=group_names(table))
