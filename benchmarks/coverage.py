"""How often the 95 % intervals and tests of cmrcls.fairness.disparities are right, in simulated studies
whose truth is known.

python benchmarks/coverage.py [--studies 100] [--out docs/results/coverage.csv] [--only SETTING]
python benchmarks/coverage.py --show
python benchmarks/coverage.py --page

Studies are added to the file setting by setting; the command continues where it was stopped.

A study: 18 subgroups (2 sexes x 3 ages x 3 BMI bands, of the sizes in SHARES), two arms, S seeds
each. The score of subject i in arm a and seed s is normal: a mean by subgroup, label and arm, plus
parts of the subject (sd 1), subject and arm (0.5), seed (by label, common to all subgroups), seed
and sex, age, BMI band (by label) and the single prediction; it decides "diseased" above 0. So the
true rates over subjects and seeds are normal tails. In the truth `equal` no subgroup differs from
another; in `unequal` each axis moves the mean. With several sets a part of the set (by label,
common; and by band) is added. Fewer than three replicates: the truth is that of these very
classifiers, as their intervals say.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from cmrcls.fairness.disparities import Tables, measure
from cmrcls.fairness.display.tables import plain
from cmrcls.fairness.extremes import RATES
from cmrcls.fairness.study import RUN_COLUMNS, Arm, Study
from cmrcls.fairness.subgroups import divisions
from cmrdata.axes import AXES

SHARES = {"sex": (0.52, 0.48), "age_band": (0.3, 0.45, 0.25), "bmi_band": (0.4, 0.42, 0.18)}
# truth -> axis -> by how much its bands move the mean score of the diseased; half of it the
# healthy's, the other way
MOVED = {
    "equal": {"sex": (0, 0), "age_band": (0, 0, 0), "bmi_band": (0, 0, 0)},
    "unequal": {"sex": (-0.15, 0.15), "age_band": (0.25, 0, -0.25), "bmi_band": (0, 0, 0.4)},
}
# mean of the diseased, of the healthy; share of MOVED; sd of the single prediction and of the seed
ARMS = {
    "Real": (0.9, -0.9, 1.0, 0.8, 0.3),
    "Real + 4000": (1.0, -0.95, 0.6, 0.5, 0.2),
}
SUBJECT, SUBJECT_ARM, SEED_BAND, SET, SET_BAND = 1.0, 0.5, 0.1, 0.2, 0.07
RESAMPLES = 400
GIVEN = 0.2  # share of studies with an interval, below which its coverage isn't shown
FEWEST = 40  # studies of a setting that is shown
SHOWN = ("balanced_accuracy", "sensitivity", "selection_rate")  # single rates that are judged
GAPS = {
    "balanced_accuracy": ("gap", "balanced_accuracy"),
    "demographic_parity": ("selection gap", "selection_rate"),
}
Truth = dict[str, dict[str, np.ndarray]]  # axis -> rate -> (K,)


class Setting(NamedTuple):
    """What a simulated study is like."""

    subjects: int
    prevalence: float
    seeds: int
    sets: int  # of the second arm; 0: all its seeds share one
    truth: str

    @property
    def name(self) -> str:
        sets = f"-{self.sets}-sets" if self.sets else ""
        return f"{self.truth}-{self.subjects}-{self.prevalence:g}-{self.seeds}-seeds{sets}"


SETTINGS = [
    *(Setting(1500, 0.2, seeds, 0, "equal") for seeds in (4, 8, 1, 3)),
    Setting(1500, 0.2, 4, 5, "equal"),
    Setting(1500, 0.05, 8, 0, "equal"),
    Setting(5096, 0.05, 8, 0, "equal"),
    *(Setting(1500, 0.2, seeds, 0, "unequal") for seeds in (4, 8, 1)),
    Setting(1500, 0.2, 4, 5, "unequal"),
    Setting(5096, 0.05, 8, 0, "unequal"),
]


def simulated(of: Setting, rng: np.random.Generator) -> tuple[Study, dict[str, Truth]]:
    """A study, and the truth by arm, axis and rate; of these classifiers where replicates are too
    few."""
    n = of.subjects
    codes = {axis: rng.choice(len(shares), n, p=shares) for axis, shares in SHARES.items()}
    label = (rng.random(n) < of.prevalence).astype(int)
    label[:2] = 0, 1
    subjects = pd.DataFrame(
        {
            "label": label,
            **{axis: np.array(AXES[axis].values)[code] for axis, code in codes.items()},
        }
    )
    band = 0.0 if of.truth == "equal" and of.seeds < 3 else SEED_BAND
    person, runs, score, truths = SUBJECT * rng.standard_normal(n), [], [], {}
    for arm, facts in ARMS.items():
        single, seed_sd = facts[3:]
        own = SUBJECT_ARM * rng.standard_normal(n)
        sets = max(1, of.sets) if arm != "Real" else 1
        ends = []
        for k in range(sets):
            several = of.sets and arm != "Real"
            of_set = _moves(rng, SET * bool(several), SET_BAND * bool(several))
            for seed in range(of.seeds):
                moved = {
                    key: of_set[key] + part for key, part in _moves(rng, seed_sd, band).items()
                }
                mean = _mean(facts, of.truth, codes, label) + _at(moved, codes, label)
                score.append(mean + person + own + single * rng.standard_normal(n))
                runs.append(
                    (arm, "0" if arm != "Real" else "", str(k) if arm != "Real" else "", str(seed))
                )
                ends.append(moved if of.seeds < 3 else of_set)
        truths[arm] = _truth(of, arm, facts, ends, seed_sd, band)
    scores = np.stack(score, axis=1)
    table = pd.DataFrame(runs, columns=RUN_COLUMNS)
    arms = {name: Arm(k, name) for k, name in enumerate(ARMS)}
    table["arm"] = table.arm.map(arms)
    study = Study(subjects, table, norm.cdf(scores), (scores > 0).astype(float), arms["Real"])
    return study, truths


def _moves(rng: np.random.Generator, common: float, band: float) -> dict[str, np.ndarray]:
    """By label, and by label and band of each axis."""
    moves = {"": common * rng.standard_normal(2)}
    return moves | {
        axis: band * rng.standard_normal((len(shares), 2)) for axis, shares in SHARES.items()
    }


def _at(
    moved: dict[str, np.ndarray], codes: dict[str, np.ndarray], label: np.ndarray | int
) -> np.ndarray:
    return moved[""][label] + sum(moved[axis][code, label] for axis, code in codes.items())


def _mean(
    facts: tuple[float, ...], truth: str, codes: dict[str, np.ndarray], label: np.ndarray | int
) -> np.ndarray:
    moved = sum(np.array(MOVED[truth][axis])[code] for axis, code in codes.items()) * facts[2]
    return np.where(label == 1, facts[0] + moved, facts[1] - moved / 2)


def _truth(
    of: Setting,
    arm: str,
    facts: tuple[float, ...],
    ends: list[dict[str, np.ndarray]],
    seed_sd: float,
    band: float,
) -> Truth:
    """The true rates of an arm in all subgroups."""
    cells = pd.MultiIndex.from_product(
        [range(len(s)) for s in SHARES.values()], names=list(SHARES)
    ).to_frame(index=False)
    share = np.prod([np.array(s)[cells[axis]] for axis, s in SHARES.items()], axis=0)
    codes = {axis: cells[axis].to_numpy() for axis in SHARES}
    given_sets = 1 <= of.sets < 3 and arm != "Real"
    variance = SUBJECT**2 + SUBJECT_ARM**2 + facts[3] ** 2
    if of.seeds >= 3:
        variance += seed_sd**2 + 3 * band**2
        if of.sets >= 3 and arm != "Real":
            variance += SET**2 + 3 * SET_BAND**2
    rates = {}
    for label, name in ((1, "sensitivity"), (0, "false_positive_rate")):
        means = [_mean(facts, of.truth, codes, label)]
        if of.seeds < 3 or given_sets:
            means = [means[0] + _at(moved, codes, label) for moved in ends]
        rates[name] = np.mean([norm.cdf(mean / np.sqrt(variance)) for mean in means], axis=0)
    p = of.prevalence
    rates["selection_rate"] = p * rates["sensitivity"] + (1 - p) * rates["false_positive_rate"]
    rates["balanced_accuracy"] = (rates["sensitivity"] + 1 - rates["false_positive_rate"]) / 2
    bands = pd.DataFrame({axis: np.array(AXES[axis].values)[code] for axis, code in codes.items()})
    found: Truth = {}
    for part in divisions(bands):
        weight = share * (part.codes == np.arange(len(part.names))[:, None])
        found[str(part.axis)] = {rate: weight @ rates[rate] / weight.sum(axis=1) for rate in RATES}
    return found


def judged(study: Study, truth: dict[str, Truth], *, seed: int) -> pd.DataFrame:
    """Every interval and test beside the truth: quantity, subgroups, value (true), estimate, low,
    high, p, and of gaps the observed value and what equal subgroups would give."""
    tables = measure(study, resamples=RESAMPLES, permutations=RESAMPLES, seed=seed)
    found = Tables(*map(plain, tables))
    real, more = ARMS
    names = {str(part.axis): part.names for part in divisions(study.subjects)}
    rows = [*_rates(found.subgroups, truth, names)]
    for row in found.disparities.itertuples():
        if row.measure not in GAPS:
            continue
        name, rate = GAPS[row.measure]
        of = {arm: truth[arm][row.axis][rate] for arm in ARMS}
        value, k = {arm: float(np.ptp(true)) for arm, true in of.items()}, len(of[real])
        rows.append(
            {
                "quantity": f"{name}, {row.arm}",
                "subgroups": k,
                "value": value[row.arm],
                "estimate": row.corrected,
                "low": row.low,
                "high": row.high,
                "p": row.p,
                "observed": row.difference,
                "expected": row.expected,
                "between_sd": row.between_sd,
                "true_sd": of[row.arm].std(ddof=1),
            }
        )
        if row.arm == more:
            rows.append(
                {
                    "quantity": f"{name} change",
                    "subgroups": k,
                    "value": value[more] - value[real],
                    "estimate": row.change,
                    "low": row.change_low,
                    "high": row.change_high,
                }
            )
            if value[real] > 1e-6:
                rows.append(
                    {
                        "quantity": f"{name} reduction",
                        "subgroups": k,
                        "value": 1 - value[more] / value[real],
                        "low": row.reduction_low,
                        "high": row.reduction_high,
                    }
                )
    for row in found.worst.itertuples():
        of = {arm: float(truth[arm][row.axis]["balanced_accuracy"].min()) for arm in ARMS}
        k = len(truth[real][row.axis]["balanced_accuracy"])
        rows.append(
            {
                "quantity": f"worst, {row.arm}",
                "subgroups": k,
                "value": of[row.arm],
                "estimate": row.corrected,
                "low": row.low,
                "high": row.high,
                "p": row.p,
                "observed": row.observed,
                "expected": row.expected,
            }
        )
        if row.arm == more:
            rows.append(
                {
                    "quantity": "worst change",
                    "subgroups": k,
                    "value": of[more] - of[real],
                    "estimate": row.change,
                    "low": row.change_low,
                    "high": row.change_high,
                }
            )
    for row in found.tests.itertuples():
        k = len(truth[real][row.axis]["balanced_accuracy"])
        rows.append({"quantity": f"test of {row.measure}", "subgroups": k, "p": row.p})
    return pd.DataFrame(rows)


def _rates(
    table: pd.DataFrame, truth: dict[str, Truth], names: dict[str, list[str]]
) -> list[dict[str, object]]:
    """Single rates, and differences between arms."""
    rows: list[dict[str, object]] = []
    real, more = ARMS
    for row in table[table.metric.isin(SHOWN)].to_dict("records"):
        place = names[row["axis"]].index(row["subgroup"])
        true = {arm: truth[arm][row["axis"]][row["metric"]][place] for arm in ARMS}
        about = {"subgroups": len(names[row["axis"]])}
        rows.append(
            {
                **about,
                "quantity": f"{row['metric']}, {row['arm']}",
                "value": true[row["arm"]],
                "estimate": row["mean"],
                "low": row["low"],
                "high": row["high"],
            }
        )
        if row["arm"] == more:
            rows.append(
                {
                    **about,
                    "quantity": f"{row['metric']} change",
                    "value": true[more] - true[real],
                    "estimate": row["change"],
                    "low": row["change_low"],
                    "high": row["change_high"],
                }
            )
    return rows


def summed(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one study, per quantity and number of subgroups: counts and sums that can be added up over
    studies."""
    given = rows.low.notna()
    rows = rows.reindex(columns=[*rows.columns, *(c for c in ("p",) if c not in rows)])
    rows = rows.assign(
        studies=1.0,
        numbers=1.0,
        given=given.astype(float),
        held=(given & (rows.low <= rows.value + 1e-9) & (rows.value <= rows.high + 1e-9)).astype(
            float
        ),
        below=(given & (rows.high < rows.value - 1e-9)).astype(float),
        above=(given & (rows.low > rows.value + 1e-9)).astype(float),
        width=np.where(given, rows.high - rows.low, 0.0),
        tested=rows.p.notna().astype(float),
        significant=(rows.p <= 0.05).astype(float),
    )
    means = [
        column
        for column in ("value", "estimate", "observed", "expected", "between_sd", "true_sd")
        if column in rows
    ]
    keys = ["quantity", "subgroups"]
    counted = [
        "numbers",
        "given",
        "held",
        "below",
        "above",
        "width",
        "tested",
        "significant",
        *means,
    ]
    return rows.groupby(keys, sort=False)[counted].sum(min_count=1).assign(studies=1).reset_index()


