"""Each sentence of the audit, word by word: the public card quotes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation.privacy import verdicts
from cmrgen.evaluation.privacy.scores import (
    MIN_TAIL,
    Called,
    _quantile,
    _weighted_mean,
    _weights,
    single_copies,
)
from cmrgen.evaluation.privacy.verdicts import audit_verdicts, membership_verdict
from cmrgen.publish.model_card import FEW

LOOKED_AT = (
    "of the 5 % of images nearest to a training image 7.3 are the set's, 4.2 by chance at equal mix of groups, an alarm "
    "from 9 on, p = 0.02; C_T -1.50, chance 0 ± 1, p = 0.07; one image of each of 1,200 source subjects, 2,000 held-out "
    "people"
)


def table_of(*, alarms: tuple[bool, bool] = (False, False), **changes: Any) -> pd.DataFrame:
    near = {
        **{"measure": "sight", "test": "nearest", "value": 7.3, "by_chance": 4.2},
        **{"alarm_from": 9.0, "p": 0.02, "alarm": alarms[0]},
        **{"images": 1500, "sources": 1200, "held_out": 2000, **changes},
    }
    apart = {**near, "test": "nearest without the source", "p": changes.get("apart", 0.05)}
    ct = {**near, "test": "C_T", "value": -1.5, "p": 0.07, "alarm": alarms[1]}
    copies = {**near, "test": "copies", "value": changes.get("copies", 0.0), "p": 0.031}
    return pd.DataFrame([near, apart, ct, copies])


GROUPS = pd.DataFrame(
    {
        "measure": "sight",
        "group": ["all", "F/hf", "M/hf", "M/healthy", "F/healthy"],
        "p_holm": [np.nan, 0.05, 0.001, 0.0501, 0.01],
        "few": [False, False, True, False, False],
    }
)
SOURCES = pd.DataFrame(
    [
        {
            **{"measure": "sight", "n": 1200, "nearest_is_source": 0.125},
            **{"nearest_is_source_low": 0.1, "nearest_is_source_high": 0.15},
            **{"others_beyond": 0.05, "others_beyond_low": np.nan, "others_beyond_high": np.nan},
        }
    ]
)


def said(tests: pd.DataFrame, sources: pd.DataFrame = SOURCES) -> list[str]:
    return audit_verdicts(tests, GROUPS, sources)


def test_a_set_without_an_alarm():
    assert said(table_of()) == [
        "By what is seen: no evidence that the set lies nearer to the training images than unseen people do "
        f"({LOOKED_AT}). A few copies in a large set would not show in this.",
        "By what is seen: no image is called a copy of a training image (each of 1,500 against 2,000 real images of "
        "unseen or other people; smallest corrected p 0.031, called up to .01). An image that differs from its original "
        "as two people do is not found this way.",
        "By what is seen: the nearest training image is one of the subject whose mask and prompt were used in 12.5 %, "
        "95 % interval 10.0-15.0 %; 5.0 % are nearer to somebody else than 95 % of unseen people are.",
    ]


NEARER = (
    "By what is seen: the set lies nearer to the training images than unseen people do "
    f"({LOOKED_AT}; Holm's correction over four tests)."
)
WHY = " Copies do that, and so do images with less noise than real ones or of fewer kinds of heart."


def test_alarms_say_whether_the_sources_own_images_make_them_and_in_which_groups():
    apart = " Without the source subjects' own images this is {} so (p = {}). By itself in F/hf, F/healthy."
    both = said(table_of(alarms=(True, True)))[0]
    assert both == NEARER + apart.format("also", "0.05") + WHY
    assert said(table_of(alarms=(True, False), apart=0.0501))[0] == (
        NEARER + apart.format("not", "0.05") + WHY
    )
    assert said(table_of(alarms=(False, True)))[0] == NEARER + WHY
    harmless = GROUPS.assign(p_holm=1.0)
    text = audit_verdicts(table_of(alarms=(True, False)), harmless, SOURCES)[0]
    assert "By itself in" not in text


def test_what_could_not_be_tested_is_said():
    first, second, third = said(table_of(images=0))
    assert first == (
        "By what is seen: not tested whether the set lies nearer to the training images, since no held-out person has "
        "its groups."
    )
    none = said(table_of(copies=np.nan))[1]
    assert none == (
        "By what is seen: single copies were not looked for (2,000 real images to compare with)."
    )
    assert len(said(table_of(), SOURCES.assign(n=0))) == 2


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1.0, "1 image is called a copy of training images"),
        (2.0, "2 images are called copies of training images"),
    ],
)
def test_copies_are_counted(count, words):
    assert said(table_of(copies=count))[1] == (
        f"By what is seen: {words} (each of 1,500 against 2,000 real images of unseen or other people; at most 1 % of "
        "them by chance)."
    )


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.0, "p < .0001"), (9.9e-5, "p < .0001"), (1e-4, "p = 0.0001"), (0.5, "p = 0.5")],
)
def test_a_p_is_two_digits_or_a_bound(p, words):
    assert verdicts._p(p) == words


def test_small_numbers_of_people_are_not_told():
    assert verdicts._people(FEW) == "10" and verdicts._people(FEW - 1) == "fewer than 10"
    assert "one image of each of fewer than 10 source subjects" in said(table_of(sources=9))[0]


@pytest.mark.parametrize("p", [0.05, 0.0501])
def test_an_attack_is_an_alarm_up_to_five_per_cent(p):
    row = {"auc": 0.55, "auc_low": 0.5, "auc_high": 0.6, "p": p, "members": 1000, "held_out": 900}
    told = (
        "AUC 0.550, 95 % interval 0.500 to 0.600, chance .5, p = 0.05; 1,000 training and 900 held-out people, as many of "
        "each group"
    )
    if p == 0.05:
        wanted = (
            f"By the generator's loss: training images can be told from held-out ones ({told}). Whoever has the "
            "generator can tell, better than by guessing, who taught it."
        )
    else:
        wanted = (
            f"By the generator's loss: no evidence that training images can be told from held-out ones ({told}). A "
            "stronger attack, or one on single people, could."
        )
    assert membership_verdict(row) == wanted


@pytest.mark.parametrize("count", [MIN_TAIL - 1, MIN_TAIL])
def test_a_hundred_real_images_are_enough_to_call_copies(count):
    unseen = np.linspace(-2, -1, count)
    called = single_copies(np.array([-1.5, 3.0]), unseen)
    if count < MIN_TAIL:
        assert called == Called(
            None,
            pytest.approx(np.nan, nan_ok=True),
            99,
            "only 99 real images to compare with, single copies are not called (that needs 100).",
        )
        return
    edge = np.quantile(unseen, 0.95)
    beyond = unseen[unseen > edge] - edge
    assert len(beyond) == 5
    tail = 0.05 * (1 + (3.0 - edge) / beyond.sum()) ** -5.0
    rank = (1 + (unseen >= -1.5).sum()) / 101
    # Benjamini and Hochberg of two
    assert called.p == pytest.approx(2 * tail) and 2 * tail < 0.01 < rank
    assert called.copies.tolist() == [False, True] and called.against == 100 and not called.note


def test_tau_is_the_95th_percentile_at_the_sets_mix_of_groups():
    held_out = np.array(["a"] * 4 + ["b"] * 2 + ["c"])
    weights = _weights(np.array(["a", "b", "b", "b", "d"]), held_out)
    assert weights.tolist() == pytest.approx([1 / 16] * 4 + [3 / 8] * 2 + [0])
    assert _weights(np.array(["d"]), held_out).tolist() == pytest.approx([1 / 7] * 7)
    even = np.full(20, 0.05)
    values = np.random.default_rng(0).permutation(20).astype(float)
    assert _quantile(values, even) == 18  # beyond it lies one of twenty
    assert _quantile(np.array([3.0, 1, 2]), np.array([0.04, 0.9, 0.06])) == 2
    hits = np.array([True, False])
    assert _weighted_mean(hits, np.array([1.0, 3.0])) == 0.25
    assert np.isnan(_weighted_mean(hits, np.zeros(2)))
