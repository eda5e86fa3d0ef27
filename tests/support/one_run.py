"""One classifier run's predictions, with ids of both shapes."""

from __future__ import annotations

import numpy as np
import pandas as pd


def predictions(subjects: int = 400) -> pd.DataFrame:
    """One run's predictions with ids of both shapes."""
    draws = np.random.default_rng(0)
    label = (draws.random(subjects) < 0.3).astype(int)
    probability = np.clip(0.3 * label + draws.random(subjects) * 0.7, 0, 1)
    return pd.DataFrame(
        {
            "disease": "hf",
            "predicted": (probability > 0.5).astype(int),
            "subject": [f"SYN{k:04d}" if k % 2 else f"S{k:016x}" for k in range(subjects)],
            "source": "phantom",
            "split": np.where(np.arange(subjects) % 2, "val", "test"),
            "label": label,
            "probability": probability,
            "sex": draws.choice(["F", "M"], subjects),
            "age_band": draws.choice(["<60", "60-70", "70+"], subjects),
            "bmi_band": draws.choice(["normal", "overweight", "obese"], subjects),
            "group": "x",
        }
    )
