"""Which training rows an epoch draws; cmrcls.arms.Arms asks its sampling."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrcls.mitigation.groups import check_domains
from cmrdata.subjects import balancing_weights


class Uniform:
    """Every training row of the arm is drawn alike; other samplings inherit from it and change
    something."""

    def check_arm(self, synthetic: int | str) -> None:
        """Raise ValueError, before anything is read, for an arm that this sampling doesn't fit.

        `synthetic` is the arm's: 0, a number, or "only".
        """

    def chances(self, train: pd.DataFrame) -> npt.NDArray[np.float64] | None:
        """(rows,) the chance of each training row to be drawn, with replacement; None for passes
        over all rows in random order."""
        return None

    def replacement(
        self, synthetic: pd.DataFrame, train: pd.DataFrame, *, preferred: pd.Series, seed: int
    ) -> npt.NDArray[np.int64] | None:
        """Choose real rows that the arm gets instead of its synthetic ones.

        Args:
            synthetic: the rows that it would get.
            train: real training rows.
            preferred: whether a row, by index label, is to be taken before others.
            seed: of the choice.

        Returns:
            Index labels in `train`; None where the arm gets the synthetic rows.
        """
        return None


class GroupBalanced(Uniform):
    """Every group is drawn equally often, rare ones with replacement (Buda et al. 2018; Idrissi et
    al. 2022)."""

    check = staticmethod(check_domains)

    def chances(self, train: pd.DataFrame) -> npt.NDArray[np.float64] | None:
        return balancing_weights(train)


class Matched(Uniform):
    """The control of the arm with N synthetic images: it gets none, but as many more draws of real
    rows of the same groups."""

    def check_arm(self, synthetic: int | str) -> None:
        if synthetic in (0, "only"):
            raise ValueError(
                f"synthetic={synthetic} with mitigation=oversample_matched: it repeats as many "
                "real images as another arm has synthetic ones; give that arm's number, or choose "
                "mitigation=oversample"
            )

    def replacement(
        self, synthetic: pd.DataFrame, train: pd.DataFrame, *, preferred: pd.Series, seed: int
    ) -> npt.NDArray[np.int64] | None:
        return matched_rows(synthetic.group, train, preferred=preferred, seed=seed)


def matched_rows(
    wanted: pd.Series, train: pd.DataFrame, *, preferred: pd.Series, seed: int
) -> npt.NDArray[np.int64]:
    """Choose as many real rows of each group as there are synthetic images of it.

    Within a group each row is taken equally often, within one. A group without rows is named in a
    warning and left out.

    Args:
        wanted: the group of each synthetic image.
        train: real training rows.
        preferred: whether a row, by index label, comes first; a group without any such row takes
            its others.
        seed: of the choice.

    Returns:
        Index labels in `train`.
    """
    rng, chosen, missing = np.random.default_rng(seed), [np.empty(0, np.int64)], []
    for group, count in wanted.value_counts().sort_index().items():
        every = train.index[train.group == group]
        own = every[preferred[every].to_numpy()]
        pool = (own if len(own) else every).to_numpy()
        if not len(pool):
            missing.append(f"{group} ({count})")
            continue
        passes = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        chosen.append(np.concatenate(passes)[:count])
    if missing:
        warnings.warn(
            f"mitigation=oversample_matched: no real training image of {', '.join(missing)}; as "
            "many are left out",
            stacklevel=4,
        )
    return np.concatenate(chosen)
