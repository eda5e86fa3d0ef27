"""How often the nominal 95 % intervals of cmrcls.disparities hold the truth, in simulated studies whose truth is known.

python benchmarks/coverage.py [studies]

A study: two subgroups, two arms, S seeds each. The score of subject i in arm a and seed s is normal: a mean by subgroup,
label and arm, plus parts of the subject (sd 1), subject and arm (0.5), seed (0.3, by label, shared by the subgroups), seed
and subgroup (0.15, by label) and the single prediction (0.8); it decides "diseased" above 0. So the true balanced accuracy
over subjects and seeds is a normal tail. Labels are drawn at the subgroup's prevalence.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
from scipy.stats import norm

from cmrcls.disparities import measure
from cmrcls.study import Study

MEANS = {  # arm -> subgroup -> mean score of diseased, of healthy
    "Real": {"F": (0.6, -1.0), "M": (1.2, -1.5)},
    "Real + 4000": {"F": (0.8, -1.0), "M": (1.2, -1.4)},
}
SUBJECT, SUBJECT_ARM, SEED, SEED_SUBGROUP, SINGLE = 1.0, 0.5, 0.3, 0.15, 0.8
CONTROLS = 10  # per positive


def simulated(*, positives: int, seeds: int, rng: np.random.Generator) -> Study:
    """One study with `positives` expected per subgroup."""
    n = 2 * positives * (1 + CONTROLS)
    sex, label = np.repeat(["F", "M"], n // 2), (rng.random(n) < 1 / (1 + CONTROLS)).astype(int)
    female, subject, runs = (sex == "M").astype(int), SUBJECT * rng.standard_normal(n), []
    for means in MEANS.values():
        mean = np.array([means["F"], means["M"]])[female, 1 - label]
        own = subject + SUBJECT_ARM * rng.standard_normal(n)
        for _ in range(seeds):
            moved = SEED * rng.standard_normal(2)[label] + SEED_SUBGROUP * rng.standard_normal((2, 2))[female, label]
            runs.append(mean + own + moved + SINGLE * rng.standard_normal(n))
    score = np.stack(runs, axis=1)
    arms = np.repeat(list(MEANS), seeds)
    return Study(pd.DataFrame({"label": label, "sex": sex}), arms, np.tile(np.arange(seeds), len(MEANS)),
                 norm.cdf(score), (score > 0).astype(float), "Real")  # fmt: skip


def truth() -> dict[str, float]:
    """What the intervals should hold; the subgroups are equally large and equally often diseased."""
    sd = np.sqrt(SUBJECT**2 + SUBJECT_ARM**2 + SEED**2 + SEED_SUBGROUP**2 + SINGLE**2)
    accuracy = {(arm, sex): (norm.cdf(sick / sd) + norm.cdf(-well / sd)) / 2
                for arm, means in MEANS.items() for sex, (sick, well) in means.items()}  # fmt: skip
    real, more = MEANS
    gap = {arm: abs(accuracy[arm, "M"] - accuracy[arm, "F"]) for arm in MEANS}
    overall = {arm: (accuracy[arm, "M"] + accuracy[arm, "F"]) / 2 for arm in MEANS}
    return {"overall": overall[real], "subgroup F": accuracy[real, "F"], "subgroup M": accuracy[real, "M"],
            "arm difference": overall[more] - overall[real], "arm difference F": accuracy[more, "F"] - accuracy[real, "F"],
            "gap": gap[real], "gap change": gap[more] - gap[real], "gap reduction": 1 - gap[more] / gap[real]}  # fmt: skip


def intervals(study: Study, *, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """The intervals for each of `truth`."""
    found = measure(study, resamples=resamples, seed=seed)
    rows = found.subgroups[found.subgroups.metric == "balanced_accuracy"].set_index(["arm", "subgroup"])
    gaps = found.disparities[found.disparities.measure == "balanced_accuracy"].set_index("arm")
    real, more = MEANS

    def ends(row: pd.Series, prefix: str = "") -> tuple[float, float]:
        return row.get(f"{prefix}low", np.nan), row.get(f"{prefix}high", np.nan)

    return {"overall": ends(rows.loc[real, "Overall"]), "subgroup F": ends(rows.loc[real, "Female"]),
            "subgroup M": ends(rows.loc[real, "Male"]), "arm difference": ends(rows.loc[more, "Overall"], "change_"),
            "arm difference F": ends(rows.loc[more, "Female"], "change_"), "gap": ends(gaps.loc[real]),
            "gap change": ends(gaps.loc[more], "change_"), "gap reduction": ends(gaps.loc[more], "reduction_")}  # fmt: skip


def coverage(*, studies: int, positives: int, seeds: int = 8, resamples: int = 600, seed: int = 0) -> pd.DataFrame:
    """Per quantity: coverage, mean width, and the share of studies that gave an interval."""
    rng, true = np.random.default_rng(seed), truth()
    ends = np.array([list(intervals(simulated(positives=positives, seeds=seeds, rng=rng), resamples=resamples,
                                    seed=int(rng.integers(2**31))).values()) for _ in range(studies)])  # fmt: skip
    given = np.isfinite(ends[..., 0])
    held = (ends[..., 0] <= list(true.values())) & (list(true.values()) <= ends[..., 1])
    return pd.DataFrame({"quantity": list(true), "coverage": held.sum(axis=0) / np.maximum(given.sum(axis=0), 1),
                         "width": np.nanmean(ends[..., 1] - ends[..., 0], axis=0), "given": given.mean(axis=0)})  # fmt: skip


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for positives, seeds in ((25, 8), (40, 8), (100, 8), (40, 3)):
        start = time.perf_counter()
        table = coverage(studies=studies, positives=positives, seeds=seeds)
        print(
            f"{positives} positives a subgroup, {seeds} seeds, {studies} studies, {time.perf_counter() - start:.0f} s"
        )
        print(table.round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
