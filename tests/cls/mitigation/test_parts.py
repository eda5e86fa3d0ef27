"""Loss and heads from plain settings: a checkpoint of any mitigation loads without Hydra and
without a word about its mitigation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from cmrcls.classifier import Classifier
from cmrcls.mitigation.groups import Group
from cmrcls.mitigation.losses import GroupDRO
from cmrcls.mitigation.parts import build_part
from support import ROOT

CONF = ROOT / "conf" / "mitigation"
NONE = yaml.safe_load((CONF / "none.yaml").read_text())
ALL = {
    path.stem: {**NONE, **yaml.safe_load(path.read_text())} for path in sorted(CONF.glob("*.yaml"))
}
GROUPS: list[Group] = [
    {"name": "F/healthy", "domain": "F", "weight": 0.5},
    {"name": "F/hf", "domain": "F", "weight": 2.0},
    {"name": "M/hf", "domain": "M", "weight": 1.0},
]


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_loads_with_its_loss_and_heads(name: str, tmp_path: Path) -> None:
    parts = {key: ALL[name][key] for key in ("loss", "heads")}
    model = Classifier(width=8, pixels=16, groups=GROUPS, **parts)
    for weight in model.loss.buffers():
        weight.copy_(torch.tensor([0.1, 0.2, 0.7]))  # as it is after some steps
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    loaded = Classifier.load_from_checkpoint(
        tmp_path / "one.ckpt", map_location="cpu", weights_only=True
    )
    assert type(loaded.loss) is type(model.loss) and type(loaded.heads) is type(model.heads)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items()
    )
    assert getattr(loaded.loss, "eta", None) == parts["loss"].get("eta")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"_target_": "nowhere.Loss"}, "_target_ nowhere.Loss can't be imported"),
        ({"_target_": "cmrcls.mitigation.losses.Focal"}, "Focal can't be imported"),
        ({"_target_": "Mean"}, "_target_ Mean can't be imported"),
        ({"_target_": "os.getcwd"}, "_target_ os.getcwd is no torch.nn.Module"),
        ({"_target_": "cmrcls.mitigation.losses.GroupDRO", "power": 2}, "argument 'power'"),
    ],
)
def test_what_is_no_part_is_refused_by_name(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_part(setting, groups=GROUPS)


def test_a_module_is_taken_as_it_is() -> None:
    loss = GroupDRO(GROUPS, eta=0.5)
    model = Classifier(width=8, pixels=16, loss=loss)
    assert model.loss is loss and "loss" not in model.hparams
