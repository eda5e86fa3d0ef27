"""Lightning's switches, debug=, callbacks=, ckpt_path= and weights=: as their users know them, or
refused in a sentence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.profilers import SimpleProfiler
from omegaconf import OmegaConf, open_dict
from torch import nn

import train
from cmrstudy import plain_errors, runs, training
from cmrstudy.checkpoints import check_fits, fingerprint_of
from cmrstudy.experiment import Experiment
from cmrstudy.memory import OutOfMemory
from support import ROOT
from support.stub_training import Kill, Killed, Stub, run

CONF = ROOT / "conf"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# what fit does with them


def test_a_step_that_is_too_large_for_the_memory_is_a_paragraph_with_its_remedies(
    tmp_path, monkeypatch
):
    step, done = Stub.training_step, []

    def scarce(self, batch, batch_idx):
        done.append(1)
        if len(done) == 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 18.00 GiB.")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Stub, "training_step", scarce)
    monkeypatch.setattr(Stub, "lighter", "model.width=8 halves it", raising=False)
    with pytest.raises(
        OutOfMemory, match="data.batch_size=2 trainer.accumulate_grad_batches=2 takes"
    ) as caught:
        run(tmp_path)
    assert "model.width=8 halves it; trainer.precision=bf16-mixed" in str(caught.value)
    assert plain_errors.paragraph(caught.value) == str(caught.value)
    run(tmp_path)
    assert len(rows(tmp_path)) > 9  # goes on from the first epoch's checkpoint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_train_batches": 0}, "trainer.limit_train_batches=0: nothing would be trained"),
        ({"max_epochs": 0}, "trainer.max_epochs=0: nothing would be trained"),
        ({"max_steps": 0}, "trainer.max_steps=0: nothing would be trained"),
        (
            {"max_epochs": 2, "min_epochs": 3},
            "trainer.min_epochs=3: more than trainer.max_epochs=2",
        ),
        ({"max_steps": 4, "min_steps": 5}, "trainer.min_steps=5: more than trainer.max_steps=4"),
        (
            {"limit_predict_batches": 1},
            "trainer.limit_predict_batches=1: predictions of some subjects would pass",
        ),
        ({"limit_predict_batches": 0.5}, "trainer.limit_predict_batches=0.5"),
        (
            {"precision": "64-true"},
            "trainer.precision=64-true.*give 32-true, bf16-mixed or 16-mixed",
        ),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches=0: give at least 1"),
        ({"enable_checkpointing": False}, "can't do without checkpoints"),
        ({"barebones": True}, "can't do without checkpoints"),
        ({"logger": False}, "trainer.logger: a run has its own; choose with logger="),
        ({"default_root_dir": "x"}, "trainer.default_root_dir: a run has its own; it is run_dir"),
        ({"profiler": "quick"}, "trainer.profiler=quick: give one of simple, advanced, pytorch"),
        (
            {"limit_train_batches": 0.01},
            "trainer: You requested to check 0.01 of the `train_dataloader`",
        ),
        (
            {"val_check_interval": 300},
            "must be less than or equal to the number of the training batches",
        ),
        ({"accelerator": "gpu"}, "trainer: No supported gpu backend found"),
        (
            {"callbacks": [Timer("00:00:00:01")]},
            "Timer does not work here.*trainer.max_time=00:03:00:00 ends the attempt",
        ),
        (
            {"callbacks": StochasticWeightAveraging(1e-2)},
            "StochasticWeightAveraging does not work here",
        ),
        (
            {"callbacks": {"size": BatchSizeFinder()}},
            "BatchSizeFinder does not work here.*give data.batch_size",
        ),
        (
            {"callbacks": EarlyStopping("val_los")},
            "EarlyStopping watches val_los, which Stub does not log; there are train",
        ),
        (
            {"callbacks": EarlyStopping("val_loss"), "limit_val_batches": 0},
            "limit_val_batches=0 leaves no validation",
        ),
        (
            {"callbacks": LearningRateMonitor(), "loggers": []},
            "trainer: Cannot use `LearningRateMonitor`.*no logger",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_a_run_cannot_have_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, options, message
):
    if options.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(Stub, "logs", ("train_loss", "val_loss", "val_score"), raising=False)
    monkeypatch.setattr(Stub, "training_step", lambda *_: pytest.fail("trained nevertheless"))
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_switches_by_null_are_lightnings_defaults(tmp_path):
    nothing = dict.fromkeys(
        (
            "max_steps",
            "overfit_batches",
            "fast_dev_run",
            "detect_anomaly",
            "limit_train_batches",
            "limit_val_batches",
            "val_check_interval",
            "profiler",
            "callbacks",
            "min_epochs",
        )
    )
    trainer, _, _ = run(tmp_path / "a", **{**nothing, "max_epochs": 1, "max_steps": None})
    plain, _, _ = run(tmp_path / "b", max_epochs=1)
    assert trainer.global_step == plain.global_step == 6 and rows(tmp_path / "a") == rows(
        tmp_path / "b"
    )


def test_an_epoch_without_a_whole_batch_is_an_error_and_no_finished_run(tmp_path, monkeypatch):
    monkeypatch.setattr("support.stub_training.Data.train_dataloader", lambda _: [])
    with pytest.raises(
        ValueError,
        match="nothing was trained, since an epoch holds no whole batch; give a smaller data.b",
    ):
        run(tmp_path)


def test_a_dry_run_reads_and_writes_no_checkpoint(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_end", 9), steps=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    trainer, module, metrics = run(tmp_path, LearningRateMonitor(), fast_dev_run=2)
    assert len(module.seen) == 2 and trainer.global_step == 2 and metrics["val_loss"] > 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_several_validations_in_an_epoch_keep_the_best_of_all(tmp_path):
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])

    class Scored(L.Callback):
        def on_validation_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
            module.log("given", next(scores))

    trainer, _, metrics = run(tmp_path, Scored(), monitor="given", val_check_interval=0.5)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert metrics["best_given"] == 0.9 and (best["epoch"], best["global_step"]) == (0, 6)
    assert trainer.lr_scheduler_configs[1].scheduler.last_epoch == 4  # the plateau counts epochs


def test_validation_by_the_clock_goes_with_early_stopping(tmp_path):
    stop = EarlyStopping("val_loss", patience=2, min_delta=9)
    _, module, metrics = run(tmp_path, stop, val_check_interval={"microseconds": 1})
    assert (
        len(module.seen) == 3 and "Monitored metric val_loss did not improve" in metrics["stopped"]
    )


def test_overfitting_repeats_the_same_batches_and_is_continued_at_an_epochs_beginning(tmp_path):
    _, module, _ = run(tmp_path / "whole", overfit_batches=2)
    assert module.seen[:2] * 4 == module.seen and len(module.seen) == 8
    with pytest.raises(Killed):
        run(tmp_path / "parts", Kill("on_train_batch_end", 5), overfit_batches=2, steps=1)
    _, again, _ = run(tmp_path / "parts", overfit_batches=2)
    assert again.seen == module.seen[4:]


@pytest.mark.parametrize("profiler", ["simple", "advanced", SimpleProfiler()])
def test_a_profile_is_written_into_the_runs_folder(tmp_path, profiler):
    run(tmp_path, profiler=profiler, max_epochs=1)
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


def test_callbacks_are_one_several_or_several_by_name():
    stop, keep = EarlyStopping("a"), ModelCheckpoint()
    assert training.accepted(None) == [] and training.accepted(stop) == [stop]
    assert (
        training.accepted([stop, keep])
        == training.accepted({"a": stop, "b": None, "c": keep})
        == [stop, keep]
    )


def test_batches_that_no_test_uses_are_told(tmp_path, capsys):
    run(tmp_path, limit_test_batches=3, max_epochs=1)
    assert "trainer.limit_test_batches changes nothing" in capsys.readouterr().out


def test_a_batch_is_divided_among_processes_or_refused():
    assert (
        training.batch_share(64, processes=1) == 64 and training.batch_share(64, processes=4) == 16
    )
    with pytest.raises(
        ValueError,
        match="data.batch_size=64 can't be divided among 3 processes; give a multiple of 3",
    ):
        training.batch_share(64, processes=3)


def test_an_early_stop_is_told_with_its_reason_and_a_whole_training_is_not():
    def fitter(**changes: Any) -> Any:
        facts = {
            "max_epochs": 10,
            "max_steps": -1,
            "current_epoch": 10,
            "global_step": 50,
            "callbacks": [],
        }
        return type("Fitter", (), {**facts, **changes})

    assert (
        training.stopped(fitter()) is None
        and training.stopped(fitter(max_epochs=-1, max_steps=50)) is None
    )
    why = type("Why", (), {"stopping_reason_message": "val_loss did not improve"})
    told = training.stopped(fitter(current_epoch=4, callbacks=[object(), why]))
    assert told == "stopped early, after 4 of 10 epochs: val_loss did not improve"
    told = training.stopped(fitter(max_epochs=-1, max_steps=60))
    assert told == "stopped early, after 50 of 60 steps: a callback asked for it"


# other weights


def test_a_training_is_continued_in_another_folder_with_its_best_epoch(tmp_path):
    _, _, short = run(tmp_path / "short", max_epochs=2)
    with pytest.raises(
        ValueError,
        match=r"it stands after 2 epochs, 12 steps, which leaves nothing to train; give more",
    ):
        run(tmp_path / "long", max_epochs=2, ckpt_path=tmp_path / "short")
    assert not (tmp_path / "long" / "checkpoints").exists()
    trainer, module, metrics = run(tmp_path / "long", max_epochs=3, ckpt_path=tmp_path / "short")
    whole, same, _ = run(tmp_path / "whole", max_epochs=3)
    assert (
        fingerprint_of(module.state_dict()) == fingerprint_of(same.state_dict())
        and len(module.seen) == 6
    )
    assert (
        metrics["best_val_score"] == short["best_val_score"]
        and len(metrics["ckpt_fingerprint"]) == 16
    )
    assert (
        torch.load(tmp_path / "long" / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 1
    )
    again, _, resumed = run(tmp_path / "long", max_epochs=3, ckpt_path=tmp_path / "short")
    assert resumed == metrics and again.global_step == 18


def test_weights_are_put_in_once_and_their_fingerprint_stays(tmp_path):
    calls: list[int] = []

    def weights() -> str:
        calls.append(1)
        return "0123456789abcdef"

    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_end", 2), steps=1, weights=weights)
    _, _, metrics = run(tmp_path, weights=weights)
    assert metrics["weights_fingerprint"] == "0123456789abcdef" and len(calls) == 1
    with pytest.raises(ValueError, match="ckpt_path and weights: give the one to continue"):
        run(tmp_path / "both", weights=weights, ckpt_path=tmp_path)


def test_a_checkpoint_of_weights_alone_is_no_training_to_continue(tmp_path):
    trainer, _, _ = run(tmp_path / "a", max_epochs=1)
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(
        ValueError,
        match="holds weights, but no state of a training to continue; weights=.* starts from",
    ):
        run(tmp_path / "b", ckpt_path=tmp_path / "weights.ckpt")
    with pytest.raises(FileNotFoundError, match="ckpt_path=.*nowhere.ckpt"):
        run(tmp_path / "b", ckpt_path=tmp_path / "nowhere.ckpt")
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    other = torch.load(tmp_path / "other.ckpt", weights_only=True)
    other["state_dict"] = {"another": torch.zeros(2)}
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="ckpt_path=.*other.ckpt: it holds another kind of net"):
        run(tmp_path / "b", ckpt_path=tmp_path / "other.ckpt")


def test_reading_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "evil.ckpt")
    with pytest.raises(
        ValueError,
        match="holds more than tensors and plain values, and reading those could run any code",
    ):
        run(tmp_path / "a", ckpt_path=tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_named():
    network = nn.Linear(2, 3)
    state = dict(network.state_dict())
    check_fits(network, state, source="weights=x")
    with pytest.raises(
        ValueError,
        match=r"weights=x: it holds another kind of network, other instead of bias, weight",
    ):
        check_fits(network, {"other": torch.zeros(1)}, source="weights=x")
    with pytest.raises(
        ValueError,
        match=r"don't fit the network of these settings: weight \(3, 5\) instead of \(3, 2\)",
    ):
        check_fits(network, {**state, "weight": torch.zeros(3, 5)}, source="weights=x")
    with pytest.raises(ValueError, match="without weight; with more"):
        check_fits(network, {"bias": state["bias"], "more": torch.zeros(1)}, source="weights=x")


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


def test_loggers_write_into_the_trainings_folder(tmp_path):
    one = {"_target_": "builtins.dict", "name": "csv", "save_dir": "runs"}
    several = OmegaConf.create(
        {"logger": {"allow_real_images": False, "csv": one, "b": {"_target_": "builtins.dict"}}}
    )

    def loggers(cfg):
        return Experiment(cfg, tmp_path / "run", build=instantiate).loggers(tmp_path)

    assert loggers(OmegaConf.create({})) == []
    assert loggers(several) == [{"name": "csv", "save_dir": str(tmp_path)}, {}]


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
        "profile",
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
