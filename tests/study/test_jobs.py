"""Sweeps: failed jobs, reruns, launchers and their presets, tuning, and one run in several
processes."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.grid import arrange, expected_runs
from cmrstudy import jobs, plain_errors, runs
from support import ROOT

CONF = ROOT / "conf"
LAUNCHERS = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))
PLUGINS = {"basic", "joblib", "submitit_local", "submitit_slurm", "ray", "ray_aws", "optuna"}
STATUS = Enum("STATUS", "COMPLETED FAILED")

# our settings and run folders, without a network to train: what a run does is told by files beside
# it
STAND_IN = f"""
import os, pathlib
import hydra
from cmrstudy import overrides, runs

@hydra.main(version_base="1.3", config_path="{CONF}", config_name="train")
def main(cfg):
    if (folder := runs.claim(overrides.request(cfg))) is None:
        return None
    with runs.attempt(folder):
        (folder / "process").write_text(str(os.getpid()))
        fault = pathlib.Path(f"fault-{{cfg.seed}}")
        if fault.exists():
            raise getattr(__import__("builtins"), fault.read_text())("seed is odd; give another")
    runs.finish(folder)
    return float(cfg.model.lr)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def app(tmp_path: Path):
    """Runs the stand-in with overrides, below a temporary folder; `fails` says with which error a
    seed ends."""
    (tmp_path / "app.py").write_text(STAND_IN)

    def run(*overrides: str, fails: dict[int, str] | None = None) -> subprocess.CompletedProcess:
        for old in tmp_path.glob("fault-*"):
            old.unlink()
        for seed, error in (fails or {}).items():
            (tmp_path / f"fault-{seed}").write_text(error)
        return python(
            tmp_path / "app.py",
            "experiment=classifier",
            "preset.runs=runs",
            *overrides,
            cwd=tmp_path,
        )

    return run


def python(
    script: Path, *args: str, cwd: Path, seconds: int = 280, **more: str
) -> subprocess.CompletedProcess:
    """The command, in a home of its own; killed with all it started if it hangs."""
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    environment |= {
        "HOME": str(cwd),
        "CMR_HOME": str(cwd),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        **more,
    }
    command = [sys.executable, str(script), *sorted(args, key=lambda arg: arg != "-m")]
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def states(folder: Path) -> dict[int, str]:
    return {
        row.seed: row.state
        for row in expected_runs(arrange(runs_below(folder / "runs" / "classifier"))).itertuples()
    }


def test_a_sweep_that_can_write_nothing_is_told_so(app, tmp_path):
    (tmp_path / "file").write_text("")
    done = app("-m", "seed=0,1", "hydra.sweep.dir=file/sweep")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "file/sweep can't be made" in done.stderr and "preset.runs=" in done.stderr


def test_a_failed_job_is_told_and_counted_and_a_rerun_runs_only_what_is_missing(app, tmp_path):
    ended = app("-m", "seed=range(4)", fails={1: "ValueError", 2: "KeyError"})
    assert ended.returncode == 1
    assert ended.stderr.count("error: seed is odd; give another") == 1
    assert "Traceback" in ended.stderr and "KeyError" in ended.stderr  # a bug is worth one
    told = ended.stderr[ended.stderr.index("2 of 4 runs failed:") :]
    assert "Traceback" not in told and "resume=true runs only what is missing" in told
    assert (
        "synthetic-0/1: seed is odd; give another" in told and "synthetic-0/2: KeyError\n" in told
    )
    assert states(tmp_path) == {0: "finished", 1: "failed", 2: "failed", 3: "finished"}
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/classifier/*/[03]/*")}
    again = app("-m", "seed=range(4)", "resume=true")
    assert again.returncode == 0, again.stderr
    assert (
        again.stdout.count("finished before, reused") == 2
        and "4 of 4 runs finished" in again.stdout
    )
    first = again.stdout.splitlines()[0]  # before anything is done
    assert first.startswith("sweep: 4 runs, ") and "synthetic-0/3, told in " in first
    assert "Traceback" not in again.stderr
    assert set(states(tmp_path).values()) == {"finished"} and not list(
        tmp_path.rglob("failed.json")
    )
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow  # a process of its own
def test_an_interrupt_stops_the_whole_sweep(app, tmp_path):
    ended = app("-m", "seed=range(3)", fails={1: "KeyboardInterrupt"})
    assert ended.returncode != 0
    assert states(tmp_path) == {0: "finished", 1: "unfinished"}


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("processes", "joblib", "submitit_local", "ray")
    ],
)
def test_the_same_command_runs_in_other_processes(app, tmp_path, launcher):
    pytest.importorskip({"processes": "joblib"}.get(launcher, launcher.split("_")[0]))
    sweeping = ["-m", "seed=range(3)", f"hydra/launcher={launcher}"]
    ended = app(*sweeping, fails={1: "ValueError"})
    assert ended.returncode == 1 and "1 of 3 runs failed:" in ended.stderr
    assert "Traceback" not in ended.stderr[ended.stderr.index("1 of 3") :]
    assert states(tmp_path) == {0: "finished", 1: "failed", 2: "finished"}
    assert list(tmp_path.glob("runs/sweeps/*/multirun.yaml"))  # the launcher's own files beside it
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"classifier", "sweeps"}
    if launcher != "processes":
        assert len({path.read_text() for path in tmp_path.rglob("process")}) > 1
        again = app(*sweeping, "resume=true")
        assert again.returncode == 0 and set(states(tmp_path).values()) == {"finished"}


