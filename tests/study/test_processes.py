"""One run in several processes: one outcome for all."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmrstudy import processes


@pytest.mark.parametrize(
    ("claimed", "first", "other"),
    [
        (FileExistsError("is there"), FileExistsError, FileExistsError),
        (KeyError("bug"), KeyError, RuntimeError),
    ],
)
def test_what_the_first_process_learns_all_of_them_learn(claimed, first, other):
    sent = []

    def claim():
        if isinstance(claimed, Exception):
            raise claimed

    zero = SimpleNamespace(is_global_zero=True, broadcast=lambda value: sent.append(value) or value)
    one = SimpleNamespace(is_global_zero=False, broadcast=lambda value: sent[-1])
    with pytest.raises(first):
        processes.agreed(zero, claim)
    with pytest.raises(other):
        processes.agreed(one, lambda: pytest.fail("only the first claims"))
    assert (
        processes.agreed(zero, lambda: Path("here")) == processes.agreed(one, claim) == Path("here")
    )


def trainer(devices: int = 1, nodes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(devices=devices, num_nodes=nodes)


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*processes.RANKS, "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def test_one_device_of_one_node_is_alone():
    assert processes.alone(trainer())
    assert not processes.alone(trainer(devices=2)) and not processes.alone(trainer(nodes=2))
    assert not processes.alone(trainer(devices="auto"))


@pytest.mark.parametrize("name", processes.RANKS)
def test_any_rank_but_the_first_follows_and_one_process_never(monkeypatch, name):
    assert not processes.follows(trainer(devices=2))
    monkeypatch.setenv(name, "0")
    assert not processes.follows(trainer(devices=2))
    monkeypatch.setenv(name, "1")
    assert processes.follows(trainer(devices=2)) and not processes.follows(trainer())


def test_a_single_process_claims_by_itself_whatever_slurm_has_started(monkeypatch):
    assert processes.together(trainer(), lambda: Path("here")) == Path("here")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert processes.together(trainer(), lambda: None) is None
    assert "SLURM_NTASKS" not in os.environ  # Lightning would wait for the other tasks
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert processes.together(trainer(devices=2), lambda: Path("here")) == Path("here")
    assert os.environ["SLURM_NTASKS"] == "1"


def test_a_set_is_one_shard_of_one_process_where_nothing_is_launched():
    for devices, draws in ((1, True), (2, False)):
        launched = processes.Launched(trainer(devices), shard="1/3", draws=draws)
        assert launched.processes == 1 and launched.first and launched.shard == "1/3"
        assert launched.device is None and launched.claim(lambda: Path("x")) == Path("x")
    with pytest.raises(ValueError, match="shard=1/3 with trainer.devices=2: give one of the two"):
        processes.Launched(trainer(2), shard="1/3", draws=True)


@pytest.mark.parametrize("first", [True, False])
def test_a_refusal_is_told_by_the_first_process_and_ends_the_others(first):
    launched = processes.Launched(trainer(), shard="0/1", draws=True)
    sent = FileExistsError("is there")
    launched.first, launched._fabric = (
        first,
        SimpleNamespace(is_global_zero=first, broadcast=lambda value: sent),
    )
    with pytest.raises(FileExistsError if first else SystemExit) as ended:
        launched.claim(lambda: Path("here"))
    assert first or ended.value.code == 1


def test_shards_are_waited_for_until_all_are_finished(monkeypatch):
    slept, answers = [], iter([False, False, True])
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    processes.Launched(trainer(), shard="0/1", draws=True).wait(lambda: next(answers))
    assert slept == [1, 1]


def test_foreign_tips_and_deprecations_are_silent_and_other_warnings_are_not():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        processes.quiet()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("The loader does not have many workers which", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in told] == ["something else"]
    for name in ("lightning.pytorch", "lightning.fabric"):
        assert logging.getLogger(name).level == logging.WARNING


class FakeFabric:
    """One of three processes that Lightning has started."""

    made: list[FakeFabric] = []
    rank = 2

    def __init__(self, **options):
        self.options, self.launched = options, 0
        self.world_size, self.global_rank, self.device = 3, self.rank, "cuda:2"
        self.is_global_zero = self.rank == 0
        FakeFabric.made.append(self)

    def launch(self):
        self.launched += 1

    def broadcast(self, value):
        return value


def test_processes_that_lightning_starts_share_a_set_and_a_claim(monkeypatch):
    parted = []
    seeds = []
    lightning = SimpleNamespace(
        Fabric=FakeFabric, seed_everything=lambda seed, **how: seeds.append((seed, how))
    )
    monkeypatch.setitem(sys.modules, "lightning", lightning)  # the real one takes seconds
    monkeypatch.setattr(processes, "part", lambda: parted.append(1))
    monkeypatch.setattr(FakeFabric, "made", [])

    class Options(dict):
        devices, num_nodes, accelerator = 3, 1, "cpu"

    launched = processes.Launched(Options(devices=3), shard="0/1", draws=True)
    (fabric,) = FakeFabric.made
    assert fabric.launched == 1 and fabric.options == {"devices": 3}
    assert (launched.processes, launched.first, launched.shard) == (3, False, "2/3")
    assert launched.device == "cuda:2"
    assert logging.getLogger("lightning.fabric").level == logging.WARNING
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.setattr(FakeFabric, "rank", 0)
    assert processes.together(Options(), lambda: Path("here")) == Path("here") and not parted
    fabric = FakeFabric.made[-1]
    assert fabric.launched == 1 and fabric.options == {
        "accelerator": "cpu",
        "devices": 3,
        "num_nodes": 1,
        "strategy": "ddp",
    }

    def refuse():
        raise FileExistsError("is there")

    with pytest.raises(FileExistsError, match="is there"):
        processes.together(Options(), refuse)
    assert parted == [1]
    with pytest.raises(KeyError), processes.seeded(7):
        assert seeds == [(7, {"workers": True, "verbose": False})] and parted == [1]
        raise KeyError
    assert parted == [1, 1]
