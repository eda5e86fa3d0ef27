"""How far apart the highest and the lowest subgroup are, without what picking the extremes adds.

Of subgroups that are all alike one is highest and one lowest by chance, and the more and the
smaller they are, the further apart: a gap is biased upwards, a worst subgroup downwards. So each
stands beside what equal subgroups of these sizes give (their labels permuted, DiCiccio et al.
2020), an estimate that would give what was observed once that chance is added, an interval that
holds whichever pair is extreme (Tukey's simultaneous limits below, pointwise limits above), and the
between-group standard deviation less sampling variance (Lum et al. 2022, "double-corrected"). The
coverage is measured in docs/results/coverage.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cmrcls.fairness.levels import Level
from cmrcls.fairness.subgroups import Crossing, Division

Array = npt.NDArray[Any]
# subjects' worth of the common variance in each subgroup's own: one of three subjects has none to
# speak of
PRIOR = 10
PERMUTATIONS_AT_ONCE = 64  # permutations together
SHARES = np.r_[np.linspace(0, 1, 13), 1.25, 1.6, 2.0, 3.0]  # of what subgroups were observed apart
HUGE = 1e300  # a deviation over no error, so that quantiles between two such are numbers too
RATES = ("balanced_accuracy", "sensitivity", "false_positive_rate", "selection_rate")


class Rates(NamedTuple):
    """A rate in K subgroups and A arms as observed (first) and with permuted subgroups (the
    others)."""

    rate: Array  # (1 + B, K, A); NaN where a subgroup lacks what it needs
    variance: Array  # (1 + B, K, A) of chance in subjects
    whole: Array  # (A,) of all subgroups together: what permuted ones scatter around


class Trained(NamedTuple):
    """How much subgroups differ by the chance of training: the variance that it adds to each
    subgroup's mean."""

    variance: float
    draws: Array  # (B,) as it might have been estimated


class Part(NamedTuple):
    """A rate of an arm in K subgroups, with its chance."""

    rate: Array  # (K,)
    variance: Array  # (K,) of chance in subjects
    noise: Array  # (B, K) what equal subgroups would deviate by
    spread: Array  # (B, K) variances with permuted subgroups
    trained: Trained


class Curve(NamedTuple):
    """What is observed on average, for subgroups drawn together or apart by SHARES; both
    (len(SHARES),)."""

    observed: Array  # rises
    true: Array

    def freed(self, observed: Array | float) -> Array:
        """The true values that give what was observed; where equal subgroups give more, theirs."""
        beyond = np.maximum(np.asarray(observed) - self.observed[-1], 0)
        freed: Array = np.interp(observed, self.observed, self.true) + beyond
        return freed


class Gap(NamedTuple):
    """Highest minus lowest subgroup."""

    observed: float
    expected: float  # of equal subgroups of these sizes: the mean
    expected_95: float  # and the 95th percentile
    p: float  # of what is observed, were they equal
    corrected: float  # less the bias of picking extremes
    low: float
    high: float
    between_sd: float  # between subgroups, less chance
    where: int  # the part that has the gap
    # the subgroups' rates (K,) drawn together so far that the gap is `corrected`
    parts: list[Array]
    curve: Curve


class Lowest(NamedTuple):
    """The worst subgroup."""

    observed: float
    expected: float  # the worst of equal subgroups of these sizes: the mean
    p: float  # share of those at least as low
    corrected: float
    rates: Array  # (K,) drawn together so far that the worst is `corrected`
    weight: Array  # (K,) of the subgroups in their centre
    curve: Curve  # of how far the worst lies below the centre

    def freed(self, rates: Array) -> Array:
        """The worst (R,) of drawn rates (R, K), each less the bias, around the centre of its own
        draw."""
        centre = rates @ self.weight
        return centre - self.curve.freed(centre - rates.min(axis=1))


