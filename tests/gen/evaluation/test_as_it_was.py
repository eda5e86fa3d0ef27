"""Every table, sentence and figure of a report on a made-up set, as they were when they were last
looked at; networks are replaced by arithmetic, so that no number depends on a machine.

A change that is meant: `python tests/gen/evaluation/test_as_it_was.py` writes the record anew.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from cmrdata.plan_columns import PROVENANCE
from cmrdata.prepare import prepare
from cmrdata.store import Store, Writer
from cmrgen.evaluation.adherence.areas import structure_areas
from cmrgen.evaluation.adherence.scores import derangement
from cmrgen.evaluation.adherence.section import adherence_sections
from cmrgen.evaluation.examples import examples_section
from cmrgen.evaluation.fidelity.section import fidelity_section, two_sample_section
from cmrgen.evaluation.judges import Evaluation, Judgement, provenance
from cmrgen.evaluation.privacy.nearest import Search, by_features
from cmrgen.evaluation.privacy.section import audit_section
from cmrgen.plan.sweeps import paper_figures
from cmrstudy.report import Section
from support import records
from support.fake_cohort import FakeCohort, fake_set

FILE = Path(__file__).with_name("as_it_was.json")
AXES = {"sex": "sex", "age_band": "age_band", "bmi_band": "bmi_band", "diagnosis": "label"}


def judgement(
    table: pd.DataFrame, images: np.ndarray, masks: np.ndarray, *, others: Any, seed: int
) -> Judgement:
    """Judges who err in a fifth of the images, and to whom three are flat."""
    rng = np.random.default_rng(seed)
    segmented, flat = np.array(masks), np.zeros((len(table), 2), bool)
    for k in np.flatnonzero(rng.random(len(table)) < 0.5):
        segmented[k, rng.integers(2)] = np.roll(masks[k, 0], rng.integers(-2, 3, 2), (0, 1))
    segmented[5:7] = 0
    segmented[9, 0, segmented[9, 0] == 1] = 0
    flat[[2, 5]], flat[7, 1] = True, True
    predicted = {}
    for axis, column in AXES.items():
        values = np.array(table[column], object)
        wrong = rng.random(len(table)) < 0.2
        values[wrong] = rng.permutation(values)[wrong]
        values[flat.all(1)] = None
        predicted[axis] = values
    shuffled = None if others is None else structure_areas(segmented, masks[others])
    areas = structure_areas(segmented, masks)
    return Judgement(areas, shuffled, predicted, looks(images), flat)


def fields(images: np.ndarray) -> np.ndarray:
    """Mean grey values of 4 x 4 fields."""
    side = images.shape[-1] // 4
    return np.asarray(images).reshape(len(images), 2, 4, side, 4, side).mean((3, 5))


def looks(images: np.ndarray) -> np.ndarray:
    return fields(images).reshape(len(images), -1)[:, :6].astype(np.float32) / 10


def features(store: Store, rows: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    return looks(store.images[rows])


def layers(networks: Any, images: np.ndarray) -> np.ndarray:
    return fields(images).reshape(len(images), -1) / 255.0


def scores(real: Any, synthetic: Any, half: np.ndarray, *, seed: int, **_: Any) -> np.ndarray:
    images = np.concatenate([real.images, synthetic.images]).astype(float)
    return images[:, 0, 3 + seed :].std((1, 2)) + half


def seen(images: np.ndarray, people: np.ndarray, **_: Any) -> Search:
    """In place of the search by sight, which tests of its own look at."""
    search = by_features(fields(images[:]).reshape(len(images), -1), people)
    return lambda queries, own: search(fields(queries[:]).reshape(len(queries), -1), own)


def losses(generator: Any, store: Store, rows: np.ndarray, *, seed: int) -> np.ndarray:
    index = store.index.iloc[rows]
    return fields(store.images[rows]).mean((1, 2, 3)) - 2.0 * (index.split == "train").to_numpy()


def made_set(cohort: Store, folder: Path) -> Store:
    """A set, brighter than the cohort, in which some images differ in their seeds alone, some in
    their slice, some are copies, some are moved, and one is flat."""
    made = fake_set(folder, cohort, count=210)
    index = made.index
    by_subject = cohort.index.reset_index().groupby("subject")["index"]
    central = cohort.index.reset_index()[cohort.index.central.to_numpy()]
    index["source_row"] = index.subject.map(central.set_index("subject")["index"])
    index.loc[150:179, "source_row"] = index.subject[150:180].map(by_subject.first())
    columns = [column for column in index if column not in ("row", "seed")]
    index.loc[180:, columns] = index.loc[0:29, columns].to_numpy()
    index.loc[200:, "source_row"] = index.subject[200:].map(by_subject.first())
    index.loc[40:43, ["angle", "zoom"]] = 3.0, 1.05
    images, masks = np.array(made.images), np.array(made.masks)
    images[:] = np.clip(images + 6.0, 0, 255)
    for k in range(0, 60, 3):
        images[k] = cohort.images[index.source_row[k]]
    images[70] = 9
    masks[3, 1, masks[3, 1] == 3] = 0
    vars(made).update(images=images, masks=masks)
    return made


def sweep(cohort: Store, folder: Path) -> Store:
    plan = paper_figures(cohort.index, seeds=4).rows
    index = plan.assign(sampler="unipc", steps=8)
    images, masks = (array[plan.source_row.to_numpy()] for array in (cohort.images, cohort.masks))
    brighter = images.astype(int) + 5 * np.arange(len(plan)).reshape(-1, 1, 1, 1)
    writer = Writer(folder, pixels=16, settings={})
    columns = [column for column in (*PROVENANCE, "figure") if column in index]
    writer.append(brighter.clip(0, 255).astype(np.uint8), masks, index[columns])
    return writer.finish()


def evaluated(folder: Path, *, unknown: tuple[str, ...] = ()) -> Evaluation:
    cohort = prepare(FakeCohort(count=432, unknown=unknown), folder)
    made = made_set(cohort, folder / "set")
    if not unknown:
        sweep(cohort, folder / "set" / "sweep")
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    card = {"segmenter": {"steps": 30}, "attributes": {"steps": 20}}
    others = derangement(len(made.index), seed=3)
    networks: Any = SimpleNamespace(device=torch.device("cpu"), card=card)
    real = cohort.index.iloc[held].reset_index(drop=True)
    return Evaluation(
        cohort,
        made,
        networks,
        held,
        judgement(real, cohort.images[held], cohort.masks[held], others=None, seed=0),
        judgement(made.index, made.images, made.masks, others=others, seed=1),
        folder / "results",
        others,
    )


def audited(evaluation: Evaluation) -> list[Section]:
    privacy = "cmrgen.evaluation.privacy"
    with (
        patch(f"{privacy}.audit.by_sight", seen),
        patch(f"{privacy}.section.check_cohort"),
        patch(f"{privacy}.section.facts_of"),
        patch(f"{privacy}.section.load_generator"),
        patch(f"{privacy}.membership.diffusion_losses", losses),
    ):
        return [audit_section(evaluation, generator="runs/controlnet/0", seed=0)]


PARTS: dict[str, Callable[[Evaluation], Sequence[Section]]] = {
    "examples": lambda of: [examples_section(of)],
    "adherence": lambda of: adherence_sections(of, missing=["F/<60/obese/hf"], seed=0),
    "fidelity": lambda of: [fidelity_section(of, backbones={"dinov2": None}, n=30, seed=0)],
    "adherence, sex alone known": lambda of: adherence_sections(of, missing=[], seed=0),
    "fidelity, sex alone known": lambda of: [
        fidelity_section(of, backbones={}, n=60, seed=0),
        *[two_sample_section(of, seed=1, steps=1)],
    ],
    "two-sample tests": lambda of: [two_sample_section(of, seed=0, steps=1)],
    "audit": audited,
}


def record(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """What a part of the report says, writes and draws."""
    folder = evaluation.folder / name
    folder.mkdir(parents=True)
    drawn: dict[str, Any] = {}

    def save(figure: Any, path: Path, **_: Any) -> list[Path]:
        drawn[path.name] = records.figure(figure)
        return [path.with_suffix(".png")]

    sections = "cmrgen.evaluation"
    with (
        patch("cmrstudy.figures.save", save),
        patch(f"{sections}.examples.save", save),
        patch(f"{sections}.adherence.section.perceptual_layers", layers),
        patch(f"{sections}.fidelity.section.domain_backbone"),
        patch(f"{sections}.fidelity.section.kept_features", features),
        patch(f"{sections}.fidelity.two_sample.crossed_scores", scores),
        patch(f"{sections}.privacy.section.domain_backbone"),
        patch(f"{sections}.privacy.section.kept_features", features),
    ):
        parts = PARTS[name](evaluation._replace(folder=folder))
    said = [
        {
            "heading": part.heading,
            "paragraphs": list(part.paragraphs),
            "warnings": list(part.warnings),
            "answers": list(part.answers),
            "tables": [[table.caption, *table.notes] for table in part.tables],
            "figures": [[title, Path(path).name] for title, path in part.figures],
            "sources": part.sources,
        }
        for part in parts
    ]
    files = {
        str(path.relative_to(folder)): written(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tex"
    }
    whole = {"sections": said, "files": files, "figures": drawn}
    text = json.dumps(whole, ensure_ascii=False, default=list)
    text = text.replace(str(evaluation.folder.parent), "FOLDER")
    marks = {
        evaluation.cohort.fingerprint: "COHORT",
        evaluation.synthetic_set.fingerprint: "SET",
    }
    for mark, word in marks.items():
        text = text.replace(mark, word)
    return json.loads(text)  # type: ignore[no-any-return]


def written(path: Path) -> Any:
    if path.suffix == ".csv":
        return records.averages(pd.read_csv(path))
    if path.suffix == ".json":
        facts = json.loads(path.read_text())
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", facts.pop("date"))
        return facts
    lines = path.read_text().splitlines()
    return lines if len(lines) < 24 else [*lines[:14], *lines[14::9]]


def both(folder: Path) -> dict[bool, Evaluation]:
    """The evaluations of a cohort and of one of which sex alone is known."""
    return {
        alone: evaluated(folder / str(alone), unknown=("age", "bmi") * alone)
        for alone in (False, True)
    }


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Evaluation]:
    return both(tmp_path_factory.mktemp("evaluation"))


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_of_the_report_is_as_it_was(name: str, evaluations: dict[bool, Evaluation]) -> None:
    records.check(FILE, name, record(name, evaluations["alone" in name]))


def test_the_reports_last_table_says_where_the_numbers_come_from(
    evaluations: dict[bool, Evaluation],
) -> None:
    evaluation = evaluations[False]
    assert provenance(evaluation) == {
        "synthetic set": f"{evaluation.synthetic_set.folder} (210 images, 36 groups)",
        "synthetic fingerprint": evaluation.synthetic_set.fingerprint,
        "generator": "made up",
        "sampler": "unipc, 8 steps",
        "networks on": "the CPU",
        "judges": "segmenter: 30 steps, attributes: 20 steps",
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = both(Path(place))
        records.write(FILE, {name: record(name, made["alone" in name]) for name in PARTS})
