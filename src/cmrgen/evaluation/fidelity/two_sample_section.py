"""The report on what tells synthetic images from real ones: the set against held-out people, and
real images as the floor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from cmrdata.mix import equal_mix
from cmrgen.evaluation.fidelity.two_sample import LEAST, NETWORK, STEPS, Side, two_sample
from cmrgen.evaluation.measured import Measured
from cmrstudy import figures
from cmrstudy.report import Section, number, write_tables

ENOUGH = 50  # images a side, for which slices besides the central one are left out
MOST = 1000  # images a side
WHAT = {
    NETWORK: "whatever a small network learns",
    "clipping": "share of black or white pixels",
    "gradient": "mean difference of neighbouring pixels",
    "fine detail": "what smoothing takes away",
    "detail ratio ED/ES": "ED's fine detail over ES's",
    "mean grey value": "brightness",
    "sd of grey values": "contrast",
}


class Compared(NamedTuple):
    """Which images are compared, and how they were chosen."""

    real: np.ndarray  # (n,) rows of the cohort
    synthetic: np.ndarray  # (n,) rows of the set
    told: str


def two_sample_section(
    found: Measured, *, seed: int, steps: int = STEPS, device: str | torch.device = "cpu"
) -> Section:
    """Can the set's images be told from held-out real ones?

    Args:
        found: the set and its cohort.
        seed: of everything drawn here.
        steps: of the network's training, STEPS at most.
        device: of the network.
    """
    compared = comparable(found, seed=seed)
    table, floor = _measured(found, compared, seed=seed, steps=min(steps, STEPS), device=device)
    shown = _wide(table, floor)
    caption = (
        "Two-sample tests: chance that a synthetic image scores higher than a held-out real one (AUC) [95 % interval]; "
        "0.5: they can't be told apart"
    )
    shown.attrs["caption"] = caption
    write_tables(table, found.folder, "two_sample", caption, display=shown)
    write_tables(
        floor,
        found.folder,
        "two_sample_real",
        "The same tests of the real images that the masks belong to",
    )
    if few := table.auc.isna().all():
        shown.attrs["warnings"] = [f"Fewer than {LEAST} subjects on a side: nothing is measured."]
    drawn = (
        []
        if few
        else [figures.save(forest(table, floor), found.folder / "figures" / "fig_two_sample")[0]]
    )
    return Section(
        "Can synthetic images be told from real ones?",
        [
            compared.told,
            "The network is trained on half of the subjects and asked about the others, and the other way round; an image "
            "and those drawn from the same subject's mask are always on one side. An AUC below 0.5 tells the two apart as well "
            "as one above: then real images have more of it. Floor: the real training images whose masks were drawn from, "
            "in the place of the synthetic ones; what tells those from held-out people is who and which slices are shown, "
            "not how. Intervals resample subjects, and the network's takes the trained networks as given.",
            "Whatever tells the source of an image is a shortcut for a classifier that is trained on both. "
            "`harmonise=true` trains an arm with the set's grey levels and sharpness matched to real training images.",
        ],
        tables=[shown],
        figures=[
            ("Two-sample tests of synthetic images, and of real ones as the floor", path)
            for path in drawn
        ],
        warnings=_shortcuts(table, floor),
        sources=[
            f"{found.made.folder}, fingerprint {found.made.fingerprint}",
            f"cohort {found.cohort.fingerprint}",
        ],
        answers=_answer(table, floor),
    )


def comparable(found: Measured, *, seed: int) -> Compared:
    """Held-out real images and synthetic ones of equal group mix, central slices alone where that
    leaves ENOUGH.

    Held-out people are in the store with their central slice alone. Where groups are too few to
    match, diagnoses are.
    """
    real, made = found.cohort.index.iloc[found.held], found.made.index
    central = found.cohort.index.central.to_numpy(bool)[made.source_row.to_numpy()]
    best = Compared(np.empty(0, int), np.empty(0, int), "")
    for column, words in (("group", "of each group"), ("label", "with and without the disease")):
        for slices, chosen in (
            ("central slices only", np.flatnonzero(central)),
            ("all slices", np.arange(len(made))),
        ):
            rng = np.random.default_rng([seed, 4])
            left, right = equal_mix(real[column], made[column].iloc[chosen], rng)
            if len(left) > MOST:
                kept = np.sort(
                    rng.choice(len(left), MOST, replace=False)
                )  # of sorted sides: the mix stays nearly equal
                left, right = (
                    left[kept],
                    right[np.sort(rng.choice(len(right), MOST, replace=False))],
                )
            if len(left) > len(best.real):
                told = f"{len(left):,} images a side, equally many {words}; synthetic images of {slices}."
                best = Compared(found.held[left], chosen[right], told)
            if len(best.real) >= ENOUGH:
                return best
    return best


def _measured(
    found: Measured, compared: Compared, *, seed: int, steps: int, device: str | torch.device
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tests of the set, and those of the real images that its masks belong to."""
    cohort, made = found.cohort, found.made
    subjects = made.index.subject.to_numpy()[compared.synthetic]
    sources = made.index.source_row.to_numpy()[compared.synthetic]
    real = Side(cohort.images[compared.real], cohort.index.subject.to_numpy()[compared.real])
    synthetic = Side(made.images[compared.synthetic], subjects)
    own = Side(cohort.images[sources], subjects)
    how = {"seed": seed, "steps": steps, "device": device}
    return two_sample(real, synthetic, **how), two_sample(real, own, **how)  # type: ignore[arg-type]


