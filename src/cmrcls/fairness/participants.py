"""Who was found, who was left out and why, and what those who stayed are like: a reviewer's first
questions (STARD, CLAIM, TRIPOD+AI)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.grid import Study
from cmrcls.fairness.study import SUBGROUPS
from cmrdata.store import Store
from cmrdata.subjects import CONDITIONS, DIAGNOSES, further_columns
from cmrstudy.report import Section, write_tables

FEW = 10  # smaller counts of people with an attribute are not printed
SPLITS = {"train": "training", "val": "validation", "test": "test"}
CLASSES = {0: "healthy", 1: "diseased"}
CONDITION_NAMES = {
    "mi": "myocardial infarction",
    "ihd": "ischaemic heart disease",
    "af": "atrial fibrillation",
}
assert set(CONDITION_NAMES) == set(CONDITIONS), "a condition has no name"
NUMERIC = {"age": "Age (years)", "bmi": "BMI (kg/m2)"}
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


def flow(cohort: Store, study: Study | None = None, *, rejected: pd.DataFrame) -> pd.DataFrame:
    """From the folders found to the arms: a row per step, and per reason why somebody was left out.

    Args:
        cohort: the store that runs without folds, or of the fold at hand, were trained on.
        study: whose finished runs are the arms; None for none.
        rejected: subject, reason: of those that could not be read.

    Returns: FLOW_COLUMNS; `step` is found, left out, read, split, used or arm. Counts are exact.
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
    for split, name in SPLITS.items():
        part = subjects[(subjects.split == split) & subjects.label.notna()]
        rows.append({"step": "split", "part": name, **_counted(part, images)})
        if split == "train":
            used = part[part.balanced.astype(bool)]
            if len(used) < len(part):
                rows.append(
                    {
                        "step": "left out",
                        "part": "of training",
                        "participants": len(part) - len(used),
                        "reason": "surplus healthy participants (undersampling to balanced diagnosis)",
                    }
                )
            rows.append({"step": "used", "part": "training, balanced", **_counted(used, images)})
            real = used
    for arm in study.arms if study else ():
        done = [
            run.record.facts["training_images"]
            for run in arm.runs
            if run.record.state == "finished"
        ]
        if done:
            rows.append(
                _arm_row(arm.name, arm.runs[0].record.settings, max(done), _counted(real, images))
            )
    return pd.DataFrame(rows, columns=FLOW_COLUMNS)


def section(
    cohort: Store,
    study: Study | None,
    *,
    folder: Path,
    sentence: str,
    drawn: Path,
    fold: int | None = None,
) -> Section:
    """The report's first section: flow.csv and baseline.csv, written below `folder`, with Fig. 1.

    Args:
        cohort: the store that the runs (of that fold) were trained on.
        study: whose finished runs are the arms; None for none.
        folder: of the report's tables.
        sentence: on the splits.
        drawn: Fig. 1.
        fold: of the store.
    """
    of = f", fold {fold}" if fold is not None else ""
    rejected = read_rejected(cohort.folder)
    moving, people = flow(cohort, study, rejected=rejected), baseline(cohort.subjects)
    tables = []
    for name, frame, shown, caption in (
        (
            "flow",
            moving,
            flow_cells(moving),
            f"Participants and images, from what was found to each arm's training{of}",
        ),
        (
            "baseline",
            people,
            baseline_cells(people),
            f"Participants by split and diagnosis{of}: count (share of those of whom it is known) or mean (sd); SMD: standardised "
            f"mean difference, diseased - healthy and test - training. Counts of fewer than {FEW} are hidden",
        ),
    ):
        shown.attrs["caption"] = caption
        write_tables(frame, folder, name, caption, display=shown)
        tables.append(shown)
    paragraphs = [
        sentence,
        "Diseased: heart failure, as the cohort's labels say. Images of an arm are counted once, however often an epoch draws them.",
    ]
    return Section(
        "Who is in the study",
        paragraphs,
        tables=tables,
        figures=[("Fig. 1: diseased subjects and the cohort", drawn)],
    )


