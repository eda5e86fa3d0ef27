"""Run folders in each of their states, plain errors, and writes that are whole or not there."""

import errno
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cmrdata.disk import Unwritable, differences, write_atomic, writing
from cmrstudy import runs
from cmrstudy.runs import attempt, begin, facts, finish, told

CONFIG = {"seed": 0, "trainer": {"max_epochs": 5, "precision": "32-true"}, "resume": False, "overwrite": False}


def start(folder, config=None, *, resume=False, overwrite=False):
    return begin(folder, {**CONFIG, **(config or {})}, resume=resume, overwrite=overwrite)


def work(folder):
    (folder / "log").mkdir()
    (folder / "log" / "metrics.csv").write_text("step\n1\n")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_folder_keeps_the_config_without_how_it_was_run(tmp_path):
    folder = tmp_path / "controlnet" / "0"
    assert start(folder) == "fresh"
    assert runs.config(folder) == {key: CONFIG[key] for key in ("seed", "trainer")}
    assert set(contents(folder)) == {"config.yaml"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_left_only_its_config_is_fresh_even_with_other_settings(tmp_path, resume):
    start(tmp_path)
    (tmp_path / ".config.yaml.99").write_text("torn")
    assert start(tmp_path, {"seed": 3}, resume=resume) == "fresh"
    assert runs.config(tmp_path)["seed"] == 3


@pytest.mark.parametrize(("done", "state", "verb"), [(False, "unfinished", "continue"), (True, "finished", "reuse")])
def test_a_folder_in_use_is_refused_with_its_state_and_the_remedies(tmp_path, done, state, verb):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path, val_loss=0.1)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"{state} run; resume=true to {verb} it, overwrite=true") as error:
        start(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("done", [False, True])
def test_resume_continues_or_reuses(tmp_path, done):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path, val_loss=0.1)
    before = contents(tmp_path)
    assert start(tmp_path, {"resume": True}, resume=True) == ("finished" if done else "continue")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("done", [False, True])
def test_resume_names_the_settings_that_differ(tmp_path, done):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path)
    before = contents(tmp_path)
    other = {"seed": 1, "trainer": {"max_epochs": 7, "precision": "32-true"}}
    with pytest.raises(ValueError, match="seed 0 -> 1; trainer.max_epochs 5 -> 7. Give it another name= or overwrite"):
        start(tmp_path, other, resume=True)
    assert contents(tmp_path) == before


def test_of_many_differences_six_are_named_and_the_rest_counted(tmp_path):
    start(tmp_path, {"data": {f"k{k}": 0 for k in range(9)}})
    work(tmp_path)
    with pytest.raises(ValueError, match=r"data.k5 0 -> 1; and 3 more"):
        start(tmp_path, {"data": {f"k{k}": 1 for k in range(9)}}, resume=True)


@pytest.mark.parametrize("done", [False, True])
def test_overwrite_starts_anew(tmp_path, done):
    folder = tmp_path / "0"
    start(folder)
    work(folder)
    if done:
        finish(folder)
    assert start(folder, {"seed": 2}, overwrite=True) == "fresh"
    assert set(contents(folder)) == {"config.yaml"} and runs.config(folder)["seed"] == 2


def test_what_failed_is_told_beside_the_run_until_it_is_tried_again(tmp_path):
    start(tmp_path)
    with pytest.raises(ValueError, match="SYN0007"), attempt(tmp_path):
        raise ValueError("subject SYN0007: no mask")
    record = json.loads((tmp_path / "failed.json").read_text())
    assert record["told"] == "subject SYN0007: no mask" and record["kind"] == "ValueError" and record["failed"]
    assert start(tmp_path) == "fresh" and set(contents(tmp_path)) == {"config.yaml"}
    with pytest.raises(FloatingPointError), attempt(tmp_path):
        work(tmp_path)
        raise FloatingPointError("loss is nan")
    with pytest.raises(FileExistsError, match="unfinished run"):
        start(tmp_path)
    assert (tmp_path / "failed.json").exists()  # a refusal is no try
    assert start(tmp_path, resume=True) == "continue" and not (tmp_path / "failed.json").exists()