def job(
    mode: str = "RUN", error: Exception | None = None, folder: Path = Path()
) -> tuple[SimpleNamespace, ...]:
    """What Hydra gives the callback."""
    hydra = SimpleNamespace(
        mode=SimpleNamespace(name=mode),
        sweep=SimpleNamespace(dir=str(folder)),
        job=SimpleNamespace(num=0),
        overrides=SimpleNamespace(task=["seed=3"]),
    )
    status = STATUS.FAILED if error else STATUS.COMPLETED
    ended = SimpleNamespace(status=status, _return_value=error, return_value=error)
    return SimpleNamespace(hydra=hydra, run_dir="runs/a/0"), ended


def test_an_attempt_that_ends_is_no_failure_and_has_an_exit_status_of_its_own(
    monkeypatch, tmp_path, capsys
):
    ended = plain_errors.AttemptEnded(
        "trainer.max_time is over; the same command continues runs/a/0"
    )
    config, returned = job(error=ended)
    with pytest.raises(SystemExit) as left:
        jobs.Jobs().on_job_end(config=config, job_return=returned)
    assert left.value.code == jobs.UNFINISHED and capsys.readouterr().err == f"{ended}\n"
    config, returned = job("MULTIRUN", ended, tmp_path)
    callback = jobs.Jobs()
    callback.on_job_start(config=config, task_function=job)
    callback.on_job_end(config=config, job_return=returned)
    assert jobs.read_records(tmp_path)[0]["state"] == "unfinished"
    with pytest.raises(
        SystemExit, match="1 of 1 run unfinished:\n  runs/a/0: trainer.max_time is over"
    ):
        callback.on_multirun_end(config=config)


