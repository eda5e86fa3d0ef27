"""How a study is measured, checked before anything is read: what is asked of the bootstrap, the
permutations and the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FEWEST_DRAWS = 40  # of which the 2.5 % outside an interval is one


class Options(NamedTuple):
    """The settings of a report's fairness part."""

    axes: Sequence[str] = ()  # further columns whose values are subgroups
    resamples: int = 2000  # of the bootstrap
    permutations: int = 2000  # of subgroups among subjects
    specificity: float = 0.9  # at which sensitivity is reported
    seed: int = 0  # of all draws

    def check(self) -> None:
        """Raise ValueError naming the first setting that no interval or threshold can be made
        of."""
        check_specificity(self.specificity)
        check_draws(resamples=self.resamples, permutations=self.permutations)


def check_specificity(specificity: float) -> None:
    """Raise ValueError unless the specificity is a share between 0 and 1."""
    if not isinstance(specificity, int | float) or not 0 < specificity < 1:
        raise ValueError(
            f"specificity={specificity}: it takes a share between 0 and 1, such as 0.9"
        )


def check_draws(**counts: int) -> None:
    """Raise ValueError naming a setting that is too small a number of draws for an interval."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < FEWEST_DRAWS:
            raise ValueError(
                f"{name}={count}: it takes a whole number of {FEWEST_DRAWS} or more; 2000 is usual"
            )
