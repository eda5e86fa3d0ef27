"""Which errors become a paragraph with a remedy, and which keep their traceback."""

from __future__ import annotations

import errno
import os
import re

import hydra
import pytest
from hydra.errors import InstantiationException
from omegaconf import MissingMandatoryValue, OmegaConf

from cmrdata.disk import Unwritable
from cmrstudy.plain_errors import paragraph


def test_an_end_by_slurms_clock_is_told_with_its_remedy():
    assert "hydra.launcher.max_num_timeout=<n>" in paragraph(
        type("UncompletedJobError", (Exception,), {})("not requeued")
    )


def test_what_hydra_wraps_is_told_and_a_bug_is_not():
    class InstantiationException(Exception):
        pass

    wrapped = InstantiationException("Error in call to target")
    wrapped.__cause__ = ValueError("labels='x': give a list")
    assert paragraph(wrapped) == "labels='x': give a list"
    assert (
        paragraph(InstantiationException("no cause")) is None and paragraph(KeyError("bug")) is None
    )


@pytest.mark.parametrize(
    "kind", [ValueError, FileNotFoundError, FileExistsError, FloatingPointError, Unwritable]
)
def test_bad_input_is_told_in_its_own_words(kind):
    assert paragraph(kind("subject SYN0007: no mask")) == "subject SYN0007: no mask"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_full_or_read_only_disk_is_told_with_a_remedy(number):
    message = paragraph(OSError(number, os.strerror(number), "runs/controlnet/0/last.ckpt"))
    assert re.search(f"{os.strerror(number)}: 'runs/.*; free some space, .*run_dir=", message)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "denied", "a participant's file"), KeyError("bug")]
)
def test_other_errors_keep_their_traceback(error):
    assert paragraph(error) is None


def test_a_setting_without_a_value_is_named():
    config = OmegaConf.create({"cohort": {"root": "???"}})
    with pytest.raises(MissingMandatoryValue) as caught:
        _ = config.cohort.root
    assert paragraph(caught.value) == "cohort.root has no value (???); give cohort.root=..."


class Takes:
    """Takes one setting and needs it."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


class TakesNothing:
    """Takes no settings."""


@pytest.mark.parametrize(
    ("target", "settings", "told"),
    [
        ("Takes", {"needed": 1, "odd": 2}, "part.of: Takes has no setting 'odd'; leave it out"),
        ("Takes", {}, "part.of: Takes needs 'needed'; give it beside _target_"),
        ("TakesNothing", {"odd": 2}, "part.of: TakesNothing has no settings; leave those beside"),
    ],
)
def test_a_target_that_does_not_take_its_settings_is_told_by_their_place(target, settings, told):
    config = OmegaConf.create({"part": {"of": {"_target_": f"{__name__}.{target}", **settings}}})
    with pytest.raises(InstantiationException) as caught:
        hydra.utils.instantiate(config.part)
    assert (paragraph(caught.value) or "").startswith(told)


def test_a_setting_that_a_class_does_not_have_is_told_if_it_was_typed(monkeypatch):
    with pytest.raises(TypeError) as caught:
        Takes(needed=1, odd=2)
    monkeypatch.setattr("sys.argv", ["train.py", "needed=1"])
    assert paragraph(caught.value) is None  # a fault of ours
    monkeypatch.setattr("sys.argv", ["train.py", "+model.odd=2"])
    assert paragraph(caught.value) == "model.odd: Takes has no such setting; leave it out"


def test_what_a_command_lacks_since_it_was_deleted_is_told(monkeypatch):
    config = OmegaConf.create({"trainer": {"precision": 32}})
    OmegaConf.set_struct(config, True)
    with pytest.raises(Exception, match="struct") as caught:
        _ = config.trainer.max_time
    monkeypatch.setattr("sys.argv", ["train.py", "seed=1"])
    assert paragraph(caught.value) is None
    monkeypatch.setattr("sys.argv", ["train.py", "~trainer"])
    assert (
        paragraph(caught.value) == "~trainer: the command needs trainer.max_time; leave the ~ out"
    )


# other libraries' complaints


class MisconfigurationException(Exception):
    """Lightning's, by name."""


def of(module: str, name: str, text: str) -> Exception:
    return type(name, (Exception,), {"__module__": module})(text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MisconfigurationException("No supported gpu\n backend found!"),
            "No supported gpu backend found; trainer=auto takes",
        ),
        (
            ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available."),
            "extra loggers: pip install",
        ),
        (ModuleNotFoundError("No module named 'mlflow'"), "extra loggers"),
        (
            of("wandb.errors.errors", "UsageError", "No API key configured."),
            "wandb login.*WANDB_API_KEY.*WANDB_MODE=offline",
        ),
        (
            RuntimeError("... EADDRINUSE, message: ..."),
            "port .* is in use; set another MASTER_PORT",
        ),
        (RuntimeError("Address already in use"), "port .* is in use; set another MASTER_PORT"),
    ],
)
def test_what_other_libraries_say_of_a_choice_is_a_paragraph(error, words):
    told = paragraph(error)
    assert told and re.search(words, told) and "\n" not in told


def test_a_bug_stays_a_traceback():
    assert paragraph(ModuleNotFoundError("No module named 'cmrgen.gone'")) is None
    assert paragraph(RuntimeError("shapes differ")) is None


def test_what_lightning_says_ends_with_a_remedy_where_a_device_lacks_alone():
    for said, told in (
        ("an odd\n thing!", "an odd thing"),
        ("no backend.", "no backend; trainer=auto takes whatever there is"),
        ("CUDA lacks", "CUDA lacks; trainer=auto takes whatever there is"),
    ):
        assert paragraph(MisconfigurationException(said)) == told
