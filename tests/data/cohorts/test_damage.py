"""Whatever is broken in a file, a subject is accepted in every split or in none, and inspecting
says what preparing does."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.flags import FLAGS, split_flags
from cmrdata.prepare import prepare
from cmrstudy.inspection import flags as flag_table
from cmrstudy.inspection import inspect
from support import ROOT
from support.layout_trees import LAYOUTS, cohort, own, trees  # noqa: F401  fixtures

USED = ("sa.nii.gz", "seg_sa.nii.gz")  # of UK Biobank's files, where both are there
FIELDS = {
    "shape": (40, "<8h"),
    "type": (70, "<h"),
    "pixdim": (76, "<8f"),
    "offset": (108, "<f"),
    "scale": (112, "<2f"),
    "units": (123, "<B"),
    "codes": (252, "<2h"),
    "quaternion": (256, "<6f"),
    "sform": (280, "<12f"),
    "magic": (344, "<4s"),
}


def damage(path: Path, rng: np.random.Generator) -> str:
    """Breaks one file in one of many ways; says how, for the message of a failed test."""
    packed = path.read_bytes()
    content = bytearray(gzip.decompress(packed))
    kind = rng.choice(
        ["cut", "bit", "header", "voxels", "nothing", "gone", "garbage"],
        p=[0.2, 0.2, 0.3, 0.15, 0.05, 0.05, 0.05],
    )
    if kind == "cut":
        path.write_bytes(packed[: rng.integers(len(packed))])
    elif kind == "bit":
        stored = bytearray(gzip.compress(bytes(content), compresslevel=int(rng.choice([0, 1]))))
        stored[rng.integers(10, len(stored))] ^= 1 << rng.integers(8)
        path.write_bytes(stored)
    elif kind == "header":
        name = rng.choice(list(FIELDS))
        at, form = FIELDS[name]
        size = struct.calcsize(form)
        for _ in range(rng.integers(1, 4)):
            content[at + rng.integers(size)] = rng.integers(256)
        path.write_bytes(gzip.compress(bytes(content), 1))
        kind = f"header {name}"
    elif kind == "voxels":
        values = np.frombuffer(content, np.uint8, offset=352).copy()
        begin, length = rng.integers(len(values)), rng.integers(1, len(values))
        values[begin : begin + length] = rng.choice([0, 127, 255])
        path.write_bytes(gzip.compress(bytes(content[:352]) + values.tobytes(), 1))
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "gone":
        path.unlink()
    else:
        path.write_bytes(packed + rng.bytes(40))
    return f"{kind} of {path.name}"


@LAYOUTS
@pytest.mark.parametrize(
    "seed", [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20)]]
)
def test_a_damaged_subject_has_one_fate_in_every_split(layout, seed, own, recwarn):  # noqa: F811
    rng, fates = np.random.default_rng(seed), []
    files = [
        path
        for path in sorted((own / layout).rglob("*.nii.gz"))
        if layout != "ukbb" or path.name in USED
    ]
    kept = own / "kept.gz"
    for _ in range(25 if seed else 10):
        path = files[rng.integers(len(files))]
        shutil.copy(path, kept)
        how = damage(path, rng)
        made = cohort(layout, own / layout, table=own / "table.csv")
        table, rejected = made.subjects()
        results = {split: made.stacks(table.assign(split=split)) for split in ("train", "val")}
        refused = {
            split: dict(result.rejected.itertuples(index=False))
            for split, result in results.items()
        }
        assert refused["train"] == refused["val"], how
        central = results["train"].index.central.to_numpy()
        for part in ("images", "masks"):
            np.testing.assert_array_equal(
                getattr(results["train"], part)[central], getattr(results["val"], part), how
            )
        reasons = pd.concat([rejected.reason, results["val"].rejected.reason]).astype(str)
        assert not reasons.str.contains("SYN|patient|/").any(), how
        fates.append(bool(len(reasons)))
        shutil.copy(kept, path)
    assert 0 < np.mean(fates) < 1 and not [
        warning for warning in recwarn if warning.category is RuntimeWarning
    ]


@LAYOUTS
def test_inspecting_and_preparing_agree_on_everybody_and_every_flag(layout, own, tmp_path):  # noqa: F811
    rng = np.random.default_rng(7)
    for path in sorted((own / layout).rglob("*.nii.gz"))[::4]:
        damage(path, rng)
    made = cohort(layout, own / layout, table=own / "table.csv")
    made.max_rejected = 1
    subjects, rejected = inspect(made, tmp_path / "looked")
    try:
        store = prepare(made, tmp_path / "data")
    except ValueError as error:  # nobody is left
        assert subjects.empty and "no usable subject" in str(error)
        return
    assert sorted(subjects.subject) == sorted(store.subjects.subject)
    told = pd.read_csv(store.folder / "rejected.csv")
    assert dict(rejected.itertuples(index=False)) == dict(told.itertuples(index=False))
    flags = store.index.groupby("subject")["flags"].agg(
        lambda rows: {f for row in rows for f in split_flags(row)}
    )
    for row in subjects.itertuples():
        assert set(split_flags(row.flags or "")) == flags[row.subject]
    table = flag_table(subjects).set_index("flag")
    for flag in {flag for found in flags for flag in found}:
        assert (
            table.subjects[flag] == sum(flag in found for found in flags)
            and table.meaning[flag] == FLAGS[flag]
        )


def test_every_flag_in_the_sources_is_explained():
    """And every explanation is of a flag: whatever is written between quotes near the word flags or
    notes."""
    root = ROOT
    text = "".join(
        path.read_text()
        for path in (root / "src" / "cmrdata").rglob("*.py")
        if path.name != "flags.py"
    )
    for flag in FLAGS:
        assert f'"{flag}' in text or f"{flag}:" in text, flag
    docs = (root / "docs" / "cohorts.md").read_text()
    assert [flag for flag in FLAGS if f"`{flag}" not in docs] == []
