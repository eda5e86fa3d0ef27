"""Tables on fairness as tests read them: arms and axes by their names."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cmrcls.fairness.disparities import Tables, measure
from cmrcls.fairness.display.tables import plain, table2_shown
from cmrcls.fairness.study import Study, Table2, table2


def rows_of(study: Study, **options: Any) -> pd.DataFrame:
    """Table 2, arms and axes by their names."""
    return plain(table2(study, **options).rows)


def wide(table: Table2) -> pd.DataFrame:
    """Table 2 as readers see it."""
    return table2_shown(table, "").frame


def measured(study: Study, **options: Any) -> Tables:
    """What `measure` finds."""
    return Tables(*map(plain, measure(study, **options)))
