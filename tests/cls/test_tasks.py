"""What a classifier's run leaves, file by file, and what it tells of itself, with stand-ins for
data and training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from cmrcls import tasks
from cmrcls.mitigation.after import BestEpoch
from cmrcls.network import Origin
from cmrstudy.inputs import file_hash
from support.one_run import predictions

MEAN = {"_target_": "cmrcls.mitigation.losses.Mean"}
ONE_HEAD = {"_target_": "cmrcls.mitigation.heads.OneHead"}


class Attempt:
    def __enter__(self) -> str:
        return "limits"

    def __exit__(self, *_: object) -> None:
        pass


class Network(nn.Linear):  # type: ignore[misc]
    origin = Origin("random", (), ())


class Model(nn.Module):  # type: ignore[misc]
    """Two weights and a normalisation."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.network = Network(2, 1, bias=False)
        nn.init.constant_(self.network.weight, value)
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.12345678))


class Run:
    """An experiment at work, as its function sees it."""

    def __init__(self, folder: Path, **cfg: Any) -> None:
        model = {"backbone": "resnet18", "weights": None, "width": 64, "pixels": 224}
        mean = {"_target_": "cmrcls.mitigation.losses.${kind}"}  # as a YAML file may
        part = {"loss": mean, "heads": ONE_HEAD, "after": {"name": "after"}, "name": "none"}
        usual = {"mitigation": part, "model": {"name": "model", **model}, "data": {"name": "data"}}
        usual |= {
            "kind": "Mean",
            "weights": None,
            "ckpt_path": None,
            "seed": 3,
            "synthetic_set": "nowhere/0",
        }
        self.cfg = OmegaConf.create(usual | cfg)
        self.folder, self.leads, self.rehearses = folder, True, False
        self.used: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        self.after: Any = BestEpoch()
        self.attempt = Attempt
        index = predictions(12)
        index.loc[:4, "split"] = "train"
        index["real"] = index.index != 1
        store = SimpleNamespace(fingerprint="c0ffee", folder=folder / "data", meta={"pixels": 64})
        self.data: Any = SimpleNamespace(
            **{"index": index, "store": store, "groups": ["g"], "sampling": None},
            **{"labels": ("hf",), "cohort": SimpleNamespace(name="phantom")},
            **{"split_fingerprint": "5p117", "synthetic_fingerprint": None},
            setup=lambda: None,
        )
        self.model, self.best, self.step, self.saved = Model(), 1.0, 40, []
        checkpoints = SimpleNamespace(save_checkpoint=self._save)

        def anywhere(one: bool, *, all: bool) -> bool:
            assert all is False  # one process that lacks it is enough
            return one

        self.trainer: Any = SimpleNamespace(
            **{"is_global_zero": True, "global_step": self.step, "loggers": [], "current_epoch": 9},
            strategy=SimpleNamespace(checkpoint_io=checkpoints, reduce_boolean_decision=anywhere),
            predict=lambda module, datamodule: (module, datamodule),
        )

    def _save(self, state: dict[str, Any], path: Path) -> None:
        self.saved.append(state)
        torch.save(state, path)

    def build(self, part: Any, **options: Any) -> Any:
        if part.name == "model":
            self.begun = options
            assert options.pop("_partial_") is True
            return lambda **given: self.begun.update(given) or self.model
        return {"data": self.data, "after": self.after}[part.name]

    def uses(self, name: str, **what: Any) -> None:
        self.used[name] = what

    def fit(self, module: Any, data: Any, limits: str, **how: Any) -> Any:
        assert (module, data, limits) == (self.model, self.data, "limits")
        assert how == {
            **{"monitor": "val_balanced_accuracy", "divide": True, "start_from": tasks.start_from},
            "use_distributed_sampler": False,
        }
        if self.best is not None:
            state = Model(self.best).state_dict()
            (self.folder / "checkpoints").mkdir()
            torch.save({"state_dict": state, "epoch": 4}, self.folder / "checkpoints" / "best.ckpt")
        return self.trainer, {"val_loss": 0.25}


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the dashboards are shown; the arm's table is its index, which says who predicted it."""
    shown: list[Any] = []
    monkeypatch.setattr(tasks, "classifier_boards", lambda *args, **how: shown.append((args, how)))

    def table(index: pd.DataFrame, outputs: Any, *, labels: tuple[str, ...]) -> pd.DataFrame:
        module, data = outputs
        assert data.labels == labels
        return index.assign(probability=float(module.network.weight.detach()[0, 0]))

    monkeypatch.setattr(tasks, "prediction_table", table)
    monkeypatch.setattr("cmrcls.mitigation.after.prediction_table", table)
    return shown


