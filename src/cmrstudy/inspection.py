"""What a cohort holds before anything is prepared: who is in it, who cannot be read and why, how
groups are filled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmrdata import origin, progress, scale
from cmrdata.axes import AXES, known_axes
from cmrdata.counting import number_of
from cmrdata.disk import fingerprint, write_atomic
from cmrdata.flags import FLAGS, count_flags, joined
from cmrdata.origin import look
from cmrdata.prepare import expected, listed
from cmrdata.protocol import Cohort, ordered
from cmrstudy import figures
from cmrstudy.experiment import Experiment

FIRST = (
    "subject",
    "source",
    "state",
    "sex",
    "age",
    "age_band",
    "bmi",
    "bmi_band",
    "diagnosis",
    "group",
    "ed_frame",
    "es_frame",
)
NOMINAL = ("frames_unknown", "es_unplaced")  # flags of stills whose place in the cine nobody knows
CHUNK = 8  # subjects read together: what an interruption loses


def inspect(
    cohort: Cohort, kept: Path, *, volumes: bool = True, workers: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(subjects with groups, split, frames and flags; rejected subjects and reasons), reading each
    as preparing would.

    Every subject's labels and images are read and checked as its split asks for, and nothing of
    them is stored; `volumes=False` leaves that out, so frames stay unknown and damaged files
    unnoticed. What was found is kept in the folder `kept`, so that an interrupted inspection
    continues and a repeated one reads only a cohort that has changed.
    """
    subjects, rejected = listed(cohort)
    if subjects.empty:
        return pd.DataFrame(columns=[*FIRST, "split"]), rejected
    if volumes:
        found = _read(cohort, subjects, kept, workers=workers)
        rejected = pd.concat(
            [rejected, found.loc[found.reason.notna(), ["subject", "reason"]]], ignore_index=True
        )
        subjects = subjects.merge(found[found.reason.isna()].drop(columns="reason"), on="subject")
    order = [*FIRST, *(column for column in subjects if column not in FIRST)]
    return subjects.reindex(columns=order), rejected


def changes(cohort: Cohort, root: Path) -> list[str]:
    """A sentence per store of the cohort below `root` whose source is no longer what it was made
    of."""
    files, sentences = cohort.source().files, []
    for path in sorted(root.glob(f"{cohort.name}-*/store.json")):
        known = origin.read(path.parent)
        if known is None or known.renewed_as or not files:
            continue
        if many := len(look(files, known)[1]):
            sentences.append(
                f"{path.parent} was made of other files "
                f"({number_of(many, 'subjects', 'differ')}); refresh=true with the next command "
                "makes it anew"
            )
    return sentences


def pixel_notes(cohort: Cohort, subjects: pd.DataFrame) -> list[str]:
    """How the scans' pixels and the pictures' compare, where the scans were read."""
    told = (
        scale.of_scans(subjects.mm, pixels=cohort.pixels, fov_mm=cohort.fov_mm)
        if cohort.fov_mm and "mm" in subjects
        else None
    )
    return [told] if told else []


def groups(subjects: pd.DataFrame) -> pd.DataFrame:
    """Subjects, cases and prevalence (%) overall and per band of each axis this cohort knows, then
    per full group."""
    labelled = subjects.assign(case=subjects.diagnosis.notna() & (subjects.diagnosis != "healthy"))
    labelled = labelled[labelled.diagnosis.notna()]
    axes = known_axes(labelled)
    parts = {"all": labelled}
    parts |= {
        f"{axis}: {band}": labelled[labelled[axis] == band]
        for axis in axes
        for band in AXES[axis].values
    }
    cells = labelled.dropna(subset=axes).groupby(axes) if axes else ()
    parts |= {
        "/".join(map(str, key if isinstance(key, tuple) else (key,))): rows for key, rows in cells
    }
    rows = [
        {"group": name, "subjects": len(part), "cases": int(part.case.sum())}
        for name, part in parts.items()
    ]
    table = pd.DataFrame(rows)
    return table.assign(
        prevalence=(100 * table.cases / table.subjects.where(table.subjects > 0)).round(2)
    )


