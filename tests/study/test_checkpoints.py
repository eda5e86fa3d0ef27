"""Killed anywhere, a training continues from its last checkpoint as if nothing had been; files of
weights are read safely and named where they don't fit."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from cmrdata import disk
from cmrstudy import checkpoints
from cmrstudy.attempts import Attempt, Ended
from cmrstudy.checkpoints import (
    Latest,
    check_fits,
    fingerprint_of,
    place_of,
    read_checkpoint,
    restart,
    resumable,
    standing,
)
from cmrstudy.continuing import Place
from support.stub_training import (
    ACCUMULATE,
    HALF,
    PLAIN,
    STEPS,
    Kill,
    Killed,
    check_equal,
    run,
    whole,  # noqa: F401  a fixture
)

# killed anywhere


@pytest.mark.parametrize(
    ("hook", "at", "options"),
    [
        ("on_train_batch_start", 6, PLAIN),  # the first step of the second epoch
        ("on_train_batch_start", 9, PLAIN),
        ("on_train_batch_end", 8, PLAIN),
        ("on_train_batch_end", 11, PLAIN),  # before the epoch's validation
        ("on_validation_batch_start", 4, PLAIN),
        ("on_validation_end", 1, PLAIN),
        ("on_train_epoch_end", 1, PLAIN),
        ("on_train_end", 0, PLAIN),
        ("on_validation_batch_start", 4, HALF),
        ("on_train_batch_start", 9, HALF),  # just after a validation within an epoch
        ("on_train_batch_end", 9, ACCUMULATE),  # gradients of half a step
        ("on_validation_end", 2, ACCUMULATE),
        ("on_train_batch_start", 6, STEPS),
        ("on_train_batch_start", 8, STEPS),
        ("on_train_end", 0, STEPS),
        ("on_train_batch_end", 10, {"limit_train_batches": 4}),
        ("on_train_batch_start", 6, {"num_sanity_val_steps": 2}),
        ("on_validation_end", 0, {"check_val_every_n_epoch": 2}),
        # the plateau looks at the epoch before
        ("on_train_batch_end", 14, {"check_val_every_n_epoch": 2}),
    ],
    ids=lambda value: " ".join(map(str, value.items())) if isinstance(value, dict) else str(value),
)
@pytest.mark.parametrize("every", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_anywhere_it_ends_in_the_same_bits(tmp_path, whole, hook, at, options, every):
    """Weights, optimiser, schedulers, early scores, metrics.csv and what is told in the end."""
    with pytest.raises(Killed):
        run(tmp_path, Kill(hook, at), steps=every, **options)
    _, _, metrics = run(tmp_path, **options)
    check_equal(tmp_path, whole, options, metrics)


def test_workers_that_fetch_ahead_fetch_the_same(tmp_path, whole):
    for at in (8, 3):
        with pytest.raises(Killed):
            run(tmp_path, Kill("on_train_batch_end", at), steps=1, workers=2)
    _, module, metrics = run(tmp_path, workers=2)
    check_equal(tmp_path, whole, PLAIN, metrics)
    assert len(module.seen) == 24 - 11  # from the twelfth step on, in which it was cut off


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": "ten"}, {"steps": -1}], ids=str)
def test_an_impossible_interval_is_named(tmp_path, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(
        ValueError, match=f"checkpoint.{name}={value}: give a number above 0, or null"
    ):
        run(tmp_path, **wrong)


def test_a_run_that_dies_again_and_again_gets_there(tmp_path, whole):
    for _ in range(30):
        try:
            _, _, metrics = run(tmp_path, Kill("on_train_batch_end", 1), steps=1)
            break
        except Killed:
            pass
    check_equal(tmp_path, whole, PLAIN, metrics)


def test_without_a_checkpoint_within_it_an_epoch_is_repeated(tmp_path, whole):
    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_start", 10))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoints.place_of(last) == Place(1, 0)
    _, _, metrics = run(tmp_path)
    check_equal(tmp_path, whole, PLAIN, metrics)


def test_after_some_minutes_a_checkpoint_is_due_in_validation_too(tmp_path, whole, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    class Clock(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            now[0] += 60

        def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            now[0] += 300

    with pytest.raises(Killed):
        run(tmp_path, Clock(), Kill("on_train_batch_end", 5), minutes=3)
    assert checkpoints.place_of(
        torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    ) == Place(0, 5)
    with pytest.raises(Killed):
        run(tmp_path, Clock(), Kill("on_validation_end", 0), minutes=7)
    assert checkpoints.place_of(
        torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    ) == Place(0, 6)
    _, _, metrics = run(tmp_path)
    check_equal(tmp_path, whole, PLAIN, metrics)


def test_an_early_stop_stays_one_when_the_process_dies_after_it(tmp_path):
    def early() -> EarlyStopping:
        return EarlyStopping("val_loss", patience=1, min_delta=9)

    trainer, _, told = run(tmp_path / "whole", early(), max_epochs=9)
    assert trainer.current_epoch == 2 and told["stopped"].startswith(
        "stopped early, after 2 of 9 epochs: Monitored"
    )
    with pytest.raises(Killed):
        run(tmp_path / "parts", early(), Kill("on_fit_end", 0), max_epochs=9)
    again, module, metrics = run(tmp_path / "parts", early(), max_epochs=9)
    assert again.global_step == trainer.global_step and metrics == told and module.seen == []


def test_a_moved_run_keeps_its_best_epoch(tmp_path, whole):
    with pytest.raises(Killed):
        run(tmp_path / "here", Kill("on_train_batch_end", 20), steps=1)
    shutil.move(tmp_path / "here", tmp_path / "there")
    _, _, metrics = run(tmp_path / "there")
    check_equal(tmp_path / "there", whole, PLAIN, metrics)
    assert not (tmp_path / "here").exists()


def test_a_checkpoint_of_lightnings_own_callback_continues_with_the_next_epochs_draws(tmp_path):
    """Written at an epoch's end, after which Lightning itself loses an epoch where steps are
    counted."""
    keep = ModelCheckpoint(
        tmp_path / "own", filename="{epoch}", save_top_k=-1, auto_insert_metric_name=False
    )
    _, whole, _ = run(tmp_path / "first", keep, **STEPS)
    trainer, module, _ = run(tmp_path / "second", ckpt_path=tmp_path / "own" / "1.ckpt", **STEPS)
    assert trainer.global_step == 20 and len(module.seen) == 8 and module.seen == whole.seen[12:]


# files


def test_a_checkpoint_is_whole_or_the_one_before_it(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_end", 3), steps=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    save = torch.save

    def dying(content: Any, file: Any) -> None:
        save({"half": 1}, file)
        os._exit(9)

    if not (child := os.fork()):  # as SIGKILL in the middle of writing
        try:
            monkeypatch.setattr(checkpoints.torch, "save", dying)
            run(tmp_path, steps=1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert last.read_bytes() == before and list(last.parent.glob(".last.ckpt.*"))
    run(tmp_path)
    assert not list(last.parent.glob(".*"))


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_end", 3), steps=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(disk.os, "fsync", full)
        run(tmp_path, steps=1)
    assert last.read_bytes() == before and not list(last.parent.glob(".*"))


def test_a_damaged_checkpoint_names_itself_and_the_remedy(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Kill("on_train_batch_end", 3), steps=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"last.ckpt \(delete it, and the training begins anew\): damaged"
    ):
        run(tmp_path)


# weights and checkpoints of other runs


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


# when a checkpoint is written, by the numbers


def counts(*values: int) -> dict[str, int]:
    return dict(zip(("ready", "started", "processed", "completed"), values, strict=True))


def loops(
    epochs: tuple[int, ...],
    batches: tuple[int, ...],
    *,
    last: bool = False,
    validated: tuple[int, ...] = (2, 2, 2, 2),
) -> dict[str, Any]:
    """Progress of a fit loop as Lightning saves it, of an epoch after one of ten batches."""
    return {
        "epoch_progress": {"current": counts(*epochs), "total": counts(*epochs)},
        "epoch_loop.batch_progress": {
            "current": counts(*batches),
            "total": counts(*(10 + n for n in batches)),
            "is_last_batch": last,
        },
        "epoch_loop.val_loop.batch_progress": {
            "current": counts(*validated),
            "total": counts(*validated),
        },
        "epoch_loop.state_dict": {"_batches_that_stepped": 13},
    }


def test_each_saved_form_of_a_training_restarts_at_its_place():
    # an epoch's beginning: all counts are those of whole epochs
    begins = loops((1, 1, 1, 0), (10, 10, 10, 10), last=True)
    assert restart(begins) == Place(1) == place_of({"loops": {"fit_loop": begins}})
    assert (
        begins["epoch_progress"]["current"]
        == begins["epoch_progress"]["total"]
        == counts(1, 1, 1, 1)
    )
    assert begins["epoch_loop.batch_progress"] == {
        "current": counts(0, 0, 0, 0),
        "total": counts(20, 20, 20, 20),
        "is_last_batch": False,
    }
    assert begins["epoch_loop.val_loop.batch_progress"]["total"] == counts(0, 0, 0, 0)
    # before the fourth batch, whose start is already counted
    ahead = loops((2, 2, 1, 1), (4, 3, 3, 3))
    assert restart(ahead) == Place(1, 3)
    assert ahead["epoch_loop.batch_progress"]["current"] == counts(3, 3, 3, 2)
    assert ahead["epoch_loop.batch_progress"]["total"] == counts(13, 13, 13, 12)
    assert ahead["epoch_loop.state_dict"] == {"_batches_that_stepped": 12}
    assert ahead["epoch_loop.val_loop.batch_progress"]["current"] == counts(0, 0, 0, 0)
    assert ahead["epoch_progress"]["current"] == counts(2, 2, 1, 1)
    # within the validation after the fourth
    validates = loops((2, 2, 1, 1), (4, 4, 4, 4), validated=(2, 2, 1, 1))
    assert restart(validates) == Place(1, 4)
    for kind in ("current", "total"):
        assert validates["epoch_loop.val_loop.batch_progress"][kind] == counts(1, 1, 0, 0)
    assert validates["epoch_loop.state_dict"] == {"_batches_that_stepped": 13}
    # after a batch: as it is
    after = loops((2, 2, 1, 1), (4, 4, 4, 3))
    assert restart(after) == Place(1, 4) and after == loops((2, 2, 1, 1), (4, 4, 4, 3))
    # at the end of an epoch's last batch the epoch is behind
    assert restart(loops((2, 2, 1, 1), (10, 10, 10, 9), last=True)) == Place(2)
    assert restart(loops((2, 2, 1, 1), (10, 10, 10, 10), last=True)) == Place(1, 10)
    assert restart(loops((2, 2, 1, 1), (4, 4, 4, 3), last=False)) == Place(1, 4)


class Fake(SimpleNamespace):
    """A trainer of ten batches an epoch that notes what it saves."""

    def __init__(self, **change: Any) -> None:
        usual = {
            "global_step": 5,
            "current_epoch": 1,
            "num_training_batches": 10,
            "accumulate_grad_batches": 1,
            "overfit_batches": 0,
            "world_size": 1,
            "fast_dev_run": False,
            "training": True,
            "validating": False,
            "max_steps": 40,
            "max_epochs": 4,
            "saved": [],
            "strategy": SimpleNamespace(reduce_boolean_decision=lambda ended, all: ended),
        }
        super().__init__(**{**usual, **change})

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(self.global_step)


def latest(tmp_path: Path, **change: Any) -> Latest:
    usual = {"attempt": Attempt(tmp_path), "seed": 0, "minutes": None, "steps": None}
    return Latest(tmp_path / "last.ckpt", **{**usual, **change})


def saves(one: Latest, trainer: Any, done: int, **how: Any) -> bool:
    before = len(trainer.saved)
    one._between(trainer, done, **how)
    return len(trainer.saved) > before


def test_a_checkpoint_is_due_by_steps_minutes_and_at_an_epochs_beginning(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    one, trainer = latest(tmp_path, steps=3, minutes=2), Fake()
    one._saved = (3, 1, False)
    assert not saves(one, trainer, 5)  # two steps since
    trainer.global_step = 6
    assert not saves(one, trainer, 6, validates=True) and saves(one, trainer, 6)
    assert not saves(one, trainer, 6)  # the same state is not written twice
    trainer.global_step = 7
    now[0] = 119.9
    assert not saves(one, trainer, 7)
    now[0] = 120
    assert saves(one, trainer, 7) and one._saved_at == 120
    trainer.global_step = 8
    assert not saves(one, trainer, 8) and saves(one, trainer, 0, begins=True)
    now[0] = 240
    trainer.accumulate_grad_batches = 2
    trainer.global_step = 9
    assert not saves(one, trainer, 3)  # within a step gradients are not kept
    assert saves(one, trainer, 4)
    trainer.global_step, trainer.overfit_batches = 10, 2
    now[0] = 480
    assert not saves(one, trainer, 4) and saves(one, trainer, 10)  # an epoch is whole
    trainer.fast_dev_run, trainer.global_step = True, 11
    assert not saves(one, trainer, 0, begins=True)
    assert trainer.saved == [6, 7, 8, 9, 10]


def test_a_time_limit_ends_an_attempt_after_a_step_of_its_own(tmp_path):
    one, trainer = latest(tmp_path, attempt=Attempt(tmp_path, max_time="00:00:00:00")), Fake()
    one._first, one._saved = 5, (5, 1, False)
    assert not saves(one, trainer, 5)
    trainer.global_step = 6
    with pytest.raises(
        Ended, match="max_time=00:00:00:00 ended this attempt at step 6 of 40, in epoch 2 of 4"
    ):
        one._between(trainer, 6)
    assert trainer.saved == [6]
    trainer.strategy.reduce_boolean_decision = lambda ended, all: True
    one.attempt.obey = lambda number: None  # it only took note of the signal
    one.attempt.received = 10
    with pytest.raises(Ended, match="another process of the run ended this attempt"):
        one._between(trainer, 6)


@pytest.mark.parametrize("wrong", [0, -1, "ten", float("-inf")])
def test_an_interval_is_above_0(tmp_path, wrong):
    for name in ("minutes", "steps"):
        with pytest.raises(ValueError, match=f"checkpoint.{name}={wrong}: give a number above 0"):
            latest(tmp_path, **{name: wrong})
        latest(tmp_path, **{name: 0.5})


def test_where_a_training_stands_is_said_of_what_is_known():
    told = standing(Fake(global_step=1234, max_steps=-1, max_epochs=None, current_epoch=0))
    assert told == "at step 1,234, in epoch 1"
    assert standing(Fake()) == "at step 5 of 40, in epoch 2 of 4"
    assert standing(Fake(max_steps=1, max_epochs=1)) == "at step 5 of 1, in epoch 2 of 1"


# weights in files


def test_a_file_of_weights_is_read_or_says_what_it_is(tmp_path):
    from safetensors.torch import save_file

    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "plain.ckpt")
    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "whole.ckpt")
    for name, keys in (("a.safetensors", 1), ("plain.ckpt", 1), ("whole.ckpt", 2)):
        content = read_checkpoint(tmp_path / name, source="it")
        assert torch.equal(content["state_dict"]["a"], weights["a"]) and len(content) == keys
    torch.save([1], tmp_path / "list.ckpt")
    torch.save({"state_dict": [1]}, tmp_path / "odd.ckpt")
    for name in ("list.ckpt", "odd.ckpt"):
        with pytest.raises(ValueError, match="^it: it holds no weights by name$"):
            read_checkpoint(tmp_path / name, source="it")
    (tmp_path / "b.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"^it: damaged, or no file of weights \(\w+\)$"):
        read_checkpoint(tmp_path / "b.safetensors", source="it")
    network = nn.Linear(2, 3)
    state = {"loops": 1, "optimizer_states": 1, "lr_schedulers": 1, "callbacks": 1}
    torch.save({**state, "state_dict": network.state_dict()}, tmp_path / "c.ckpt")
    assert resumable(tmp_path / "c.ckpt", network, source="it")["loops"] == 1
    with pytest.raises(ValueError, match="it: its weights don't fit"):
        resumable(tmp_path / "c.ckpt", nn.Linear(2, 4), source="it")


def test_weights_are_named_up_to_two_and_differ_in_up_to_three():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    wrong = {name: torch.zeros(9) for name in network.state_dict()}
    with pytest.raises(
        ValueError, match=r": 0.bias \(9,\) instead of \(2,\); |: 0.weight"
    ) as error:
        check_fits(network, wrong, source="it")
    assert str(error.value).count("instead of") == 3
    with pytest.raises(
        ValueError, match="another kind of network, a, b and 1 more instead of 0.bias"
    ):
        check_fits(network, dict.fromkeys("cba", torch.zeros(1)), source="it")


def test_a_fingerprint_is_of_names_types_shapes_and_values():
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    told = fingerprint_of(state)
    assert len(told) == 16 and told == fingerprint_of(dict(reversed(state.items())))
    others = [
        {**state, "a": state["a"].reshape(2, 3)},
        {**state, "a": state["a"].int()},
        {**state, "a": state["a"] + 1},
        {"a": state["a"], "c": state["b"]},
    ]
    assert len({told, *map(fingerprint_of, others)}) == 5
    assert fingerprint_of({"a": torch.arange(6.0).reshape(2, 3).T}) != fingerprint_of(
        {"a": torch.arange(6.0).reshape(3, 2)}
    )