def read_rejected(folder: Path) -> pd.DataFrame:
    """subject, reason of those whom a cohort's store could not read; empty where nobody was
    rejected."""
    path = folder / "rejected.csv"
    try:
        table = pd.read_csv(path, dtype=str)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        table = pd.DataFrame()
    return table.reindex(columns=["subject", "reason"])


def _counted(part: pd.DataFrame, images: pd.Series) -> dict[str, int]:
    return {
        "participants": len(part),
        "diseased": int((part.label == 1).sum()),
        "real_images": int(part.subject.map(images).fillna(0).sum()),
    }


def _arm_row(name: str, settings: Any, images: int, real: dict[str, int]) -> dict[str, Any]:
    """What an arm is trained on; `oversample_matched` draws real images again in place of synthetic
    ones."""
    if str(settings["synthetic"]) == "only":
        return {
            "step": "arm",
            "part": name,
            "participants": 0,
            "diseased": 0,
            "real_images": 0,
            "synthetic_images": images,
        }
    sampling = str(settings.get("mitigation.sampling._target_"))
    matched = sampling.rpartition(".")[2] == "Matched"
    more = images - real["real_images"]
    return {
        "step": "arm",
        "part": name,
        **real,
        "real_images": images if matched else real["real_images"],
        "synthetic_images": 0 if matched else max(0, more),
    }


def in_general(reason: str) -> str:
    """A reason without what is one participant's or one machine's own: numbers, quoted words and
    paths."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\{[^}]*\}", "...", reason)
    bare = re.sub(r"\S*(?:/\S|\\)\S*", "...", bare)
    return re.sub(r"\d+(\.\d+)?([ x]+\d+(\.\d+)?)*", "N", bare)


def flow_cells(table: pd.DataFrame) -> pd.DataFrame:
    """`flow` for readers; reasons that hold for fewer than FEW participants say so."""
    rows = []
    for row in table.itertuples():
        few = row.step == "left out" and row.participants < FEW
        rows.append(
            {
                "step": row.step,
                "": row.part if pd.isna(row.reason) else f"{row.part}: {row.reason}",
                "participants": f"fewer than {FEW}" if few else f"{row.participants:,}",
                "diseased": _whole(row.diseased),
                "real images": _whole(row.real_images),
                "synthetic images": _whole(row.synthetic_images),
            }
        )
    return pd.DataFrame(rows)


def _whole(value: float) -> str:
    return "" if pd.isna(value) else f"{int(value):,}"


def baseline(subjects: pd.DataFrame) -> pd.DataFrame:
    """What participants are like, by split and label: BASELINE_COLUMNS, a row per variable, level,
    split and label.

    Counts below FEW are hidden (missing, `hidden` true), and with a single hidden level the next
    smallest, which would tell it; so are mean and sd of fewer than FEW. Variables that nobody knows
    are left out.

    Args:
        subjects: of a store: split, label and what is known of each.
    """
    labelled = subjects[subjects.label.notna() & subjects.split.isin(list(SPLITS))]
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        for label in CLASSES:
            part = labelled[(labelled.split == split) & (labelled.label == label)]
            about = {"split": split, "label": label, "n": len(part)}
            for name, title in NUMERIC.items():
                if labelled[name].notna().any():
                    rows.append(about | {"variable": title, "level": "", **_spread(part[name])})
            for title, values, levels in _categories(labelled, part):
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
    known = values.dropna()
    if len(known) < FEW:
        return {"known": np.nan, "hidden": len(known) > 0}
    return {"known": len(known), "mean": known.mean(), "sd": known.std(ddof=1), "hidden": False}


def _categories(
    everybody: pd.DataFrame, part: pd.DataFrame
) -> Iterable[tuple[str, pd.Series, Sequence[tuple[Any, str]]]]:
    """Title, the part's values, and the levels in order, of every attribute that somebody has."""
    titles = {"sex": "Sex", "age_band": "Age band", "bmi_band": "BMI band"}
    for name, title in titles.items():
        if everybody[name].notna().any():
            yield title, part[name], list(SUBGROUPS[name].items())
    for name in ("source", *further_columns(everybody)):
        if (
            name in everybody
            and name not in titles
            and name != "conditions"
            and everybody[name].nunique() > 1
        ):
            yield (
                name.replace("_", " ").capitalize(),
                part[name],
                [(v, str(v)) for v in sorted(everybody[name].dropna().unique())],
            )
    codes = everybody.conditions.fillna("").str.split(";")
    for code in CONDITIONS:
        if codes.map(lambda row, code=code: code in row).any():
            has = part.conditions.fillna("").str.split(";").map(lambda row, code=code: code in row)
            yield "Condition", has.map({True: code, False: ""}), [(code, CONDITION_NAMES[code])]
    if everybody.diagnosis.nunique() > 2:
        yield "Diagnosis", part.diagnosis, [(code, code) for code in DIAGNOSES]


