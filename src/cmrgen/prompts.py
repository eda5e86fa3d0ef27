"""Subject to sentence: the one place where attributes become words (paper 2.2, Fig. 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

FIELDS = ("sex", "age", "bmi", "diagnosis")
SEX = {"F": "Female", "M": "Male"}
DISEASE = {
    "hf": "heart failure",
    "reduced_ef": "reduced ejection fraction",
    "mi": "myocardial infarction",
    "ihd": "ischemic heart disease",
    "af": "atrial fibrillation",
}
EMPTY = ""  # what the model reads when prompts are dropped, and the unconditional half of guidance


def prompt(row: pd.Series, *, fields: Sequence[str] = FIELDS) -> str:
    """E.g. "Male, age in 70s, normal BMI, with heart failure"; unknown attributes drop their
    clause.

    `row` needs sex, age (years), bmi_band (the cohort's own bands, so prompt and group agree) and
    diagnosis; conditions, where it has them, are listed behind the diagnosis. Healthy is who has
    neither.
    """
    clauses = {
        "sex": SEX.get(row.sex),
        "age": None if pd.isna(row.age) else f"age in {int(row.age // 10) * 10}s",
        "bmi": None if pd.isna(row.bmi_band) else f"{row.bmi_band} BMI",
        "diagnosis": _diseases(row.diagnosis, row.get("conditions")),
    }
    sentence = ", ".join(clause for field in fields if (clause := clauses[field]))
    return sentence or EMPTY


def prompts(table: pd.DataFrame, *, fields: Sequence[str] = FIELDS) -> pd.Series:
    """A prompt per row; equal attributes are put into words once."""
    keys = table.reindex(columns=["sex", "age", "bmi_band", "diagnosis", "conditions"]).astype(
        object
    )
    keys["age"] = pd.to_numeric(table.age) // 10 * 10
    number, _ = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))
    # one row of each distinct combination, in order
    first = pd.Series(number).drop_duplicates().index
    words = [prompt(keys.iloc[k], fields=fields) for k in first]
    return pd.Series([words[k] for k in number], index=table.index, dtype=object)


def _diseases(diagnosis: object, conditions: object) -> str | None:
    codes = [diagnosis, *(conditions.split(";") if isinstance(conditions, str) else [])]
    names = [DISEASE[code] for code in codes if code in DISEASE]
    return "with " + ", ".join(names) if names else "healthy" if diagnosis == "healthy" else None