def shuffled(
    decided: Array,
    label: Array,
    divided: Sequence[Division],
    *,
    fold: Array | None,
    permutations: int,
    rng: np.random.Generator,
) -> dict[Crossing, dict[str, Rates]]:
    """RATES by axis, as observed and with subgroups permuted among the subjects.

    Permuted is within true label and fold, for the selection rate within the fold: equal selection
    rates are its null hypothesis, whatever the prevalence. Subjects whose subgroup is unknown stay
    out.

    Args:
        decided: (n, A) share of an arm's runs that call the subject diseased.
        label: (n,) 0 or 1.
        divided: the subjects along each axis.
        fold: (n,) in which a subject was tested; None without folds.
        permutations: how many.
        rng: the source of chance.

    Returns:
        Crossing -> rate -> Rates.
    """
    rates: dict[Crossing, dict[str, Rates]] = {}
    together: dict[bytes, list[Division]] = {}
    for division in divided:
        together.setdefault((division.codes >= 0).tobytes(), []).append(division)
    for alike in together.values():
        rates |= _shuffled_alike(
            decided,
            label.astype(int),
            alike,
            within=np.zeros(len(label), int) if fold is None else fold.astype(int),
            permutations=permutations,
            rng=rng,
        )
    return rates


def _shuffled_alike(
    decided: Array,
    sick: Array,
    divided: Sequence[Division],
    *,
    within: Array,
    permutations: int,
    rng: np.random.Generator,
) -> dict[Crossing, dict[str, Rates]]:
    """`shuffled` of axes along which the same subjects are known, permuted together within label
    and the strata `within` (n,)."""
    known = divided[0].codes >= 0
    decided, sick, within = decided[known], sick[known], within[known]
    codes = np.stack([division.codes[known] for division in divided], axis=1)
    values = np.concatenate([decided, decided**2], axis=1).astype(np.float32)
    cells, cell = np.unique(codes, axis=0, return_inverse=True)
    options: dict[str, Any] = {"permutations": permutations, "rng": rng}
    by_label = _sums(values, 2 * cell + sick, 2 * len(cells), within=2 * within + sick, **options)
    every = _sums(values, cell, len(cells), within=within, **options)
    counts = np.bincount(2 * cell + sick, minlength=2 * len(cells)).reshape(-1, 2)
    rates: dict[Crossing, dict[str, Rates]] = {}
    for division, column in zip(divided, cells.T, strict=True):
        # (K, cells)
        into = (column == np.arange(len(division.names))[:, None]).astype(np.float32)
        of = into @ counts  # (K, 2): healthy, diseased
        tpr, fpr = (
            _rates(np.einsum("kc,bcv->bkv", into, by_label[:, c::2]), of[:, c]) for c in (1, 0)
        )
        rates[division.axis] = {
            "balanced_accuracy": Rates(
                (tpr.rate + 1 - fpr.rate) / 2,
                (tpr.variance + fpr.variance) / 4,
                (tpr.whole + 1 - fpr.whole) / 2,
            ),
            "sensitivity": tpr,
            "false_positive_rate": fpr,
            "selection_rate": _rates(np.einsum("kc,bcv->bkv", into, every), of.sum(axis=1)),
        }
    return rates


def _sums(
    values: Array,
    codes: Array,
    count: int,
    *,
    within: Array,
    permutations: int,
    rng: np.random.Generator,
) -> Array:
    """Sums (1 + B, count, columns) of values (n, columns) by code: as they are, then with subjects
    permuted `within`."""
    n, sums = len(values), np.empty((1 + permutations, count, values.shape[1]), np.float32)
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=count))
    strata = [np.flatnonzero(within == stratum) for stratum in np.unique(within)]
    for start in range(0, 1 + permutations, PERMUTATIONS_AT_ONCE):
        size = min(PERMUTATIONS_AT_ONCE, 1 + permutations - start)
        who = np.empty((size, n), np.int32)
        for places in strata:
            who[:, places] = rng.permuted(np.tile(places.astype(np.int32), (size, 1)), axis=1)
        if start == 0:
            who[0] = np.arange(n)
        rows = np.r_[0, (np.arange(size)[:, None] * n + ends).ravel()]
        pick = sparse.csr_array(
            (np.ones(size * n, np.float32), who[:, order].ravel(), rows), shape=(size * count, n)
        )
        sums[start : start + size] = (pick @ values).reshape(size, count, -1)
    return sums


