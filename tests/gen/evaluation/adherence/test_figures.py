"""Pictures show every band and limit, and what is undefined stays visible."""

from __future__ import annotations

import numpy as np
from matplotlib.text import Text

from cmrgen.evaluation.adherence import contraction, diversity, scores
from cmrgen.evaluation.adherence import figures as pictures
from support.judged_images import judged, people


def test_pictures_show_every_band_and_limit() -> None:
    table = people(144)
    rows = scores.by_group(judged(table, wrong=0.1), judged(table, wrong=0.3, seed=1))
    counts = scores.confusion_counts(judged(table), judged(table, wrong=0.3))
    spread = {("synthetic", diversity.SEEDS): diversity.spread(np.empty(0), [], len)}
    drawn = [
        pictures.band_figure(rows),
        pictures.confusion_figure(counts),
        pictures.diversity_figure(diversity.diversity_table(spread).table, spread),
    ]
    words = [" | ".join(text.get_text() for text in figure.findobj(Text)) for figure in drawn]
    assert all(
        name in words[0]
        for name in ("All images", "Age > 70", "Obese", "Diseased", "Diagnosis as asked")
    )
    assert (
        "Diagnosis, synthetic" in words[1]
        and "100 %\n72" in words[1]
        and "nothing to compare" in words[2]
    )
    real, fake = (
        contraction.area_changes(judged(table)),
        contraction.area_changes(judged(table, wrong=0.5)),
    )
    limits = pictures.bland_altman(
        {"real": real, "synthetic": fake}, contraction.agreement(real, fake).table, unit="%"
    )
    assert "synthetic images (n = 144)" in " | ".join(
        text.get_text() for text in limits.findobj(Text)
    )


def test_bars_have_whiskers_and_an_unknown_axis_stays_visible() -> None:
    real, fake = (judged(people(72, unknown=("bmi",)), wrong=wrong) for wrong in (0.0, 0.3))
    table, groups = scores.adherence_table(real, fake).table, scores.by_group(real, fake)
    figure = pictures.adherence_bars(table, groups)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert texts.count("not known in this cohort") == 1 and "BMI accuracy\nn = 0" in texts
    whiskers = [lines.get_segments() for lines in figure.axes[0].collections]
    whole = groups[groups.axis == "all"].set_index("metric")
    low, high = whiskers[1][0][:, 0]
    assert (low, high) == (whole.synthetic_low["dice"], whole.synthetic_high["dice"])
