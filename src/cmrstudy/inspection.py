"""What a cohort holds before anything is prepared: who is in it, who cannot be read and why, how groups are filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from tqdm import tqdm

from cmrdata.cohort import AXES, known_axes, split, with_groups
from cmrdata.disk import fingerprint
from cmrdata.flags import FLAGS, count_flags, joined
from cmrdata.protocol import Cohort, ordered

FIRST = ("subject", "source", "state", "sex", "age", "age_band", "bmi", "bmi_band", "diagnosis", "group", "ed_frame",
         "es_frame")  # fmt: skip
NOMINAL = ("frames_unknown", "es_unplaced")  # flags of stills whose place in the cine nobody knows
CHUNK = 8  # subjects read together: what an interruption loses


def inspect(cohort: Cohort, kept: Path, *, volumes: bool = True, workers: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(subjects with groups, split, frames and flags; rejected subjects and reasons), reading each as preparing would.

    Every subject's labels and images are read and checked as its split asks for, and nothing of them is stored;
    `volumes=False` leaves that out, so frames stay unknown and damaged files unnoticed. What was found is kept in the
    folder `kept`, so that an interrupted inspection continues and a repeated one reads only a cohort that has changed.
    """
    listed, rejected = cohort.subjects()
    if listed.empty:
        return pd.DataFrame(columns=[*FIRST, "split"]), rejected
    subjects = with_groups(listed)
    if "split" not in subjects:
        subjects["split"] = split(subjects, seed=cohort.seed)
    if volumes:
        found = _read(cohort, subjects, kept, workers=workers)
        rejected = pd.concat([rejected, found.loc[found.reason.notna(), ["subject", "reason"]]], ignore_index=True)
        subjects = subjects.merge(found[found.reason.isna()].drop(columns="reason"), on="subject")
    order = [*FIRST, *(column for column in subjects if column not in FIRST)]
    return subjects.reindex(columns=order), rejected


def groups(subjects: pd.DataFrame) -> pd.DataFrame:
    """Subjects, cases and prevalence (%) overall and per band of each axis this cohort knows, then per full group."""
    labelled = subjects.assign(case=subjects.diagnosis.notna() & (subjects.diagnosis != "healthy"))
    labelled = labelled[labelled.diagnosis.notna()]
    axes = known_axes(labelled)
    parts = {"all": labelled}
    parts |= {f"{axis}: {band}": labelled[labelled[axis] == band] for axis in axes for band in AXES[axis]}
    cells = labelled.dropna(subset=axes).groupby(axes, sort=True) if axes else ()
    parts |= {"/".join(map(str, key if isinstance(key, tuple) else (key,))): rows for key, rows in cells}
    rows = [{"group": name, "subjects": len(part), "cases": int(part.case.sum())} for name, part in parts.items()]
    table = pd.DataFrame(rows)
    return table.assign(prevalence=(100 * table.cases / table.subjects.where(table.subjects > 0)).round(2))


def summary(subjects: pd.DataFrame, rejected: pd.DataFrame) -> list[Table]:
    """Tables for a terminal: subjects by source, split and diagnosis; groups; rejected subjects by reason."""
    shown = []
    if len(subjects):
        who = subjects.assign(diagnosis=subjects.diagnosis.fillna("neither"), state=subjects.state.fillna("-"))
        counts = who.groupby(["source", "state", "diagnosis", "split"]).size().rename("n").reset_index()
        shown = [_table("Subjects", counts), _table("Groups (labelled subjects; prevalence in %)", groups(subjects))]
    if len(told := flags(subjects)):
        shown.append(_table("Flags", told))
    if len(rejected):
        reasons = rejected.reason.value_counts().rename_axis("reason").rename("n").reset_index()
        shown.append(_table("Rejected", reasons))
    return shown


def flags(subjects: pd.DataFrame) -> pd.DataFrame:
    """How many subjects have each flag, of their files and of the table, and what it means."""
    columns = [subjects[name].fillna("").astype(str) for name in ("flags", "table_flags") if name in subjects]
    found = count_flags(joined(row) for row in zip(*columns, strict=True)) if columns else {}
    rows = [(flag, count, FLAGS.get(flag, "")) for flag, count in found.items()]
    return pd.DataFrame(rows, columns=["flag", "subjects", "meaning"])


def _read(cohort: Cohort, subjects: pd.DataFrame, kept: Path, *, workers: int) -> pd.DataFrame:
    """Frames, flags and reasons by subject, from the notes of an earlier run as far as they go."""
    key = fingerprint({"settings": cohort.settings, "subjects": subjects[["subject", "split"]].to_numpy().tolist()})
    notes = kept / f"inspect-{cohort.name}-{key}.jsonl"
    kept.mkdir(parents=True, exist_ok=True)
    known = {row["subject"]: row for row in _lines(notes)}
    todo = subjects[~subjects.subject.isin(known)]
    chunks = [todo.iloc[k : k + CHUNK] for k in range(0, len(todo), CHUNK)]
    with notes.open("a") as file, tqdm(total=len(todo), desc=f"read {cohort.name}", unit="subject") as bar:
        for chunk, stacks in zip(chunks, ordered(cohort.stacks, chunks, workers=workers), strict=True):
            index = stacks.index.reindex(columns=["subject", "ed_frame", "es_frame", "flags"])
            read = index.drop_duplicates("subject").copy()
            read["flags"] = [joined(index["flags"][index.subject == one].fillna("")) for one in read.subject]
            for row in [*read.to_dict("records"), *stacks.rejected.to_dict("records")]:
                known[str(row["subject"])] = {str(key): value for key, value in row.items()}
                file.write(json.dumps(row, default=int) + "\n")
            file.flush()
            bar.update(len(chunk))
    columns = ["subject", "ed_frame", "es_frame", "flags", "reason"]
    found = pd.DataFrame([known[subject] for subject in subjects.subject], columns=columns)
    nominal = found["flags"].fillna("").str.contains("|".join(NOMINAL))
    found.loc[nominal, ["ed_frame", "es_frame"]] = None
    return found.astype({"ed_frame": "Int64", "es_frame": "Int64"})


def _lines(notes: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run; a line torn by a kill is read again."""
    if not notes.exists():
        return []
    whole = [line for line in notes.read_text().splitlines(keepends=True) if line.endswith("\n")]
    notes.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def _table(title: str, frame: pd.DataFrame) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in frame:
        table.add_column(str(column), justify="right" if frame[column].dtype.kind in "if" else "left")
    for row in frame.astype(object).itertuples(index=False):
        table.add_row(*("" if pd.isna(cell) else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return table
