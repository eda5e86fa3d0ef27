from pathlib import Path

import pandas as pd
import pytest

from cmrdata.prepare import prepare
from cmrdata.store import Store
from support.biased_cohort import study
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="package")
def made(root: Path) -> Store:
    return fake_set(root / "synthetic", prepare(FakeCohort(), root), count=72)


@pytest.fixture(scope="package")
def plain(root: Path) -> pd.DataFrame:
    """Predictions without a mitigation."""
    return study(root, "none", steps=150)
