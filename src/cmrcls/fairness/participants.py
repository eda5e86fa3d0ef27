"""Who was found, who was left out and why, and what those who stayed are like: a reviewer's first
questions (STARD, CLAIM, TRIPOD+AI)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.classifier_runs import Run
from cmrcls.fairness.grid import Grid
from cmrdata.axes import AXES, CONDITIONS, DIAGNOSES, axes_in, bands_in
from cmrdata.store import Store
from cmrdata.subjects import further_columns

MIN_COUNT = 10  # smaller counts of people with an attribute are not printed
SPLITS = {"train": "training", "val": "validation", "test": "test"}
CLASSES = {0: "healthy", 1: "diseased"}
NUMBERS = {"age": "Age (years)", "bmi": "BMI (kg/m2)"}
FLOW_COLUMNS = [
    "step",
    "part",
    "reason",
    "participants",
    "diseased",
    "real_images",
    "synthetic_images",
]
BASELINE_COLUMNS = [
    "variable",
    "level",
    "split",
    "label",
    "n",
    "known",
    "count",
    "share",
    "mean",
    "sd",
    "hidden",
]


def flow_table(cohort: Store, study: Grid | None = None, *, rejected: pd.DataFrame) -> pd.DataFrame:
    """From the folders found to the arms: a row per step, and per reason why somebody was left out.

    Args:
        cohort: the store that runs without folds, or of the fold at hand, were trained on.
        study: whose finished runs are the arms; None for none.
        rejected: subject, reason: of those that could not be read.

    Returns:
        FLOW_COLUMNS; `step` is found, left out, read, split, used or arm. Counts are exact.
    """
    subjects, index = cohort.subjects, cohort.index
    lost = rejected[~rejected.subject.isin(subjects.subject)].drop_duplicates("subject")
    rows: list[dict[str, Any]] = [
        {"step": "found", "part": "participants", "participants": len(subjects) + len(lost)}
    ]
    reasons = lost.reason.map(in_general).value_counts()
    rows += [
        {"step": "left out", "part": "not usable", "reason": reason, "participants": int(n)}
        for reason, n in reasons.items()
    ]
    rows.append(
        {"step": "read", "part": "participants with usable images", "participants": len(subjects)}
    )
    if unlabelled := int(subjects.label.isna().sum()):
        rows.append(
            {
                "step": "left out",
                "part": "of the classifier",
                "participants": unlabelled,
                "reason": "neither case nor control (the generator's base may see them)",
            }
        )
    images = index.groupby("subject").size()
    labelled = subjects[subjects.label.notna()]
    train = labelled[labelled.split == "train"]
    used = train[train.balanced.astype(bool)]
    for split, name in SPLITS.items():
        members = labelled[labelled.split == split]
        rows.append({"step": "split", "part": name, **_counted(members, images)})
        rows += _used_rows(train, used, images) if split == "train" else []
    real = _counted(used, images)
    for arm in study.arms if study else ():
        if arm.finished:
            rows.append(_arm_row(arm.name, arm.finished, real))
    return pd.DataFrame(rows, columns=FLOW_COLUMNS)


def _used_rows(train: pd.DataFrame, used: pd.DataFrame, images: pd.Series) -> list[dict[str, Any]]:
    """Of the training split, who is left out to balance diagnoses, and who is used."""
    rows: list[dict[str, Any]] = []
    if len(used) < len(train):
        rows.append(
            {
                "step": "left out",
                "part": "of training",
                "participants": len(train) - len(used),
                "reason": "surplus healthy participants (undersampling to balanced diagnosis)",
            }
        )
    return [*rows, {"step": "used", "part": "training, balanced", **_counted(used, images)}]


def read_rejected(folder: Path) -> pd.DataFrame:
    """subject, reason of those whom a cohort's store could not read; empty where nobody was
    rejected."""
    path = folder / "rejected.csv"
    try:
        table = pd.read_csv(path, dtype=str)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        table = pd.DataFrame()
    return table.reindex(columns=["subject", "reason"])


def _counted(people: pd.DataFrame, images: pd.Series) -> dict[str, int]:
    """Participants, diseased ones and their real images; images: their number by subject."""
    return {
        "participants": len(people),
        "diseased": int((people.label == 1).sum()),
        "real_images": int(people.subject.map(images).fillna(0).sum()),
    }


def _arm_row(name: str, finished: Sequence[Run], real: dict[str, int]) -> dict[str, Any]:
    """What an arm is trained on, as its runs tell; a real image that is drawn again counts again."""
    facts = max((run.record.facts for run in finished), key=lambda of: of["training_images"])
    total, synthetic = facts["training_images"], facts["synthetic_images"]
    nobody = dict.fromkeys(real, 0)
    return {
        "step": "arm",
        "part": name,
        **(real if total > synthetic else nobody),
        "real_images": total - synthetic,
        "synthetic_images": synthetic,
    }


def in_general(reason: str) -> str:
    """A reason without what is one participant's or one machine's own: numbers, quoted words and
    paths."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\{[^}]*\}", "...", reason)
    bare = re.sub(r"\S*(?:/\S|\\)\S*", "...", bare)
    return re.sub(r"\d+(\.\d+)?([ x]+\d+(\.\d+)?)*", "N", bare)


