"""The folder of a set: whose it is, whether it fits, and what is missing from it."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cmrdata.disk import Unwritable
from cmrgen.render import folder as module
from cmrgen.render.folder import changes, check_room, finished, shard_name, shard_of, written_alone


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1/0", "1", "", "a/b", "1/2/3", "0.5/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match=f"shard is '{text}'; give i/n with i from 0 to n-1"):
        shard_of(text)


def test_as_many_shards_as_batches_and_no_more():
    assert shard_of("0/1") == (0, 1) and shard_of("3/4", batches=4) == (3, 4)
    with pytest.raises(ValueError, match="shard=3/4, but the plan is 3 batches; take fewer"):
        shard_of("3/4", batches=3)
    assert shard_name(3, 4) == "shard-3-of-4"


def test_a_plans_change_is_told_by_columns_rows_and_cells():
    old = "row,seed,prompt\n0,1,a\n1,2,b\n2,3,\n"
    assert changes("", old) == "differs"
    assert changes(old, old.replace("prompt", "text")) == "columns differ: prompt, text"
    assert changes(old, old + "3,4,c\n") == "has 4 rows, not 3"
    other = "row,seed,prompt\n0,1,a\n1,9,b\n2,8,x\n"
    assert changes(old, other) == "differs in 2 of 3 rows, columns seed, prompt"
    # the order of columns is no change
    assert changes(old, "seed,row,prompt\n1,0,a\n2,1,b\n3,2,\n").startswith("differs in 0 of 3")


def test_a_set_of_other_settings_names_what_differs(tmp_path: Path):
    assert finished(tmp_path, {}, "") is None
    (tmp_path / "settings.json").write_text(json.dumps({"format": 4, "plan": "a", "steps": 8}))
    assert finished(tmp_path, {"plan": "a", "steps": 8}, "") is None  # begun, not finished
    (tmp_path / "plan.csv").write_text("row\n0\n")
    with pytest.raises(ValueError) as refused:
        finished(tmp_path, {"plan": "b", "steps": 9}, "row\n0\n1\n")
    assert str(refused.value) == (
        f"{tmp_path}: begun with other settings (plan has 2 rows, not 1; steps 8 -> 9); "
        f"{module.REMEDY}"
    )


def test_the_room_is_that_of_pairs_of_images_and_masks(tmp_path, monkeypatch, capsys):
    assert module.room(10, 64) == 10 * 4 * 64 * 64
    usage = SimpleNamespace(total=10**9, free=module.room(10, 512))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check_room(tmp_path, rows=10, pixels=512)
    assert capsys.readouterr().out == f"10 images of 512 px: 10.5 MB in {tmp_path}\n"
    usage.free -= 1
    with pytest.raises(
        Unwritable, match=f"^{tmp_path}: 10 images of 512 px: 10.5 MB are needed, 10"
    ):
        check_room(tmp_path, rows=10, pixels=512)


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "Free some space there"), (errno.EIO, "Make it writable")]
)
def test_what_a_disk_refuses_names_the_need_and_how_to_go_on(tmp_path, number, remedy):
    with (
        pytest.raises(
            Unwritable,
            match=f"cannot be written: no; 10 images of 512 px: 10.5 MB. {remedy} and continue with resume",
        ),
        written_alone(tmp_path / "set", rows=10, pixels=512),
    ):
        raise OSError(number, "no")
    own = Unwritable("said already")
    with pytest.raises(Unwritable) as passed, written_alone(tmp_path, rows=1, pixels=1):
        raise own
    assert passed.value is own


def test_what_could_not_be_drawn_is_a_table_of_rows():
    import pandas as pd

    rejected = pd.DataFrame({"row": ["3", "12"], "reason": ["not finite"] * 2, "subject": ["", ""]})
    table = module.failures(SimpleNamespace(rejected=lambda: rejected))
    assert list(table) == ["row", "reason"] and table.row.tolist() == [3, 12]
    empty = pd.DataFrame(columns=["subject", "reason"], dtype=str)
    assert module.failures(SimpleNamespace(rejected=lambda: empty)).empty
