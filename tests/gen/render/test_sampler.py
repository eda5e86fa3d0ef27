"""The sampler's settings: checked once, told by name, the same in a preview as in a set."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import cmrgen.training.preview
from cmrgen.render.sampler import Sampler, reused
from cmrgen.training.latents import Latents
from cmrgen.training.preview import PreviewGrid
from support import ROOT

CONF = ROOT / "conf"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"name": "euler"}, "sampler.name is 'euler'; it takes ddim, dpmpp, unipc"),
        ({"guides": "promt"}, "sampler.guides is 'promt'; it takes prompt or both"),
        ({"steps": 0}, "sampler.steps is 0; give a whole number of at least 1"),
        ({"steps": 2.5}, "sampler.steps is 2.5"),
        ({"reuse": True}, "sampler.reuse is True"),
        ({"guidance": "high"}, "sampler.guidance is high; give a number"),
        ({"guidance": float("nan")}, "sampler.guidance is nan"),
        ({"interval": [0.8, 0.2]}, r"sampler.interval is \[0.8, 0.2\]; give two shares"),
        ({"interval": [0, 1, 1]}, "give two shares"),
        ({"interval": 0.5}, "sampler.interval is 0.5; give two shares"),
        ({"interval": ["a", 1]}, "give two shares"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_takes(setting, told):
    with pytest.raises(ValueError, match=told):
        Sampler(**setting)


def test_a_set_records_every_setting_but_guidance_which_its_plan_has_row_by_row():
    usual = {"interval": [0.0, 1.0], "guides": "prompt", "reuse": 1}
    solver = {"sampler": "unipc", "scheduler": "UniPCMultistepScheduler", "steps": 8}
    assert Sampler().settings() == {**solver, **usual} == Sampler(guidance=7.0).settings()
    odd = Sampler(steps=3, guides="both", interval=[0, 0.5], reuse=2).settings()
    assert odd == {**solver, "steps": 3, "interval": [0.0, 0.5], "guides": "both", "reuse": 2}
    # equal settings have equal bytes in settings.json, however they were typed
    assert json.dumps(odd) == json.dumps(
        Sampler(steps=3, guides="both", interval=(0.0, 0.5), reuse=2).settings()
    )
    names = {field.name for field in dataclasses.fields(Sampler)} - {"name", "guidance"}
    assert names <= set(odd)  # a new setting is recorded, too


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("unipc", Sampler("unipc", 8, 2.0, "both")),
        ("dpmpp", Sampler("dpmpp", 10, 2.0, "both")),
        ("ddim", Sampler("ddim", 20, 4.0, "prompt")),
    ],
)
def test_each_choice_is_what_it_says(choice, wanted):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert instantiate(compose("generate", [f"sampler={choice}"]).sampler) == wanted


def test_a_preview_is_drawn_with_the_whole_setting(tmp_path, monkeypatch):
    asked: list[dict] = []

    def images(masks: torch.Tensor, **how) -> torch.Tensor:
        asked.append(how)
        return torch.zeros(masks.shape, dtype=torch.uint8)

    monkeypatch.setattr(
        cmrgen.training.preview, "Generator", lambda **_: SimpleNamespace(images=images)
    )
    data = Latents.__new__(Latents)
    data.store = SimpleNamespace(
        masks=np.ones((2, 2, 16, 16), np.uint8), images=np.ones((2, 2, 16, 16), np.uint8)
    )
    data.pictured = pd.DataFrame({"prompt": ["a"] * 2})
    module = SimpleNamespace(base=SimpleNamespace(pixels=16, release=lambda _: None), best=None)
    trainer = SimpleNamespace(
        datamodule=data,
        sanity_checking=False,
        is_global_zero=True,
        current_epoch=0,
        global_step=0,
        loggers=[],
        is_last_batch=True,
        state=SimpleNamespace(fn="fit"),
    )
    sampler = Sampler("ddim", 3, guidance=5.0, guides="both", interval=(0, 0.5), reuse=2)
    PreviewGrid(tmp_path, sampler=sampler).on_validation_epoch_end(trainer, module)
    assert asked and all(
        how["sampler"] is sampler and set(how["guidance"]) == {5.0} for how in asked
    )


def test_a_sampler_travels_as_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampler().steps = 0  # type: ignore[misc]
    assert Sampler(interval=[0.2, 0.2]).interval == (0.2, 0.2)
    assert Sampler(steps=1, reuse=1, interval=[0, 1]).interval == (0.0, 1.0)
    with pytest.raises(ValueError, match="give two shares"):
        Sampler(interval=[-0.1, 1])
    with pytest.raises(ValueError, match="give two shares"):
        Sampler(interval=[0, 1.1])


def test_a_scheduler_has_the_bases_schedule_without_its_class():
    scheduler = Sampler("ddim").scheduler({"_class_name": "DDPMScheduler", "beta_start": 0.002})
    assert type(scheduler).__name__ == "DDIMScheduler" and scheduler.config.beta_start == 0.002


class Counting(nn.Module):
    """Says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: int) -> tuple[int, int]:
        self.calls += 1
        return self.calls, x


def test_deep_blocks_run_in_every_nth_step_and_anew_for_other_rows() -> None:
    parts = {name: Counting() for name in ("outer", "deep", "mid", "up", "last", "control")}
    unet = SimpleNamespace(
        down_blocks=[parts["outer"], parts["deep"]],
        mid_block=parts["mid"],
        up_blocks=[parts["up"], parts["last"]],
    )
    own = lambda x: "own"  # noqa: E731
    parts["mid"].forward = own
    said = []
    with reused(unet, parts["control"], every=2) as begin:
        for step, rows in enumerate((4, 4, 4, 2, 2)):
            begin(rows)
            said.append(parts["deep"](step))
            for name in ("outer", "up", "last", "control"):
                parts[name](step)
            assert parts["mid"](step) == "own"
    # steps 0, 2 and, as the rows change, 3
    assert said == [(1, 0), (1, 0), (2, 2), (3, 3), (3, 3)]
    calls = {name: part.calls for name, part in parts.items()}
    assert calls == {"outer": 5, "deep": 3, "mid": 0, "up": 3, "last": 5, "control": 3}
    assert parts["mid"].forward is own
    assert all("forward" not in vars(part) for name, part in parts.items() if name != "mid")
