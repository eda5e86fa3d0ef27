"""What was generated, as pictures: the first thing of a report. Real hearts stand beside it only
where nobody owns them."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from cmrdata.axes import AXES
from cmrdata.batch import PHASES
from cmrdata.store import Store
from cmrgen.evaluation.judges import Evaluation
from cmrgen.plan.rows import is_moved
from cmrgen.prompts import DISEASE, SEX
from cmrstudy.figures import coloured, image_grid, save
from cmrstudy.report import Section

COUNT = 3


def examples_section(evaluation: Evaluation) -> Section:
    """Images of groups that differ most: mask, phantom's own picture where there is one, synthetic
    image; ED and ES."""
    cohort, synthetic = evaluation.cohort, evaluation.synthetic_set
    chosen = most_different(synthetic.index, COUNT)
    with_real = is_phantom(cohort)
    kinds = ["mask", *(["real"] if with_real else []), "synthetic"]
    rows = [_cells(cohort, synthetic, k, with_real=with_real) for k in chosen]
    titles = [f"{kind} {phase}" for phase in PHASES for kind in kinds]
    named = [_named(synthetic.index.iloc[k]) for k in chosen]
    (picture, *_) = save(image_grid(rows, named, titles), evaluation.figures / "fig2_examples")
    sentence = (
        "Each image is drawn from the mask of a training subject and a prompt. Masks show the "
        "left ventricle's cavity, its wall and the right ventricle's cavity."
    )
    real = (
        "The real image is of the subject whose mask it is."
        if with_real
        else "Images of real participants are not shown here."
    )
    return Section(
        "What was generated",
        [f"{sentence} {real}"],
        figures=[
            (
                f"Fig. 2: {', '.join(kinds)}, for {len(chosen)} groups, at end-diastole and "
                "end-systole",
                picture,
            )
        ],
    )


def most_different(index: pd.DataFrame, count: int) -> list[int]:
    """Positions of up to `count` images, of people as different as the set has them: each takes the
    most unlike the others.

    Args:
        index: of a set; its diagnosis and axes are compared, as far as they are known.
        count: images wanted.

    Returns:
        Positions in the index, the first of a diseased person where there is one.
    """
    axes = [axis for axis in ("diagnosis", *AXES) if axis in index]
    values = index[axes].fillna("").astype(str).reset_index(drop=True)
    first = values.assign(
        moved=is_moved(index).to_numpy(),
        healthy=index.diagnosis.astype(str).to_numpy() == "healthy",
    )
    kinds = first.sort_values(["moved", "healthy"], kind="stable").drop_duplicates(axes)
    chosen: list[int] = []
    while len(chosen) < min(count, len(kinds)):
        unlike = [
            min((sum(values.loc[k] != values.loc[other]) for other in chosen), default=0)
            if k not in chosen
            else -1
            for k in kinds.index
        ]
        chosen.append(int(kinds.index[int(np.argmax(unlike))]))
    return chosen


def is_phantom(cohort: Store) -> bool:
    """Whether a cohort's images are drawn by this program, so that they are nobody's."""
    return str(cohort.meta["settings"].get("cohort", "")).startswith("phantom")


def _cells(cohort: Store, synthetic: Store, k: int, *, with_real: bool) -> list[np.ndarray]:
    cells = []
    for phase in range(len(PHASES)):
        cells.append(coloured(np.asarray(synthetic.masks[k][phase])))
        if with_real:
            cells.append(np.asarray(cohort.images[int(synthetic.index.source_row.iloc[k])][phase]))
        cells.append(np.asarray(synthetic.images[k][phase]))
    return cells


def _named(row: pd.Series) -> str:
    """A line each for sex and age, BMI, and diagnosis, of what is known; else the group."""
    words = [
        " ".join(
            SEX.get(row[axis], str(row[axis]))
            for axis in ("sex", "age_band")
            if axis in row and pd.notna(row[axis])
        )
    ]
    words += [str(row.bmi_band)] if "bmi_band" in row and pd.notna(row.bmi_band) else []
    words += [DISEASE.get(str(row.diagnosis), str(row.diagnosis))]
    return "\n".join(textwrap.fill(word, 15) for word in words if word)
