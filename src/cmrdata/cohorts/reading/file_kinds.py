"""What a file is, whatever its name: packed how, in which encoding, or something else than a table,
with what to do."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
from isal import igzip
from isal.isal_zlib import IsalError

PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
FOREIGN_FILES = {  # how a file begins: what it is, what to do
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": (
        "an Excel workbook (xls, or xlsx with a password)",
        "save its sheet as CSV",
    ),
    b"HEADER RECORD*******": (
        "a SAS transport file (xpt)",
        "convert it, in R write.csv(haven::read_xpt(...))",
    ),
    b"<stata_dta>": ("a Stata file (dta)", "in Stata: export delimited using table.csv"),
    b"$FL2": ("an SPSS file (sav)", "convert it, in R write.csv(haven::read_sav(...))"),
    b"$FL3": ("an SPSS file (zsav)", "convert it, in R write.csv(haven::read_sav(...))"),
    b"X\n\x00": (
        "an R object (rds)",
        "in R: write.csv(readRDS(...), 'table.csv', row.names = FALSE)",
    ),
    b"A\n2\n": (
        "an R object (rds)",
        "in R: write.csv(readRDS(...), 'table.csv', row.names = FALSE)",
    ),
    b"A\n3\n": (
        "an R object (rds)",
        "in R: write.csv(readRDS(...), 'table.csv', row.names = FALSE)",
    ),
    b"RDX": (
        "R objects (rda)",
        "in R: load(...), then write.csv(name, 'table.csv', row.names = FALSE)",
    ),
    b"ARROW1": (
        "a Feather or Arrow file",
        "in Python: pandas.read_feather(...).to_parquet('table.parquet')",
    ),
    b"FEA1": ("a Feather file", "in Python: pandas.read_feather(...).to_parquet('table.parquet')"),
    b"ORC": ("an ORC file", "in Python: pandas.read_orc(...).to_parquet('table.parquet')"),
    b"\x89HDF": ("an HDF5 file", "in Python: pandas.read_hdf(...).to_parquet('table.parquet')"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"\x04\x22\x4d\x18": ("an LZ4 file", "unpack it"),
    b"%PDF": ("a PDF", "give the table itself"),
    b"\x80\x04\x95": (
        "a pickled Python object",
        "in Python: pandas.read_pickle(...).to_parquet('table.parquet')",
    ),
    b"\x80\x05\x95": (
        "a pickled Python object",
        "in Python: pandas.read_pickle(...).to_parquet('table.parquet')",
    ),
    b"<!doctype html": ("a web page", "give the table itself, not its dictionary"),
    b"<html": ("a web page", "give the table itself, not its dictionary"),
    b"<?xml": ("an XML file", "save it as CSV"),
    b"{": ("a JSON file", "save it as CSV"),
    b"[{": ("a JSON file", "save it as CSV"),
}
SAS = b"\xc2\xea\x81\x60"  # from byte 12 on, in a sas7bdat
ENDINGS = {  # of names whose content begins with nothing of its own
    ".enc": ("UK Biobank's encrypted download", "run ukbunpack, then ukbconv ... csv"),
    ".enc_ukb": ("an unpacked UK Biobank download", "run ukbconv ... csv"),
    ".sas7bdat": ("a SAS file (sas7bdat)", "convert it, in R write.csv(haven::read_sas(...))"),
    ".dta": ("a Stata file (dta)", "in Stata: export delimited using table.csv"),
    ".tar": ("a tar archive", "unpack it"),
    ".rds": ("an R object (rds)", "in R: write.csv(readRDS(...), 'table.csv', row.names = FALSE)"),
    ".feather": (
        "a Feather file",
        "in Python: pandas.read_feather(...).to_parquet('table.parquet')",
    ),
}
LATIN = "is not UTF-8; read as latin-1"
READABLE_KINDS = "CSV, TSV (each may be packed as gz, zst, bz2, xz or zip) or Parquet"


def table_paths(given: object, *, setting: str) -> list[Path]:
    """The files that a setting names: one path, a list of paths, or a pattern with * (every file
    that fits, in order).

    Raises FileNotFoundError naming the setting.
    """
    several = [given] if isinstance(given, (str, Path)) else list(given)  # type: ignore[call-overload]
    paths: list[Path] = []
    for item in several:
        text = os.path.expandvars(os.path.expanduser(str(item)))
        found = (
            [Path(text)]
            if Path(text).is_file()
            else sorted(p for p in map(Path, glob(text)) if p.is_file())
        )
        if not found:
            folder = (
                " it is a folder: give the file in it, or <folder>/*.csv"
                if Path(text).is_dir()
                else ""
            )
            raise FileNotFoundError(
                f"{setting}={text}: there is no such file;{folder or ' give the path of a table'} "
                f"({READABLE_KINDS}), several as a list or with *"
            )
        paths += [path for path in found if path not in paths]
    return paths


@contextmanager
def refused_by_name(path: Path, *, setting: str) -> Iterator[None]:
    """What goes wrong with the file itself becomes a ValueError of ours."""
    try:
        yield
    except (
        OSError,
        EOFError,
        zlib.error,
        IsalError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        UnicodeError,
    ) as error:  # type: ignore[misc]
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{setting}={path}: cannot be read to its end ({type(error).__name__}); it is "
            "damaged, cut short or protected. Copy it again or set its permissions"
        ) from None


def decoded(path: Path, *, setting: str) -> str:
    """The text of a small file, whatever its packing and encoding. Raises ValueError naming the
    setting."""
    with refused_by_name(path, setting=setting):
        packing, head = identified(path, setting=setting)
        encoding, _ = encoding_of(head)
        with unpacked(path, packing=packing, encoding=encoding) as stream:
            content = stream.read()
    if b"\0" in content:
        raise ValueError(f"{setting}={path}: is no text; give a text file")
    try:
        return str(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return str(content.decode("latin-1"))


def identified(path: Path, *, setting: str) -> tuple[str, bytes]:
    """(how the file is packed, how its content begins). Raises ValueError for what is no table,
    naming what it is."""
    with path.open("rb") as file:
        head = file.read(4096)
    packing = next((name for magic, name in PACKINGS.items() if head.startswith(magic)), "")
    if head.startswith(b"PK\x03\x04"):
        packing = "zip"
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if not name.endswith("/") and not name.startswith("__MACOSX")
            ]
        for inside, what in (
            ("xl/", "an Excel workbook (xlsx)"),
            ("content.xml", "an OpenDocument spreadsheet"),
        ):
            if any(name.startswith(inside) for name in names):
                raise ValueError(
                    f"{setting}={path}: is {what}; save its sheet as CSV (UTF-8) and give that"
                )
        if len(names) != 1:
            raise ValueError(
                f"{setting}={path}: is an archive of {len(names)} files; unpack it and give the "
                "tables"
            )
    if packing:
        with unpacked(path, packing=packing) as stream:
            head = stream.read(4096)
        if head.startswith(b"PAR1"):
            raise ValueError(f"{setting}={path}: is a packed Parquet file; unpack it ({packing})")
    lowered = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    known = (
        of
        for magic, of in FOREIGN_FILES.items()
        if head.startswith(magic) or lowered.startswith(magic)
    )
    foreign = next(known, None)
    if head[12:16] == SAS and not any(head[:12]):
        foreign = ENDINGS[".sas7bdat"]
    if len(head) > 3 and 105 <= head[0] <= 119 and head[1] in (1, 2) and head[2] == 1:
        foreign = FOREIGN_FILES[b"<stata_dta>"]
    if head[257:262] == b"ustar":
        foreign = ENDINGS[".tar"]
    if not foreign and not head.startswith(b"PAR1") and not _is_text(head):
        foreign = ENDINGS.get(path.suffix.lower(), ("no text", f"give {READABLE_KINDS}"))
    if foreign:
        what, remedy = foreign
        then = "" if remedy.startswith("give") else " and give that"
        raise ValueError(f"{setting}={path}: is {what}, which can't be read here; {remedy}{then}")
    return packing, head


def _is_text(head: bytes) -> bool:
    encoding, _ = encoding_of(head)
    return encoding != "utf-8" or b"\0" not in head


def encoding_of(head: bytes) -> tuple[str, list[str]]:
    """The encoding that the beginning of a text tells, and a note where it is not UTF-8."""
    marks = {
        b"\xff\xfe\0\0": "utf-32",
        b"\0\0\xfe\xff": "utf-32",
        b"\xff\xfe": "utf-16",
        b"\xfe\xff": "utf-16",
    }
    name = next((name for mark, name in marks.items() if head.startswith(mark)), "")
    if not name and len(head) > 8:
        half = len(head) // 2
        first, second = (head[k : 2 * half : 2].count(0) / half for k in (0, 1))
        if max(first, second) > 0.8 and min(first, second) < 0.2:
            name = "utf-16-be" if first > second else "utf-16-le"
    return (name, [f"read as {name.upper()}"]) if name else ("utf-8", [])


@contextmanager
def unpacked(path: Path, *, packing: str, encoding: str = "utf-8") -> Iterator[Any]:
    """The unpacked file as a stream of bytes, of UTF-8 where an `encoding` is known to be
    another."""
    with ExitStack() as stack:
        if packing == "gzip":  # faster than Arrow's
            file = igzip.open(path)  # type: ignore[no-untyped-call]
            stream = pa.PythonFile(stack.enter_context(file), mode="r")
        elif packing == "xz":
            stream = pa.PythonFile(stack.enter_context(lzma.open(path)), mode="r")
        elif packing == "zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = next(
                m
                for m in archive.infolist()
                if not m.is_dir() and not m.filename.startswith("__MACOSX")
            )
            if member.flag_bits & 1:
                raise OSError("the archive has a password")
            stream = pa.PythonFile(stack.enter_context(archive.open(member)), mode="r")
        else:
            stream = stack.enter_context(pa.OSFile(str(path)))
            if packing:
                stream = stack.enter_context(pa.CompressedInputStream(stream, packing))
        if encoding != "utf-8":
            stream = pa.transcoding_input_stream(stream, encoding, "utf-8")
        yield stream
