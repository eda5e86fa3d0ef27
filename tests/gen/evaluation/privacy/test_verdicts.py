"""Verdicts say what was tested, on how many, and what it does not show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation.privacy.verdicts import audit_verdicts, membership_verdict
from cmrgen.publish.model_card import FEW
from support.audited import both_measures, harmless


def test_words_say_what_was_tested_and_what_not() -> None:
    rng = np.random.default_rng(4)
    held = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    groups = pd.DataFrame(
        {
            "measure": "sight",
            "group": ["all", "a", "b"],
            "p_holm": [np.nan, 0.001, 0.5],
            "few": False,
        }
    )
    source = pd.DataFrame({"measure": ["sight"], "n": [0]})
    quiet = both_measures(held._replace(person=np.arange(240)), held)
    loud = both_measures(held._replace(similarity=held.similarity + 3), held)
    for table, start in (
        (quiet, "By what is seen: no evidence that"),
        (loud, "By what is seen: the set lies nearer"),
    ):
        said = audit_verdicts(table[table.measure == "sight"], groups, source)
        assert said[0].startswith(start) and "240 source subjects, 240 held-out people" in said[0]
        row = table.iloc[0]
        assert (
            f"{row.value:.1f} are synthetic, {row.by_chance:.1f} would be by chance at an equal mix"
            in said[0]
        )
        assert ("It is so within a." in said[0]) == table.alarm[0]
    few = both_measures(harmless(rng, np.zeros(12), np.arange(36) % 12, sources=3), held)
    assert (
        "one image of each of fewer than 10 source subjects"
        in audit_verdicts(few, groups, source.iloc[[0, 0]].assign(measure=["sight", "features"]))[0]
    )


def quiet_tests(**changes: dict[str, object]) -> pd.DataFrame:
    """A quiet table; `changes` of single tests, by their names with _ for a space."""
    rows = []
    for name in ("nearest", "nearest without the source", "C_T", "copies"):
        row = {
            "measure": "features",
            "test": name,
            "value": 0.0,
            "by_chance": 0.0,
            "alarm_from": 4.0,
            "p": 0.5,
            "alarm": False,
            "images": 30,
            "sources": FEW,
            "held_out": 1200,
        }
        rows.append(row | changes.get(name.replace(" ", "_"), {}))
    return pd.DataFrame(rows)


GROUPS = pd.DataFrame(
    {
        "measure": ["features"] * 5 + ["sight"],
        "group": ["all", "a", "b", "c", "d", "e"],
        "p_holm": [0.001, 0.05, 0.0501, 0.001, np.nan, 0.001],
        "few": [False, False, False, True, False, False],
    }
)
SOURCE = pd.DataFrame([{"measure": "features", "n": 0}])


def verdicts(tests: pd.DataFrame, sources: pd.DataFrame = SOURCE) -> list[str]:
    return audit_verdicts(tests, GROUPS, sources)


def test_a_quiet_set_by_hand() -> None:
    near, copies = verdicts(quiet_tests(copies={"p": 0.034, "images": 1500}))
    assert near == (
        "By features: no evidence that the set lies nearer to the training images than unseen people "
        "do (of the 5 % of images that lie nearest to a training image, 0.0 are synthetic, 0.0 would be "
        "by chance at an equal mix of groups, 4 or more raise an alarm, p = 0.5; C_T 0.00, by chance "
        "0 ± 1, p = 0.5; one image of each of 10 source subjects, 1,200 held-out people). A few copies "
        "in a large set would not show in this."
    )
    assert copies == (
        "By features: no image is called a copy of a training image (each of 1,500 compared with 1,200 "
        "real images of unseen or other people; the smallest corrected p is 0.034, and one of .01 or "
        "less would be called). An image that differs from its original as much as two people differ is "
        "not found this way."
    )


def test_a_set_that_is_nearer_names_its_groups_and_what_its_sources_do_to_it() -> None:
    alarm = {"value": 5.0, "alarm": True, "p": 9.9e-5}
    for p, words in ((0.05, "is also so"), (0.051, "is not so")):
        (near, _) = verdicts(quiet_tests(nearest=alarm, nearest_without_the_source={"p": p}))
        assert f" This {words} without the source subjects' own images (p = {p:.2g})." in near
        assert "raise an alarm, p < .0001;" in near and " It is so within a." in near
        assert near.endswith("or of fewer kinds of heart.")
    only_ranks, _ = verdicts(quiet_tests(C_T={"alarm": True, "p": 1e-4}))
    assert "the set lies nearer" in only_ranks and "p = 0.0001;" in only_ranks
    assert "source subjects' own" not in only_ranks and "within" not in only_ranks


def test_few_sources_are_not_counted_and_no_common_group_is_no_test() -> None:
    assert f"each of {FEW} source" in verdicts(quiet_tests(nearest={"sources": FEW}))[0]
    few = verdicts(quiet_tests(nearest={"sources": FEW - 1}))[0]
    assert f"each of fewer than {FEW} source" in few
    assert verdicts(quiet_tests(nearest={"images": 0}))[0] == (
        "By features: whether the set lies nearer to the training images was not tested, since no "
        "held-out person belongs to any of its groups."
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1.0, "1 image is called a copy of training images (each of 30 compared with"),
        (2.0, "2 images are called copies of training images (each of 30 compared with"),
        (np.nan, "single copies were not looked for (1,200 real images to compare with)."),
    ],
)
def test_copies_are_counted(count: float, words: str) -> None:
    assert verdicts(quiet_tests(copies={"value": count}))[1].startswith(f"By features: {words}")


def test_the_source_is_told_with_its_intervals_where_it_is_known() -> None:
    row = {"measure": "features", "n": 40}
    for name, values in (
        ("nearest_is_source", (0.125, 0.05, 0.251)),
        ("others_beyond", (0.5, np.nan, np.nan)),
    ):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    assert verdicts(quiet_tests(), pd.DataFrame([row]))[2] == (
        "By features: the nearest training image shows the subject whose mask and prompt were used in "
        "12.5 %, 95 % interval 5.0-25.1 %; 50.0 % are nearer to somebody else than 95 % of unseen "
        "people are."
    )


def test_an_attack_alarms_from_a_chance_of_one_in_twenty() -> None:
    row = {"auc": 0.6, "auc_low": 0.55, "auc_high": 0.65, "members": 1000, "held_out": 1001}
    numbers = (
        "(AUC 0.600, 95 % interval 0.550 to 0.650, chance .5, p = {}; 1,000 training and 1,001 held-out "
        "people, as many of each group)"
    )
    assert membership_verdict({**row, "p": 0.05}).startswith(
        f"By the generator's loss: training images can be told from held-out ones {numbers.format(0.05)}. Who"
    )
    assert membership_verdict({**row, "p": 0.051}).startswith(
        "By the generator's loss: no evidence that training images can be told from held-out ones "
        f"{numbers.format(0.051)}. A stronger"
    )