def test_a_job_of_a_sweep_never_takes_the_folder_of_another(tmp_path):
    """A search decides its jobs as it goes, so nobody can look beforehand."""

    def asked(number: int, settings: dict, **options) -> runs.Request:
        return runs.Request(
            tmp_path / "run" / "0", options, settings, {}, [], {}, (tmp_path / "sweep", number)
        )

    folder = runs.claim(asked(0, {"lr": 1}))
    (folder / "predictions.csv").write_text("a job's work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="job 0 of this sweep works there"):
            runs.claim(asked(1, {"lr": 2}, overwrite=overwrite))
    assert runs.claim(asked(0, {"lr": 1})) == folder  # queued again by SLURM
    runs.finish(folder)
    assert runs.claim(asked(2, {"lr": 1}, overwrite=True)) is None  # tried twice: reused
    assert (folder / "predictions.csv").exists()


def test_bad_input_ends_a_single_run_with_its_paragraph_and_a_bug_with_hydras_traceback(
    monkeypatch,
):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    config, ended = job(error=ValueError("subject SYN0007: no mask"))
    with pytest.raises(SystemExit, match="error: subject SYN0007: no mask"):
        jobs.Jobs().on_job_end(config=config, job_return=ended)
    for error in (KeyError("bug"), None):
        config, ended = job(error=error)
        jobs.Jobs().on_job_end(config=config, job_return=ended)
        assert ended._return_value is error and (ended.status is STATUS.FAILED) == bool(error)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    config, ended = job(error=ValueError("subject SYN0007: no mask"))
    jobs.Jobs().on_job_end(config=config, job_return=ended)
    assert ended.status is STATUS.FAILED


def test_a_job_of_a_sweep_looks_like_a_single_run_and_leaves_the_process_as_it_was(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    config, ended = job(
        "MULTIRUN", PermissionError(13, "Permission denied", "a participant's file"), tmp_path
    )
    before, main, spec = sys.argv, sys.modules["__main__"], sys.modules["__main__"].__spec__
    callback = jobs.Jobs()
    callback.on_job_start(config=config, task_function=job)
    assert sys.argv == [__file__, "seed=3"] and main.__spec__ is None
    os.environ["LOCAL_RANK"], os.environ["MASTER_PORT"] = "0", "2"  # as Lightning does
    callback.on_job_end(config=config, job_return=ended)
    assert sys.argv is before and main.__spec__ is spec
    assert "LOCAL_RANK" not in os.environ and os.environ["MASTER_PORT"] == "1"
    assert ended.status is STATUS.COMPLETED and ended.return_value is None
    assert "participant" not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert jobs.read_records(tmp_path) == [
        {"run": "runs/a/0", "state": "failed", "told": "PermissionError"}
    ]
    with pytest.raises(SystemExit, match="(?s)1 of 1 run failed:.*runs/a/0: PermissionError"):
        callback.on_multirun_end(config=config)


# presets


def hydra_config(*overrides: str, experiment: str = "experiment=classifier") -> OmegaConf:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [experiment, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg.hydra


def test_an_unknown_launcher_is_hydras_own_clear_message():
    with pytest.raises(ConfigCompositionException, match="(?s)slum.*Available options.*slurm"):
        hydra_config("hydra/launcher=slum")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_preset_is_what_its_plugin_takes(name):
    assert name not in PLUGINS
    pytest.importorskip(
        {"processes": "joblib"}.get(name, name.split("_")[0].replace("slurm", "submitit"))
    )
    config = hydra_config(f"hydra/launcher={name}", "hydra.sweep.dir=here").launcher
    assert type(instantiate(config)).__module__ == config._target_.rsplit(".", 1)[0]


def test_the_slurm_presets_ask_for_what_they_say(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, gpus in (("slurm", 1), ("slurm_cpu", 0)):
        params = OmegaConf.to_container(
            hydra_config(f"hydra/launcher={name}", "hydra.sweep.dir=here").launcher
        )
        assert params.pop("_target_").endswith("SlurmLauncher")
        executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm")
        common = (
            "timeout_min",
            "cpus_per_task",
            "gpus_per_node",
            "tasks_per_node",
            "mem_gb",
            "nodes",
            "stderr_to_stdout",
        )
        own = {key: params[key] for key in ("array_parallelism", "signal_delay_s", "partition")}
        executor.update_parameters(
            **{key: params[key] for key in common},
            **{f"slurm_{key}": value for key, value in own.items()},
        )
        asked = executor._executor._make_submission_file_text("train", "0")
        assert (
            f"#SBATCH --time={params['timeout_min']}\n" in asked
            and f"--mem={params['mem_gb']}GB" in asked
        )
        assert (
            f"--cpus-per-task={params['cpus_per_task']}" in asked
            and f"--gpus-per-node={gpus}" in asked
        )


def test_the_tuner_searches_settings_that_there_are():
    if not importlib.util.find_spec("optuna"):
        pytest.skip("the extra cluster is not installed")
    config = hydra_config("hydra/sweeper=tune")
    assert config.sweeper.direction == "maximize" and set(config.sweeper.params) == {
        "model.lr",
        "model.weight_decay",
    }
    assert hydra_config(*(f"{key}=0.001" for key in config.sweeper.params))


def test_every_command_of_the_page_composes():
    lines = [
        line
        for line in (ROOT / "docs" / "sweeps.md").read_text().splitlines()
        if line.startswith("python train.py ")
    ]
    for line in lines:
        words = [word.split("=", 1) for word in shlex.split(line)[2:] if word != "-m"]
        first = [
            f"{key}={'0' if value.startswith('range(') else value.split(',')[0]}"
            for key, value in words
        ]
        assert hydra_config(*first[1:], experiment=first[0]) and first[0].startswith("experiment=")
    assert len(lines) >= 6


@pytest.mark.slow
def test_the_tuner_keeps_the_best_trial_and_its_runs_apart_from_the_studys(app, tmp_path):
    pytest.importorskip("optuna")
    ended = app("-m", "hydra/sweeper=tune", "hydra.sweeper.n_trials=3")
    assert ended.returncode == 0, ended.stderr
    tried = [
        yaml.safe_load(path.read_text())["model"]
        for path in tmp_path.glob("runs/tune/*/*/0/config.yaml")
    ]
    assert (
        len({model["weight_decay"] for model in tried}) == 3
        and not (tmp_path / "runs" / "classifier").exists()
    )
    best = yaml.safe_load(
        next(tmp_path.glob("runs/sweeps/*/optimization_results.yaml")).read_text()
    )
    assert (
        best["best_value"] == max(model["lr"] for model in tried) == best["best_params"]["model.lr"]
    )


# train.py


@pytest.fixture(scope="module")
def train() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "train.py")))


@pytest.mark.parametrize(
    ("devices", "environment", "follows"),
    [
        (1, {"SLURM_PROCID": "3"}, False),
        (2, {}, False),
        (2, {"LOCAL_RANK": "0"}, False),
        (2, {"LOCAL_RANK": "1"}, True),
        (-1, {"SLURM_PROCID": "3"}, True),
        (2, {"LOCAL_RANK": "0", "NODE_RANK": "1"}, True),
    ],
)
def test_only_the_first_of_several_processes_claims_a_run(
    train, tmp_path, monkeypatch, devices, environment, follows
):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "0"
    settings = {
        "run_dir": str(run),
        "resume": True,
        "overwrite": False,
        "refresh": False,
        "trainer": {"devices": devices, "num_nodes": 1},
    }
    with ExitStack() as hold:
        assert train.claim(OmegaConf.create(settings), hold) == run and run.exists() != follows
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(
        yaml.safe_dump({key: settings[key] for key in ("run_dir", "trainer")})
    )
    runs.finish(run)
    with ExitStack() as hold:
        assert train.claim(OmegaConf.create(settings), hold) is None


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Runs train.py experiment=classifier on a tiny phantom below a temporary folder, which is
    returned."""
    folder = tmp_path_factory.mktemp("classifier")

    def run(*overrides: str, **environment: str) -> subprocess.CompletedProcess:
        small = [
            "preset=smoke",
            "preset.runs=runs",
            "cohort.pixels=32",
            "cohort.subjects=200",
            "trainer.accelerator=cpu",
        ]
        return python(
            ROOT / "train.py",
            "experiment=classifier",
            *small,
            *overrides,
            cwd=folder,
            **environment,
        )

    run.folder = folder
    return run


@pytest.mark.slow
def test_two_processes_give_the_metrics_and_predictions_of_one_in_a_sweep_too(classifier):
    """Without batch norm, whose statistics only GPUs share, and without augmentation, which each
    process draws anew."""
    plain = [
        "-m",
        "seed=0,1",
        "model.backbone=test_convnext",
        "model.width=64",
        "model.flips=0",
        "model.noise_std=0",
    ]
    plain += ["data.images_per_epoch=64", "data.batch_size=32", "trainer.max_epochs=2"]
    for name, more in (("one", []), ("two", ["trainer.devices=2", "trainer.strategy=ddp"])):
        ended = classifier(*plain, f"name={name}", *more)
        assert ended.returncode == 0, ended.stderr
        assert "2 of 2 runs finished" in ended.stdout
    for seed in (0, 1):
        one, two = (classifier.folder / "runs" / name / str(seed) for name in ("one", "two"))
        a, b = runs.facts(one), runs.facts(two)
        assert a["steps"] == b["steps"] == 4 and a["best_epoch"] == b["best_epoch"]
        for key in (
            "train_loss",
            "val_loss",
            "val_balanced_accuracy",
            "best_val_balanced_accuracy",
        ):
            assert a[key] == pytest.approx(b[key], abs=2e-4), key
        first, second = (pd.read_csv(run / "predictions.csv") for run in (one, two))
        assert not second.duplicated(["subject", "split"]).any()
        pd.testing.assert_frame_equal(
            first.drop(columns="probability"), second.drop(columns="probability")
        )
        np.testing.assert_allclose(first.probability, second.probability, atol=2e-4)
    different = [
        pd.read_csv(classifier.folder / f"runs/one/{seed}/predictions.csv").probability
        for seed in (0, 1)
    ]
    assert np.abs(different[0] - different[1]).max() > 2e-3  # the tolerance tells runs apart


@pytest.mark.slow
def test_slurms_tasks_train_one_run_and_a_refusal_ends_them_all(classifier):
    """Tasks as srun starts them, here without SLURM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        slurm = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "SLURM_JOB_NAME": "train",
        }
    slurm |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}

    def task(rank: int) -> subprocess.CompletedProcess:
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        return classifier("name=slurm", "trainer.devices=2", "trainer.strategy=ddp", **slurm, **own)

    with ThreadPoolExecutor(2) as at_once:
        trained, refused = (list(at_once.map(task, range(2))) for _ in range(2))
    assert [ended.returncode for ended in trained] == [0, 0], trained
    assert sum("finished" in ended.stdout for ended in trained) == 1
    assert [ended.returncode for ended in refused] == [1, 1]
    assert all("holds a finished run" in ended.stderr for ended in refused)


