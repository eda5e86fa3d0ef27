"""What a classifier run shows at its end: confusion, calibration and scores of validation and test;
sums over subjects only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmrcls.fairness import metrics
from cmrcls.fairness.metrics import BINS, Predicted, balanced_accuracy, reliability
from cmrdata.axes import AXES, known_axes
from cmrstudy.dashboards import log_figure, log_table
from cmrstudy.figures import COLOURS, GREY, STYLE, WIDTH, matrix

FEWEST = 10  # subjects in a bin of the calibration: the mean of fewer would tell about persons
# W&B filters by letters, digits and _ alone
SPELLED = {"<60": "below_60", "60-70": "60_to_70", "70+": "from_70"}


def classifier_boards(loggers: Sequence[Any], predictions: pd.DataFrame, *, step: int = 0) -> None:
    """Tables scores, confusion and calibration, their picture per disease, and `headline` as
    metrics at the trainer's `step`.

    `predictions` of one run, as cmrcls.arms.prediction_table gives them; its subjects stay here.
    """
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank:
        return
    tables = {
        "scores": scores(predictions),
        "confusion": confusion(predictions),
        "calibration": calibration(predictions),
    }
    for name, table in tables.items():
        log_table(loggers, name, table)
    diseases = list(dict.fromkeys(predictions.disease))
    for disease in diseases:
        picture = figure(*(table[table.disease == disease] for table in tables.values()))
        name = "confusion_calibration" if len(diseases) == 1 else f"confusion_calibration_{disease}"
        log_figure(loggers, name, picture, shows="numbers", step=step)
    for logger in loggers:
        logger.log_metrics(headline(predictions), step=step)
        logger.save()


def scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row per disease and split: n, positives and the metrics of cmrcls.fairness.metrics; NaN
    where a class is absent."""
    table = []
    for disease, split, rows in _splits(predictions):
        columns = (rows[name].to_numpy()[:, None] for name in ("predicted", "probability"))
        predicted = Predicted(rows.label.to_numpy(int), *columns)
        values = {name: float(value[0]) for name, value in metrics.all_scores(predicted).items()}
        table.append(
            {
                "disease": disease,
                "split": split,
                "n": len(rows),
                "positives": int(predicted.label.sum()),
                **values,
            }
        )
    return pd.DataFrame(table)


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows disease, split, label, predicted, n; combinations that do not occur have n = 0."""
    return pd.DataFrame(
        [
            {
                "disease": disease,
                "split": split,
                "label": label,
                "predicted": predicted,
                "n": int(((rows.label == label) & (rows.predicted == predicted)).sum()),
            }
            for disease, split, rows in _splits(predictions)
            for label in (0, 1)
            for predicted in (0, 1)
        ]
    )


def calibration(predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows disease, split, bin (its lower edge), n, probability (mean), positives (share).

    Bins are `cmrcls.fairness.metrics.reliability`'s; of those with fewer than FEWEST
    subjects only n is given.
    """
    tables = []
    for disease, split, rows in _splits(predictions):
        mean, share, n = reliability(rows.label.to_numpy(int), rows.probability.to_numpy(float))
        enough = n >= FEWEST
        tables.append(
            pd.DataFrame(
                {
                    "disease": disease,
                    "split": split,
                    "bin": np.arange(BINS) / BINS,
                    "n": n,
                    "probability": np.where(enough, mean, np.nan),
                    "positives": np.where(enough, share, np.nan),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def headline(predictions: pd.DataFrame) -> dict[str, float]:
    """test_balanced_accuracy, and per subgroup test_balanced_accuracy_sex_F ... _bmi_obese, so that
    a dashboard can show Table 2 while the sweep runs; with several diseases
    hf_test_balanced_accuracy ... . NaN where a class is absent."""
    values, several = {}, predictions.disease.nunique() > 1
    for disease, split, rows in _splits(predictions):
        if split != "test":
            continue
        name = f"{disease}_test_balanced_accuracy" if several else "test_balanced_accuracy"
        bands = [(axis, band) for axis in known_axes(rows) for band in AXES[axis].values]
        values[name] = balanced_accuracy(rows.label.to_numpy(), rows.predicted.to_numpy())
        for axis, band in bands:
            of = rows[rows[axis] == band]
            key = f"{name}_{axis.removesuffix('_band')}_{SPELLED.get(band, band)}"
            values[key] = balanced_accuracy(of.label.to_numpy(), of.predicted.to_numpy())
    return values


def figure(scores: pd.DataFrame, confusion: pd.DataFrame, calibration: pd.DataFrame) -> Figure:
    """Of one disease: a row per split, its confusion matrix beside its calibration curve."""
    names = ["healthy", "diseased"]
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(WIDTH, 0.2 + 2.9 * len(scores)), layout="constrained")
        panels = picture.subplots(len(scores), 2, squeeze=False)
        for (left, right), score in zip(panels, scores.itertuples(), strict=True):
            of = confusion[confusion.split == score.split].pivot(
                index="label", columns="predicted", values="n"
            )
            matrix(left, of.to_numpy(float), names, names)
            left.set(xlabel="predicted", ylabel="true")
            left.set_title(
                f"{score.split}: balanced accuracy {score.balanced_accuracy:.3f}", fontsize=10
            )
            bins = calibration[calibration.split == score.split].dropna()
            right.plot([0, 1], [0, 1], ":", color=GREY)
            right.plot(bins.probability, bins.positives, "o-", color=COLOURS[0])
            right.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share diseased")
            right.set_title(
                f"{score.positives:,} of {score.n:,} diseased, Brier {score.brier:.3f}", fontsize=10
            )
    return picture


def _splits(predictions: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Disease, split and rows of each."""
    for (disease, split), rows in predictions.groupby(["disease", "split"], sort=False):
        yield str(disease), str(split), rows