def test_a_run_leaves_the_best_epochs_predictions_and_tells_of_itself(
    tmp_path: Path, boards: list[Any]
) -> None:
    run: Any = Run(tmp_path)
    best = tmp_path / "checkpoints" / "best.ckpt"
    facts = tasks.train_classifier(run)
    assert facts == {
        **{"val_loss": 0.25, "fingerprint": file_hash(best), "started_from": "random"},
        "normalisation": {"mean": [0.5] * 3, "std": [0.123457] * 3},
        **{"split_fingerprint": "5p117", "names": None, "steps": 40, "best_epoch": 4},
        **{"training_images": 5, "synthetic_images": 1},
    }
    written = pd.read_csv(tmp_path / "predictions.csv")
    assert list(written) == [*run.data.index] and (written.probability == 1).all()
    assert len(written) == len(run.data.index)
    [((loggers, table), how)] = boards
    assert loggers == [] and how == {"step": 40} and (table.probability == 1).all()
    assert not run.saved  # nothing has changed the best epoch's weights
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", "predictions.csv"}
    assert run.used == {
        "cohort": {"fingerprint": "c0ffee", "at": tmp_path / "data"},
        "model.weights": {"fingerprint": "random", "at": None},
    }
    assert run.begun.pop("groups") == ["g"]
    assert run.begun == {"loss": MEAN, "heads": ONE_HEAD}


def test_weights_that_a_mitigation_changes_are_those_that_are_kept(
    tmp_path: Path, boards: list[Any]
) -> None:
    run: Any = Run(tmp_path)

    class Refit(BestEpoch):
        def predict(self, module: Any, trainer: Any, data: Any, *, seed: int) -> pd.DataFrame:
            assert seed == 3 and (module.network.weight == 1).all()
            nn.init.constant_(module.network.weight, 2.0)
            return super().predict(module, trainer, data, seed=seed)

    run.after = Refit()
    facts = tasks.train_classifier(run)
    [kept] = run.saved
    assert kept["epoch"] == 4 and (kept["state_dict"]["network.weight"] == 2).all()
    best = tmp_path / "checkpoints" / "best.ckpt"
    assert facts["fingerprint"] == file_hash(best)
    assert (pd.read_csv(tmp_path / "predictions.csv").probability == 2).all()


def test_processes_that_follow_write_nothing(tmp_path: Path, boards: list[Any]) -> None:
    run: Any = Run(tmp_path)
    run.trainer.is_global_zero = False
    run.after = SimpleNamespace(
        predict=lambda module, *_, **__: nn.init.constant_(module.network.weight, 2.0)
    )
    tasks.train_classifier(run)
    assert not boards and not run.saved and not (tmp_path / "predictions.csv").exists()


def test_a_rehearsal_predicts_and_keeps_nothing(tmp_path: Path, boards: list[Any]) -> None:
    run: Any = Run(tmp_path)
    run.rehearses, run.best = True, None
    assert tasks.train_classifier(run) == {"predictions": len(run.data.index)}
    assert not list(tmp_path.iterdir()) and not boards