def _shares(values: pd.Series, levels: Sequence[tuple[Any, str]]) -> list[dict[str, Any]]:
    """Count and share of each level among those of whom it is known; small ones hidden, and who
    would tell them."""
    known = int(values.notna().sum())
    counts = [int((values == value).sum()) for value, _ in levels]
    hidden = [0 < count < FEW for count in counts]
    if len(levels) == 1:
        hidden = [0 < counts[0] < FEW or 0 < known - counts[0] < FEW]
    elif sum(hidden) == 1:
        others = [k for k, is_hidden in enumerate(hidden) if not is_hidden and counts[k] > 0]
        if others:
            hidden[min(others, key=counts.__getitem__)] = True
    return [
        {
            "level": name,
            "known": known if known >= FEW else np.nan,
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
    for (variable, level), part in table.groupby(["variable", "level"], sort=False):
        at = part.set_index(["split", "label"])
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
    if not pd.isna(a["mean"]) and not pd.isna(b["mean"]):
        apart, variance = a["mean"] - b["mean"], (a["sd"] ** 2 + b["sd"] ** 2) / 2
    else:
        apart, variance = (
            a["share"] - b["share"],
            sum(x["share"] * (1 - x["share"]) for x in (a, b)) / 2,
        )
    return float(apart / np.sqrt(variance)) if variance > 0 else (0.0 if apart == 0 else np.nan)


def baseline_cells(table: pd.DataFrame) -> pd.DataFrame:
    """`baseline` for readers: a row per variable and level, a column per split and label, and two
    differences."""
    smd = differences(table).pivot(index=["variable", "level"], columns="compared", values="smd")
    columns = [(split, label) for split in SPLITS for label in CLASSES]
    sizes = table.drop_duplicates(["split", "label"]).set_index(["split", "label"]).n
    rows = [
        {
            "": "n",
            **{_head(*of): _size(sizes.get(of, 0)) for of in columns},
            "SMD by diagnosis (test)": "",
            "SMD test - training (healthy)": "",
        }
    ]
    for (variable, level), part in table.groupby(["variable", "level"], sort=False):
        at = part.set_index(["split", "label"])
        apart = smd.loc[(variable, level)]
        rows.append(
            {
                "": f"{variable}: {level}" if level else f"{variable}, mean (sd)",
                **{_head(*of): _baseline_cell(at.loc[of]) for of in columns if of in at.index},
                "SMD by diagnosis (test)": _signed(apart["diseased - healthy, test"]),
                "SMD test - training (healthy)": _signed(apart["test - training, healthy"]),
            }
        )
    return pd.DataFrame(rows)


def _head(split: str, label: int) -> str:
    return f"{SPLITS[split]}, {CLASSES[label]}"


def _size(n: int) -> str:
    return f"{n:,}" if n == 0 or n >= FEW else f"fewer than {FEW}"


def _baseline_cell(row: pd.Series) -> str:
    if row.hidden:
        return "hidden"
    if not pd.isna(row["mean"]):
        return f"{row['mean']:.1f} ({row['sd']:.1f})"
    return (
        "n/a"
        if pd.isna(row["count"]) or pd.isna(row["share"])
        else f"{int(row['count']):,} ({row['share']:.1%})"
    )


def _signed(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:+.2f}"
