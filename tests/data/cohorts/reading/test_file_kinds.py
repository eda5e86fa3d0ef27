"""What a file is, told from its bytes: packed how, in which encoding, or something else than a
table, with what to do."""

import bz2
import gzip
import lzma
import os
import re
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from cmrdata.cohorts.reading.file_kinds import (
    PACKINGS,
    READABLE_KINDS,
    decoded,
    encoding_of,
    identified,
    refused_by_name,
    table_paths,
    unpacked,
)

TEXT = "eid,54-2.0\n1,Café\n" * 9
PACKED = {
    "gzip": gzip.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def raw(folder: Path, data: bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def zipped(folder: Path, *members: tuple[str, bytes]) -> Path:
    path = folder / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members:
            archive.writestr(member, data)
    return path


def test_a_packed_text_is_read_whatever_its_name(tmp_path):
    assert set(PACKED) == set(PACKINGS.values())
    data = TEXT.encode()
    for packing, pack in PACKED.items():
        path = raw(tmp_path, pack(data), "any")
        assert (
            identified(path, setting="it") == (packing, data)
            and decoded(path, setting="it") == TEXT
        )
        torn = raw(tmp_path, pack(data)[:-6], "torn")
        with pytest.raises(ValueError, match=r"^it=.*torn: cannot be read to its end \(\w+\); "):
            decoded(torn, setting="it")
    path = zipped(tmp_path, ("in/", b""), ("__MACOSX/._t.csv", b"x"), ("in/t.csv", data))
    assert identified(path, setting="it") == ("zip", data) and decoded(path, setting="it") == TEXT
    assert identified(raw(tmp_path, data), setting="it") == ("", data)
    assert identified(raw(tmp_path, b""), setting="it") == ("", b"")
    begun = identified(raw(tmp_path, gzip.compress(data * 99)), setting="it")[1]
    assert begun == (data * 99)[:4096]


def test_an_archive_holds_one_text_or_says_what_it_is(tmp_path):
    for members, words in (
        ([("a", b"x"), ("b", b"y")], "is an archive of 2 files; unpack it and give the tables"),
        ([("in/", b""), ("__MACOSX/b", b"y")], "is an archive of 0 files"),
        ([("xl/workbook.xml", b"x"), ("y", b"")], r"is an Excel workbook \(xlsx\); save its sheet"),
        ([("content.xml", b"x")], "is an OpenDocument spreadsheet; save its sheet as CSV"),
    ):
        with pytest.raises(ValueError, match=words):
            identified(zipped(tmp_path, *members), setting="it")
    path = zipped(tmp_path, ("a", TEXT.encode()))
    locked = path.read_bytes().replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    )
    with pytest.raises(ValueError, match=r"cannot be read to its end \(OSError\)"):
        decoded(raw(tmp_path, locked), setting="it")
    packed = raw(tmp_path, gzip.compress(b"PAR1" + bytes(9)))
    with pytest.raises(ValueError, match=r"is a packed Parquet file; unpack it \(gzip\)$"):
        identified(packed, setting="it")


def test_encodings_are_told_by_marks_or_by_where_the_zeros_are(tmp_path):
    told = {
        "utf-8": [],
        "utf-8-sig": [],
        "utf-16": ["read as UTF-16"],
        "utf-16-le": ["read as UTF-16-LE"],
        "utf-16-be": ["read as UTF-16-BE"],
        "utf-32": ["read as UTF-32"],
        "latin-1": [],
    }
    for encoding, notes in told.items():
        data = TEXT.encode(encoding)
        assert encoding_of(data)[1] == notes, encoding
        assert decoded(raw(tmp_path, data), setting="it") == TEXT
        assert decoded(raw(tmp_path, gzip.compress(data)), setting="it") == TEXT
    assert encoding_of(b"\0\0\xfe\xff" + bytes(9))[0] == "utf-32"
    assert encoding_of(b"\xfe\xff\0a")[0] == "utf-16"
    assert encoding_of(b"a\0b\0c\0d\0")[0] == "utf-8"  # too few to tell
    assert encoding_of(b"a\0b\0c\0d\0e")[0] == "utf-16-le"
    assert encoding_of(b"a\0bbccddee")[0] == encoding_of(bytes(20))[0] == "utf-8"


FOREIGN = {
    "Excel workbook": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
    "SAS file": bytes(12) + b"\xc2\xea\x81\x60\xb3\x14" + bytes(99),
    "SAS transport": b"HEADER RECORD*******LIBRARY",
    "Stata file": b"<stata_dta><header>",
    "a Stata file": bytes([115, 2, 1, 0]) + bytes(99),
    "Stata file (dta)": bytes([105, 1, 1, 0]) + bytes(99),
    "R object": gzip.compress(b"X\n\x00\x00\x00\x03" + bytes(99)),
    "R objects": gzip.compress(b"RDX3\nX\n" + bytes(99)),
    "Feather": b"ARROW1\x00\x00" + bytes(99),
    "SPSS": b"$FL2@(#) SPSS" + bytes(99),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "SQLite": b"SQLite format 3\x00" + bytes(99),
    "web page": b"\xef\xbb\xbf\n<!DOCTYPE html><html>",
    "JSON": b'[{"eid": 1}]',
    "tar archive": bytes(257) + b"ustar" + bytes(99),
    "no text": b"eid,\x00\x01" + bytes(99),
}


def test_other_files_are_named_as_what_they_are_with_what_to_do(tmp_path):
    for what, data in FOREIGN.items():
        path = raw(tmp_path, data)
        with pytest.raises(
            ValueError, match=rf"^it=.*table.csv: is [^,]*{re.escape(what)}"
        ) as error:
            identified(path, setting="it")
        said = str(error.value)
        assert ", which can't be read here; " in said and "\n" not in said
        assert said.endswith(" and give that") or "; give " in said
    with pytest.raises(ValueError, match="encrypted download, which .*; run ukbunpack"):
        identified(raw(tmp_path, b"\x00\x01\x02" * 99, "ukb1.ENC"), setting="it")
    for data in (
        b"PAR1" + bytes(20),
        b"id\n1\n",
        bytes([115, 2, 1]),
        b"s\x02\x02ab",
        b"x\x02\x01ab",
    ):
        assert identified(raw(tmp_path, data), setting="it") == ("", data)
    sas = b"1" + bytes(11) + b"\xc2\xea\x81\x60" + bytes(9)  # the mark in a file of another kind
    with pytest.raises(ValueError, match="is no text, which can't be read here; give CSV"):
        identified(raw(tmp_path, sas), setting="it")
    with pytest.raises(ValueError, match="^it=.*: is no text; give a text file$"):
        decoded(raw(tmp_path, b"a" * 5000 + b"\0"), setting="it")


def test_paths_are_one_several_or_a_pattern_and_none_is_said(tmp_path, monkeypatch):
    one, two = raw(tmp_path, b"", "b.csv"), raw(tmp_path, b"", "a.csv")
    (tmp_path / "c.csv").mkdir()
    assert table_paths(str(one), setting="it") == table_paths(one, setting="it") == [one]
    assert table_paths([one, two, one], setting="it") == [one, two]
    assert table_paths(tmp_path / "*.csv", setting="it") == [two, one]
    assert table_paths([one, tmp_path / "*.csv"], setting="it") == [one, two]
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert table_paths(["$HERE/a.csv", "~/b.csv"], setting="it") == [two, one]
    strange = raw(tmp_path, b"", "[1]*.csv")  # a name, not a pattern
    assert table_paths(strange, setting="it") == [strange]
    with pytest.raises(FileNotFoundError) as error:
        table_paths(tmp_path / "none.csv", setting="it")
    assert str(error.value) == (
        f"it={tmp_path}/none.csv: there is no such file; give the path of a table "
        f"({READABLE_KINDS}), several as a list or with *"
    )
    with pytest.raises(
        FileNotFoundError, match="no such file; it is a folder: give the file in it"
    ):
        table_paths(tmp_path, setting="it")


def test_a_file_that_is_gone_stays_gone_and_its_streams_are_closed(tmp_path):
    with pytest.raises(FileNotFoundError), refused_by_name(tmp_path / "a", setting="it"):
        (tmp_path / "a").read_bytes()
    with pytest.raises(KeyError), refused_by_name(tmp_path, setting="it"):
        raise KeyError("ours")
    before = len(os.listdir("/proc/self/fd"))
    for packing, pack in {**PACKED, "": bytes}.items():
        with unpacked(raw(tmp_path, pack(b"abc")), packing=packing) as stream:
            assert stream.read() == b"abc"
    with unpacked(raw(tmp_path, "é".encode("utf-16")), packing="", encoding="utf-16") as stream:
        assert stream.read() == "é".encode()
    assert len(os.listdir("/proc/self/fd")) == before