def test_without_a_validated_epoch_the_last_weights_are_kept_and_this_is_told(
    tmp_path: Path, boards: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run: Any = Run(tmp_path)
    run.best, run.trainer.current_epoch = None, 2

    def save_checkpoint(path: Path, *, weights_only: bool) -> None:
        assert weights_only
        path.parent.mkdir()
        torch.save({"state_dict": run.model.state_dict(), "epoch": 2}, path)

    run.trainer.save_checkpoint = save_checkpoint
    facts = tasks.train_classifier(run)
    assert facts["best_epoch"] == 1  # Lightning has counted on behind the last one
    assert f"{tmp_path}: no validation chose an epoch" in capsys.readouterr().out
    run.trainer.is_global_zero = False
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    (tmp_path / "checkpoints").rmdir()
    tasks.best_epoch(run.trainer, tmp_path / "checkpoints" / "best.ckpt")
    assert capsys.readouterr().out == ""


def test_what_cannot_be_built_is_told_before_any_data(tmp_path: Path) -> None:
    model = {"backbone": "resnet0", "weights": None, "width": 64, "pixels": 224}
    cfg: dict[str, Any]
    for cfg, message in (
        ({"mitigation": {"loss": {"_target_": "nowhere.Loss"}, "heads": ONE_HEAD}}, "nowhere.Loss"),
        ({"mitigation": {"loss": MEAN, "heads": {"_target_": "no.Head"}}}, "no.Head"),
        ({"model": model}, "resnet0"),
    ):
        run: Any = Run(tmp_path, **cfg)
        run.build = None
        with pytest.raises(ValueError, match=message):
            tasks.train_classifier(run)


def test_a_mitigation_that_does_not_fit_the_arm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = Run(tmp_path)
    asked: list[Any] = []

    def refuse(name: str, parts: tuple[Any, ...], *, index: pd.DataFrame, cohort: str) -> None:
        asked.append((name, [type(part).__name__ for part in parts], index is run.data.index))
        raise ValueError(f"not in {cohort}")

    monkeypatch.setattr(tasks, "check_mitigation", refuse)
    with pytest.raises(ValueError, match="not in phantom"):
        tasks.train_classifier(run)
    assert asked == [("none", ["NoneType", "Mean", "OneHead", "BestEpoch"], True)]


@pytest.mark.parametrize("given", ["weights", "ckpt_path"])
def test_no_published_weights_are_fetched_for_what_is_replaced(tmp_path: Path, given: str) -> None:
    run: Any = Run(tmp_path, **{given: "runs/classifier/a/0"})
    assert tasks.new_classifier(run, run.data) is run.model
    assert run.begun == {"weights": None, "groups": ["g"]}


def test_a_set_is_an_input_with_its_kind_and_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "kind_at", lambda at: f"kind of {at}")
    monkeypatch.setattr(tasks, "origin_at", lambda at: f"origin of {at}")
    run: Any = Run(tmp_path)
    run.data.synthetic_fingerprint = "5e7"
    tasks.new_classifier(run, run.data)
    at = "nowhere/0"
    assert run.used["synthetic_set"] == {
        **{"fingerprint": "5e7", "at": at, "kind": f"kind of {at}", "origin": f"origin of {at}"},
    }


def test_weights_differ_by_any_value() -> None:
    model = Model(1.0)
    assert not tasks.differs(model, Model(1.0).state_dict())  # type: ignore[arg-type]
    assert tasks.differs(model, Model(1.5).state_dict())  # type: ignore[arg-type]


def test_what_is_enlarged_is_told_and_a_set_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(tasks.scale, "for_a_classifier", lambda own, seen: f"{own} to {seen}")
    monkeypatch.setattr(tasks.scale, "tell", told.append)
    there = tmp_path / "set"
    there.mkdir()
    for at, parts, sentences in (
        ("nowhere/0", ["synthetic_set"], 2),
        ("nowhere/0", ["cohort"], 1),
        (str(there), ["synthetic_set"], 1),
    ):
        told.clear()
        monkeypatch.setattr(tasks.overrides, "parts", lambda cfg, parts=parts: parts)
        run: Any = Run(tmp_path, synthetic_set=at)
        tasks.new_classifier(run, run.data)
        assert told[0] == "64 to 224" and len(told) == sentences
    run.leads = False
    tasks.new_classifier(run, run.data)
    assert len(told) == 1


def test_weights_from_a_file_are_an_input_by_their_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"backbone": "resnet18", "weights": "/somewhere/w.pt", "width": 64, "pixels": 224}
    run: Any = Run(tmp_path, model=model)
    tasks.uses_weights(run, Origin("file 4b1d", (), (), ("fc.weight", "fc.bias")))
    assert run.used == {"model.weights": {"fingerprint": "4b1d", "at": "/somewhere/w.pt"}}
    assert capsys.readouterr().out == (
        f"{tmp_path}: starts from the weights of w.pt, but for fc.weight, fc.bias, which start "
        "anew\n"
    )
    tasks.uses_weights(run, Origin("file 4b1d", (), ()))
    assert "w.pt, its last layer, too" in capsys.readouterr().out
    run.leads = False
    tasks.uses_weights(run, Origin("file 4b1d", (), ()))
    assert capsys.readouterr().out == ""
    tasks.uses_weights(run, Origin("imagenet", (), ()))
    assert run.used == {"model.weights": {"fingerprint": "imagenet", "at": None}}
