"""What follows the training: the best epoch predicts. Mitigations that come after the training
inherit from it and change something before or behind the prediction."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cmrcls.arms import Arms, prediction_table


class BestEpoch:
    """The weights of the best epoch predict as they are."""

    def predict(self, module: Any, trainer: Any, data: Arms, *, seed: int) -> pd.DataFrame:
        """Predict validation and test images.

        Args:
            module: a Classifier with the weights of its best epoch; what changes them here is saved
                in best.ckpt.
            trainer: the lightning.Trainer that has fitted it. All its processes come here.
            data: the arm.
            seed: of what is drawn here.

        Returns:
            The table that `cmrcls.arms.prediction_table` describes.
        """
        outputs = trainer.predict(module, datamodule=data)
        return prediction_table(data.index, outputs, labels=data.labels)