@pytest.mark.slow
def test_tuning_early_stops_and_diverging_losses_end_to_end(classifier):
    pytest.importorskip("optuna")
    tuned = classifier("-m", "hydra/sweeper=tune", "hydra.sweeper.n_trials=2")
    assert tuned.returncode == 0, tuned.stderr
    found = [
        runs.facts(path.parent) for path in classifier.folder.glob("runs/tune/*/*/0/finished.json")
    ]
    best = yaml.safe_load(
        next(classifier.folder.glob("runs/sweeps/*/optimization_results.yaml")).read_text()
    )
    assert len(found) == 2 and best["best_value"] == max(
        f["best_val_balanced_accuracy"] for f in found
    )
    stop = "{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val_loss,patience:1,min_delta:9}"
    # the first epoch stays the best
    still = ["model.lr=0", "model.backbone=test_convnext", "model.width=64"]
    early = classifier("name=early", *still, "trainer.max_epochs=5", f"+trainer.callbacks=[{stop}]")
    assert (
        early.returncode == 0
        and "stopped early, after 2 of 5 epochs: Monitored metric val_loss" in early.stdout
    )
    run = classifier.folder / "runs" / "early" / "0"
    assert "stopped early" in runs.facts(run)["stopped"] and runs.facts(run)["best_epoch"] == 0
    # two are behind it
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    diverged = classifier(
        "-m", "name=diverged-${model.lr}", "model.lr=1e30,1e31", "seed=0,1", "trainer.max_epochs=3"
    )
    assert diverged.returncode == 1 and "4 of 4 runs failed" in diverged.stderr


