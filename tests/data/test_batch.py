"""The shapes that everybody agrees on."""

from __future__ import annotations

import numpy as np
import pytest

from cmrdata import batch


def test_labels_and_phases_are_those_on_disk() -> None:
    assert batch.LABELS == {"LV": 1, "MYO": 2, "RV": 3} and batch.BACKGROUND == 0
    assert batch.PHASES == ("ED", "ES")


def test_a_pair_becomes_ed_es_ed_and_a_heartbeat_is_refused() -> None:
    pair = np.arange(24).reshape(3, 2, 2, 2)
    stack = batch.ed_es_ed(pair)
    assert stack.shape == (3, 3, 2, 2)
    for channel, phase in enumerate((0, 1, 0)):
        assert np.array_equal(stack[:, channel], pair[:, phase])
    for channels in (1, 3, 12):
        with pytest.raises(ValueError, match=rf"images have {channels} channels, .*cine=null"):
            batch.ed_es_ed(np.zeros((2, channels, 4, 4)))


def test_a_batch_that_is_made_already_is_passed_on() -> None:
    made = {"image": object()}
    assert batch.as_fetched(made) is made
