"""The report's sections on adherence, contraction and diversity, of sound sets and of bad ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import judges
from cmrgen.evaluation.adherence import diversity, section
from cmrgen.evaluation.adherence.section import adherence_sections
from cmrstudy.report import report_html
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=180), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def networks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> judges.Judges:
    return judges.trained_judges(
        store, tmp_path_factory.mktemp("judges"), steps=(30, 20), width=(8, 8)
    )


@pytest.mark.slow  # seconds; test_study writes them too
def test_sections_of_a_sound_set(store: Store, networks: judges.Judges, tmp_path: Path) -> None:
    made = fake_set(tmp_path / "set", store, count=150)
    found = judges.evaluation_of(store, made, networks, tmp_path / "out", seed=0)
    parts = adherence_sections(found, missing=["F/<60/obese/hf"], seed=0)
    assert (
        "1 group has no training subject" in parts[0].warnings[0]
        and "no sweep folder" in parts[2].warnings[0]
    )
    assert all(
        made.fingerprint in str(part.sources) and store.fingerprint in str(part.sources)
        for part in parts
    )
    assert (
        "Dice of" in parts[0].answers[0]
        and "contract by" in parts[1].answers[0]
        and "as much as real" in parts[2].answers[0]
    )
    names = {path.stem for path in (tmp_path / "out").glob("*.csv")}
    assert names == {
        "adherence",
        "adherence_detail",
        "adherence_groups",
        "confusion_attributes",
        "area_change",
        "diversity",
    }
    table = pd.read_csv(tmp_path / "out" / "diversity.csv")
    assert table.bundles[1] == 0 and np.isnan(table.distance[1])  # one mask per subject in this set
    assert (table.bundles.drop(1) > 20).all() and table.distance.drop(1).between(
        table.distance_low.drop(1), table.distance_high.drop(1)
    ).all()
    page = report_html(parts, title="t", facts={})
    assert page.count("data:image/png") == 5 and "Adherence per full group" in page


@pytest.mark.slow
def test_measuring_again_changes_no_byte(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    made = fake_set(tmp_path / "set", store, count=40)
    written = []
    for name in ("a", "b"):
        adherence_sections(
            judges.evaluation_of(store, made, networks, tmp_path / name, seed=0), missing=[], seed=0
        )
        files = sorted((tmp_path / name).rglob("*.*"))
        written.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert written[0] == written[1] and len(written[0]) > 20


@pytest.mark.slow  # seconds
def test_sections_of_a_black_set_warn_and_do_not_fail(
    store: Store, networks: judges.Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmrstudy.figures.save", lambda figure, path: [path])
    made = fake_set(tmp_path / "set", store, count=40)
    vars(made)["images"] = np.zeros_like(np.asarray(made.images))
    found = judges.evaluation_of(store, made, networks, tmp_path / "out", seed=0)
    look = found.synthetic
    assert (
        look.flat.all() and not look.areas.segmented.any() and set(look.predicted["sex"]) == {None}
    )
    shown, contracted, _ = adherence_sections(found, missing=[], seed=0)
    assert "40 of 40 synthetic images are flat" in " ".join(shown.warnings)
    whole = pd.read_csv(tmp_path / "out" / "adherence.csv").set_index("metric").synthetic
    assert (whole.dropna() == 0).all()
    assert "40 of 40 synthetic images have no LV cavity" in " ".join(contracted.tables[0].notes)
    assert contracted.answers == []


def test_a_set_of_one_image_is_told_not_measured(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    made = fake_set(tmp_path / "set", store, count=1)
    [section] = adherence_sections(
        judges.evaluation_of(store, made, networks, tmp_path, seed=0), missing=[], seed=0
    )
    assert "holds 1 image;" in section.warnings[0] and not section.tables


def rows_of_groups(**metrics: float) -> pd.DataFrame:
    rows = [
        {
            **{"axis": "all", "metric": metric, "synthetic": value, "real": 0.9},
            **{"synthetic_low": value - 0.1, "synthetic_high": value + 0.1, "synthetic_n": 1234.0},
        }
        for metric, value in metrics.items()
    ]
    return pd.DataFrame([*rows, {**rows[0], "axis": "sex", "synthetic": 0.0}])


def test_adherence_in_a_sentence_of_what_is_known() -> None:
    adherence = pd.DataFrame({"shuffled": [0.25]})
    groups = rows_of_groups(dice=0.5, sex_accuracy=0.75, age_accuracy=np.nan)
    assert section._adherence_answers(adherence, groups) == [
        "Synthetic images show their mask with a Dice of 0.50 [0.40, 0.60] (real 0.90), 0.25 with "
        "another's mask; n = 1,234.",
        "Share of synthetic images in which what was asked for is seen: sex 0.75 [0.65, 0.85] "
        "(real 0.90).",
    ]
    [alone] = section._adherence_answers(adherence, rows_of_groups(dice=np.nan, sex_accuracy=0.75))
    assert alone.startswith("Share of")
    assert section._adherence_answers(adherence, rows_of_groups(dice=np.nan)) == []


def agreement(**changed: float) -> pd.DataFrame:
    columns = ["images", "hearts", "n", "bias", "mask", "segmented", "slope"]
    rows = [
        ("real", "all", 90, 0.0, 50.0, 49.0, 0.95),
        (
            "synthetic",
            "all",
            1500,
            changed.get("bias", -3.0),
            50.0,
            47.0,
            changed.get("slope", 0.8),
        ),
        ("synthetic", "healthy", 1500, -2.0, 55.0, 53.0, 0.8),
        ("synthetic", "diseased", changed.get("n", 0), np.nan, np.nan, np.nan, np.nan),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_contraction_in_a_sentence_of_the_hearts_there_are() -> None:
    assert section._contraction_answers(agreement()) == [
        "Left ventricles contract by 53 % of their area in healthy synthetic images (n = 1,500), "
        "their masks by 55 %. Where a mask asks for 10 points more, the image shows 8.0 more (real "
        "images 9.5)."
    ]
    [short] = section._contraction_answers(agreement(slope=np.nan))
    assert short.endswith("their masks by 55 %.")
    assert section._contraction_answers(agreement(bias=np.nan)) == []


def test_diversity_in_a_sentence_where_both_sides_are_known() -> None:
    def differences(real: float) -> pd.DataFrame:
        rows = [
            ("synthetic", diversity.PERSONS, 1.5),
            ("synthetic", diversity.SEEDS, 9.0),
            ("real", diversity.PERSONS, real),
        ]
        return pd.DataFrame(rows, columns=["images", "kind", "distance"])

    [said] = section._diversity_answers(differences(2.0))
    assert "differ 75 % as much as real ones do (distance 1.50 against 2.00 in" in said
    assert section._diversity_answers(differences(np.nan)) == []


def test_the_pictures_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[tuple[list[list[np.ndarray | None]], list[str], list[str]]] = []
    monkeypatch.setattr(section.figures, "image_grid", lambda *given: grids.append(given))
    monkeypatch.setattr(section.figures, "save", lambda figure, path: [path])
    monkeypatch.setattr(section, "seed_spread", lambda images, mask: grids.append((images, mask)))
    rows = pd.DataFrame(
        {
            "figure": [4, 3, 3, 4, 4, 4, 3, 3, 4],
            "source_row": [7, 5, 5, 7, 7, 7, 6, 6, 7],
            "sex": list("FFFFFFMMF"),
            "age_band": ["<60"] * 6 + ["70+"] * 2 + ["<60"],
            "bmi_band": ["a", "normal", "obese", "a", "a", "a", "normal", "obese", "a"],
            "prompt": "Female",
        }
    )
    images = np.arange(9 * 2 * 4).reshape(9, 2, 2, 2).astype(np.uint8)
    masks = np.tile(np.arange(9, dtype=np.uint8)[:, None, None, None] % 4, (1, 2, 2, 2))

    def drawn(chosen: pd.DataFrame) -> list[str]:
        grids.clear()
        sweep = SimpleNamespace(index=chosen, images=images, masks=masks)
        return [path.name for _, path in section.sweep_pictures(sweep, tmp_path)]  # type: ignore[arg-type]

    assert drawn(rows) == ["fig3_prompt_sweep", "fig4_seeds", "fig_seed_spread"]
    (lines, names, heads), (grid, none, head), (spread, mask) = grids
    assert names == ["F, <60", "M, 70+"] and heads == ["mask", "normal", "obese"]
    assert none == [] and head == ["mask"]
    assert [np.array_equal(lines[1][k], images[row, 0]) for k, row in ((1, 6), (2, 7))] == [
        True
    ] * 2
    # the mask once, then three images in a line
    assert [len(line) for line in grid] == [4, 3] and grid[1][0] is None
    shown = [image for line in grid for image in line[1:]]
    assert all(
        np.array_equal(a, images[row, 0]) for a, row in zip(shown, (0, 3, 4, 5, 8), strict=True)
    )
    assert np.array_equal(spread, images[[0, 3, 4, 5, 8]]) and np.array_equal(mask, masks[0])
    assert drawn(rows[rows.figure == 3]) == ["fig3_prompt_sweep"]
    assert drawn(rows[:1]) == ["fig4_seeds"]  # one seed changes nothing