def _wide(table: pd.DataFrame, floor: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "test": table.test,
            "what it looks at": table.test.map(WHAT),
            "AUC, synthetic": [number(row.auc, row.low, row.high) for row in table.itertuples()],
            "AUC, real (floor)": [number(row.auc, row.low, row.high) for row in floor.itertuples()],
            "n (images a side)": table.n,
        }
    )


def _apart(row: pd.Series | tuple) -> bool:
    return bool(row.low > 0.5 or row.high < 0.5)  # type: ignore[union-attr]


def _shortcuts(table: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    """One sentence of the trivial tests that tell images apart beyond what the floor does."""
    worse = [
        f"{a.test} ({a.auc:.2f})"
        for a, b in zip(table.itertuples(), floor.itertuples(), strict=True)
        if a.test != NETWORK and _apart(a) and (a.low > b.high or a.high < b.low)
    ]
    if not worse:
        return []
    return [
        f"Told from real images by a single number, further than real images are from each other: {', '.join(worse)}."
    ]


def _answer(table: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    row, own = (side.set_index("test").loc[NETWORK] for side in (table, floor))
    if np.isnan(row.auc):
        return []
    return [
        f"A small network tells synthetic from held-out real images with an AUC of {row.auc:.2f} [{row.low:.2f}, "
        f"{row.high:.2f}], real training images from them with {own.auc:.2f} (0.5: not at all)."
    ]


def forest(table: pd.DataFrame, floor: pd.DataFrame) -> Figure:
    """The tests' AUCs with intervals, synthetic images above real ones, around the line of 0.5."""
    import matplotlib

    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 1.1 + 0.45 * len(table)), layout="constrained")
        panel = figure.subplots()
        panel.axvline(0.5, color=figures.GREY, zorder=0)
        for part, shift, colour, name in (
            (table, -0.14, figures.COLOURS[1], "synthetic"),
            (floor, 0.14, figures.COLOURS[0], "real (floor)"),
        ):
            places = np.arange(len(part)) + shift
            panel.hlines(places, part.low, part.high, color=colour, linewidth=2)
            panel.plot(part.auc, places, "o", color=colour, label=name)
        panel.set_yticks(np.arange(len(table)), table.test)
        panel.set_ylim(len(table) - 0.5, -0.5)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel(
            f"AUC against held-out real images, n = {table.n.iloc[0]:,} a side; line: 95 % interval"
        )
        panel.tick_params(left=False)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure
