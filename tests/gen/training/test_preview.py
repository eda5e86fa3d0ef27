"""Previews show both diagnoses and both sexes, and at Stable Diffusion's size wait for a
checkpoint; no work before a look."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

import cmrgen.training.preview
from cmrdata.prepare import prepare
from cmrgen.base.load import load_base
from cmrgen.render.sampler import Sampler
from cmrgen.tasks import draw_set, train_controlnet
from cmrgen.training.latents import PICTURED, Latents, pictured_rows
from cmrgen.training.preview import PreviewGrid
from cmrstudy.experiment import Experiment
from support.composing import composed
from support.fake_cohort import FakeCohort


def people(*kinds: tuple[str | None, int, int]) -> pd.DataFrame:
    """An index with (sex, label, how many) in turn."""
    rows = [(sex, label) for sex, label, count in kinds for _ in range(count)]
    return (
        pd.DataFrame(rows, columns=["sex", "label"])
        .astype({"label": "Int64"})
        .rename(index=lambda k: k + 100)
    )


@pytest.mark.parametrize("first", [0, 1])
def test_one_case_among_hundreds_is_shown(first):
    few, many = ("F", 1, 1), ("M", 0, 300)
    index = people(*([few, many], [many, few])[first])
    shown = pictured_rows(index, 6)
    assert (
        len(shown) == 6
        and shown.index.is_unique
        and set(shown.label) == {0, 1}
        and set(shown.sex) == {"F", "M"}
    )
    pd.testing.assert_frame_equal(shown, index.loc[shown.index])  # the store's own rows


@pytest.mark.parametrize(
    "kinds", [[("F", 0, 9), ("F", 1, 9), ("M", 0, 9), ("M", 1, 9)], [(None, 0, 40), (None, 1, 1)]]
)
def test_every_kind_there_is_has_its_turn(kinds):
    shown = pictured_rows(people(*kinds), 6)
    assert len(shown) == 6 and set(zip(shown.sex, shown.label, strict=True)) == {
        (sex, label) for sex, label, _ in kinds
    }


def test_fewer_than_asked_for_are_all_shown_and_none_is_no_error():
    assert len(pictured_rows(people(("F", 0, 2), ("M", 1, 1)), 6)) == 3
    assert pictured_rows(people(), 6).empty


def test_what_is_pictured_is_embedded_beforehand_and_validates(tiny_base, tmp_path):
    base = load_base(weights=str(tiny_base))
    data = Latents(cohort=FakeCohort(), root=str(tmp_path), base=base, val_images=1)
    data.prepare_data()
    data.setup()
    assert len(data.pictured) == PICTURED and set(data.pictured.split) == {"val"}
    assert set(data.pictured.diagnosis) == {"healthy", "hf"} and set(data.pictured.sex) == {
        "F",
        "M",
    }
    assert set(data.pictured.prompt) <= set(base.contexts)


def test_at_a_large_size_nothing_is_drawn_before_a_checkpoint(tmp_path, monkeypatch):
    drawn: list[int] = []
    monkeypatch.setattr(
        PreviewGrid, "draw", lambda self, trainer, module: drawn.append(trainer.global_step)
    )
    kept = tmp_path / "last.ckpt"
    trainer = SimpleNamespace(
        datamodule=Latents.__new__(Latents),
        sanity_checking=False,
        is_global_zero=True,
        global_step=0,
        state=SimpleNamespace(fn="fit"),
        checkpoint_callbacks=[SimpleNamespace(path=kept)],
    )

    def module(pixels: int) -> SimpleNamespace:
        return SimpleNamespace(base=SimpleNamespace(pixels=pixels), eval=lambda: None)

    preview = PreviewGrid(tmp_path, sampler=Sampler())
    preview.on_validation_epoch_end(trainer, module(64))
    assert drawn == [0]  # a small one costs nothing
    preview.on_validation_epoch_end(trainer, module(512))
    assert drawn == [0]
    trainer.global_step = 5
    preview.on_fit_end(trainer, module(512))  # it was the last validation
    preview.on_fit_end(trainer, module(512))
    assert drawn == [0, 5]
    kept.touch()
    preview.on_validation_epoch_end(trainer, module(512))
    preview.on_fit_end(trainer, module(512))
    assert drawn == [0, 5, 5]
    kept.unlink()
    trainer.state.fn = "validate"  # which writes no checkpoint
    preview.on_validation_epoch_end(trainer, module(512))
    assert drawn == [0, 5, 5, 5]


# what is looked at before gigabytes are read


@pytest.fixture
def never(monkeypatch):
    """Weights may not be read."""

    def refuse(*_, **__):
        pytest.fail("weights were read")

    monkeypatch.setattr("cmrgen.training.controlnet.load_base", refuse)
    monkeypatch.setattr("cmrgen.render.generator.load_base", refuse)


def test_a_wrong_root_is_noticed_before_weights_are_read(tmp_path, never):
    cfg = composed(
        "train",
        "experiment=controlnet",
        "cohort=acdc",
        "base=sd21",
        f"cohort.root={tmp_path}/nowhere",
        f"data_root={tmp_path}/data",
    )
    with pytest.raises(FileNotFoundError, match="no patient folders"):
        train_controlnet(Experiment(cfg, tmp_path / "run", build=instantiate))


@pytest.mark.parametrize("base", ["base=sd21", "base=small"])
def test_missing_weights_are_noticed_before_the_cohort_is_prepared(base, tmp_path):
    cfg = composed(
        "train",
        "experiment=controlnet",
        "cohort=acdc",
        base,
        f"base.weights={tmp_path}/nowhere",
        f"cohort.root={tmp_path}/nowhere",
        f"data_root={tmp_path}/data",
    )
    with pytest.raises(FileNotFoundError, match="base.weights="):
        train_controlnet(Experiment(cfg, tmp_path / "run", build=instantiate))


def test_another_cohort_is_noticed_before_it_is_prepared_or_weights_are_read(tmp_path, never):
    run = tmp_path / "controlnet"
    for path, text in {
        "finished.json": "{}",
        "run.json": '{"settings": {"cohort.name": "ukbb"}}',
        "controlnet/generator.json": '{"cohort": "ukbb-1-2", "cohort_fingerprint": "other"}',
    }.items():
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(text)
    cfg = composed(
        "generate", f"generator={run}", f"data_root={tmp_path}/data", "cohort.subjects=40"
    )
    launched = SimpleNamespace(first=True)
    with pytest.raises(
        ValueError, match="was trained on cohort ukbb, and this command's is phantom"
    ):
        draw_set(Experiment(cfg, tmp_path / "set", build=instantiate), launched)
    assert not (tmp_path / "data").exists()
    (run / "run.json").unlink()
    with pytest.raises(
        ValueError, match=r"was trained on ukbb-1-2 \(other\), but this run's cohort is phantom-"
    ):
        draw_set(Experiment(cfg, tmp_path / "set", build=instantiate), launched)


def test_a_store_knows_the_scans_pixels_and_says_so(tmp_path, capsys):
    from cmrdata.cohorts.acdc import ACDC
    from cmrdata.cohorts.phantom.challenge_trees import write_acdc
    from cmrdata.cohorts.phantom.cohort import Phantom

    write_acdc(
        Phantom(subjects=8, hf_share=0.5, seed=3),
        tmp_path / "acdc",
        count=8,
        pixels=64,
        mm=3.0,
        slices=5,
        frames=8,
    )
    how = {"root": tmp_path / "acdc", "salt_root": tmp_path / "data", "max_rejected": 1.0}
    made = prepare(ACDC(pixels=64, **how), tmp_path / "data")
    assert np.allclose(made.index.mm, 3.0)
    assert (
        "8 of 8 subjects are enlarged, up to 1.2 times; with cohort.pixels=56 nobody is"
        in capsys.readouterr().out
    )
    prepare(ACDC(pixels=55, **how), tmp_path / "data")
    assert "3.00 mm (55 px of 165 mm): none is enlarged" in capsys.readouterr().out


def test_a_first_picture_comes_before_the_first_step_and_leaves_the_network_as_it_was(
    tmp_path, monkeypatch, capsys
):
    class Network(torch.nn.Module):
        def __init__(self, pixels: int) -> None:
            super().__init__()
            self.frozen, self.trained = torch.nn.Dropout().eval(), torch.nn.Dropout()
            self.base = SimpleNamespace(pixels=pixels, release=lambda _: None)
            self.best = None

    drawn = []
    made = SimpleNamespace(
        images=lambda masks, **_: drawn.append(1) or torch.full(masks.shape, 77, dtype=torch.uint8)
    )
    monkeypatch.setattr(cmrgen.training.preview, "Generator", lambda **_: made)
    data = Latents.__new__(Latents)
    pictures = np.full((3, 2, 16, 16), 200, np.uint8)
    data.store = SimpleNamespace(masks=np.ones_like(pictures), images=pictures)
    data.pictured = pd.DataFrame({"prompt": ["a"] * 3})
    preview = PreviewGrid(tmp_path, sampler=Sampler(steps=1, guides="both"))

    def begin(network: Network, **changed: object) -> None:
        trainer = {
            "datamodule": data,
            "global_step": 0,
            "fast_dev_run": 0,
            "is_global_zero": True,
            "is_last_batch": False,
            "current_epoch": 0,
            "loggers": [],
            "state": SimpleNamespace(fn="fit"),
        }
        preview.on_train_start(SimpleNamespace(**(trainer | changed)), network)

    network = Network(16)
    begin(network)
    assert network.trained.training and network.training and not network.frozen.training
    assert (tmp_path / "start.png").exists()
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'start.png'}: masks, real images")
    for changed in ({"global_step": 5}, {"fast_dev_run": 1}, {"is_global_zero": False}):
        begin(network, **changed)
    begin(Network(512))  # minutes
    assert len(drawn) == 1
