"""Table 1, the other measures of fidelity, adherence and the judges behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cmrdata.batch import LV, MYO
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrdata.subjects import with_groups
from cmrgen.evaluation import judges
from cmrgen.evaluation.adherence.areas import areas
from cmrgen.evaluation.adherence.scores import (
    Seen,
    accuracy,
    adherence,
    adherence_detail,
    derangement,
    dice,
)
from cmrgen.evaluation.fidelity.subgroups import (
    FEW,
    fidelity,
    half_size,
    halves,
    overview,
    subgroups,
    table1,
    table1_wide,
    used_rows,
)
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, much slower when other programs want the
    second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def features(n: int, d: int, seed: int, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank or d)) @ rng.normal(size=(rank or d, d)) + rng.normal(size=d)


def test_halves_share_no_subject_and_have_the_promised_size() -> None:
    rng = np.random.default_rng(0)
    for repeat in range(20):
        subjects = pd.Series(
            [f"SYN{k:04d}" for k in np.repeat(np.arange(11), rng.integers(1, 10, 11))]
        )
        left, right = halves(np.arange(len(subjects)), subjects, np.random.default_rng(repeat))
        assert not set(subjects[left]) & set(subjects[right])
        assert sorted([*left, *right]) == list(range(len(subjects)))
        assert min(len(left), len(right)) >= half_size(subjects) > 0


def people(
    n: int, *, split: str = "test", unknown: tuple[str, ...] = (), first: int = 0
) -> pd.DataFrame:
    table = FakeCohort(count=n, unknown=unknown).subjects()[0]
    table["subject"] = [f"SYN{first + k:04d}" for k in range(n)]
    return with_groups(table).assign(split=split)


def test_table1_has_every_cell_at_one_size() -> None:
    real, synthetic = people(720), people(360)
    x, y = features(720, 8, 0), features(360, 8, 1)
    table = table1(x, real, y, synthetic, draws=2, seed=0)
    assert list(table.columns) == ["axis", "cell", "kind", "fid", "sd", "n", "subjects", "pool"]
    # 240 real and 120 synthetic of each age band
    assert set(table.n) == {120} and len(table) == 4 * 3 * 2
    assert set(table.pool) == {"held-out"} and not table.attrs["refused"] + table.attrs["warnings"]
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
    pd.testing.assert_frame_equal(table, table1(x, real, y, synthetic, draws=2, seed=0))
    assert set(table1(x, real, y, synthetic, n=50, draws=2, seed=0).n) == {50}
    wide = table1_wide(table)
    assert wide.shape == (12, 5) and wide.iloc[0].tolist() == ["Sex", *table.cell.unique()[:3], ""]
    assert wide.iloc[1:3].pool.tolist() == ["held-out"] * 2
    assert wide.iloc[1, 1] == f"{table.fid[0]:.2f} ({table.sd[0]:.2f})"


def test_table1_finds_the_group_that_differs() -> None:
    real, synthetic = people(720), people(720)
    x, y = np.random.default_rng(0).normal(size=(2, 720, 8))
    x[real.sex == "F"] += 3
    table = table1(x, real, y, synthetic, seed=0).set_index(["axis", "kind", "cell"]).fid
    floor, across = table["sex"]["Real - Real"], table["sex"]["Real - Synthetic"]
    assert floor["Male - Female"] > 50 > 5 > floor["Male - Male"]
    assert across["Female - Female"] > 50 > 5 > across["Male - Female"]  # B is the synthetic side


def test_table1_falls_back_to_train_and_held_out_and_warns() -> None:
    real = pd.concat(
        [people(36), people(720, split="train", first=36), people(90, split="extra", first=800)]
    )
    table = table1(features(846, 4, 0), real, features(72, 4, 1), people(72), draws=2, seed=0)
    assert set(table.pool) == {"train + held-out"} and len(table.attrs["warnings"]) == 2
    assert table.attrs["warnings"][1].startswith(
        "Sex, Age, BMI, Diagnosis: a half of the held-out images is smaller"
    )
    few = table1(features(846, 4, 0), real, features(36, 4, 1), people(36), draws=2, seed=0)
    # 12 synthetic images: nothing to compare
    assert few[few.axis == "bmi_band"].pool.unique().tolist() == ["held-out"]
    assert table[table.axis == "sex"].subjects.max() == 756  # without the extra rows


def scarce_disease(train: int = 360) -> pd.DataFrame:
    """Held-out people whose diseased half has 48 images, as at the paper's size, beside training
    people."""
    held = people(720)
    held = pd.concat([held[held.label == 0], held[held.label == 1][:97]], ignore_index=True)
    held.loc[0, "subject"] = held.subject[1]  # somebody with two images
    return pd.concat([held, people(train, split="train", first=9000)], ignore_index=True)


def test_the_pool_is_decided_for_each_axis_alone() -> None:
    real, synthetic = scarce_disease(), people(360)
    who = subgroups(real, synthetic).set_index("subgroup")
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
    table = table1(x, real, features(360, 4, 1), synthetic, draws=2, seed=0)
    assert table.groupby("axis").pool.unique().map(list).to_dict() == {
        "sex": ["held-out"],
        "age_band": ["held-out"],
        "bmi_band": ["held-out"],
        "diagnosis": ["train + held-out"],
    }
    assert [text.split(":")[0] for text in table.attrs["warnings"]] == ["Diagnosis"]
    x[(real.split == "train").to_numpy()] += 50  # who only the diagnosis may see
    moved = table1(x, real, features(360, 4, 1), synthetic, draws=2, seed=0)
    same = moved.fid == table.fid
    assert same[table.axis != "diagnosis"].all() and not same[table.axis == "diagnosis"].any()


def test_each_group_has_a_pool_of_its_own() -> None:
    held = people(36 * 45)
    scarce = held.group == "F/<60/obese/hf"
    real = pd.concat(
        [held[~scarce], held[scarce][:9], people(36 * 40, split="train", first=9000)],
        ignore_index=True,
    )
    long = fidelity(
        features(len(real), 4, 0),
        real,
        features(36 * 30, 4, 1),
        people(36 * 30),
        draws=1,
        seed=0,
        groups=True,
    )
    pools = long.drop_duplicates("cell").set_index("cell").pool
    assert pools[pools != "held-out"].to_dict() == {"F/<60/obese/hf": "train + held-out"}
    assert any(text.startswith("1 of 36 groups: a half") for text in long.attrs["warnings"])
    assert overview(long).set_index("Group").pool["F/<60/obese/hf"] == "train + held-out"


def test_only_the_images_that_are_drawn_need_features() -> None:
    real, synthetic = scarce_disease(train=3600), people(720)
    x, y = features(len(real), 4, 0), features(720, 4, 1)
    how = {"n": 20, "draws": 1, "seed": 3}
    rows = used_rows(real, synthetic, **how)
    trained = (real.split == "train").to_numpy()
    assert 0 < trained[rows[0]].sum() <= (2 + 36) * 3 * 20 and len(rows[0]) < 0.6 * len(real)
    given = (x[rows[0]], real, y[rows[1]], synthetic)
    for make in (table1, fidelity, lambda *given, **how: fidelity(*given, groups=True, **how)):
        pd.testing.assert_frame_equal(
            make(x, real, y, synthetic, **how), make(*given, rows=rows, **how)
        )
    with pytest.raises(ValueError, match="rows of features for"):
        table1(x, real, y[rows[1]], synthetic, rows=rows, **how)


def test_table1_refuses_unknown_axes() -> None:
    real, synthetic = people(300, unknown=("sex", "age")), people(300)
    synthetic = synthetic[synthetic.bmi_band != "obese"]
    table = table1(
        features(300, 4, 0), real, features(len(synthetic), 4, 1), synthetic, draws=2, seed=0
    )
    assert set(table.axis) == {"diagnosis"}
    assert [reason.split(":")[0] for reason in table.attrs["refused"]] == [
        "sex",
        "age_band",
        "bmi_band",
    ]
    assert "no synthetic image is Obese" in table.attrs["refused"][2]
    none = table1(
        features(2, 4, 0),
        real[:2].assign(label=0),
        features(2, 4, 1),
        synthetic[:2],
        draws=2,
        seed=0,
    )
    assert none.empty and len(none.attrs["refused"]) == 4 and none.attrs["n"] == 0
    assert table1_wide(none).empty


def test_a_small_group_is_marked_and_pulls_no_other_down() -> None:
    real, synthetic = people(720), people(360)
    few = pd.concat([synthetic[synthetic.sex == "M"], synthetic[synthetic.sex == "F"][: FEW - 1]])
    table = table1(features(720, 4, 0), real, features(len(few), 4, 1), few, draws=2, seed=0)
    marked = table[table.fid.isna()]
    assert marked[["axis", "cell", "kind", "n"]].to_numpy().tolist() == [
        ["sex", "Male - Female", "Real - Synthetic", FEW - 1],
        ["sex", "Female - Female", "Real - Synthetic", FEW - 1],
    ]
    rest = table.drop(marked.index)
    assert set(rest.n) == {table.attrs["n"]} and table.attrs["n"] >= 60 and rest.fid.notna().all()
    assert f"Female (synthetic: {FEW - 1})" in table.attrs["warnings"][0]
    assert table1_wide(table).iloc[2].tolist()[2:] == ["n/a", "n/a", "held-out"]
    alone = pd.concat([synthetic[synthetic.sex == "M"], synthetic[synthetic.sex == "F"][:1]])
    single = table1(features(720, 4, 0), real, features(len(alone), 4, 1), alone, draws=2, seed=0)
    assert "Female (synthetic: 1)" in single.attrs["warnings"][0] and single.fid.isna().sum() == 2


def test_nothing_large_enough_gives_a_table_of_nothing() -> None:
    table = table1(features(36, 4, 0), people(36), features(36, 4, 1), people(36), draws=2, seed=0)
    assert len(table) == 24 and table.fid.isna().all() and table.attrs["n"] == 0
    assert "n too small" in table.attrs["warnings"][0]


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
        fidelity(spoilt, real, x, synthetic, seed=0)


def test_fidelity_has_every_metric_and_agrees_with_table1() -> None:
    real, synthetic = people(720), people(360)
    x, y = features(720, 8, 0), features(360, 8, 0)
    long = fidelity(x, real, y, synthetic, draws=2, seed=0)
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
    assert set(long.n) == {120} == {long.attrs["n"]}
    fid = long[(long.metric == "fid") & (long.axis != "all")]
    assert np.array_equal(fid.value, table1(x, real, y, synthetic, draws=2, seed=0).fid)
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
    long = fidelity(
        features(len(real), 4, 0),
        real,
        features(len(scarce), 4, 1),
        scarce,
        draws=1,
        seed=0,
        groups=True,
    )
    assert long.cell.nunique() == 36 and set(long.axis) == {"group"}
    assert set(long[long.value.notna()].n) == {30}
    marked = long[long.value.isna()]
    assert overview(long).set_index("Group").FID["F/<60/obese/hf"].startswith("n/a (")
    assert (
        set(marked.cell) == {"F/<60/obese/hf"}
        and set(marked.kind) == {"Real - Synthetic"}
        and marked.n.max() < FEW
    )


def test_dice_by_hand() -> None:
    mask = np.zeros((1, 2, 4, 4), np.uint8)
    mask[0, :, 0, :] = LV
    found = mask.copy()
    found[0, 0, 0, 2:] = 0  # half of LV: 2*2 / (2 + 4)
    found[0, 0, 3, 0] = MYO  # in no mask: 0; RV in neither: skipped
    assert dice(areas(found, mask)).tolist() == [[pytest.approx((2 / 3 + 0) / 2), 1.0]]
    assert np.isnan(dice(areas(np.zeros_like(mask), np.zeros_like(mask)))).all()


def test_derangement_moves_every_row() -> None:
    for n in (2, 3, 50):
        order = derangement(n, seed=n)
        assert sorted(order) == list(range(n)) and (order != np.arange(n)).all()
    with pytest.raises(ValueError, match="a set of 1 images"):
        derangement(1, seed=0)


def test_accuracy_gives_every_group_equal_mass() -> None:
    index = pd.DataFrame({"group": ["a"] * 9 + ["b"], "sex": ["F"] * 9 + ["M"]})
    assert accuracy(np.array(["F"] * 10, object), index, "sex", {"a", "b"}) == 0.5
    assert np.isnan(accuracy(np.array(["F"] * 10, object), index, "sex", set()))


def seen(table: pd.DataFrame, seed: int) -> Seen:
    """Judges who are always right, on masks that differ from row to row."""
    masks = np.random.default_rng(seed).integers(0, 4, (len(table), 2, 8, 8)).astype(np.uint8)
    axes = {
        "sex": table.sex,
        "age_band": table.age_band,
        "bmi_band": table.bmi_band,
        "diagnosis": table.label,
    }
    predicted, others = (
        {axis: column.to_numpy(object) for axis, column in axes.items()},
        derangement(len(table), seed=0),
    )
    return Seen(table, areas(masks, masks), predicted, None, others, areas(masks, masks[others]))


def test_adherence_rows_and_shuffled_reference() -> None:
    table = adherence(seen(people(72), 0), seen(people(144), 1))
    assert table.columns.tolist() == ["metric", "real", "synthetic", "shuffled", "n"]
    assert table.metric.tolist() == [
        "dice",
        "sex_accuracy",
        "bmi_accuracy",
        "age_accuracy",
        "diagnosis_accuracy",
    ]
    assert (table.real == 1).all() and (table.synthetic == 1).all() and (table.n == 144).all()
    assert table.shuffled.between(0.1, 0.7).all() and not table.attrs["warnings"]
    detail = adherence_detail(seen(people(72), 0), seen(people(144), 1))
    assert len(detail) == 6 and (detail.synthetic_n == 144).all() and (detail.shuffled < 0.5).all()


def test_adherence_of_unknown_axes_is_nan_with_n_0() -> None:
    table = adherence(
        seen(people(10, unknown=("sex", "bmi")), 0), seen(people(12, unknown=("sex", "bmi")), 1)
    )
    rows = table.set_index("metric")
    assert (
        rows.loc[["sex_accuracy", "bmi_accuracy"], ["real", "synthetic", "shuffled"]]
        .isna()
        .to_numpy()
        .all()
    )
    assert rows.n.tolist()[1:3] == [0, 0] and rows.synthetic["age_accuracy"] == 1
    assert "Fewer than 20 images: real (10), synthetic (12)" in table.attrs["warnings"][-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=180), tmp_path_factory.mktemp("store"))


def test_judges_learn_the_fake_hearts_and_are_kept(store: Store, tmp_path: Path) -> None:
    wanted = {"steps": (80, 40), "width": (8, 8)}
    made = judges.judges(store, tmp_path, **wanted)
    held = np.flatnonzero(store.index.split.isin(["val", "test"]))
    synthetic = fake_set(tmp_path / "set", store, count=72)
    others = derangement(72, seed=0)
    looks = [
        judges.judge(made, store.images[held], store.masks[held]),
        judges.judge(made, synthetic.images, synthetic.masks, others=synthetic.masks[others]),
    ]
    real, fake = (
        Seen(index, look.areas, look.predicted, look.flat, others, look.shuffled)
        for look, index in zip(looks, (store.index.iloc[held], synthetic.index), strict=True)
    )
    rows = adherence(real, fake).set_index("metric")
    assert rows.real["dice"] > 0.5 and rows.synthetic["diagnosis_accuracy"] > 0.8
    assert (rows.shuffled < rows.synthetic)[["dice", "diagnosis_accuracy"]].all()
    detail = adherence_detail(real, fake).set_index(["structure", "phase"])
    # the only structure of a fake heart that is brighter than its surroundings
    assert detail.real["LV", "ED"] > 0.8
    assert (
        looks[0].features.shape == (len(held), judges.FEATURES)
        and np.isfinite(looks[0].features).all()
    )

    assert (
        sorted(p.suffix for p in tmp_path.iterdir() if p.is_file())
        == [".json"] * 2 + [".safetensors"] * 2
    )
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()}
    again = judges.judges(store, tmp_path, **wanted)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()} == before
    assert again.card == made.card
    assert np.array_equal(judges.domain(again).extract(store.images[held]), looks[0].features)


def test_judges_are_seeded_and_leave_the_global_generator_alone(
    store: Store, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    first, second, other = (
        judges.judges(store, tmp_path / str(k), steps=(2, 2), width=(8, 8), seed=seed)
        for k, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(torch.get_rng_state(), state)
    looks = [judges.domain(made).extract(store.images[:4]) for made in (first, second, other)]
    assert np.allclose(looks[0], looks[1], atol=1e-5) and not np.allclose(
        looks[0], looks[2], atol=1e-5
    )


def test_heads_are_absent_for_unknown_axes_and_missing_rows_are_masked(tmp_path: Path) -> None:
    made = judges.judges(
        prepare(FakeCohort(count=72, unknown=("sex",)), tmp_path),
        tmp_path,
        steps=(1, 1),
        width=(8, 8),
    )
    assert list(made.attributes.heads) == ["age_band", "bmi_band", "diagnosis"]
    table = people(4)
    table.loc[1, "sex"] = None
    assert judges.codes(table, "sex").tolist() == [0, -1, 1, 1] and judges.codes(
        table, "diagnosis"
    ).tolist() == [
        0,
        1,
        0,
        1,
    ]
    network = judges.AttributeNet(["sex"], 8)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 16)).astype(np.uint8)
    table.loc[:, "sex"] = None
    assert judges._attributes_loss(network, images, images, table).item() == 0


def test_judges_refuse_a_store_without_training_rows(store: Store, tmp_path: Path) -> None:
    bare = Store(store.folder)
    bare.__dict__["index"] = store.index[store.index.split == "test"]
    with pytest.raises(ValueError, match="no row of the train split"):
        judges.judges(bare, tmp_path)
