"""What train.py does around an experiment's work, with stand-ins for that work."""

from __future__ import annotations

import runpy
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cmrstudy.plain_errors import AttemptEnded
from support import ROOT
from support.asked import Asked


@pytest.fixture(scope="module")
def script() -> Any:
    """The command's functions, which share one namespace."""
    return runpy.run_path(str(ROOT / "train.py"), run_name="train")


@pytest.fixture
def calls(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks of others, in order; every process leads."""
    asked = Asked()

    parts = {
        "commands": {"prepared": asked.note("prepared")},
        "dashboards": {"one_run": lambda: asked.within("board")},
        "lineage": {"tell": asked.note("tell")},
        "overrides": {"request": lambda cfg: "request"},
        "processes": {
            "follows": lambda trainer: trainer.follows,
            "together": lambda trainer, claim: claim(),
            "seeded": lambda seed: asked.within("seed", seed),
        },
        "runs": {
            "held": lambda folder: asked.within("hold", folder),
            "attempt": lambda folder: asked.within("attempt", folder),
            "claim": asked.note("claim", Path("claimed")),
            "finish": asked.note("finish"),
            "facts": lambda folder: {"score": 0.25, "of": folder},
        },
        "Experiment": lambda cfg, folder, build: SimpleNamespace(
            folder=folder, renew=asked.note("renew"), cfg=cfg
        ),
        "intention": lambda cfg: "what is meant",
    }
    space = script["claim"].__globals__
    for name, value in parts.items():
        monkeypatch.setitem(
            space, name, SimpleNamespace(**value) if isinstance(value, dict) else value
        )

    def work(experiment: Any) -> dict[str, Any]:
        asked.append(("work", experiment.folder))
        (experiment.folder / "b-profile.txt").write_text(
            "second"
        ) if experiment.folder.exists() else 0
        return {"score": 0.75}

    def instantiate(node: Any, *, _partial_: bool) -> Any:
        assert _partial_
        return work if node.name == "work" else asked.note("settled")

    monkeypatch.setattr("hydra.utils.instantiate", instantiate)
    return asked


def config(folder: Path, *, follows: bool = False, batches: int = 0, **cfg: Any) -> DictConfig:
    usual: dict[str, Any] = {
        **{"run_dir": str(folder), "settle": None, "trains": True, "refresh": False, "seed": 7},
        **{"score": "score", "work": {"name": "work"}, "unused": []},
        "trainer": {"fast_dev_run": batches, "follows": follows},
    }
    return OmegaConf.create(usual | cfg)


def names(calls: list[Any]) -> list[str]:
    return [call[0] for call in calls]


def test_a_run_is_held_claimed_worked_at_and_finished(
    script: Any, calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"].__wrapped__(config(tmp_path)) == 0.75
    assert names(calls) == [
        *("prepared", "begin hold", "claim", "begin attempt", "begin board", "begin seed", "work"),
        *("end seed", "tell", "end board", "end attempt", "finish", "end hold"),
    ]
    asked = {call[0]: call[1:] for call in calls}
    assert asked["begin hold"] == (tmp_path,) and asked["claim"] == ("request",)
    claimed = Path("claimed")
    assert asked["begin attempt"] == asked["work"] == (claimed,) and asked["begin seed"] == (7,)
    assert asked["tell"] == (claimed, {"score": 0.75})
    assert asked["finish"] == (claimed, ("score", 0.75))
    assert capsys.readouterr().out == "what is meant\nclaimed: finished\n"


def test_what_trains_nothing_is_not_seeded_and_has_perhaps_no_score(
    script: Any, calls: list[Any], tmp_path: Path
) -> None:
    cfg = config(tmp_path, trains=False, batches=3, score="another", settle={"name": "settle"})
    assert script["main"].__wrapped__(cfg) is None
    assert names(calls)[:3] == ["prepared", "settled", "begin hold"]
    assert calls[1][1] is cfg and "begin seed" not in names(calls) and "work" in names(calls)


def test_a_finished_run_gives_its_score_again(
    script: Any, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script["claim"].__globals__["runs"], "claim", lambda request: None)
    assert script["main"].__wrapped__(config(tmp_path)) == 0.25
    assert names(calls) == ["prepared", "begin hold", "end hold"]


def test_processes_that_follow_work_and_write_nothing(
    script: Any, calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config(tmp_path, follows=True, refresh=True)
    with ExitStack() as hold:
        assert script["claim"](cfg, hold) == tmp_path
        assert calls == []
        (tmp_path / "finished.json").write_text("{}")
        assert script["claim"](cfg, hold) is None
    assert script["work"](cfg, tmp_path) == 0.75
    assert not {"tell", "finish", "claim"} & {*names(calls)} and "work" in names(calls)
    assert capsys.readouterr().out == ""


def test_a_cohort_is_made_anew_where_the_run_has_one(
    script: Any, calls: list[Any], tmp_path: Path
) -> None:
    for refresh, unused, renewed in ((True, [], 1), (True, ["cohort"], 0), (False, [], 0)):
        calls.clear()
        with ExitStack() as hold:
            script["claim"](config(tmp_path, refresh=refresh, unused=unused), hold)
        assert names(calls).count("renew") == renewed and names(calls)[-2] == "claim"


@pytest.mark.parametrize(("batches", "words"), [(1, "1 batch of"), (2, "2 batches of")])
def test_a_rehearsal_shows_its_profile_and_keeps_nothing(
    script: Any,
    calls: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batches: int,
    words: str,
) -> None:
    cfg = config(tmp_path / "run", batches=batches)
    assert script["main"].__wrapped__(cfg) is None
    assert names(calls) == ["prepared", "begin seed", "work", "end seed"]
    place = calls[2][1]
    assert not place.exists() and place.name.startswith("dry-run-") and not any(tmp_path.iterdir())
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "second" and out[1].startswith(f"dry run (trainer.fast_dev_run): {words} ")
    assert out[1].endswith(f"and {tmp_path / 'run'} is as it was")
    script["rehearse"](config(tmp_path, follows=True, batches=batches))
    assert "dry run" not in capsys.readouterr().out


def test_a_rehearsal_that_is_ended_says_so(
    script: Any, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any) -> None:
        raise AttemptEnded("by a signal") from KeyboardInterrupt()

    monkeypatch.setitem(script["claim"].__globals__, "done", ended)
    with pytest.raises(AttemptEnded, match="the dry run was ended; nothing is kept") as told:
        script["rehearse"](config(tmp_path, batches=1))
    assert isinstance(told.value.__cause__, KeyboardInterrupt)


@pytest.mark.parametrize("command", ["train", "generate", "evaluate"])
def test_a_command_is_started_before_hydra_reads_its_config(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def hydra_main(**how: Any) -> Any:
        return lambda function: lambda: asked.append((function.__name__, how))

    monkeypatch.setattr("hydra.main", hydra_main)
    monkeypatch.setattr(
        "cmrstudy.commands.start_command", lambda *given, **how: asked.append((given, how))
    )
    script = runpy.run_path(str(ROOT / f"{command}.py"), run_name="__main__")
    settings = {"version_base": "1.3", "config_path": "conf", "config_name": command}
    about = {"conf": ROOT / "conf", "about": script["USAGE"]}
    assert asked == [((command,), about), ("main", settings)]
    assert script["USAGE"].startswith(f"python {command}.py ")
