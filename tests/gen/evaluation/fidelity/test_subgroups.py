"""Table 1 and the other measures of fidelity: pools, sizes, groups, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.subjects import with_groups
from cmrgen.evaluation.fidelity.display import overview, table1_wide
from cmrgen.evaluation.fidelity.subgroups import (
    compared_subgroups,
    fidelity_table,
    table1,
    used_rows,
)
from cmrstudy.intervals import MIN_COUNT
from support.fake_cohort import FakeCohort


def features(n: int, d: int, seed: int, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank or d)) @ rng.normal(size=(rank or d, d)) + rng.normal(size=d)


def people(
    n: int, *, split: str = "test", unknown: tuple[str, ...] = (), first: int = 0
) -> pd.DataFrame:
    table = FakeCohort(count=n, unknown=unknown).subjects()[0]
    table["subject"] = [f"SYN{first + k:04d}" for k in range(n)]
    return with_groups(table).assign(split=split)


def scarce_disease(train: int = 360) -> pd.DataFrame:
    """Held-out people whose diseased half has 48 images, as at the paper's size, beside training
    people."""
    held = people(720)
    held = pd.concat([held[held.label == 0], held[held.label == 1][:97]], ignore_index=True)
    held.loc[0, "subject"] = held.subject[1]  # somebody with two images
    return pd.concat([held, people(train, split="train", first=9000)], ignore_index=True)


def test_table1_has_every_cell_at_one_size() -> None:
    real, synthetic = people(720), people(360)
    x, y = features(720, 8, 0), features(360, 8, 1)
    distances = table1(x, real, y, synthetic, draws=2, seed=0)
    table = distances.table
    assert list(table.columns) == ["axis", "cell", "kind", "fid", "sd", "n", "subjects", "pool"]
    # 240 real and 120 synthetic of each age band
    assert set(table.n) == {120} and len(table) == 4 * 3 * 2
    assert set(table.pool) == {"held-out"} and not distances.notes
    assert table[table.axis == "age_band"].cell.unique().tolist() == [
        "<60 - <60",
        "<60 - 70+",
        "70+ - 70+",
    ]
    assert table.cell.unique()[[0, 1, 2, 9, 10, 11]].tolist() == [
        "Male - Male",
        "Male - Female",
        "Female - Female",
        "Healthy - Healthy",
        "Healthy - HF",
        "HF - HF",
    ]
    again = table1(x, real, y, synthetic, draws=2, seed=0)
    pd.testing.assert_frame_equal(table, again.table)
    assert set(table1(x, real, y, synthetic, n=50, draws=2, seed=0).table.n) == {50}
    wide = table1_wide(table)
    assert wide.shape == (12, 5) and wide.iloc[0].tolist() == ["Sex", *table.cell.unique()[:3], ""]
    assert wide.iloc[1:3].pool.tolist() == ["held-out"] * 2
    assert wide.iloc[1, 1] == f"{table.fid[0]:.2f} ({table.sd[0]:.2f})"


def test_table1_finds_the_group_that_differs() -> None:
    real, synthetic = people(720), people(720)
    x, y = np.random.default_rng(0).normal(size=(2, 720, 8))
    x[real.sex == "F"] += 3
    table = table1(x, real, y, synthetic, seed=0).table.set_index(["axis", "kind", "cell"]).fid
    floor, across = table["sex"]["Real - Real"], table["sex"]["Real - Synthetic"]
    assert floor["Male - Female"] > 50 > 5 > floor["Male - Male"]
    assert across["Female - Female"] > 50 > 5 > across["Male - Female"]  # B is the synthetic side


def test_table1_falls_back_to_train_and_held_out_and_warns() -> None:
    real = pd.concat(
        [people(36), people(720, split="train", first=36), people(90, split="extra", first=800)]
    )
    distances = table1(features(846, 4, 0), real, features(72, 4, 1), people(72), draws=2, seed=0)
    table = distances.table
    assert set(table.pool) == {"train + held-out"} and len(distances.warnings) == 2
    assert distances.warnings[1].startswith(
        "Sex, Age, BMI, Diagnosis: half of the held-out images are fewer"
    )
    few = table1(features(846, 4, 0), real, features(36, 4, 1), people(36), draws=2, seed=0).table
    # 12 synthetic images: nothing to compare
    assert few[few.axis == "bmi_band"].pool.unique().tolist() == ["held-out"]
    assert table[table.axis == "sex"].subjects.max() == 756  # without the extra rows


def test_the_pool_is_decided_for_each_axis_alone() -> None:
    real, synthetic = scarce_disease(), people(360)
    who = compared_subgroups(real, synthetic).set_index("subgroup")
    assert (
        who.held_out_half["HF"]
        == 48
        < 50
        <= who.held_out_half[["Male", "Female", "<60", "Obese"]].min()
    )
    assert who.pool[["Healthy", "HF"]].tolist() == ["train + held-out"] * 2
    assert set(who.pool.drop(["Healthy", "HF"])) == {"held-out"}
    assert (
        who["images"]["HF"] == 97 + 180
        and who.subjects["Healthy"] == 359 + 180
        and who.synthetic["HF"] == 180
    )
    x = np.zeros((len(real), 4)) + features(len(real), 4, 0)
    distances = table1(x, real, features(360, 4, 1), synthetic, draws=2, seed=0)
    table = distances.table
    assert table.groupby("axis").pool.unique().map(list).to_dict() == {
        "sex": ["held-out"],
        "age_band": ["held-out"],
        "bmi_band": ["held-out"],
        "diagnosis": ["train + held-out"],
    }
    assert [text.split(":")[0] for text in distances.warnings] == ["Diagnosis"]
    x[(real.split == "train").to_numpy()] += 50  # who only the diagnosis may see
    moved = table1(x, real, features(360, 4, 1), synthetic, draws=2, seed=0).table
    same = moved.fid == table.fid
    assert same[table.axis != "diagnosis"].all() and not same[table.axis == "diagnosis"].any()


def test_each_group_has_a_pool_of_its_own() -> None:
    held = people(36 * 45)
    scarce = held.group == "F/<60/obese/hf"
    real = pd.concat(
        [held[~scarce], held[scarce][:9], people(36 * 40, split="train", first=9000)],
        ignore_index=True,
    )
    distances = fidelity_table(
        features(len(real), 4, 0),
        real,
        features(36 * 30, 4, 1),
        people(36 * 30),
        draws=1,
        seed=0,
        groups=True,
    )
    long = distances.table
    pools = long.drop_duplicates("cell").set_index("cell").pool
    assert pools[pools != "held-out"].to_dict() == {"F/<60/obese/hf": "train + held-out"}
    assert any(text.startswith("1 of 36 groups: half") for text in distances.warnings)
    assert overview(long).set_index("Group").pool["F/<60/obese/hf"] == "train + held-out"


def test_only_the_images_that_are_drawn_need_features() -> None:
    real, synthetic = scarce_disease(train=3600), people(720)
    x, y = features(len(real), 4, 0), features(720, 4, 1)
    how = {"n": 20, "draws": 1, "seed": 3}
    rows = used_rows(real, synthetic, **how)
    trained = (real.split == "train").to_numpy()
    assert 0 < trained[rows[0]].sum() <= (2 + 36) * 3 * 20 and len(rows[0]) < 0.6 * len(real)
    given = (x[rows[0]], real, y[rows[1]], synthetic)
    for make in (
        table1,
        fidelity_table,
        lambda *given, **how: fidelity_table(*given, groups=True, **how),
    ):
        pd.testing.assert_frame_equal(
            make(x, real, y, synthetic, **how).table, make(*given, rows=rows, **how).table
        )
    with pytest.raises(ValueError, match="rows of features for"):
        table1(x, real, y[rows[1]], synthetic, rows=rows, **how)


def test_table1_refuses_unknown_axes() -> None:
    real, synthetic = people(300, unknown=("sex", "age")), people(300)
    synthetic = synthetic[synthetic.bmi_band != "obese"]
    distances = table1(
        features(300, 4, 0), real, features(len(synthetic), 4, 1), synthetic, draws=2, seed=0
    )
    assert set(distances.table.axis) == {"diagnosis"}
    assert [reason.split(":")[0] for reason in distances.refused] == [
        "sex",
        "age_band",
        "bmi_band",
    ]
    assert "no synthetic image is Obese" in distances.refused[2]
    assert distances.notes[-1].startswith("Left out: bmi_band: no synthetic image is Obese")
    none = table1(
        features(2, 4, 0),
        real[:2].assign(label=0),
        features(2, 4, 1),
        synthetic[:2],
        draws=2,
        seed=0,
    )
    assert none.table.empty and len(none.refused) == 4 and none.n == 0
    assert table1_wide(none.table).empty


def test_a_small_group_is_marked_and_pulls_no_other_down() -> None:
    real, synthetic = people(720), people(360)
    few = pd.concat(
        [synthetic[synthetic.sex == "M"], synthetic[synthetic.sex == "F"][: MIN_COUNT - 1]]
    )
    distances = table1(features(720, 4, 0), real, features(len(few), 4, 1), few, draws=2, seed=0)
    table = distances.table
    marked = table[table.fid.isna()]
    assert marked[["axis", "cell", "kind", "n"]].to_numpy().tolist() == [
        ["sex", "Male - Female", "Real - Synthetic", MIN_COUNT - 1],
        ["sex", "Female - Female", "Real - Synthetic", MIN_COUNT - 1],
    ]
    rest = table.drop(marked.index)
    assert set(rest.n) == {distances.n} and distances.n >= 60 and rest.fid.notna().all()
    assert f"Female (synthetic: {MIN_COUNT - 1})" in distances.warnings[0]
    assert table1_wide(table).iloc[2].tolist()[2:] == ["n/a", "n/a", "held-out"]
    alone = pd.concat([synthetic[synthetic.sex == "M"], synthetic[synthetic.sex == "F"][:1]])
    single = table1(features(720, 4, 0), real, features(len(alone), 4, 1), alone, draws=2, seed=0)
    assert "Female (synthetic: 1)" in single.warnings[0] and single.table.fid.isna().sum() == 2


def test_nothing_large_enough_gives_a_table_of_nothing() -> None:
    nothing = table1(
        features(36, 4, 0), people(36), features(36, 4, 1), people(36), draws=2, seed=0
    )
    assert len(nothing.table) == 24 and nothing.table.fid.isna().all() and nothing.n == 0
    assert "Too few images" in nothing.warnings[0]


def test_bad_sets_are_named() -> None:
    real, synthetic, x = people(72), people(72), features(72, 4, 0)
    with pytest.raises(ValueError, match="the synthetic set holds no image"):
        table1(x, real, x[:0], synthetic[:0], seed=0)
    with pytest.raises(ValueError, match="synthetic: 71 rows of features for 72 images"):
        table1(x, real, x[1:], synthetic, seed=0)
    spoilt = x.copy()
    spoilt[[5, 9], 1] = np.nan
    with pytest.raises(
        ValueError, match="of the real images: 2 rows hold NaN or inf, the first is row 5"
    ):
        fidelity_table(spoilt, real, x, synthetic, seed=0)


def test_fidelity_has_every_metric_and_agrees_with_table1() -> None:
    real, synthetic = people(720), people(360)
    x, y = features(720, 8, 0), features(360, 8, 0)
    distances = fidelity_table(x, real, y, synthetic, draws=2, seed=0)
    long = distances.table
    assert long.columns.tolist() == [
        "axis",
        "cell",
        "kind",
        "metric",
        "value",
        "sd",
        "low",
        "high",
        "n",
        "subjects",
        "pool",
    ]
    assert long.axis.unique().tolist() == ["sex", "age_band", "bmi_band", "diagnosis", "all"]
    wanted = ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert long.metric.unique().tolist() == wanted and len(long) == (12 + 1) * 2 * 6
    assert set(long.n) == {120} == {distances.n}
    fid = long[(long.metric == "fid") & (long.axis != "all")]
    assert np.array_equal(fid.value, table1(x, real, y, synthetic, draws=2, seed=0).table.fid)
    kid = long[long.metric == "kid"]
    assert ((kid.low < kid.value) & (kid.value < kid.high)).all()
    assert long[long.metric != "kid"][["low", "high"]].isna().to_numpy().all()
    shares = long[long.metric.isin(["precision", "recall", "coverage"])].value
    assert shares.between(0, 1).all()
    shown = overview(long)
    assert shown.Group.tolist() == [
        "Male",
        "Female",
        "<60",
        "70+",
        "Normal",
        "Obese",
        "Healthy",
        "HF",
        "All",
    ]
    first = kid.iloc[1]
    assert shown.iloc[0, 3] == (
        f"{1000 * first['value']:.2f} [{1000 * first.low:.2f}, {1000 * first.high:.2f}] "
        f"({1000 * kid.iloc[0]['value']:.2f})"
    )
    floor = long[(long.kind == "Real - Real") & (long.cell == "All")].set_index("metric").value
    assert (
        floor["precision"] > 0.8 and floor["coverage"] > 0.8 and abs(floor["kid"]) < kid.value.max()
    )


def test_groups_have_a_cell_each_at_one_size() -> None:
    real, synthetic = people(36 * 60), people(36 * 30)
    keep = synthetic.group != "F/<60/obese/hf"
    scarce = synthetic[keep | (synthetic.index < 200)]
    long = fidelity_table(
        features(len(real), 4, 0),
        real,
        features(len(scarce), 4, 1),
        scarce,
        draws=1,
        seed=0,
        groups=True,
    ).table
    assert long.cell.nunique() == 36 and set(long.axis) == {"group"}
    assert set(long[long.value.notna()].n) == {30}
    marked = long[long.value.isna()]
    assert overview(long).set_index("Group").FID["F/<60/obese/hf"].startswith("n/a (")
    assert (
        set(marked.cell) == {"F/<60/obese/hf"}
        and set(marked.kind) == {"Real - Synthetic"}
        and marked.n.max() < MIN_COUNT
    )
