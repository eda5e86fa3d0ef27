"""Verdicts say what was tested, on how many, and what it does not show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrgen.evaluation.privacy.verdicts import audit_verdicts
from support.audited import both_measures, harmless


def test_words_say_what_was_tested_and_what_not() -> None:
    rng = np.random.default_rng(4)
    held = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    groups = pd.DataFrame(
        {
            "measure": "sight",
            "group": ["all", "a", "b"],
            "p_holm": [np.nan, 0.001, 0.5],
            "few": False,
        }
    )
    source = pd.DataFrame({"measure": ["sight"], "n": [0]})
    quiet = both_measures(held._replace(person=np.arange(240)), held)
    loud = both_measures(held._replace(similarity=held.similarity + 3), held)
    for table, start in (
        (quiet, "By what is seen: no evidence that"),
        (loud, "By what is seen: the set lies nearer"),
    ):
        said = audit_verdicts(table[table.measure == "sight"], groups, source)
        assert said[0].startswith(start) and "240 source subjects, 240 held-out people" in said[0]
        row = table.iloc[0]
        assert (
            f"{row.value:.1f} are the set's, {row.by_chance:.1f} by chance at equal mix of groups"
            in said[0]
        )
        assert ("By itself in a." in said[0]) == table.alarm[0]
    few = both_measures(harmless(rng, np.zeros(12), np.arange(36) % 12, sources=3), held)
    assert (
        "one image of each of fewer than 10 source subjects"
        in audit_verdicts(few, groups, source.iloc[[0, 0]].assign(measure=["sight", "features"]))[0]
    )
