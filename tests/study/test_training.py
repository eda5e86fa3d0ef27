"""One function for every training: what it takes of Lightning's switches and refuses, where it
goes on, what it tells in the end."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cmrstudy import plain_errors, training
from cmrstudy.checkpoints import fingerprint_of
from cmrstudy.continuing import Place
from cmrstudy.memory import OutOfMemory
from support.stub_training import Kill, Killed, Stub, run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


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


def test_a_batch_is_divided_among_processes_or_refused(tmp_path, monkeypatch):
    assert (
        training.batch_share(64, processes=1) == 64 and training.batch_share(64, processes=4) == 16
    )
    with pytest.raises(
        ValueError,
        match="data.batch_size=64 can't be divided among 3 processes; give a multiple of 3",
    ):
        training.batch_share(64, processes=3)
    asked = []
    monkeypatch.setattr(
        training, "batch_share", lambda size, *, processes: asked.append((size, processes)) or size
    )
    for divide in (False, True):
        run(tmp_path / str(divide), divide=divide, max_epochs=1, limit_val_batches=0, monitor=None)
    assert asked == [(4, 1)]


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


# by the numbers


def test_an_end_is_early_only_before_the_last_epoch_and_step():
    def fitter(epochs, steps, *, epoch, step):
        return SimpleNamespace(
            max_epochs=epochs, max_steps=steps, current_epoch=epoch, global_step=step, callbacks=[]
        )

    assert training.stopped(fitter(10, 60, epoch=3, step=60)) is None
    assert training.stopped(fitter(1, -1, epoch=1, step=6)) is None
    assert training.stopped(fitter(None, 1, epoch=0, step=1)) is None
    reason = "a callback asked for it"
    for given, told in (
        (fitter(1, -1, epoch=0, step=6), f"stopped early, after 0 of 1 epochs: {reason}"),
        (fitter(None, -1, epoch=1, step=6), f"stopped early, after 6 steps: {reason}"),
        (fitter(None, 9, epoch=1, step=6), f"stopped early, after 6 of 9 steps: {reason}"),
        (fitter(None, 1, epoch=0, step=0), f"stopped early, after 0 of 1 steps: {reason}"),
    ):
        assert training.stopped(given) == told


def test_a_checkpoint_that_stands_at_the_end_leaves_nothing_to_train(tmp_path):
    def check(epochs, steps):
        fitter = SimpleNamespace(max_epochs=epochs, max_steps=steps)
        training.check_unfinished(fitter, training.Start(tmp_path, Place(2), 12, None))

    for epochs, steps in ((3, -1), (None, -1), (3, 13), (-1, 13)):
        check(epochs, steps)
    for epochs, steps in ((2, -1), (1, -1), (3, 12), (None, 12), (-1, 11)):
        with pytest.raises(ValueError, match="it stands after 2 epochs, 12 steps, which leaves"):
            check(epochs, steps)


def test_the_arguments_of_a_trainer_are_taken_or_refused():
    def take(**given):
        return training.checked({"precision": "32-true", **given})

    options, callbacks = take(
        max_time="00:01:00:00", max_steps=None, fast_dev_run=None, max_epochs=3
    )
    assert callbacks == [] and options.pop("plugins")[0].__class__.__name__ == "WholeFiles"
    assert options == {"precision": "32-true", "max_epochs": 3}
    options, _ = take(plugins=["mine"])
    assert options["plugins"][0] == "mine" and len(options["plugins"]) == 2
    assert take(plugins="mine")[0]["plugins"][0] == "mine"
    for fine in (
        {"min_epochs": 3, "max_epochs": 3},
        {"min_epochs": 3, "max_epochs": -1},
        {"min_steps": 1, "max_steps": 1},
        {"limit_predict_batches": 1.0},
        {"limit_predict_batches": 2, "fast_dev_run": True},
        {"accumulate_grad_batches": 1},
        {"enable_checkpointing": True, "barebones": False},
        {"limit_train_batches": 1, "max_steps": 1},
        {"precision": None},
    ):
        take(**fine)
    for name in ("limit_train_batches", "max_epochs", "max_steps"):
        with pytest.raises(ValueError, match=f"trainer.{name}=0: nothing would be trained"):
            take(**{name: 0})
    for wrong in ({"min_epochs": 2, "max_epochs": 1}, {"min_steps": 2, "max_steps": 1}):
        with pytest.raises(ValueError, match="=2: more than trainer.max_"):
            take(**wrong)


def test_batches_that_are_left_out_are_told(capsys):
    for limit in (None, 1.0):
        training.checked({"precision": "32", "limit_test_batches": limit})
    assert capsys.readouterr().out == ""
    for limit in (1, 0.5, 2.0, 0):
        training.checked({"precision": "32", "limit_test_batches": limit})
        assert "trainer.limit_test_batches changes nothing" in capsys.readouterr().out


def test_the_best_score_is_a_plain_number_or_none():
    for value, told in ((torch.tensor(0.1234567), 0.12346), (torch.tensor(0.0), 0.0)):
        assert training.score(SimpleNamespace(best_model_score=value)) == told
    for value in (None, torch.tensor(float("inf")), torch.tensor(float("nan"))):
        assert math.isnan(training.score(SimpleNamespace(best_model_score=value)))


def test_what_a_training_tells_in_the_end(tmp_path, capsys):
    latest = SimpleNamespace(
        kept={"metrics": {"a": 1, "b": 2}, "origin": {"weights_fingerprint": "f"}}
    )
    fitter = SimpleNamespace(
        callback_metrics={"b": torch.tensor(1 / 3)},
        is_global_zero=True,
        max_epochs=3,
        max_steps=-1,
        current_epoch=3,
        global_step=9,
        callbacks=[],
    )
    whole = {"a": 1.0, "b": 0.33333, "weights_fingerprint": "f"}
    assert training.outcome(fitter, latest, tmp_path) == whole and capsys.readouterr().out == ""
    fitter.current_epoch = 2
    early = "stopped early, after 2 of 3 epochs: a callback asked for it"
    assert training.outcome(fitter, latest, tmp_path) == {**whole, "stopped": early}
    assert capsys.readouterr().out == f"{tmp_path}: {early}\n"
    fitter.is_global_zero = False
    training.outcome(fitter, latest, tmp_path)
    assert capsys.readouterr().out == ""


def test_a_training_that_goes_on_has_what_went_before(tmp_path, capsys):
    other = tmp_path / "other" / "checkpoints"
    other.mkdir(parents=True)
    start = training.Start(other / "last.ckpt", Place(1, 3), 1234, None)
    here = tmp_path / "here"
    training.continues(here, start, [])
    assert capsys.readouterr().out == f"{here}: goes on at step 1,234, in epoch 2\n"
    assert not here.exists()
    (other / "best.ckpt").write_bytes(b"best")
    training.continues(here, start, [])
    assert (here / "checkpoints" / "best.ckpt").read_bytes() == b"best"
    (here / "checkpoints" / "best.ckpt").write_bytes(b"own")
    training.continues(here, start._replace(path=here / "checkpoints" / "last.ckpt"), [])
    assert (here / "checkpoints" / "best.ckpt").read_bytes() == b"own"


def test_a_watched_metric_is_one_that_there_will_be():
    stop = EarlyStopping("val_loss")
    module = SimpleNamespace(logs=("train_loss", "val_loss"))
    for options in ({}, {"limit_val_batches": 1.0}, {"limit_val_batches": None}):
        training.check_watched(module, [stop, LearningRateMonitor()], options)
    training.check_watched(SimpleNamespace(), [EarlyStopping("any")], {"limit_val_batches": 0})
    training.check_watched(module, [EarlyStopping("train_loss")], {"limit_val_batches": 0})
    with pytest.raises(ValueError, match="val_loss, but trainer.limit_val_batches=0 leaves no"):
        training.check_watched(module, [stop], {"limit_val_batches": 0})
    with pytest.raises(ValueError, match="watches any, which SimpleNamespace does not log"):
        training.check_watched(module, [EarlyStopping("any")], {})


def test_a_profiler_keeps_the_place_that_it_was_given(tmp_path):
    own = SimpleProfiler(dirpath=tmp_path / "mine", filename="p")
    assert training.profiled({"profiler": own}, tmp_path)["profiler"].dirpath == tmp_path / "mine"
    assert own.filename == "p"
    named = training.profiled({"profiler": "simple", "a": 1}, tmp_path)
    assert (named["profiler"].dirpath, named["profiler"].filename) == (tmp_path, "profile")
    assert training.profiled({"a": 1}, tmp_path) == {"a": 1, "profiler": None}


def test_lightnings_own_words_become_a_sentence():
    for said, told in (
        (
            "No supported\n gpu backend found!",
            "trainer: No supported gpu backend found; trainer=auto takes",
        ),
        ("CUDA is odd.", "trainer: CUDA is odd; trainer=auto takes"),
        ("epochs are odd.", "^trainer: epochs are odd$"),
    ):
        with pytest.raises(ValueError, match=told), training.plainly():
            raise MisconfigurationException(said)
    with pytest.raises(ValueError, match="^trainer: no rich$"), training.plainly():
        raise ModuleNotFoundError("no  rich")


def test_a_first_step_that_compiles_is_announced_by_the_first_process(capsys):
    plain = torch.nn.Sequential(torch.nn.Linear(1, 1))
    compiled = torch.nn.Sequential(torch.nn.Linear(1, 1))
    compiled[0]._compiled_call_impl = abs
    for first, module, said in (
        (True, plain, ""),
        (False, compiled, ""),
        (True, compiled, training.COMPILES),
    ):
        training.tell_compiling(SimpleNamespace(is_global_zero=first), module)
        assert capsys.readouterr().out.strip() == said