def summary(subjects: pd.DataFrame, rejected: pd.DataFrame) -> list[Table]:
    """Tables for a terminal: subjects by source, split and diagnosis; groups; rejected subjects by
    reason."""
    tables = []
    if len(subjects):
        who = subjects.assign(
            diagnosis=subjects.diagnosis.fillna("neither"), state=subjects.state.fillna("-")
        )
        counts = (
            who.groupby(["source", "state", "diagnosis", "split"]).size().rename("n").reset_index()
        )
        tables = [
            terminal_table("Subjects", counts),
            terminal_table("Groups (labelled subjects; prevalence in %)", groups(subjects)),
        ]
    if len(told := flags(subjects)):
        tables.append(terminal_table("Flags", told))
    if len(rejected):
        reasons = rejected.reason.value_counts().rename_axis("reason").rename("n").reset_index()
        tables.append(terminal_table("Rejected", reasons))
    return tables


def print_tables(console: Console, *tables: Table | None, notes: Sequence[str] = ()) -> None:
    """Print tables, then notes, as they are."""
    for table in filter(None, tables):
        console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False, markup=False)


def not_found(columns: pd.DataFrame) -> list[str]:
    """What was wanted of the cohort's tables and not found."""
    absent = columns[columns.column == ""]
    return [f"{use}: {note}" for use, note in zip(absent.used_for, absent.note, strict=True)]


def column_table(columns: pd.DataFrame) -> Table | None:
    """What was understood of the cohort's tables, for a terminal: the columns of an array are one
    line. None of none."""
    columns = columns[columns.column != ""]
    if columns.empty:
        return None
    array = columns.field.str.replace(r"\.\d+$", "", regex=True)
    parts = columns.assign(array=array, order=range(len(columns))).groupby(
        ["file", "array", "used_for"], sort=False
    )
    lines = [_line(part) for _, part in parts]
    table = pd.DataFrame(lines).sort_values("order", kind="stable").drop(columns="order")
    return terminal_table(
        "Columns in use (cells)", table.drop(columns="file") if table.file.nunique() == 1 else table
    )


def _line(columns: pd.DataFrame) -> dict[str, Any]:
    first, last = columns.iloc[0], columns.iloc[-1]
    worst = columns.loc[columns.not_understood.idxmax()]
    name = str(first.column).strip()
    if len(columns) > 1:
        name = f"{name} to {str(last.column).strip()} ({len(columns)})"
    counts = {
        name: int(columns[name].sum()) for name in ("understood", "missing", "not_understood")
    }
    return {
        "file": first.file,
        "column": name,
        "field": first.field,
        "used for": first.used_for,
        **{name.replace("_", " "): count for name, count in counts.items()},
        "example": worst.example,
        "note": worst.note or first.note,
        "order": first.order,
    }


def flags(subjects: pd.DataFrame) -> pd.DataFrame:
    """How many subjects have each flag, of their files and of the table, and what it means."""
    columns = [
        subjects[name].fillna("").astype(str)
        for name in ("flags", "table_flags")
        if name in subjects
    ]
    found = count_flags(joined(row) for row in zip(*columns, strict=True)) if columns else {}
    rows = [(flag, count, FLAGS.get(flag, "")) for flag, count in found.items()]
    return pd.DataFrame(rows, columns=["flag", "subjects", "meaning"])


