"""UK Biobank tables as files: up to 500,000 rows of 10,000 columns, parsed block by block, only wanted cells kept."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from cmrdata.readers.ukbb_columns import ID, ID_NAMES, Key, parse_column

NA = ("", "NA", "NaN", "nan", "NULL", "null", "None")
BLOCKS = (1 << 20, 1 << 26, 1 << 30)  # bytes parsed at a time: the next where a row is longer
ROWS = 32  # parsed at a time at least, of rows as long as the header
LONGEST = 1 << 26  # bytes of a header line


class BadCell(ValueError):
    """A cell that cannot be read. The text says why; `row` counts within the array it came from."""

    def __init__(self, reason: str, row: int) -> None:
        super().__init__(reason)
        self.row = row


class Header(NamedTuple):
    """Where a table's known columns are, and where its rows begin."""

    columns: dict[Key, int]
    width: int  # columns
    delimiter: str
    start: int  # bytes before the first row
    lines: int  # lines before the first row


def table_file(path: str | Path, *, setting: str) -> Path:
    """The file that `setting` names. Raises FileNotFoundError naming the setting."""
    if not (file := Path(path)).is_file():
        raise FileNotFoundError(f"{setting}={path}: there is no such file; give the path of a CSV or TSV file")
    return file


@contextmanager
def reading(path: Path, *, setting: str) -> Iterator[None]:
    """What goes wrong with the file itself becomes a ValueError of ours."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{setting}={path}: cannot be read to its end ({type(error).__name__}); it is damaged, cut short or "
            "protected. Copy it again or set its permissions"
        ) from None


def is_packed(path: Path) -> bool:
    """Whether the file is a gzip, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def read_header(path: Path) -> Header:
    """The header of a table: one line, or two (titles and field codes, in either order).

    The delimiter is the tab for .tab and .tsv files and wherever the first line holds one, else the comma.
    Raises ValueError when no id column is found or a column occurs twice.
    """
    with reading(path, setting="cohort.table"):
        rows, delimiter = _first_rows(path)
    found = [[parse_column(cell) for cell in cells] for cells, _, _ in rows]
    headers = [number for number, keys in enumerate(found) if ID in keys]
    if not headers:
        raise ValueError(
            f"cohort.table={path}: none of its {len(found[0]) if found else 0} columns is the participants' id. Name it "
            f"{ID_NAMES}, and separate columns by commas or tabs"
        )
    chosen = max(headers, key=lambda number: len(set(found[number])))
    names, (_, start, lines) = rows[chosen][0], rows[headers[-1]]
    columns: dict[Key, int] = {}
    for place, key in enumerate(found[chosen]):
        if key in columns:
            raise ValueError(
                f"cohort.table={path}: columns {columns[key] + 1} ({names[columns[key]].strip()!r}) and {place + 1} "
                f"({names[place].strip()!r}) are the same field, instance and array; keep one. Titles that two fields "
                "share are told apart by exporting field codes instead"
            )
        if key:
            columns[key] = place
    return Header(columns, len(names), delimiter, start, lines)


def read_blocks(path: Path, header: Header, keys: Sequence[Key]) -> Iterator[pa.RecordBatch]:
    """The columns `keys` of successive blocks of rows, as strings with nulls for NA. Few blocks are in memory at a time.

    Raises ValueError when a row has another number of cells, or the file is no text, naming the line.
    """
    done = 0  # rows given away
    for size in BLOCKS:
        block = max(size, min(ROWS * header.start, BLOCKS[1]))
        seen = 0
        try:
            with reading(path, setting="cohort.table"), _behind(path, header.start) as file:
                for batch in _parsed(file, header, keys, block=block):
                    new = batch.slice(max(0, min(done - seen, batch.num_rows)))
                    seen += batch.num_rows
                    done = max(done, seen)
                    if new.num_rows:
                        yield new
            return
        except pa.ArrowException as error:
            if str(error) == "Empty CSV file":
                return
            if "straddling" in str(error) and size != BLOCKS[-1]:
                continue
            raise ValueError(f"cohort.table={path}: {_fault(str(error), header, done)}") from None


def values(cells: pa.Array, read: Callable[[str], Any], *, field: str, dtype: Any, missing: Any = None) -> np.ndarray:
    """`read` of every text, `missing` where there is none. Each distinct text is read once; its ValueError is a BadCell."""
    encoded = cells.dictionary_encode()
    where = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    found = np.full(len(encoded.dictionary) + 1, missing, dtype)
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            if (text := text.strip()) not in NA:
                found[number] = read(text)
        except ValueError as error:
            raise BadCell(f"field {field} {error}", int(np.flatnonzero(where == number)[0])) from None
    return found[where]


def _first_rows(path: Path) -> tuple[list[tuple[list[str], int, int]], str]:
    """(cells, bytes up to here, lines up to here) of the first two rows, and the delimiter."""
    size = count = 0

    def lines() -> Iterator[str]:
        nonlocal size, count
        for raw in chain([first], iter(lambda: file.readline(LONGEST), b"")):
            size, count = size + len(raw), count + 1
            yield raw.decode("utf-8", "replace").removeprefix("\ufeff")

    with gzip.open(path) if is_packed(path) else path.open("rb") as file:
        first = file.readline(LONGEST)
        tabs = b"\t" in first or re.search(r"\.(tab|tsv)(\.gz)?$", path.name, re.IGNORECASE)
        delimiter = "\t" if tabs else ","
        rows = csv.reader(lines(), delimiter=delimiter)
        found: list[tuple[list[str], int, int]] = []
        while len(found) < 2:
            try:
                cells = next(rows)
            except (StopIteration, csv.Error):  # a torn row is not a header; the parser of rows will name it
                break
            if cells:
                found.append((cells, size, count))
    return found, delimiter


@contextmanager
def _behind(path: Path, start: int) -> Iterator[pa.NativeFile]:
    """The (unpacked) file behind its first `start` bytes."""
    with pa.OSFile(str(path)) as plain:
        file = pa.CompressedInputStream(plain, "gzip") if is_packed(path) else plain
        file.read(start)
        yield file


def _parsed(file: pa.NativeFile, header: Header, keys: Sequence[Key], *, block: int) -> Iterator[pa.RecordBatch]:
    """Batches of the columns `keys`, from about `block` bytes each."""
    names = [str(header.columns[key]) for key in keys]
    yield from arrow_csv.open_csv(
        file,
        read_options=arrow_csv.ReadOptions(
            block_size=block, use_threads=False, column_names=[str(place) for place in range(header.width)]
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=NA,
            strings_can_be_null=True,
        ),
    )


def _fault(error: str, header: Header, done: int) -> str:
    """What a parser's error means. Its own text is not passed on: it may hold a participant's row."""
    if found := re.search(r"Row #(\d+): Expected \d+ columns, got (\d+)", error):
        return (
            f"line {header.lines + int(found[1])} has {found[2]} cells, the header {header.width}; correct or remove the "
            "line (a stray quote or delimiter, or a column of row names without a header)"
        )
    after = f"behind line {header.lines + done}"
    if "UTF8" in error:
        return f"{after} there is text that is not UTF-8; save the table as UTF-8"
    return f"{after} it cannot be parsed as a table; look for a quote that is not closed"
