"""The synthetic set: a store whose index carries provenance, checked against the cohort it claims
to come from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cmrdata.counting import number_of
from cmrdata.plan_columns import PROVENANCE
from cmrdata.store import Store


def open_synthetic(folder: str | Path, cohort: Store) -> Store:
    """The synthetic set in `folder`, refused unless it was made from `cohort` and from its training
    subjects only.

    Raises FileNotFoundError, or ValueError naming what does not fit and the remedy.
    """
    try:
        synthetic = Store.open(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} with `python generate.py generator=runs/controlnet/0 name=...`"
        ) from None
    made_from = synthetic.meta["settings"].get("cohort_fingerprint")
    if made_from != cohort.fingerprint:
        raise ValueError(
            f"{folder}: made from another cohort (fingerprint {made_from}, this run's cohort "
            f"{cohort.folder.name} has {cohort.fingerprint}); generate a set from this cohort or "
            "give the cohort settings it was made with"
        )
    if absent := [column for column in PROVENANCE if column not in synthetic.index]:
        raise ValueError(
            f"{folder}: index lacks the columns {absent}; it was not written by generate.py, make "
            "it anew"
        )
    vars(synthetic)["index"] = named_by_rows(
        synthetic.index, cohort, names=synthetic.meta.get("names"), what=str(folder)
    )
    check_sources(synthetic.index, cohort.subjects)
    return synthetic


def named_by_rows(
    rows: pd.DataFrame, cohort: Store, *, names: str | None, what: str, column: str = "source_row"
) -> pd.DataFrame:
    """Copy of a table about images of `cohort` whose `subject` is the cohort's own name for each
    row's subject.

    The same participants have other names where the cohort was prepared with another salt; the rows
    of a store of the same fingerprint are the same, so they tell who is meant.

    Args:
        rows: a table with `subject`, and in `column` the row of the cohort's store.
        cohort: the store at hand.
        names: mark of the salt by which the table's subjects are named; None where nobody was
            renamed.
        what: of the table, for the error.

    Raises ValueError for rows that the store has not, and where names of the same salt disagree.
    """
    at = rows[column].to_numpy()
    if len(at) and not ((at >= 0) & (at < len(cohort.index))).all():
        raise ValueError(
            f"{what}: it names rows that the cohort's store does not have ({len(cohort.index)} "
            "rows); make it anew"
        )
    own = cohort.index.subject.to_numpy()[at]
    if names == cohort.meta.get("names") and (odd := own != rows.subject.to_numpy()).any():
        raise ValueError(
            f"{what}: {int(odd.sum())} rows name another subject than the cohort's store has "
            "there; make it anew"
        )
    return rows.assign(subject=own)


def check_sources(rows: pd.DataFrame, subjects: pd.DataFrame) -> None:
    """Raise ValueError unless every row's subject belongs to the training split of `subjects`."""
    splits = rows.subject.map(subjects.set_index("subject").split)
    known, wrong = splits.notna(), splits != "train"
    if not wrong.any():
        return
    worst = wrong if known.all() else ~known
    at = ", ".join(map(str, rows.index[worst][:5])) + (" ..." if worst.sum() > 5 else "")
    if not known.all():
        raise ValueError(
            f"{worst.sum()} of {len(rows)} rows name subjects that this cohort does not have, "
            f"first at {at}. Rebuild the plan."
        )
    raise ValueError(
        f"masks come from the {splits[worst].iloc[0]} split ({worst.sum()} of {len(rows)} rows, "
        f"of {number_of(rows.subject[worst].nunique(), 'subjects')}, first at {at}); synthetic "
        "data must derive from train. Rebuild the plan."
    )
