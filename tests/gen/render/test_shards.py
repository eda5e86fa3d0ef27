"""Shards joined to the bytes that one process would write, with made-up pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrdata.store import Store, Writer
from cmrgen.plan.rows import Plan
from cmrgen.render import shards
from cmrgen.render.folder import close, shard_name
from cmrgen.render.shards import finished_all, merge, render_shards
from support.fake_index import balanced, fake_index, fake_people

PIXELS, SIZE = 4, 2  # of a batch
FACTS = {"fov_mm": 160.0, "names": "5a17"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Five images, so three batches; one group is missing."""
    return Plan(balanced(fake_index(fake_people()), count=5), missing=["F/<60/obese/hf"])


def pixels_of(rows: pd.DataFrame) -> np.ndarray:
    return np.stack([np.full((2, PIXELS, PIXELS), row + 1, np.uint8) for row in rows.row])


def draw(plan: Plan, *, folder: Path, shard: str | None = None, stop: int = 99, **how: Any) -> Any:
    """As draw_plan does, from each row's number; row 3 fails."""
    settings = {
        **{"cohort": "fake-1234", "cohort_fingerprint": "c0ffee", "generator": "made up"},
        **{"plan": "a", "sampler": "unipc", "steps": 8, "guides": "prompt", "batch_size": SIZE},
        **how,
    }
    batches = [plan.rows.iloc[k : k + SIZE] for k in range(0, len(plan.rows), SIZE)]
    if shard:
        number, of = map(int, shard.split("/"))
        folder, batches = folder / shard_name(number, of), batches[number::of]
        settings["shard"] = shard
    writer = Writer(folder, pixels=PIXELS, settings=settings)
    (folder / "plan.csv").write_text(plan.rows.to_csv(index=False))
    for batch in batches[:stop]:
        rows = batch.assign(split="synthetic", sampler="unipc", steps=8)
        good = rows.row != 3
        bad = pd.DataFrame({"row": rows.row[~good], "reason": "not finite, twice"})
        writer.append(pixels_of(rows[good]), pixels_of(rows[good]) % 4, rows[good], rejected=bad)
    return close(writer, plan, **FACTS) if stop == 99 else None


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "shard-" not in str(path)
    }


@pytest.mark.parametrize("n", [2, 3])
def test_shards_in_any_order_join_to_the_bytes_of_one_process(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    whole = draw(plan, folder=tmp_path / "whole")
    monkeypatch.setattr(shards, "draw_plan", draw)
    ends = [
        render_shards(plan, folder=tmp_path / "set", shard=f"{k}/{n}")
        for k in (n - 1, *range(n - 1))
    ]
    assert ends[:-1] == [None] * (n - 1) and ends[-1].fingerprint == whole.fingerprint
    joined = contents(tmp_path / "set")
    assert joined == contents(whole.folder) and {"README.md", "failed.csv", "plan.csv"} <= {*joined}
    assert Store.open(tmp_path / "set").index.row.tolist() == [0, 1, 2, 4]
    # shards stay, and joining again changes nothing
    assert finished_all(tmp_path / "set", n)
    assert merge(tmp_path / "set", n).fingerprint == whole.fingerprint
    assert contents(tmp_path / "set") == joined


def test_a_single_shard_is_the_set_itself(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "draw_plan", draw)
    made = render_shards(plan, folder=tmp_path, shard="0/1")
    assert made is not None and made.folder == tmp_path and not list(tmp_path.glob("shard-*"))


def test_an_interrupted_join_goes_on(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(draw(plan, folder=tmp_path / "whole").folder)
    for k in range(2):
        draw(plan, folder=tmp_path / "set", shard=f"{k}/2")
    append, calls, asked = Writer.append, [], []

    def stopping(self: Writer, *args: Any, **how: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(self, *args, **how)

    monkeypatch.setattr(Writer, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "set", 2)
    monkeypatch.setattr(Writer, "append", append)
    monkeypatch.setattr(shards, "check_room", lambda _, rows, pixels: asked.append((rows, pixels)))
    merge(tmp_path / "set", 2)
    assert contents(tmp_path / "set") == whole
    assert asked == [(3, PIXELS)]  # two of the plan's five are there


def test_what_lacks_or_does_not_belong_together_is_named(plan: Plan, tmp_path: Path) -> None:
    draw(plan, folder=tmp_path, shard="0/3")
    draw(plan, folder=tmp_path, shard="1/3", stop=1)
    assert not finished_all(tmp_path, 3)
    with pytest.raises(ValueError) as lacking:
        merge(tmp_path, 3)
    assert str(lacking.value) == (
        f"{tmp_path}: 2 of 3 shards are missing: shard-1-of-3 (unfinished, 1 images), "
        "shard-2-of-3 (not begun); draw them with shard=1/3|2/3"
    )
    draw(plan, folder=tmp_path / "other", shard="0/2")
    draw(plan, folder=tmp_path / "other", shard="1/2", steps=9, guides="both")
    with pytest.raises(ValueError) as alien:
        merge(tmp_path / "other", 2)
    assert str(alien.value) == (
        f"{tmp_path / 'other'}: shard-1-of-2 differs from shard-0-of-2 in guides prompt -> both, "
        "steps 8 -> 9; delete the wrong one and draw it again"
    )
    assert not list(tmp_path.glob("*.csv")) and not (tmp_path / "store.json").exists()


def test_shards_that_lost_a_batch_are_told(plan: Plan, tmp_path: Path) -> None:
    for k in range(2):
        draw(plan, folder=tmp_path, shard=f"{k}/2")
    sorted((tmp_path / "shard-0-of-2" / "parts").glob("*.parquet"))[-1].unlink()
    with pytest.raises(ValueError, match=f"^{tmp_path}: the shards hold 2 of 3 batches; delete"):
        merge(tmp_path, 2)


def test_a_set_of_other_settings_is_not_overwritten(plan: Plan, tmp_path: Path) -> None:
    draw(plan, folder=tmp_path, steps=9)
    before = contents(tmp_path)
    for k in range(2):
        draw(plan, folder=tmp_path, shard=f"{k}/2")
    with pytest.raises(ValueError, match="begun with other settings .steps 9 -> 8"):
        merge(tmp_path, 2)
    assert contents(tmp_path) == before


def test_a_shards_facts_are_the_sets(plan: Plan, tmp_path: Path) -> None:
    for k in range(2):
        draw(plan, folder=tmp_path, shard=f"{k}/2")
    merge(tmp_path, 2)
    facts = json.loads((tmp_path / "store.json").read_text())
    assert {key: facts[key] for key in FACTS} == FACTS
    assert facts["missing_groups"] == ["F/<60/obese/hf"] and facts["settings"]["plan"] == "a"
    assert not (tmp_path / "shard-0-of-2" / "README.md").exists()
    assert "F/<60/obese/hf" in (tmp_path / "README.md").read_text()