def test_the_record_of_a_failure_repeats_nothing_that_others_say_and_an_interrupt_leaves_none(tmp_path):
    with pytest.raises(OSError, match="Permission"), attempt(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "a participant's file")
    assert "participant" not in (tmp_path / "failed.json").read_text()
    (tmp_path / "failed.json").unlink()
    with pytest.raises(KeyboardInterrupt), attempt(tmp_path):
        raise KeyboardInterrupt
    with attempt(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_failure_of_a_full_disk_needs_no_room_for_its_record(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Unwritable, match="first"), attempt(tmp_path):
        raise Unwritable("first")
    assert not list(tmp_path.iterdir())


def test_what_slurm_starts_again_continues_what_it_began(tmp_path, monkeypatch):
    config = {"run_dir": str(tmp_path / "0"), "resume": False, "overwrite": False, "seed": 0}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    folder = runs.claim(config)
    (folder / "last.ckpt").touch()
    with pytest.raises(FileExistsError, match="resume=true to continue it"):
        runs.claim(config)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert runs.claim(config) == folder


@pytest.mark.parametrize(
    ("claimed", "first", "other"),
    [(FileExistsError("is there"), FileExistsError, FileExistsError), (KeyError("bug"), KeyError, RuntimeError)],
)
def test_what_the_first_process_learns_all_of_them_learn(claimed, first, other):
    sent = []

    def claim():
        if isinstance(claimed, Exception):
            raise claimed

    zero = SimpleNamespace(is_global_zero=True, broadcast=lambda value: sent.append(value) or value)
    one = SimpleNamespace(is_global_zero=False, broadcast=lambda value: sent[-1])
    with pytest.raises(first):
        runs.agreed(zero, claim)
    with pytest.raises(other):
        runs.agreed(one, lambda: pytest.fail("only the first claims"))
    assert runs.agreed(zero, lambda: Path("here")) == runs.agreed(one, claim) == Path("here")


def test_a_run_is_held_against_other_processes_until_it_ends(tmp_path, monkeypatch):
    folder = tmp_path / "classifier" / "0"
    with runs.held(folder):
        with pytest.raises(FileExistsError, match="classifier/0: another process is at work.*resume=true"):
            runs.held(folder).__enter__()
        with runs.held(tmp_path / "classifier" / "1"):
            assert not folder.exists()
    with runs.held(folder):
        pass
    monkeypatch.setattr(runs.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    with runs.held(folder):  # a disk without locks is no fault
        pass


def test_an_end_by_slurms_clock_is_told_with_its_remedy():
    assert "hydra.launcher.max_num_timeout=<n>" in told(type("UncompletedJobError", (Exception,), {})("not requeued"))


def test_what_hydra_wraps_is_told_and_a_bug_is_not():
    class InstantiationException(Exception):
        pass

    wrapped = InstantiationException("Error in call to target")
    wrapped.__cause__ = ValueError("labels='x': give a list")
    assert told(wrapped) == "labels='x': give a list"
    assert told(InstantiationException("no cause")) is None and told(KeyError("bug")) is None


def test_facts_of_a_finished_run_and_the_remedy_for_another(tmp_path):
    start(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished run there.*resume=true"):
        facts(tmp_path)
    finish(tmp_path, val_loss=0.25, cohort="phantom")
    assert (
        facts(tmp_path)["val_loss"] == 0.25 and facts(tmp_path)["cohort"] == "phantom" and facts(tmp_path)["finished"]
    )


def test_differences_are_leaves_by_their_dotted_name():
    old, new = {"a": {"b": 1, "c": [1, 2]}, "gone": 1}, {"a": {"b": 1, "c": [1, 3]}, "come": {"x": 1}}
    assert differences(old, new) == ["a.c [1, 2] -> [1, 3]", "come None -> {'x': 1}", "gone 1 -> None"]
    assert differences(old, yaml.safe_load(yaml.safe_dump(old))) == []


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, FileExistsError, FloatingPointError, Unwritable])
def test_bad_input_is_told_in_its_own_words(kind):
    assert told(kind("subject SYN0007: no mask")) == "subject SYN0007: no mask"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_full_or_read_only_disk_is_told_with_a_remedy(number):
    message = told(OSError(number, os.strerror(number), "runs/controlnet/0/last.ckpt"))
    assert re.search(f"{os.strerror(number)}: 'runs/.*; free some space, .*run_dir=", message)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "denied", "a participant's file"), KeyError("bug")])
def test_other_errors_keep_their_traceback(error):
    assert told(error) is None


def test_what_a_disk_refuses_names_the_folder_the_need_and_the_remedy_once(tmp_path):
    refused = OSError(errno.ENOSPC, "No space left on device", "images.u8")
    with pytest.raises(Unwritable) as told, writing(tmp_path), writing(tmp_path / "inner", needs="9 MB are needed"):
        raise refused
    assert str(told.value).startswith(
        f"{tmp_path / 'inner'} cannot be written: No space left on device; 9 MB are needed."
    )
    assert "Free some space there, or give another place with data_root=" in str(told.value)
    assert told.value.__cause__ is refused
    with pytest.raises(Unwritable, match="Make it writable, or give another place"), writing(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ValueError, match="no fault of the disk"), writing(tmp_path):
        raise ValueError("no fault of the disk")


def test_a_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old, and longer than the new")
    write_atomic(path, "ümlaut")
    assert path.read_text(encoding="utf-8") == "ümlaut"
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_is_on_the_disk_before_its_name_is_and_the_name_before_it_returns(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        inner = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *a, inner=inner, step=step: (steps.append(step), inner(*a)))
    write_atomic(tmp_path / "a.json", "new")
    assert steps == ["fsync", "replace", "fsync"]


def test_a_folder_that_cannot_be_synchronised_is_no_fault(tmp_path, monkeypatch):
    inner = os.open

    def unable(path, *args, **kwargs):
        if path == tmp_path:
            raise OSError(errno.EINVAL, "Invalid argument")
        return inner(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", unable)
    write_atomic(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
