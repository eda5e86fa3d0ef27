"""Row arrays that are made once, batch by batch, and continued to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cmrdata.disk import Unwritable
from cmrdata.row_cache import RowFile, filled


def counting(
    starts: list[int], *, fail_at: int | None = None
) -> Callable[[slice], list[np.ndarray]]:
    def make(some: slice) -> list[np.ndarray]:
        if some.start == fail_at:
            raise KeyboardInterrupt
        starts.append(some.start)
        rows = np.arange(some.start, some.stop)
        return [rows.astype(np.uint8)[:, None], np.stack([rows, -rows], 1)]

    return make


def two_files(folder: Path) -> list[RowFile]:
    return [
        RowFile(folder / "a.masks", np.uint8, (1,)),
        RowFile(folder / "a.f16", np.float16, (2,)),
    ]


@pytest.mark.parametrize("torn", [(0, 0), (3, 1), (0, 9)], ids=str)
def test_an_interrupted_cache_repeats_one_batch_at_most_and_ends_in_the_same_bytes(tmp_path, torn):
    how = {"count": 23, "batch": 5, "what": "moments"}
    whole, part = tmp_path / "whole", tmp_path / "part"
    filled(two_files(whole), make=counting([]), **how)
    with pytest.raises(KeyboardInterrupt):
        filled(two_files(part), make=counting([], fail_at=15), **how)
    # as a kill amid writing leaves them
    for file, bytes_more in zip(two_files(part), torn, strict=True):
        with file.begun.open("ab") as out:
            out.write(b"\xff" * bytes_more)
    assert not any(file.path.exists() for file in two_files(part))
    starts: list[int] = []
    masks, values = filled(two_files(part), make=counting(starts), **how)
    assert starts == [15, 20]
    assert (
        values.shape == (23, 2)
        and values[22].tolist() == [22, -22]
        and masks[:, 0].tolist() == list(range(23))
    )
    for a, b in zip(two_files(whole), two_files(part), strict=True):
        assert a.path.read_bytes() == b.path.read_bytes() and not b.begun.exists()


def test_a_cache_whose_shorter_file_was_torn_goes_back_to_a_whole_batch(tmp_path):
    how = {"count": 23, "batch": 5, "what": "moments"}
    with pytest.raises(KeyboardInterrupt):
        filled(two_files(tmp_path), make=counting([], fail_at=15), **how)
    with two_files(tmp_path)[1].begun.open("ab") as out:
        out.truncate(12 * 4 + 1)
    starts: list[int] = []
    masks, values = filled(two_files(tmp_path), make=counting(starts), **how)
    assert starts == [10, 15, 20] and masks[:, 0].tolist() == values[:, 0].tolist() == list(
        range(23)
    )


def test_the_size_is_told_beforehand_and_refused_where_it_does_not_fit(
    tmp_path, monkeypatch, capsys
):
    sd21 = [RowFile(tmp_path / "moments.f16", np.float16, (8, 64, 64))]
    disk = SimpleNamespace(total=10**12, free=9 * 10**9)
    monkeypatch.setattr("cmrdata.disk.shutil.disk_usage", lambda _: disk)
    never = lambda _: pytest.fail("encoded nevertheless")  # noqa: E731
    with pytest.raises(
        Unwritable, match=r"9\.6 GB are still missing, 9\.0 GB are free.*data_root=<folder>"
    ):
        filled(sd21, count=146_763, batch=4, what="moments", make=never)
    assert capsys.readouterr().out == f"moments of 146,763 images: 9.6 GB in {tmp_path}\n"


def test_what_is_whole_is_opened_and_not_made_again(tmp_path: Path) -> None:
    how = {"count": 4, "batch": 5, "what": "moments"}
    starts: list[int] = []
    filled(two_files(tmp_path), make=counting(starts), **how)
    masks, values = filled(two_files(tmp_path), make=counting(starts), **how)
    assert starts == [0] and masks.shape == (4, 1) and values.dtype == np.float16
    assert isinstance(masks, np.memmap) and not masks.flags.writeable
    # the last file's name says that all are whole
    two_files(tmp_path)[0].path.unlink()
    with pytest.raises(FileNotFoundError):
        filled(two_files(tmp_path), make=counting(starts), **how)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.f16", ".lock"}


def test_files_that_grew_to_their_end_are_only_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {"count": 7, "batch": 5, "what": "moments"}
    for file in two_files(tmp_path):
        file.begun.write_bytes(b"\1" * 7 * file.row)
    masks, _ = filled(two_files(tmp_path), make=lambda _: pytest.fail("made again"), **how)
    assert (masks == 1).all() and "7 of them are there" in capsys.readouterr().out


def test_a_row_has_the_bytes_of_its_shape(tmp_path: Path) -> None:
    assert RowFile(tmp_path / "a.f16", np.float16, (8, 4, 4)).row == 8 * 4 * 4 * 2
    assert RowFile(tmp_path / "a.u8", np.uint8, ()).row == 1
    assert RowFile(tmp_path / "a.f16", np.float16, (2,)).begun == tmp_path / ".a.f16.begun"


@pytest.mark.parametrize(("free", "fits"), [(23 * 5, True), (23 * 5 - 1, False)])
def test_room_for_exactly_the_missing_rows_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    disk = SimpleNamespace(total=10**12, free=free)
    monkeypatch.setattr("cmrdata.disk.shutil.disk_usage", lambda _: disk)
    how = {"count": 23, "batch": 5, "what": "moments", "make": counting([])}
    if fits:
        assert len(filled(two_files(tmp_path), **how)[0]) == 23
    else:
        with pytest.raises(Unwritable, match="0.0 MB are still missing"):
            filled(two_files(tmp_path), **how)
