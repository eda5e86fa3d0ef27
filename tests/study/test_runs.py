"""Run folders in each of their states, plain errors, and writes that are whole or not there."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmrdata import disk
from cmrdata.disk import Unwritable
from cmrstudy import plain_errors, runs
from cmrstudy.runs import attempt, begin, facts, finish

CONFIG = {
    "seed": 0,
    "trainer": {"max_epochs": 5, "precision": "32-true"},
    "resume": "auto",
    "overwrite": False,
}
OURS = {"config.yaml", "run.json"}


def flat(config, at=""):
    parts = (
        flat(v, f"{at}{k}.") if isinstance(v, dict) else {f"{at}{k}": v} for k, v in config.items()
    )
    return {key: value for part in parts for key, value in part.items()}


def asked(folder, config=None, *, places=None):
    config = {**CONFIG, "run_dir": str(folder), **(config or {})}
    hidden = ("resume", "overwrite", "stale", "run_dir", "repeatable")
    settings = flat({key: value for key, value in config.items() if key not in hidden})
    return runs.Request(folder, config, settings, {"cohort": "phantom"}, [], places or {})


def start(folder, config=None, *, resume="auto", overwrite=False, stale=None, places=None):
    return begin(
        asked(folder, config, places=places), resume=resume, overwrite=overwrite, stale=stale
    )


def work(folder):
    (folder / "log").mkdir()
    (folder / "log" / "metrics.csv").write_text("step\n1\n")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("weights")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_fresh_folder_keeps_the_config_without_what_its_command_was_asked(tmp_path):
    folder = tmp_path / "controlnet" / "0"
    assert start(folder) == "fresh"
    assert runs.config(folder) == {"seed": 0, "trainer": CONFIG["trainer"], "run_dir": str(folder)}
    kept = runs.record(folder)
    assert kept.settings == {"seed": 0, "trainer.max_epochs": 5, "trainer.precision": "32-true"}
    assert (
        kept.state == "unfinished" and kept.choices == {"cohort": "phantom"} and kept.inputs == {}
    )
    assert set(contents(folder)) == OURS


@pytest.mark.parametrize("resume", ["auto", False, True])
def test_a_run_that_left_only_its_config_is_fresh_even_with_other_settings(tmp_path, resume):
    start(tmp_path)
    (tmp_path / ".config.yaml.99").write_text("torn")
    assert start(tmp_path, {"seed": 3}, resume=resume) == "fresh"
    assert runs.config(tmp_path)["seed"] == 3


@pytest.mark.parametrize(
    ("done", "resume", "state", "verb"),
    [
        (False, False, "unfinished", "continue"),
        (True, False, "finished", "reuse"),
        (True, "auto", "finished", "reuse"),
    ],
)
def test_a_folder_in_use_is_refused_with_its_state_and_the_remedies(
    tmp_path, done, resume, state, verb
):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path, val_loss=0.1)
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match=f"{state} run; resume=true to {verb} it, overwrite=true"
    ) as error:
        start(tmp_path, resume=resume)
    assert str(tmp_path) in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("done", "resume"), [(False, "auto"), (False, True), (True, True)])
def test_the_same_command_continues_and_resume_reuses(tmp_path, done, resume):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path, val_loss=0.1)
    before = contents(tmp_path)
    assert start(tmp_path, resume=resume) == ("finished" if done else "continue")
    assert contents(tmp_path) == before


def test_what_a_finished_run_has_left_is_gone_on_with_while_others_use_it(tmp_path, capsys):
    start(tmp_path)
    work(tmp_path)
    finish(tmp_path, images=3, left="the figures")
    assert facts(tmp_path)["images"] == 3 and runs.record(tmp_path).state == "finished"
    assert start(tmp_path) == "continue" and start(tmp_path, resume=True) == "continue"
    assert runs.record(tmp_path).state == "finished"  # all the time
    with pytest.raises(FileExistsError, match="unfinished run; resume=true to continue"):
        start(tmp_path, resume=False)
    finish(tmp_path, images=3)
    assert start(tmp_path, resume=True) == "finished"


@pytest.mark.parametrize("done", [False, True])
def test_resume_names_the_settings_that_differ(tmp_path, done):
    start(tmp_path)
    work(tmp_path)
    if done:
        finish(tmp_path)
    before = contents(tmp_path)
    other = {"seed": 1, "trainer": {"max_epochs": 7, "precision": "32-true"}}
    with pytest.raises(
        ValueError,
        match="seed 0 -> 1; trainer.max_epochs 5 -> 7. Give it another name= or overwrite",
    ):
        start(tmp_path, other, resume=True)
    assert contents(tmp_path) == before


def test_of_many_differences_six_are_named_and_the_rest_counted(tmp_path):
    start(tmp_path, {"data": {f"k{k}": 0 for k in range(9)}})
    work(tmp_path)
    with pytest.raises(ValueError, match=r"data.k5 0 -> 1; and 3 more"):
        start(tmp_path, {"data": {f"k{k}": 1 for k in range(9)}}, resume=True)


@pytest.mark.parametrize(("option", "value"), [("resume", "yes"), ("stale", "drop")])
def test_an_unknown_answer_is_named_with_those_there_are(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option}={value}: it takes"):
        start(tmp_path, **{option: value})


# what may be removed


@pytest.mark.parametrize("done", [False, True])
def test_overwrite_starts_anew(tmp_path, done):
    folder = tmp_path / "0"
    start(folder)
    work(folder)
    if done:
        finish(folder)
    assert start(folder, {"seed": 2}, overwrite=True) == "fresh"
    assert set(contents(folder)) == OURS and runs.config(folder)["seed"] == 2


def test_overwrite_removes_nothing_that_this_program_did_not_write(tmp_path, capsys):
    folder, elsewhere = tmp_path / "0", tmp_path / "elsewhere"
    start(folder)
    work(folder)
    mine = ["notes.txt", "checkpoints/good.ckpt", "thesis/thesis.tex"]
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    elsewhere.mkdir()
    (elsewhere / "metrics.csv").write_text("another study's")
    (folder / "previews").symlink_to(elsewhere)
    assert start(folder, overwrite=True) == "fresh"
    assert set(contents(folder)) == OURS | set(mine)
    assert (folder / "previews").is_symlink() and (elsewhere / "metrics.csv").exists()
    assert all(
        name in capsys.readouterr().out for name in ["kept, not written by this program", *mine][:1]
    )
    assert start(folder, {"seed": 4}) == "fresh"  # what is kept is no run


def test_checkpoints_on_another_disk_go_and_the_link_to_them_stays(tmp_path):
    folder, scratch = tmp_path / "0", tmp_path / "scratch"
    start(folder)
    scratch.mkdir()
    (folder / "checkpoints").symlink_to(scratch)
    for name in ("last.ckpt", "mine.ckpt"):
        (scratch / name).write_text("weights")
    start(folder, overwrite=True)
    assert (folder / "checkpoints").is_symlink() and [p.name for p in scratch.iterdir()] == [
        "mine.ckpt"
    ]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize(
    "record",
    ['{"made_by": "another program"}', '{"made_by": "cmr-debias", "settings": {}}', "[]", "torn"],
)
def test_a_folder_that_is_no_runs_is_never_touched(tmp_path, overwrite, repeatable, record):
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "config.yaml").write_text("seed: 0")  # another program's
    (tmp_path / "run.json").write_text(record)
    assert runs.record(tmp_path) is None
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match="files that are no run's .*thesis.tex.*another run_dir="
    ):
        start(tmp_path, {"repeatable": repeatable}, overwrite=overwrite, resume=True)
    assert contents(tmp_path) == before


def test_a_file_or_a_broken_link_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, message in (
        ("file", "is a file"),
        ("link", "broken link is in the way"),
        ("file/0", "in the way"),
    ):
        with pytest.raises(FileExistsError, match=message):
            start(tmp_path / name, overwrite=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "good").symlink_to(tmp_path / "there")
    assert start(tmp_path / "good") == "fresh" and set(contents(tmp_path / "there")) == OURS


def test_what_is_cheap_to_repeat_takes_the_place_of_the_last_and_leaves_the_rest(tmp_path):
    start(tmp_path, {"repeatable": True})
    (tmp_path / "subjects.csv").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    finish(tmp_path)
    assert start(tmp_path, {"repeatable": True, "seed": 1}) == "fresh"
    assert set(contents(tmp_path)) == OURS | {"notes.txt"}


def test_an_interrupted_removal_leaves_a_run_of_ours(tmp_path, monkeypatch):
    start(tmp_path)
    work(tmp_path)
    finish(tmp_path)
    inner, left = Path.unlink, iter(range(2))

    def dying(path, missing_ok=False):
        if next(left, None) is None:
            raise KeyboardInterrupt
        inner(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dying)
        start(tmp_path, overwrite=True)
    assert (
        start(tmp_path, {"seed": 9}, overwrite=True) == "fresh" and set(contents(tmp_path)) == OURS
    )


# what a run was made from


def lies(folder, fingerprint):
    folder.mkdir(exist_ok=True)
    (folder / "store.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return folder


@pytest.mark.parametrize("done", [False, True])
def test_an_input_that_has_changed_is_named_and_stale_keep_uses_the_run(tmp_path, capsys, done):
    made, run = lies(tmp_path / "set", "aa"), tmp_path / "0"
    start(run)
    runs.uses(run, "synthetic_set", fingerprint="aa", at=made, kind="k")
    runs.uses(run, "model.weights", fingerprint="random", at=None)
    work(run)
    if done:
        finish(run)
    state = "finished" if done else "continue"
    assert start(run, resume=True) == state
    lies(made, "bb")
    before = contents(run)
    with pytest.raises(
        ValueError, match=r"synthetic_set .*set \(aa -> bb\). overwrite=true.*stale=keep"
    ):
        start(run, resume=True)
    assert contents(run) == before
    assert (
        start(run, resume=True, stale="keep") == state
        and "kept although" in capsys.readouterr().out
    )
    assert (
        start(run, resume=True, places={"synthetic_set": str(lies(tmp_path / "moved", "aa"))})
        == state
    )
    (made / "store.json").unlink()
    assert (
        start(run, resume=True) == state
        and "not compared, since not there" in capsys.readouterr().out
    )
    assert runs.record(run).inputs["synthetic_set"]["kind"] == "k"


def test_an_attempt_that_meets_another_input_than_the_one_before_is_stopped(tmp_path):
    start(tmp_path)
    runs.uses(tmp_path, "base.weights", fingerprint="aa", at=None)
    work(tmp_path)
    start(tmp_path)
    runs.uses(tmp_path, "base.weights", fingerprint="aa", at="somewhere else")
    with pytest.raises(ValueError, match="base.weights has changed since this run began"):
        runs.uses(tmp_path, "base.weights", fingerprint="bb", at=None)
    start(tmp_path, stale="keep")
    runs.uses(tmp_path, "base.weights", fingerprint="bb", at=None)
    assert runs.record(tmp_path).inputs["base.weights"]["fingerprint"] == "bb"


def test_what_failed_is_told_beside_the_run_until_it_is_tried_again(tmp_path):
    start(tmp_path)
    with pytest.raises(ValueError, match="SYN0007"), attempt(tmp_path):
        raise ValueError("subject SYN0007: no mask")
    record = json.loads((tmp_path / "failed.json").read_text())
    assert (
        record["told"] == "subject SYN0007: no mask"
        and record["kind"] == "ValueError"
        and record["failed"]
    )
    assert start(tmp_path) == "fresh" and set(contents(tmp_path)) == OURS
    with pytest.raises(FloatingPointError), attempt(tmp_path):
        work(tmp_path)
        raise FloatingPointError("loss is nan")
    with pytest.raises(FileExistsError, match="unfinished run"):
        start(tmp_path, resume=False)
    assert (tmp_path / "failed.json").exists()  # a refusal is no try
    assert start(tmp_path) == "continue" and not (tmp_path / "failed.json").exists()


def test_the_record_of_a_failure_repeats_nothing_that_others_say_and_an_interrupt_leaves_none(
    tmp_path,
):
    with pytest.raises(OSError, match="Permission"), attempt(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "a participant's file")
    assert "participant" not in (tmp_path / "failed.json").read_text()
    (tmp_path / "failed.json").unlink()
    with pytest.raises(KeyboardInterrupt), attempt(tmp_path):
        raise KeyboardInterrupt
    with pytest.raises(plain_errors.AttemptEnded), attempt(tmp_path):
        raise plain_errors.AttemptEnded("its time is over")
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
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    config = {"resume": False, "overwrite": True}
    folder = runs.claim(asked(tmp_path / "0", config))
    work(folder)
    with pytest.raises(FileExistsError, match="resume=true to continue it"):
        runs.claim(asked(folder, config | {"overwrite": False}))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert (
        runs.claim(asked(folder, config)) == folder
        and (folder / "checkpoints" / "last.ckpt").exists()
    )


def test_a_run_is_held_against_other_processes_until_it_ends(tmp_path, monkeypatch):
    folder = tmp_path / "classifier" / "0"
    with runs.held(folder):
        with pytest.raises(
            FileExistsError, match="classifier/0: another process is at work.*same command again"
        ):
            runs.held(folder).__enter__()
        with runs.held(tmp_path / "classifier" / "1"):
            assert not folder.exists()
    with runs.held(folder):
        pass
    monkeypatch.setattr(
        runs.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(PermissionError())
    )
    with runs.held(folder):  # a disk without locks is no fault
        pass


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOLCK, "No locks available"),
        NotImplementedError(),
        OSError(errno.EOPNOTSUPP, "x"),
    ],
)
def test_a_disk_without_locks_is_told_as_that_and_used(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.setattr(disk.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(fault))
    with disk.alone(tmp_path / "set"), runs.held(tmp_path / "run"):
        pass
    out = capsys.readouterr().out
    assert out.count("this disk has no locks") == 2 and "writable" not in out


def test_a_disk_that_may_not_be_written_is_no_disk_without_locks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        disk.FileLock,
        "acquire",
        lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")),
    )
    with pytest.raises(Unwritable, match="Make it writable"), disk.alone(tmp_path / "set"):
        pass
    assert "locks" not in capsys.readouterr().out


def test_facts_of_a_finished_run_and_the_remedy_for_another(tmp_path):
    start(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished run there.*same command"):
        facts(tmp_path)
    finish(tmp_path, val_loss=0.25, cohort="phantom")
    assert (
        facts(tmp_path)["val_loss"] == 0.25
        and facts(tmp_path)["cohort"] == "phantom"
        and facts(tmp_path)["finished"]
    )


def test_the_codes_version_is_its_release_its_commit_and_whether_it_was_edited(
    tmp_path, monkeypatch
):
    asked, answers = [], {"rev-parse": "2afed89b\n", "status": ""}

    def run(command, *, cwd, **_):
        asked.append((command[0], cwd))
        return SimpleNamespace(stdout=answers[command[1]])

    tell = runs.code_version.__wrapped__
    monkeypatch.setattr(runs.subprocess, "run", run)
    monkeypatch.setattr(runs, "version", lambda name: "0.1.0")
    home = tmp_path / "other" / "home"
    monkeypatch.setattr(runs, "__file__", str(home / "src" / "cmrstudy" / "runs.py"))
    # installed inside another project's checkout
    (tmp_path / "other" / ".git").mkdir(parents=True)
    assert tell() == "0.1.0" and not asked
    (home / ".git").mkdir(parents=True)
    assert tell() == "0.1.0+2afed89b" and set(asked) == {("git", home / "src" / "cmrstudy")}
    answers["status"] = " M a\n"
    assert tell() == "0.1.0+2afed89b.edited"
    answers["rev-parse"] = ""  # no git, or no commit yet
    assert tell() == "0.1.0"

    def lacking(name):
        raise runs.PackageNotFoundError

    monkeypatch.setattr(runs, "version", lacking)
    assert tell() == "unreleased"
