"""What generate.py does around the drawing of a set, with a stand-in for it."""

from __future__ import annotations

import runpy
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from support import ROOT
from support.asked import Asked


@pytest.fixture(scope="module")
def script() -> Any:
    """The command's functions, which share one namespace."""
    return runpy.run_path(str(ROOT / "generate.py"), run_name="generate")


@pytest.fixture
def calls(script: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks of others, in order; the first process."""
    asked = Asked()

    def launched(trainer: Any, *, shard: str, draws: bool) -> Any:
        asked.append(("launched", shard, draws))
        return SimpleNamespace(claim=lambda claim: claim(), first=trainer.first)

    parts = {
        "commands": SimpleNamespace(prepared=lambda cfg: asked.append(("prepared",))),
        "overrides": SimpleNamespace(request=lambda cfg: cfg.run_dir),
        "runs": SimpleNamespace(
            held=lambda folder: asked.within("hold", folder),
            attempt=lambda folder: asked.within("attempt", folder),
            claim=lambda of: asked.append(("claim", of)) or (None if "done" in of else Path(of)),
        ),
        "Experiment": lambda cfg, folder, build: SimpleNamespace(
            folder=folder, renew=lambda: asked.append(("renew", folder))
        ),
        "Launched": launched,
        "intention": lambda cfg: "what is meant",
    }
    for name, value in parts.items():
        monkeypatch.setitem(script["claim"].__globals__, name, value)

    def draw_set(run: Any, launched: Any) -> None:
        asked.append(("draw", run.folder, launched.first))

    # its imports take seconds
    monkeypatch.setitem(sys.modules, "cmrgen.tasks", SimpleNamespace(draw_set=draw_set))
    return asked


def config(run_dir: str = "set/0", *, first: bool = True, **cfg: Any) -> DictConfig:
    usual = {"run_dir": run_dir, "shard": "0/1", "images": True, "overwrite": False}
    usual |= {"refresh": False, "trainer": {"first": first}}
    return OmegaConf.create(usual | cfg)


def test_a_set_is_held_claimed_and_drawn(
    script: Any, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    script["main"].__wrapped__(config())
    place = Path("set/0")
    assert calls == [
        *[("prepared",), ("launched", "0/1", True), ("begin hold", place), ("claim", "set/0")],
        *[("begin attempt", place), ("draw", place, True), ("end attempt",), ("end hold",)],
    ]
    assert capsys.readouterr().out == "what is meant\n"
    script["main"].__wrapped__(config(first=False))
    assert capsys.readouterr().out == "" and calls[-3][0] == "draw"


def test_a_finished_set_is_not_drawn_again(script: Any, calls: list[Any]) -> None:
    script["main"].__wrapped__(config("done/0"))
    assert [call[0] for call in calls[-2:]] == ["claim", "end hold"]


def test_shards_are_drawn_side_by_side_and_remove_no_others(script: Any, calls: list[Any]) -> None:
    with ExitStack() as hold:
        assert script["claim"](config(shard="1/4"), hold) == Path("set/0")
    assert calls == [("claim", "set/0")]
    with (
        ExitStack() as hold,
        pytest.raises(ValueError, match="shard=1/4 with overwrite=true would"),
    ):
        script["claim"](config(shard="1/4", overwrite=True), hold)
    with ExitStack() as hold:
        script["claim"](config(overwrite=True), hold)  # the whole set may replace one
    with ExitStack() as hold:
        script["claim"](config(refresh=True), hold)
    assert calls[-3:] == [("renew", Path("set/0")), ("claim", "set/0"), ("end hold",)]