# what is told, by itself


def a_job(folder: str, *overrides: str, number: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        folder=Path(folder),
        overrides=list(overrides),
        config={"number": number},
        choices={"cohort": "phantom"},
        pattern=lambda at: f"<{at}>",
    )


def test_two_jobs_of_one_folder_are_named_by_what_they_differ_in(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "settings", lambda config: config["number"])
    one = a_job("runs/a", "seed=0", "+x=a=b", "cohort=phantom", "~y")
    assert jobs.shared_folder([]) is jobs.shared_folder([one]) is None
    assert jobs.shared_folder([one, a_job("runs/b", "seed=0")]) is None
    again = a_job("runs/a", "seed=0", "+x=a=b", "cohort=phantom")
    assert jobs.shared_folder([one, again]) == (
        "two jobs of this sweep are the same run, runs/a; give each once"
    )
    other = a_job("runs/a", "seed=1", "x=a=c", "cohort=acdc", number=1)
    assert jobs.shared_folder([a_job("runs/b"), one, other]) == (
        "two jobs of this sweep, seed=0 x=a=b cohort=phantom and seed=1 x=a=c cohort=acdc, would "
        "share runs/a. Give each its own, e.g. "
        "'name=<name>-${seed}-${x}-${hydra:runtime.choices.cohort}'"
    )
    alike = a_job("runs/a", "run_dir=runs/a", "seed=1")
    told = jobs.shared_folder([a_job("runs/a", "seed=0"), alike])
    assert "run_dir=None seed=0 and run_dir=runs/a seed=1, would" in told
    assert "share runs/a; run_dir, seed decides no number of this run. Give" in told
    assert told.endswith("e.g. 'run_dir=<run_dir>-${run_dir}-${seed}'")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert jobs.shared_folder([a_job(f"{tmp_path}/a"), a_job(f"{tmp_path}/b")])


