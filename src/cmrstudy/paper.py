"""What the paper prints (Skorupko et al. 2024, Tables 1 and 2), to stand beside our numbers on the
same cohort."""

from __future__ import annotations

import pandas as pd

GAP_REDUCTION = 0.37  # of |male - female| from Real to Real + 4000 (section 3.2)

TABLE1 = (  # axis, cell, kind, FID in Inception features, sd; 500 images a side
    ("sex", "Male - Male", "Real - Real", 30.39, 0.34),
    ("sex", "Male - Female", "Real - Real", 44.20, 0.88),
    ("sex", "Female - Female", "Real - Real", 30.37, 0.17),
    ("sex", "Male - Male", "Real - Synthetic", 82.01, 1.95),
    ("sex", "Male - Female", "Real - Synthetic", 81.93, 1.03),
    ("sex", "Female - Female", "Real - Synthetic", 79.56, 2.82),
    ("age_band", "50s - 50s", "Real - Real", 29.86, 0.21),
    ("age_band", "50s - 70s", "Real - Real", 33.47, 0.53),
    ("age_band", "70s - 70s", "Real - Real", 32.02, 0.12),
    ("age_band", "50s - 50s", "Real - Synthetic", 76.31, 0.99),
    ("age_band", "50s - 70s", "Real - Synthetic", 85.68, 2.22),
    ("age_band", "70s - 70s", "Real - Synthetic", 84.51, 1.28),
    ("bmi_band", "Normal - Normal", "Real - Real", 29.14, 0.27),
    ("bmi_band", "Normal - Obese", "Real - Real", 41.98, 0.34),
    ("bmi_band", "Obese - Obese", "Real - Real", 33.25, 0.33),
    ("bmi_band", "Normal - Normal", "Real - Synthetic", 78.11, 1.09),
    ("bmi_band", "Normal - Obese", "Real - Synthetic", 88.52, 2.23),
    ("bmi_band", "Obese - Obese", "Real - Synthetic", 83.51, 1.45),
    ("diagnosis", "Healthy - Healthy", "Real - Real", 30.51, 0.09),
    ("diagnosis", "Healthy - HF", "Real - Real", 40.43, 0.37),
    ("diagnosis", "HF - HF", "Real - Real", 48.90, 0.19),
    ("diagnosis", "Healthy - Healthy", "Real - Synthetic", 83.55, 0.91),
    ("diagnosis", "Healthy - HF", "Real - Synthetic", 95.80, 2.16),
    ("diagnosis", "HF - HF", "Real - Synthetic", 79.86, 0.72),
)

ARMS = ("Real", "Real + 2000", "Real + 4000", "Synthetic")
TABLE2 = (  # subgroup, prevalence, then balanced accuracy and sd over 8 seeds of each of ARMS
    ("Overall", 0.0108, 0.740, 0.025, 0.748, 0.025, 0.752, 0.019, 0.683, 0.014),
    ("Female", 0.0056, 0.649, 0.019, 0.655, 0.045, 0.664, 0.027, 0.612, 0.046),
    ("Male", 0.0156, 0.733, 0.030, 0.722, 0.025, 0.717, 0.024, 0.637, 0.023),
    ("Normal BMI", 0.0060, 0.668, 0.026, 0.704, 0.045, 0.716, 0.031, 0.630, 0.039),
    ("Overweight", 0.0096, 0.764, 0.029, 0.745, 0.037, 0.742, 0.043, 0.694, 0.045),
    ("Obese", 0.0243, 0.765, 0.033, 0.747, 0.027, 0.750, 0.032, 0.689, 0.042),
    ("Age < 60", 0.0037, 0.770, 0.056, 0.817, 0.063, 0.812, 0.054, 0.762, 0.042),
    ("Age 60-70", 0.0106, 0.737, 0.022, 0.733, 0.025, 0.736, 0.020, 0.674, 0.033),
    ("Age > 70", 0.0193, 0.721, 0.036, 0.721, 0.037, 0.730, 0.033, 0.649, 0.020),
)


def table1() -> pd.DataFrame:
    """Table 1, long: axis, cell, kind, fid, sd."""
    return pd.DataFrame(TABLE1, columns=["axis", "cell", "kind", "fid", "sd"])


def table2() -> pd.DataFrame:
    """Table 2, long: subgroup, prevalence, arm, balanced_accuracy, sd."""
    rows = [
        (subgroup, prevalence, arm, *cells[2 * k : 2 * k + 2])
        for subgroup, prevalence, *cells in TABLE2
        for k, arm in enumerate(ARMS)
    ]
    return pd.DataFrame(rows, columns=["subgroup", "prevalence", "arm", "balanced_accuracy", "sd"])
