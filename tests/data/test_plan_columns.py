"""A plan's columns are described once; what plans hold and what leaves with a set is as described."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.plan_columns import COLUMN, PLAN, PLAN_COLUMNS, PLAN_OPTIONS, PROVENANCE
from cmrdata.subjects import ATTRIBUTES
from cmrdata.tables import NEVER_MISSING
from support.fake_index import PLANS, fake_index, fake_people

KINDS = {
    "text": lambda values: values.map(lambda value: isinstance(value, str)).all(),
    "whole": lambda values: (pd.to_numeric(values) % 1 == 0).all(),
    "number": lambda values: np.isfinite(pd.to_numeric(values).astype(float)).all(),
}


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    people = fake_people()
    people.loc[people.index[::7], ["bmi", "bmi_band"]] = None
    return fake_index(people)


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_holds_what_its_columns_say(index, name):
    rows = PLANS[name](index)
    assert set(PLAN) <= set(rows) <= {*PLAN, *PLAN_OPTIONS}
    for column in (COLUMN[name] for name in rows):
        values = rows[column.name]
        assert column.empty == "unknown" or values.notna().all(), column.name
        assert column.empty == "nothing" or not (values == "").any(), column.name
        assert KINDS[column.kind](values.dropna()), column.name
        if column.limits:
            assert values.dropna().between(*column.limits).all(), column.name
        if column.values:
            assert values.dropna().isin(column.values).all(), column.name


def test_empty_text_stays_empty_and_the_order_of_a_plan_is_that_of_its_columns(index):
    assert {column.name for column in PLAN_COLUMNS if column.empty == "nothing"} < set(
        NEVER_MISSING
    )
    assert len(COLUMN) == len(PLAN_COLUMNS) and PROVENANCE[: len(PLAN)] == PLAN
    assert [name for name in PLANS["copy"](index) if name in PLAN] == list(PLAN)


def test_nothing_that_tells_a_participant_is_public():
    public = {column.name for column in PLAN_COLUMNS if column.public}
    assert public.isdisjoint({"subject", "source_row", "age", "bmi", "source"})
    assert set(ATTRIBUTES) <= set(COLUMN)