def test_a_sweep_ends_with_its_outcomes_in_the_order_of_its_jobs(tmp_path, capsys):
    config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path))))
    states = {10: "failed", 2: "unfinished", 1: "finished", 0: "failed"}
    for number, state in states.items():
        record = {"run": f"r{number}", "state": state, "told": f"t{number}"}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    (tmp_path / "x.json").write_text("no record")
    assert [one["run"] for one in jobs.read_records(tmp_path)] == ["r0", "r1", "r2", "r10"]
    with pytest.raises(SystemExit) as ended:
        jobs.Jobs().on_multirun_end(config)
    assert str(ended.value) == (
        "2 of 4 runs failed:\n  r0: t0\n  r10: t10\n1 of 4 runs unfinished:\n  r2: t2\n"
        f"The same command with resume=true runs only what is missing. {tmp_path}"
    )
    for number in (0, 2, 10):
        (tmp_path / f"{number}.json").unlink()
    jobs.Jobs().on_multirun_end(config)
    assert capsys.readouterr().out == f"1 of 1 run finished: {tmp_path}\n"


def test_a_jobs_end_is_recorded_and_what_other_people_say_is_not(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def ended(error: Exception | None, *, sweeps: bool = True) -> dict | int | str:
        config = SimpleNamespace(
            run_dir="runs/a",
            hydra=SimpleNamespace(
                mode=SimpleNamespace(name="MULTIRUN" if sweeps else "RUN"),
                sweep=SimpleNamespace(dir=str(tmp_path)),
                job=SimpleNamespace(num=3),
                overrides=SimpleNamespace(task=["seed=1"]),
            ),
        )
        job = SimpleNamespace(
            status=STATUS.FAILED if error else STATUS.COMPLETED, _return_value=error, return_value=1
        )
        one = jobs.Jobs()
        before = list(sys.argv)
        one.on_job_start(config, ended)
        assert sys.argv == ([__file__, "seed=1"] if sweeps else before)
        try:
            one.on_job_end(config, job)
        except SystemExit as end:
            return end.code
        finally:
            assert sys.argv == before
        if not sweeps:
            return {}
        assert job.status is STATUS.COMPLETED and job.return_value == (None if error else 1)
        return json.loads((tmp_path / "3.json").read_text())

    def attempt(cause: BaseException | None) -> plain_errors.AttemptEnded:
        error = plain_errors.AttemptEnded("runs/a: over")
        error.__cause__ = cause
        return error

    assert ended(None) == {"run": "runs/a", "state": "finished"}
    assert ended(None, sweeps=False) == {} and capsys.readouterr().err == ""
    assert ended(ValueError("no mask")) == {"run": "runs/a", "state": "failed", "told": "no mask"}
    assert capsys.readouterr().err == "error: no mask\n"
    assert ended(ValueError("no mask"), sweeps=False) == "error: no mask"
    assert ended(KeyError("SYN0001"))["told"] == "KeyError"
    assert "Traceback" in (said := capsys.readouterr().err) or "KeyError" in said
    assert ended(KeyError("SYN0001"), sweeps=False) == {}
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert ended(ValueError("no mask"), sweeps=False) == {}
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    capsys.readouterr()
    assert ended(attempt(None))["state"] == "unfinished"
    assert capsys.readouterr().err == "runs/a: over\n"
    assert ended(attempt(None), sweeps=False) == 3
    assert ended(attempt(KeyboardInterrupt()), sweeps=False) == 130
    capsys.readouterr()
    assert ended(attempt(KeyboardInterrupt())) == 130
    assert "The sweep ends here." in capsys.readouterr().err
