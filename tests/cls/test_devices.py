"""As tests/gen/test_devices.py: a classifier leaves nothing on the CPU when it runs on a GPU."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cmrcls.classifier import Classifier

GPU = torch.device("cuda:0")


@pytest.mark.parametrize("labels", [("hf",), ("hf", "diabetes")])
def test_a_classifier_takes_a_batch_from_bytes_to_its_loss(labels):
    # tensors without values cannot be moved: the network is made where it shall be
    stays = patch.object(torch.nn.Module, "to", lambda self, *_, **__: self)
    with FakeTensorMode(), stays:
        with GPU:
            module = Classifier(pixels=64, width=8, labels=labels).train()
        images = torch.zeros(4, 2, 48, 48, dtype=torch.uint8, device=GPU)
        label = torch.zeros((4, len(labels))[: len(labels)], dtype=torch.long, device=GPU)
        group = torch.zeros(4, dtype=torch.long, device=GPU)
        seen = {"image": module.network_input(images), "label": label, "group": group}
        finite = patch.object(torch.Tensor, "__bool__", lambda _: True)  # there is no value to ask
        with finite:
            for stage in ("training", "validation"):
                loss, logits = module._loss(seen, stage)
                assert loss.device == GPU and logits.device == GPU