def run(of: Setting, *, studies: int, done: int, out: Path, every: int = 10) -> None:
    """Adds studies `done` to `studies` of a setting to the file."""
    parts = []
    for k in range(done, studies):
        rng = np.random.default_rng([k, abs(hash_of(of.name))])
        study, truth = simulated(of, rng)
        with redirect_stderr(StringIO()):  # bars
            parts.append(summed(judged(study, truth, seed=k)).assign(setting=of.name))
        if len(parts) == every or k == studies - 1:
            _add(out, pd.concat(parts, ignore_index=True))
            parts = []


def hash_of(name: str) -> int:
    import zlib

    return zlib.crc32(name.encode())


def _add(out: Path, more: pd.DataFrame) -> None:
    from cmrdata.disk import write_atomic

    whole = pd.concat([pd.read_csv(out), more], ignore_index=True) if out.exists() else more
    columns = whole.columns.drop(["setting", "quantity", "subgroups"])
    whole = (
        whole.groupby(["setting", "quantity", "subgroups"], sort=False)[list(columns)]
        .sum(min_count=1)
        .reset_index()
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, whole.to_csv(index=False, float_format="%.8g"))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Per setting, quantity and number of subgroups: coverage of the intervals that were given, and
    so on."""
    n, given = table.numbers, table.given.where(table.given > 0)
    result = table[["setting", "quantity", "subgroups", "studies"]].assign(
        given=table.given / n,
        coverage=table.held / given,
        below=table.below / given,
        above=table.above / given,
        width=table.width / given,
        significant=table.significant / table.tested.where(table.tested > 0),
    )
    return result.assign(
        **{
            c: table[c] / n
            for c in ("value", "estimate", "observed", "expected", "between_sd", "true_sd")
            if c in table
        }
    )


def page(table: pd.DataFrame) -> str:
    """The tables of docs/results/coverage.md: a line per setting and number of subgroups."""
    rates = shown(table).set_index(["setting", "subgroups", "quantity"])
    real, more = ARMS

    def cell(at: tuple[str, int], *quantities: str, of: str = "coverage") -> str:
        few = [of == "coverage" and rates["given"].get((*at, one), 0) < GIVEN for one in quantities]
        told = [
            np.nan if is_few else rates[of].get((*at, one), np.nan)
            for one, is_few in zip(quantities, few, strict=True)
        ]
        return " / ".join("-" if pd.isna(value) else f"{value:.3f}".lstrip("0") for value in told)

    lines = [
        "| truth, subjects, prevalence, seeds, sets | studies | subgroups | gap above 0 | selection gap above 0 | worst p <= .05 | observed gap | corrected gap | gap change | worst |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    further = [
        "| truth, subjects, prevalence, seeds, sets | studies | subgroups | true gap | observed | corrected | gap held | selection gap held | gap change held | worst held | worst change held |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    single = [
        "| truth, subjects, prevalence, seeds, sets | studies | balanced accuracy | sensitivity | selection rate | balanced accuracy, change |",
        "|---|---|---|---|---|---|",
    ]
    for setting, part in table.groupby("setting", sort=False):
        studies = int(part.studies.max())
        if studies < FEWEST:
            continue
        about = f"| {setting.replace('-', ', ', 3).replace('-', ' ')} | {studies} "
        several = sorted(set(part.subgroups) - {1})
        for k in several:
            at = (str(setting), int(k))
            gaps = [
                cell(at, f"gap, {real}", f"gap, {more}", of=of)
                for of in ("significant", "observed", "estimate", "coverage", "value")
            ]
            selection = [
                cell(at, f"selection gap, {real}", f"selection gap, {more}", of=of)
                for of in ("significant", "coverage")
            ]
            worst = [
                cell(at, f"worst, {real}", f"worst, {more}", of=of)
                for of in ("significant", "coverage")
            ]
            if str(setting).startswith("equal"):
                lines.append(
                    f"{about}| {k} | {gaps[0]} | {selection[0]} | {worst[0]} | {gaps[1]} | {gaps[2]} | {cell(at, 'gap change')} | {worst[1]} |"
                )
            else:
                further.append(
                    f"{about}| {k} | {gaps[4]} | {gaps[1]} | {gaps[2]} | {gaps[3]} | {selection[1]} | {cell(at, 'gap change')} | {worst[1]} | {cell(at, 'worst change')} |"
                )
        whole = (str(setting), 1)
        of_rates = " | ".join(cell(whole, f"{rate}, {real}", f"{rate}, {more}") for rate in SHOWN)
        single.append(f"{about}| {of_rates} | {cell(whole, 'balanced_accuracy change')} |")
    return "\n".join([*lines, "", *further, "", *single])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent.parent / "docs" / "results" / "coverage.csv",
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        print(page(pd.read_csv(options.out)))
        return
    if options.show:
        with pd.option_context(
            "display.width", 250, "display.max_rows", None, "display.max_columns", None
        ):
            print(shown(pd.read_csv(options.out)).round(3).to_string(index=False))
        return
    for of in SETTINGS:
        if not of.name.startswith(options.only):
            continue
        before = (
            pd.read_csv(options.out).query("setting == @of.name")
            if options.out.exists()
            else pd.DataFrame()
        )
        done = int(before.studies.max()) if len(before) else 0
        start = time.perf_counter()
        run(of, studies=options.studies, done=done, out=options.out)
        print(
            f"{of.name}: {max(0, options.studies - done)} studies, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
