"""The report's sections on adherence, contraction and diversity, of sound sets and of bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import judges
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
