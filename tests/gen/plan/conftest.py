"""A cohort of made-up people, and what plans of it draw from."""

from __future__ import annotations

import pandas as pd
import pytest

from support.fake_index import GONE, fake_index, fake_people, without


@pytest.fixture(scope="module")
def subjects() -> pd.DataFrame:
    return fake_people()


@pytest.fixture(scope="module")
def index(subjects) -> pd.DataFrame:
    return fake_index(subjects)


@pytest.fixture(scope="module")
def lacking(index) -> pd.DataFrame:
    return without(index, GONE)


@pytest.fixture(scope="module")
def train(index) -> pd.DataFrame:
    return index[(index.split == "train") & index.diagnosis.notna()]