def _read(cohort: Cohort, subjects: pd.DataFrame, kept: Path, *, workers: int) -> pd.DataFrame:
    """Frames, flags and reasons by subject, from the notes of an earlier run as far as its files
    are still these."""
    notes = kept / f"inspect-{cohort.name}-{fingerprint(cohort.settings)}.jsonl"
    states, _ = look(cohort.source().files)
    splits = subjects.set_index("subject").split
    marks = {
        subject: fingerprint(
            {
                "split": split,
                "files": [state and [state[0], state[2]] for state in states.get(subject, [])],
            }
        )
        for subject, split in splits.items()
    }
    known = {
        row["subject"]: row
        for row in _lines(notes)
        if row.get("files") == marks.get(row["subject"])
    }
    todo = subjects[~subjects.subject.isin(known)]
    chunks = [todo.iloc[k : k + CHUNK] for k in range(0, len(todo), CHUNK)]
    bar = progress.bar(f"read {cohort.name}", total=len(todo), unit="subjects")
    with _appended(notes) as file, bar as advance:
        for chunk, stacks in zip(
            chunks, ordered(cohort.stacks, chunks, workers=workers), strict=True
        ):
            index = stacks.index.reindex(columns=["subject", "ed_frame", "es_frame", "flags", "mm"])
            read = index.drop_duplicates("subject").copy()
            read["flags"] = [
                joined(index["flags"][index.subject == one].fillna("")) for one in read.subject
            ]
            for found in [*read.to_dict("records"), *stacks.rejected.to_dict("records")]:
                row = {
                    **{str(key): value for key, value in found.items()},
                    "files": marks.get(found["subject"]),
                }
                known[row["subject"]] = row
                file.write(json.dumps(row, default=int) + "\n")
            file.flush()
            advance(len(chunk))
    columns = ["subject", "ed_frame", "es_frame", "mm", "flags", "reason"]
    found = pd.DataFrame([known[subject] for subject in subjects.subject], columns=columns)
    nominal = found["flags"].fillna("").str.contains("|".join(NOMINAL))
    found.loc[nominal, ["ed_frame", "es_frame"]] = None
    return found.astype({"ed_frame": "Int64", "es_frame": "Int64"})


def _lines(notes: Path) -> Iterator[dict[str, Any]]:
    """The rows of an earlier run; whom a line torn by a kill was about is read again."""
    for line in notes.read_text().splitlines() if notes.exists() else ():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _appended(notes: Path) -> TextIO:
    """The notes, to be continued on a line of its own; nowhere, said aloud, where nothing can be
    written."""
    try:
        notes.parent.mkdir(parents=True, exist_ok=True)
        torn = notes.exists() and not notes.read_text().endswith("\n")
        file = notes.open("a")
    except OSError as error:
        print(
            f"{notes.parent} can't be written ({error.strerror}): the next inspection reads "
            "everybody again",
            flush=True,
        )
        return open(os.devnull, "w")
    if torn:
        file.write("\n")
    return file


def terminal_table(title: str, frame: pd.DataFrame) -> Table:
    """A table for a terminal."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in frame:
        table.add_column(
            str(column), justify="right" if frame[column].dtype.kind in "if" else "left"
        )
    for row in frame.astype(object).itertuples(index=False):
        table.add_row(
            *(
                "" if pd.isna(cell) else f"{cell:,}" if isinstance(cell, int) else escape(str(cell))
                for cell in row
            )
        )
    return table


def inspect_cohort(run: Experiment) -> dict[str, Any]:
    """Write tables of who is in the cohort and who is not, what of its tables was understood, and
    Fig. 1; nothing is prepared."""
    cfg, folder, console = run.cfg, run.folder, Console()
    cohort, root = run.build(cfg.cohort), Path(cfg.data_root)
    columns = cohort.columns()
    write_atomic(folder / "columns.csv", columns.to_csv(index=False))
    print_tables(console, column_table(columns), notes=not_found(columns))
    try:
        subjects, rejected = inspect(cohort, root, volumes=cfg.volumes)
    except ValueError:  # refused for its table, maybe: what was left out tells why
        print_tables(console, notes=cohort.notes())
        raise
    write_atomic(folder / "subjects.csv", subjects.to_csv(index=False))
    write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
    notes = [*cohort.notes(), *pixel_notes(cohort, subjects), *changes(cohort, root)]
    if len(rejected) > cohort.max_rejected * (len(subjects) + len(rejected)):
        notes.append(
            f"more than {cohort.max_rejected:.0%} of the subjects are rejected: preparing would "
            "stop here (cohort.max_rejected)"
        )
    print_tables(console, *summary(subjects, rejected), notes=notes)
    if subjects.empty:
        raise ValueError(
            f"cohort {cohort.name}: no usable subject; {folder / 'rejected.csv'} has the reasons, "
            f"by subject. {expected(cohort, rejected)}".rstrip()
        )
    figures.save(figures.demographics(subjects), folder / "fig1_demographics")
    return {"subjects": len(subjects), "rejected": len(rejected)}
