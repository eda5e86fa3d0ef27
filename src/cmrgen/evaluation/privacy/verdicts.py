"""What an audit says in words: what was tested, the numbers, on how many, and what they do not
show.

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
    """Sentences on a whole set, those by what is seen first; the tables are those of
    privacy.Audit."""
    said = []
    for measure, part in tests.groupby("measure", sort=False):
        rows = part.set_index("test")
        name, of = (
            MEASURES[str(measure)],
            groups[(groups.measure == measure) & (groups.group != "all")],
        )
        said += [
            f"{name}: {text}"
            for text in [
                _nearer(rows, of),
                _copies(rows.loc["copies"]),
                *_source(sources[sources.measure == measure].iloc[0]),
            ]
        ]
    return said


def membership_verdict(row: Mapping[Any, Any]) -> str:
    """A sentence on the attack of all groups together; `row` of membership.attack."""
    told = (
        f"AUC {row['auc']:.3f}, 95 % interval {row['auc_low']:.3f} to {row['auc_high']:.3f}, chance .5, {_p(row['p'])}; "
        f"{row['members']:,} training and {row['held_out']:,} held-out people, as many of each group"
    )
    if row["p"] <= ALARM:
        return (
            f"By the generator's loss: training images can be told from held-out ones ({told}). Whoever has the "
            "generator can tell, better than by guessing, who taught it."
        )
    return (
        f"By the generator's loss: no evidence that training images can be told from held-out ones ({told}). A "
        "stronger attack, or one on single people, could."
    )


def _nearer(rows: pd.DataFrame, groups: pd.DataFrame) -> str:
    """Whether the set lies nearer to the training images than unseen people do: both tests in one
    sentence."""
    near, ct, apart = (rows.loc[name] for name in ("nearest", "C_T", "nearest without the source"))
    if not near.images:
        return "not tested whether the set lies nearer to the training images, since no held-out person has its groups."
    told = (
        f"of the {100 * NEAREST_SHARE:.0f} % of images nearest to a training image {near.value:.1f} are the set's, "
        f"{near.by_chance:.1f} by chance at equal mix of groups, an alarm from {near.alarm_from:.0f} on, {_p(near.p)}; "
        f"C_T {ct.value:.2f}, chance 0 ± 1, {_p(ct.p)}; one image of each of {_people(near.sources)} source subjects, "
        f"{near.held_out:,} held-out people"
    )
    if not (near.alarm or ct.alarm):
        return (
            f"no evidence that the set lies nearer to the training images than unseen people do ({told}). "
            "A few copies in a large set would not show in this."
        )
    words = f"the set lies nearer to the training images than unseen people do ({told}; Holm's correction over four tests)."
    if near.alarm:
        without = "also" if apart.p <= ALARM else "not"
        words += f" Without the source subjects' own images this is {without} so ({_p(apart.p)})."
        many = groups[(groups.p_holm <= ALARM) & ~groups.few].group
        words += f" By itself in {', '.join(many)}." if len(many) else ""
    return f"{words} Copies do that, and so do images with less noise than real ones or of fewer kinds of heart."


def _copies(row: pd.Series) -> str:
    told = f"each of {row.images:,} against {row.held_out:,} real images of unseen or other people"
    if row.value != row.value:
        return f"single copies were not looked for ({row.held_out:,} real images to compare with)."
    if not row.value:
        return (
            f"no image is called a copy of a training image ({told}; smallest corrected p {row.p:.2g}, called up to "
            ".01). An image that differs from its original as two people do is not found this way."
        )
    which = "images are called copies" if row.value > 1 else "image is called a copy"
    return f"{row.value:.0f} {which} of training images ({told}; at most 1 % of them by chance)."


def _source(row: pd.Series) -> list[str]:
    if not row.n:
        return []
    return [
        "the nearest training image is one of the subject whose mask and prompt were used in "
        f"{_percent(row, 'nearest_is_source')}; {_percent(row, 'others_beyond')} are nearer to somebody else than 95 % of "
        "unseen people are."
    ]


def _percent(row: Mapping[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = f", 95 % interval {100 * low:.1f}-{100 * high:.1f} %" if low == low else ""
    return f"{100 * row[name]:.1f} %{interval}"


def _p(p: float) -> str:
    return "p < .0001" if p < 1e-4 else f"p = {p:.2g}"


def _people(count: int) -> str:
    """A number of training subjects; small ones are not told, as on the card."""
    return f"{count:,}" if count >= FEW else f"fewer than {FEW}"
