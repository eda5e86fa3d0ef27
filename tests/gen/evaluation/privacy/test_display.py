"""The audit's tables and pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmrgen.evaluation.privacy import display
from cmrgen.evaluation.privacy.display import copy_pairs


def test_copy_pairs_are_drawn() -> None:
    images = np.zeros((3, 2, 8, 8), np.uint8)
    drawn = copy_pairs(images, images, [0.9, 0.8, 0.7])
    assert isinstance(drawn, Figure) and len(drawn.axes) == 12
    assert [panel.get_title() for panel in drawn.axes[:4]] == [
        "synthetic ED",
        "training ED",
        "synthetic ES",
        "training ES",
    ]
    assert drawn.axes[4].get_ylabel() == "0.800"


def test_tables_say_what_they_hold() -> None:
    groups = pd.DataFrame({"measure": ["sight"] * 2, "group": ["all", "a"], "n": [9, 4]})
    assert display.audit_groups(groups).frame is groups
    assert display.audit_of_whole_set(groups).frame.group.tolist() == ["all"]
    shown = (
        display.audit_tests(groups),
        display.audit_groups(groups),
        display.audit_of_whole_set(groups),
        display.audit_sources(groups),
        display.membership_attack(groups),
    )
    assert len({table.caption for table in shown}) == 5
