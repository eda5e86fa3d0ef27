"""Lightning's switches, debug=, callbacks=, ckpt_path= and weights=: as their users know them, or
refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

import train
from cmrstudy import runs
from cmrstudy.checkpoints import fingerprint_of
from support import ROOT

CONF = ROOT / "conf"


# the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def command(place, monkeypatch) -> Iterator[Callable[..., Path]]:
    """Runs train.py with overrides in this process, below one folder; gives the run's folder."""
    monkeypatch.chdir(place)

    def go(experiment: str, *overrides: str) -> Path:
        small = [
            "preset=smoke",
            "preset.runs=runs",
            f"preset.base={ROOT / 'assets' / 'phantom-base'}",
            "cohort.subjects=120",
            "trainer.accelerator=cpu",
            "trainer.enable_progress_bar=false",
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(
                "train", [f"experiment={experiment}", *small, *overrides], return_hydra_config=True
            )
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        train.main.__wrapped__(cfg)
        return Path(cfg.run_dir)

    yield go


def test_a_dry_run_tells_that_it_is_one_and_leaves_nothing(command, place, capsys):
    run_dir = command("classifier", "+trainer.fast_dev_run=true", "mitigation=last_layer")
    assert (
        "dry run (trainer.fast_dev_run): 1 batch of everything ran; nothing is kept"
        in capsys.readouterr().out
    )
    assert not run_dir.exists() and [path.name for path in place.iterdir()] == ["data"]
    assert not command("classifier", "debug=fast").exists()


@pytest.mark.parametrize(
    "switch", ["limit_val_batches=0", "max_steps=3", "check_val_every_n_epoch=9"]
)
def test_without_a_validation_the_last_weights_predict_and_it_is_said(command, capsys, switch):
    run_dir = command(
        "classifier", "data.batch_size=16", f"trainer.{switch}", f"name={switch.split('=')[0]}"
    )
    facts = runs.facts(run_dir)
    assert (
        "no validation chose an epoch, so the last weights are kept as best.ckpt and predict"
        in capsys.readouterr().out
    )
    assert (
        facts["best_val_balanced_accuracy"] != facts["best_val_balanced_accuracy"]
        and facts["best_epoch"] == 0
    )
    kept = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert fingerprint_of(kept["state_dict"]) == fingerprint_of(last["state_dict"])
    assert (run_dir / "predictions.csv").exists() and facts["steps"] == (
        3 if "max" in switch else 4
    )


def test_a_plateau_waits_for_validated_epochs(command):
    """Every second epoch is validated; the rate halves after two of those without a better loss,
    not before."""
    run_dir = command(
        "classifier",
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_epochs=6",
        "model.lr=0",
        "model.plateau_patience=1",
        "name=plateau",
        "model.backbone=test_convnext",
        "model.width=64",
        "trainer.limit_train_batches=1",
    )
    plateau = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["lr_schedulers"][
        0
    ]
    assert plateau["last_epoch"] == 3


def test_a_classifier_starts_from_another_and_its_facts_say_from_which(command):
    first = command("classifier", "name=first")
    run_dir = command("classifier", "name=second", f"weights={first}", "model.lr=0")
    facts = runs.facts(run_dir)
    state = [
        torch.load(path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for path in (first, run_dir)
    ]
    given, kept = (
        {key: value for key, value in of.items() if "running" not in key and "tracked" not in key}
        for of in state
    )
    assert fingerprint_of(given) == fingerprint_of(kept)  # lr=0: what it started from
    inner = {
        key.removeprefix("network."): value
        for key, value in state[0].items()
        if key.startswith("network.")
    }
    assert facts["weights_fingerprint"] == fingerprint_of(inner)
    with pytest.raises(
        ValueError, match="its weights don't fit the network of these settings: .*instead of"
    ):
        command("classifier", "name=third", f"weights={first}", "model.width=16")


@pytest.mark.slow
def test_a_controlnet_starts_from_another_in_every_form(command):
    first, classifier = command("controlnet", "name=control"), command("classifier", "name=other")
    mark = runs.facts(first)["fingerprint"]
    still = ["model.lr=0", "model.weight_decay=0"]
    for k, source in enumerate((first, first / "controlnet", first / "checkpoints" / "last.ckpt")):
        run_dir = command("controlnet", f"name=control-{k}", f"weights={source}", *still)
        assert runs.facts(run_dir)["fingerprint"] == mark  # lr=0: what it started from
        assert k == 2 or runs.facts(run_dir)["weights_fingerprint"] == mark
    with pytest.raises(ValueError, match="it holds another kind of network"):
        command("controlnet", "name=wrong", f"weights={classifier / 'checkpoints' / 'best.ckpt'}")
    with pytest.raises(FileNotFoundError, match="no ControlNet's run or folder"):
        command("controlnet", "name=wrong", f"weights={classifier}")
    with pytest.raises(FileNotFoundError, match="no classifier's run"):
        command("classifier", "name=wrong-classifier", f"weights={first}")


@pytest.mark.parametrize(
    "debug",
    [
        pytest.param("limit", marks=pytest.mark.slow),
        pytest.param("overfit", marks=pytest.mark.slow),
        pytest.param("profile", marks=pytest.mark.slow),
    ],
)
def test_a_debug_run_stays_away_from_the_studys_folders(command, debug, place):
    run_dir = command("classifier", f"debug={debug}", "data.batch_size=8")
    assert run_dir.parts[:4] == ("runs", "debug", debug, "classifier") and runs.facts(run_dir)
    assert not (place / "runs" / "classifier").exists()
    assert (run_dir / "fit-profile.txt").exists() == (debug == "profile")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["base", "controlnet"])
def test_generator_and_base_run_dry_and_keep_nothing(command, place, experiment):
    before = sorted(place.glob("runs/**/*"))
    command(experiment, "trainer.fast_dev_run=true")
    assert sorted(place.glob("runs/**/*")) == before


def test_a_base_takes_no_weights(command):
    for key in ("weights", "ckpt_path"):
        with pytest.raises(
            ValueError, match="experiment=base trains two networks, one after the other"
        ):
            command("base", f"{key}=runs/x", "name=refused")