def _rates(sums: Array, count: Array) -> Rates:
    """From sums (1 + B, K, 2 A) of values and of their squares, and subjects (K,) per subgroup."""
    n = np.where(count > 0, count, np.nan)[:, None].astype(float)
    total, squares = np.split(sums.astype(float), 2, axis=2)
    rate = total / n
    left = np.maximum(squares - n * rate**2, 0)  # around the subgroup's own mean
    freedom = np.nansum(np.maximum(n - 1, 0))
    whole = np.nansum(total, axis=1, keepdims=True) / np.nansum(n)
    common = np.nansum(left, axis=1, keepdims=True) / freedom if freedom else whole * (1 - whole)
    variance = (left + PRIOR * common) / (n - 1 + PRIOR) / n
    return Rates(rate, variance, whole[0, 0])


def part(rates: Rates, arm: int, who: Array, *, trained: Trained, dispersion: float = 1.0) -> Part:
    """A rate of an arm in some subgroups, with its chance.

    Args:
        rates: of all arms and subgroups.
        arm: its place.
        who: positions of the subgroups.
        trained: the chance of training.
        dispersion: by which chance between folds exceeds that of subjects.
    """
    own = rates.variance[0, who, arm] * dispersion
    spread = rates.variance[1:, who, arm] * dispersion
    noise = (rates.rate[1:, who, arm] - rates.whole[arm]) * np.sqrt(dispersion)
    return Part(rates.rate[0, who, arm], own, noise, spread, trained)


def trained(
    levels: Sequence[Level], scores: Array, *, draws: int, rng: np.random.Generator
) -> Trained:
    """How much training moves subgroups apart, from how replicates order them differently.

    A replicate that is better for everybody moves no gap; what is left once that is taken out has
    one variance for all subgroups. Chance of single predictions is in it and in that of subjects:
    to take it off here would leave no variance of training too often, and with it more than 5 % of
    false alarms (docs/results/coverage.md).

    Args:
        levels: of the arm.
        scores: (S, K) its runs' rates.
        draws: how many.
        rng: the source of chance.
    """
    total, variances, k = 0.0, np.zeros(draws), scores.shape[1]
    for level in levels:
        apart = level.parts @ scores
        apart -= apart.mean(axis=1, keepdims=True)
        variance = level.factor * float((apart**2).sum(axis=0).mean()) * k / max(k - 1, 1)
        freedom = max(1, level.freedom * (k - 1))
        total += variance
        variances += variance * rng.chisquare(freedom, draws) / freedom
    return Trained(total, variances)


def gap(parts: Sequence[Part], *, level: float, rng: np.random.Generator) -> Gap:
    """The largest difference between subgroups, of several rates the larger one.

    Args:
        parts: the rates, each in two subgroups or more.
        level: of the interval.
        rng: the source of the chance of training.
    """
    noises = [_noise(one, rng) for one in parts]
    gaps = [float(np.ptp(one.rate)) for one in parts]
    chance = np.max([np.ptp(noise, axis=1) for noise in noises], axis=0)
    apart, above, most, limits = [], [], [], []
    for one, noise in zip(parts, noises, strict=True):
        i, j = np.triu_indices(len(one.rate), 1)
        error = np.sqrt(one.variance[i] + one.variance[j] + 2 * one.trained.variance)
        errors = np.sqrt(one.spread[:, i] + one.spread[:, j] + 2 * one.trained.draws[:, None])
        standard = _over(np.abs(noise[:, i] - noise[:, j]), errors)
        difference = np.abs(one.rate[i] - one.rate[j])
        above.append(standard.max(axis=1))
        most.append(float(_over(difference, error).max()))
        above_error = np.quantile(np.minimum(standard, HUGE), level, axis=0)
        limits.append(float((difference + above_error * error).max()))
        apart.append((difference, error))
    null, observed = np.max(above, axis=0), max(most)
    p = (1 + int((null * (1 + 1e-5) >= observed).sum())) / (1 + len(null))
    reach = float(np.quantile(np.minimum(null, HUGE), level, method="higher"))
    low = max(float((difference - reach * error).max()) for difference, error in apart)
    low = max(0.0, low)
    where = int(np.argmax(gaps))
    widest = parts[where]
    between = widest.rate.var(ddof=1) - (widest.variance + widest.trained.variance).mean()
    curve, moved = _drawn_together(parts, noises, gaps[where])
    corrected = min(float(curve.freed(gaps[where])), gaps[where])
    return Gap(
        gaps[where],
        float(chance.mean()),
        float(np.quantile(chance, 0.95)),
        p,
        max(corrected, low),
        low,
        min(max(limits), 1.0),
        float(np.sqrt(max(0.0, between))),
        where,
        moved,
        curve,
    )


