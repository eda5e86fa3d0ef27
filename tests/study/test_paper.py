"""The paper's numbers agree with what the paper says of them."""

from __future__ import annotations

from cmrstudy import paper


def test_table_1_has_each_pair_of_cells_once_and_distances_above_zero():
    table = paper.table1()
    assert list(table) == ["axis", "cell", "kind", "fid", "sd"] and len(table) == 24
    assert not table.duplicated(["axis", "cell", "kind"]).any()
    assert set(table.groupby(["axis", "kind"]).size()) == {3}
    real, synthetic = (table[table.kind == f"Real - {kind}"].fid for kind in ("Real", "Synthetic"))
    assert real.max() < 50 < 75 < synthetic.min() and (table.sd < 3).all()


def test_table_2_is_long_with_a_row_per_subgroup_and_arm():
    table = paper.table2()
    assert list(table) == ["subgroup", "prevalence", "arm", "balanced_accuracy", "sd"]
    assert len(table) == 9 * 4 and tuple(table.arm[:4]) == paper.ARMS
    score = table.set_index(["subgroup", "arm"]).balanced_accuracy
    assert score["Overall", "Real + 4000"] == 0.752 and score["Age > 70", "Synthetic"] == 0.649
    assert (table.sd < 0.1).all() and table.prevalence.between(0.003, 0.03).all()
    # what the abstract says: the gap between women and men shrinks by 37 % from Real to Real + 4000
    gap = score.xs("Male") - score.xs("Female")
    assert round(1 - gap["Real + 4000"] / gap["Real"], 2) == paper.GAP_REDUCTION
