"""The verdicts of an audit in words: what was tested, with which numbers on how many people, and
what these do not show.

A set's public card quotes these sentences, so they name no person and no small number of people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cmrgen.evaluation.privacy.alarms import ALARM, NEAREST_SHARE
from cmrgen.publish.model_card import FEW

MEASURES = {"sight": "By what is seen", "features": "By features"}


def audit_verdicts(tests: pd.DataFrame, groups: pd.DataFrame, sources: pd.DataFrame) -> list[str]:
    """What the audit says of a whole set.

    Args:
        tests: `privacy.audit.Audit.tests`.
        groups: its `groups`.
        sources: its `sources`.

    Returns:
        Sentences, those by what is seen first.
    """
    verdicts = []
    for measure, rows in tests.groupby("measure", sort=False):
        by_test = rows.set_index("test")
        of_groups = groups[(groups.measure == measure) & (groups.group != "all")]
        sentences = [
            _nearer(by_test, of_groups),
            _copies(by_test.loc["copies"]),
            *_source(sources[sources.measure == measure].iloc[0]),
        ]
        verdicts += [f"{MEASURES[str(measure)]}: {sentence}" for sentence in sentences]
    return verdicts


def membership_verdict(row: Mapping[Any, Any]) -> str:
    """What the attack on all groups together says; `row` of membership.loss_attack."""
    numbers = (
        f"AUC {row['auc']:.3f}, 95 % interval {row['auc_low']:.3f} to {row['auc_high']:.3f}, "
        f"chance .5, {_p(row['p'])}; {row['members']:,} training and {row['held_out']:,} held-out "
        "people, as many of each group"
    )
    if row["p"] <= ALARM:
        return (
            "By the generator's loss: training images can be told from held-out ones "
            f"({numbers}). Whoever has the generator can say better than by guessing who was in "
            "its training set."
        )
    return (
        "By the generator's loss: no evidence that training images can be told from held-out "
        f"ones ({numbers}). A stronger attack, or one on single people, might tell them apart."
    )


def _nearer(rows: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Whether the set lies nearer to the training images than unseen people do: both tests in one
    sentence."""
    near, ct, apart = (rows.loc[name] for name in ("nearest", "C_T", "nearest without the source"))
    if not near.images:
        return (
            "whether the set lies nearer to the training images was not tested, since no held-out "
            "person belongs to any of its groups."
        )
    numbers = (
        f"of the {100 * NEAREST_SHARE:.0f} % of images that lie nearest to a training image, "
        f"{near.value:.1f} are synthetic, {near.by_chance:.1f} would be by chance at an equal mix "
        f"of groups, {near.alarm_from:.0f} or more raise an alarm, {_p(near.p)}; C_T "
        f"{ct.value:.2f}, by chance 0 ± 1, {_p(ct.p)}; one image of each of "
        f"{_people(near.sources)} source subjects, {near.held_out:,} held-out people"
    )
    if not (near.alarm or ct.alarm):
        return (
            "no evidence that the set lies nearer to the training images than unseen people do "
            f"({numbers}). A few copies in a large set would not show in this."
        )
    verdict = (
        "the set lies nearer to the training images than unseen people do "
        f"({numbers}; Holm's correction over four tests)."
    )
    if near.alarm:
        also = "is also" if apart.p <= ALARM else "is not"
        verdict += f" This {also} so without the source subjects' own images ({_p(apart.p)})."
        alarming = groups[(groups.p_holm <= ALARM) & ~groups.few].group
        verdict += f" It is so within {', '.join(alarming)}." if len(alarming) else ""
    return (
        f"{verdict} Copies do that, and so do images with less noise than real ones or of fewer "
        "kinds of heart."
    )


def _copies(row: pd.Series) -> str:
    compared = (
        f"each of {row.images:,} compared with {row.held_out:,} real images of unseen or other "
        "people"
    )
    if row.value != row.value:
        return f"single copies were not looked for ({row.held_out:,} real images to compare with)."
    if not row.value:
        return (
            f"no image is called a copy of a training image ({compared}; the smallest corrected p "
            f"is {row.p:.2g}, and one of .01 or less would be called). An image that differs from "
            "its original as much as two people differ is not found this way."
        )
    which = "images are called copies" if row.value > 1 else "image is called a copy"
    return (
        f"{row.value:.0f} {which} of training images ({compared}; at most 1 % of such calls are "
        "expected to be wrong)."
    )


def _source(row: pd.Series) -> list[str]:
    if not row.n:
        return []
    return [
        "the nearest training image shows the subject whose mask and prompt were used in "
        f"{_percent(row, 'nearest_is_source')}; {_percent(row, 'others_beyond')} are nearer to "
        "somebody else than 95 % of unseen people are."
    ]


def _percent(row: Mapping[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = f", 95 % interval {100 * low:.1f}-{100 * high:.1f} %" if low == low else ""
    return f"{100 * row[name]:.1f} %{interval}"


def _p(p: float) -> str:
    return "p < .0001" if p < 1e-4 else f"p = {p:.2g}"


def _people(count: int) -> str:
    """A number of training subjects; a small one is not given, as on the card."""
    return f"{count:,}" if count >= FEW else f"fewer than {FEW}"