def baseline_table(subjects: pd.DataFrame) -> pd.DataFrame:
    """What participants are like, by split and label: BASELINE_COLUMNS, a row per variable, level,
    split and label.

    Counts below MIN_COUNT are hidden (missing, `hidden` true), and with a single hidden level the
    next smallest, which would give it away; so are mean and sd of fewer than MIN_COUNT. Variables
    that are unknown of everybody are left out.

    Args:
        subjects: of a store: split, label and what is known of each.
    """
    labelled = subjects[subjects.label.notna() & subjects.split.isin(list(SPLITS))]
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        for label in CLASSES:
            own = labelled[(labelled.split == split) & (labelled.label == label)]
            about = {"split": split, "label": label, "n": len(own)}
            for name, title in NUMBERS.items():
                if labelled[name].notna().any():
                    rows.append(about | {"variable": title, "level": "", **_spread(own[name])})
            for title, values, levels in _categories(labelled, own):
                rows += [about | {"variable": title, **row} for row in _shares(values, levels)]
    table = pd.DataFrame(rows, columns=BASELINE_COLUMNS)
    order = {
        key: k for k, key in enumerate(dict.fromkeys(zip(table.variable, table.level, strict=True)))
    }
    place = [order[key] for key in zip(table.variable, table.level, strict=True)]
    return (
        table.assign(_place=place)
        .sort_values("_place", kind="stable")
        .drop(columns="_place")
        .reset_index(drop=True)
    )


def _spread(values: pd.Series) -> dict[str, Any]:
    """Mean and sd of those of whom it is known."""
    known = values.dropna()
    if len(known) < MIN_COUNT:
        return {"known": np.nan, "hidden": len(known) > 0}
    return {"known": len(known), "mean": known.mean(), "sd": known.std(ddof=1), "hidden": False}


def _categories(
    everybody: pd.DataFrame, own: pd.DataFrame
) -> Iterable[tuple[str, pd.Series, Sequence[tuple[Any, str]]]]:
    """Title, values of some people (`own`), and the levels in order, of every attribute that
    somebody has."""
    for name in axes_in(everybody):
        if everybody[name].notna().any():
            phrase = AXES[name].phrase
            title = phrase[0].upper() + phrase[1:]
            yield title, own[name], list(bands_in(everybody, name).items())
    for name in ("source", *further_columns(everybody)):
        if (
            name in everybody
            and name not in AXES
            and name != "conditions"
            and everybody[name].nunique() > 1
        ):
            yield (
                name.replace("_", " ").capitalize(),
                own[name],
                [(v, str(v)) for v in sorted(everybody[name].dropna().unique())],
            )
    codes = everybody.conditions.fillna("").str.split(";")
    for code, condition in CONDITIONS.items():
        if codes.map(lambda row, code=code: code in row).any():
            has = own.conditions.fillna("").str.split(";").map(lambda row, code=code: code in row)
            yield "Condition", has.map({True: code, False: ""}), [(code, condition)]
    if everybody.diagnosis.nunique() > 2:
        yield "Diagnosis", own.diagnosis, [(code, code) for code in DIAGNOSES]


def _shares(values: pd.Series, levels: Sequence[tuple[Any, str]]) -> list[dict[str, Any]]:
    """Count and share of each level among those of whom it is known; small ones hidden, and
    those that would give them away."""
    known = int(values.notna().sum())
    counts = [int((values == value).sum()) for value, _ in levels]
    hidden = [0 < count < MIN_COUNT for count in counts]
    if len(levels) == 1:
        hidden = [0 < counts[0] < MIN_COUNT or 0 < known - counts[0] < MIN_COUNT]
    elif sum(hidden) == 1:
        others = [k for k, is_hidden in enumerate(hidden) if not is_hidden and counts[k] > 0]
        if others:
            hidden[min(others, key=counts.__getitem__)] = True
    return [
        {
            "level": name,
            "known": known if known >= MIN_COUNT else np.nan,
            "hidden": is_hidden,
            "count": np.nan if is_hidden else count,
            "share": np.nan if is_hidden or not known else count / known,
        }
        for (_, name), count, is_hidden in zip(levels, counts, hidden, strict=True)
    ]


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Standardised mean differences per variable and level: diseased minus healthy in each split,
    and test minus training of each class: variable, level, compared, smd. Of what is hidden there
    is none.

    Of means: over the root of the mean variance; of shares: the same with p (1 - p) (Austin 2009).
    """
    rows = []
    for (variable, level), own in table.groupby(["variable", "level"], sort=False):
        at = own.set_index(["split", "label"])
        pairs = {
            f"diseased - healthy, {name}": ((split, 1), (split, 0))
            for split, name in SPLITS.items()
        }
        pairs |= {
            f"test - training, {name}": (("test", label), ("train", label))
            for label, name in CLASSES.items()
        }
        rows += [
            {
                "variable": variable,
                "level": level,
                "compared": name,
                "smd": _smd(at.loc[a], at.loc[b]),
            }
            for name, (a, b) in pairs.items()
        ]
    return pd.DataFrame(rows, columns=["variable", "level", "compared", "smd"])


def _smd(a: pd.Series, b: pd.Series) -> float:
    """Of two rows of `baseline_table`."""
    if not pd.isna(a["mean"]) and not pd.isna(b["mean"]):
        apart, variance = a["mean"] - b["mean"], (a["sd"] ** 2 + b["sd"] ** 2) / 2
    else:
        apart, variance = (
            a["share"] - b["share"],
            sum(x["share"] * (1 - x["share"]) for x in (a, b)) / 2,
        )
    return float(apart / np.sqrt(variance)) if variance > 0 else (0.0 if apart == 0 else np.nan)


def split_sentence(subjects: pd.DataFrame) -> str:
    """ "Subjects per split: test: 36 (12 diseased), train: 3,840 (170 diseased), ..." """
    splits = subjects.groupby("split", sort=False).label.agg(["size", "sum"])
    counts = [f"{name} {int(n):,} ({int(ill):,} diseased)" for name, n, ill in splits.itertuples()]
    return f"Subjects per split: {', '.join(sorted(counts))}."
