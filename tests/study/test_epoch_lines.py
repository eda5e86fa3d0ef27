"""A training told in lines, where nothing can be redrawn."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from cmrstudy.epoch_lines import EpochLines, epoch_lines
from support.clock import Clock


def trained(*, epochs: int, batches: int, seconds: float, **options) -> list[str]:
    """What EpochLines tells of a training whose batches take so long."""
    clock, lines = Clock(), []
    callback = EpochLines(clock=clock, write=lines.append)
    trainer = SimpleNamespace(
        max_epochs=epochs,
        current_epoch=0,
        global_step=0,
        num_training_batches=batches,
        callback_metrics={},
        **options,
    )
    callback._trainer = trainer
    for epoch in range(epochs):
        trainer.current_epoch = epoch
        callback.on_train_epoch_start(trainer)
        for _ in range(batches):
            clock.now += seconds
            trainer.global_step += 1
            callback.on_train_batch_end(trainer)
        trainer.callback_metrics = {"train_loss": 0.5 / (epoch + 1), "train_loss_step": 9.0}
        callback.on_train_epoch_end(trainer, None)
    return lines


def test_an_epoch_is_a_line_with_its_metrics():
    assert trained(epochs=2, batches=100, seconds=0.2) == [
        "epoch 1 of 2: 100 steps in 0:20, train_loss 0.500",
        "epoch 2 of 2: 100 steps in 0:20, train_loss 0.250",
    ]


def test_an_epoch_that_goes_on_tells_of_its_own_steps_and_seconds():
    clock, lines = Clock(), []
    callback = EpochLines(clock=clock, write=lines.append)
    clock.now += 37000.0  # a clock begins anywhere, e.g. when the machine was started
    trainer = SimpleNamespace(max_epochs=6, current_epoch=1, global_step=4, callback_metrics={})
    callback.on_train_start(trainer)  # Lightning starts no epoch that it goes on with
    clock.now += 3.0
    trainer.global_step = 6
    callback.on_train_epoch_end(trainer, None)
    assert lines == ["epoch 2 of 6: 2 steps in 0:03"]


def test_a_long_epoch_shows_that_it_goes_on():
    lines = trained(epochs=1, batches=1000, seconds=1.0)
    assert (
        8 < len(lines) < 20
        and lines[0].startswith("epoch 1 of 1: ")
        and "of 1,000 batches" in lines[0]
    )


def test_only_the_first_process_tells():
    callback = EpochLines(write=lambda line: pytest.fail(line))
    callback.disable()
    trainer = SimpleNamespace(
        max_epochs=1, current_epoch=0, global_step=0, num_training_batches=3, callback_metrics={}
    )
    callback._trainer = trainer
    callback.on_train_epoch_start(trainer)
    callback.on_train_batch_end(trainer)
    callback.on_train_epoch_end(trainer, None)


def test_a_bar_of_ones_own_a_terminal_and_silence_want_no_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert len(epoch_lines([])) == 1 and len(epoch_lines([], bars=True)) == 1
    assert (
        epoch_lines([], bars=False)
        == []
        == epoch_lines([TQDMProgressBar()])
        == epoch_lines([RichProgressBar()])
    )
    monkeypatch.setattr("cmrstudy.epoch_lines.on_terminal", lambda stream: True)
    assert epoch_lines([]) == []


def test_an_epoch_of_unknown_or_no_length_has_no_lines_within_it():
    for batches in (float("inf"), 0):
        callback = EpochLines(write=lambda line: pytest.fail(line))
        callback._trainer = trainer = SimpleNamespace(
            max_epochs=-1,
            max_steps=-1,
            current_epoch=2,
            global_step=0,
            num_training_batches=batches,
        )
        callback.on_train_epoch_start(trainer)
        assert callback.lines is None
    lines = []
    callback = EpochLines(clock=Clock(), write=lines.append)
    callback.disable()
    trainer.num_training_batches, trainer.callback_metrics = 3, {"a": 1, "a_step": 2, "a_epoch": 3}
    callback._trainer = trainer
    callback.on_train_epoch_start(trainer)
    assert callback.lines is None
    callback.enable()
    callback.on_train_epoch_start(trainer)
    assert callback.lines.total == 3
    trainer.global_step = 1
    for last, told in ((-1, "epoch 3"), (None, "epoch 3"), (1, "epoch 3 of 1")):
        trainer.max_epochs = last
        callback.on_train_epoch_end(trainer, None)
        assert lines.pop() == f"{told}: 1 step in 0:00, a 1.000"