def lowest(one: Part, *, rng: np.random.Generator) -> Lowest:
    """The worst subgroup of a rate of which more is better; `rng` is the source of the chance of
    training."""
    noise, weight = _noise(one, rng), _weight(one)
    centre = float(weight @ one.rate)
    worst, observed = centre + noise.min(axis=1), float(one.rate.min())
    apart = one.rate - centre
    below = [
        float((centre - (centre + share * apart + noise).min(axis=1)).mean()) for share in SHARES
    ]
    curve = Curve(np.array(below), SHARES * -apart.min())
    corrected = max(centre - float(curve.freed(centre - observed)), observed)
    share = (centre - corrected) / -apart.min() if apart.min() < 0 else 0.0
    p = (1 + int((worst <= observed + 1e-9).sum())) / (1 + len(worst))
    return Lowest(
        observed, float(worst.mean()), p, corrected, centre + share * apart, weight, curve
    )


def _noise(one: Part, rng: np.random.Generator) -> Array:
    """(B, K) what equal subgroups deviate by: permuted subjects, to each subgroup's own variance,
    and training."""
    usual = one.spread.mean(axis=0)
    scale = np.sqrt(np.divide(one.variance, usual, out=np.ones_like(usual), where=usual > 0))
    training = np.sqrt(one.trained.variance) * rng.standard_normal(one.noise.shape)
    noise: Array = one.noise * scale + training
    return noise


def _weight(one: Part) -> Array:
    """(K,) of the subgroups in their common mean, the surer ones counting more."""
    variance = one.variance + one.trained.variance
    weight = 1 / variance if (variance > 0).all() else np.ones_like(variance)
    share: Array = weight / weight.sum()
    return share


def _centre(one: Part) -> float:
    return float(_weight(one) @ one.rate)


def _drawn_together(
    parts: Sequence[Part], noises: Sequence[Array], observed: float
) -> tuple[Curve, list[Array]]:
    """What gap is observed of subgroups drawn towards their centre, and the rates that on average
    give this one.

    All are drawn by a common factor; where even equal ones would give more than was observed, it is
    0.
    """
    centres = [_centre(one) for one in parts]

    def rates(share: float) -> list[Array]:
        return [
            centre + share * (one.rate - centre) for one, centre in zip(parts, centres, strict=True)
        ]

    def expected(share: float) -> float:
        gaps = [
            np.ptp(rate + noise, axis=1) for rate, noise in zip(rates(share), noises, strict=True)
        ]
        return float(np.max(gaps, axis=0).mean())

    curve = Curve(np.array([expected(share) for share in SHARES]), SHARES * observed)
    return curve, rates(min(1.0, float(curve.freed(observed)) / observed) if observed > 0 else 0.0)


def _over(above: Array, below: Array) -> Array:
    """A quotient: 0 / 0 is 0, anything else over 0 infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above > 0, above / below, 0.0)
