"""Tables as files: text of any delimiter, encoding and packing, or Parquet; only the wanted columns
are kept, as text.

A UK Biobank table has up to 500,000 rows of 20,000 columns, so it is parsed block by block.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from cmrdata.cohorts.reading.cells import NA, clean
from cmrdata.cohorts.reading.file_kinds import (
    LATIN,
    encoding_of,
    identified,
    refused_by_name,
    unpacked,
)

DELIMITERS = "\t,;|"
HEADERS = 3  # rows that may be headers: titles and field codes
BLOCKS = (1 << 23, 1 << 26, 1 << 30)  # bytes parsed at a time: the next where a row is longer
ROWS = 32  # parsed at a time at least, of rows as long as the header
LONGEST = 1 << 26  # bytes of the headers


class TableFile(NamedTuple):
    """A table whose header was read; see `read_blocks`."""

    path: Path
    setting: str  # that named it
    names: list[str]  # of its columns, as the header writes them
    keys: list[Hashable | None]  # of its columns: what `known` takes their names for
    notes: list[str]  # how it was read, where that is not a matter of course
    packing: str = ""
    encoding: str = "utf-8"
    delimiter: str = ""  # none: Parquet
    start: int = 0  # bytes before the first row
    lines: int = 0  # before the first row


def open_table(
    path: Path,
    *,
    setting: str,
    known: Callable[[str], Hashable | None],
    identifier: Hashable,
    id_names: str,
) -> TableFile:
    """The table in a file, with its header read: one row, or two (titles and field codes, in either
    order).

    Args:
        path: of the file.
        setting: that gave it, for messages.
        known: a column's name -> its key, None for a column that is of no use.
        identifier: the key of the column of ids; the header is the row in which it is found, and
            the delimiter the one by which most columns are.
        id_names: how that column may be named, for messages.

    Raises:
        ValueError: naming the setting and what the file is when it is no table, or none with that
            column.
    """
    with refused_by_name(path, setting=setting):
        packing, head = identified(path, setting=setting)
        if head.startswith(b"PAR1"):
            return _open_parquet(
                path, setting=setting, known=known, identifier=identifier, id_names=id_names
            )
        encoding, notes = encoding_of(head)
        lines = _first_lines(path, packing=packing, encoding=encoding)
        header, widest = _header(lines, known=known, identifier=identifier)
        if header and not _is_utf8(b"".join(lines)[: header.start]):
            encoding, notes = "latin-1", [LATIN]
            lines = _first_lines(path, packing=packing, encoding=encoding)
            header, widest = _header(lines, known=known, identifier=identifier)
    if not header:
        raise ValueError(
            f"{setting}={path}: none of its {widest} columns is the participants' id. Name it "
            f"{id_names}, and separate columns by commas, semicolons or tabs"
        )
    table = TableFile(
        path,
        setting,
        header.names,
        header.keys,
        notes,
        packing,
        encoding,
        header.delimiter,
        header.start,
        header.lines,
    )
    return _checked(table, identifier)


def read_blocks(table: TableFile, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The columns at `places` of successive blocks of rows, as text with nulls where nothing is
    written.

    Few blocks are in memory at a time. Raises ValueError when a row has another number of cells
    than the header, or the file is damaged, naming the line.
    """
    yield from (
        _parquet_blocks(table, places) if not table.delimiter else _text_blocks(table, places)
    )


# ---- text


def _first_lines(path: Path, *, packing: str, encoding: str) -> list[bytes]:
    """The first lines of a text, enough for HEADERS rows whose cells hold no line end."""
    content, size = b"", 1 << 16
    with unpacked(path, packing=packing, encoding=encoding) as stream:
        while len(content) < LONGEST and (part := stream.read(size)):
            content, size = content + part, 2 * size
            lines = re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", content)
            if sum(bool(line.strip()) for line in lines) > HEADERS + 1:
                return lines[: HEADERS + 8]
    return re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", content)[: HEADERS + 8]


class _Header(NamedTuple):
    names: list[str]
    keys: list[Hashable | None]
    delimiter: str
    start: int
    lines: int


def _header(
    lines: list[bytes], *, known: Callable[[str], Hashable | None], identifier: Hashable
) -> tuple[_Header | None, int]:
    """(the header that `known` knows best, by any delimiter; the most columns met)."""
    best: _Header | None = None
    widest = 0
    for delimiter in [
        mark for mark in DELIMITERS if any(mark.encode() in line for line in lines)
    ] or [","]:
        rows = _rows(lines, delimiter)
        widest = max([widest, *(len(names) for names, _, _ in rows)])
        headers = [
            (names, [known(name) for name in names], size, count)
            for names, size, count in rows
            if re.search("eid|participant", clean(" ".join(names)), re.IGNORECASE)
        ]
        headers = [header for header in headers if identifier in header[1]]
        if headers:
            names, keys, _, _ = max(headers, key=lambda header: len(set(header[1])))
            _, _, size, count = headers[-1]
            found = _Header(names, keys, delimiter, size, count)
            best = max(
                filter(None, (best, found)), key=lambda one: (len(set(one.keys)), len(one.keys))
            )
    return best, widest


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rows(lines: list[bytes], delimiter: str) -> list[tuple[list[str], int, int]]:
    """(cells, bytes up to here, lines up to here) of the first rows."""
    size = count = 0

    def texts() -> Iterator[str]:
        nonlocal size, count
        for line in lines:
            size, count = size + len(line), count + 1
            yield re.sub(r"\r\n?$", "\n", line.decode("utf-8", "replace").removeprefix("\ufeff"))

    candidates: list[tuple[list[str], int, int]] = []
    csv.field_size_limit(LONGEST)
    rows = csv.reader(texts(), delimiter=delimiter)
    while len(candidates) < HEADERS:
        try:
            cells = next(rows)
        except (
            StopIteration,
            csv.Error,
        ):  # a torn row is not a header; the parser of rows will name it
            break
        if cells:
            candidates.append((cells, size, count))
    return candidates


def _text_blocks(table: TableFile, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
    done, sizes, encoding = 0, list(BLOCKS), table.encoding
    while sizes:
        block = max(sizes[0], min(ROWS * table.start, BLOCKS[1]))
        rows = 0
        try:
            with refused_by_name(table.path, setting=table.setting), ExitStack() as stack:
                stream = stack.enter_context(
                    unpacked(table.path, packing=table.packing, encoding=table.encoding)
                )
                _skip(stream, table.start)
                if encoding != table.encoding:
                    stream = pa.transcoding_input_stream(stream, encoding, "utf-8")
                for batch in _parsed(stream, table, places, block=block):
                    new = batch.slice(max(0, min(done - rows, batch.num_rows)))
                    rows += batch.num_rows
                    done = max(done, rows)
                    if new.num_rows:
                        yield new
            return
        except pa.ArrowException as error:
            text = str(error)
            if text == "Empty CSV file":
                return
            if "UTF8" in text and encoding == "utf-8":
                encoding = "latin-1"
                table.notes.append(LATIN)
            elif len(sizes) > 1 and "straddling" in text:
                sizes.pop(0)
            else:
                raise ValueError(
                    f"{table.setting}={table.path}: {_fault(text, table, done)}"
                ) from None


def _skip(stream: Any, count: int) -> None:
    while count > 0 and (part := stream.read(count)):
        count -= len(part)


def _parsed(
    stream: Any, table: TableFile, places: Sequence[int], *, block: int
) -> Iterator[pa.RecordBatch]:
    """Batches of the columns at `places`, from about `block` bytes each."""
    names = [str(place) for place in places]
    yield from arrow_csv.open_csv(
        stream,
        read_options=arrow_csv.ReadOptions(
            block_size=block,
            use_threads=False,
            column_names=[str(place) for place in range(len(table.names))],
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=table.delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=NA,
            strings_can_be_null=True,
        ),
    )


def _fault(error: str, table: TableFile, done: int) -> str:
    """What a parser's error means. Its own text is not passed on: it may hold a participant's
    row."""
    if match := re.search(r"Row #(\d+): Expected \d+ columns, got (\d+)", error):
        return (
            f"line {table.lines + int(match[1])} has {match[2]} cells, the header "
            f"{len(table.names)}; correct or remove the line (a stray quote or delimiter, or a "
            "column of row names without a header)"
        )
    after = f"behind line {table.lines + done}"
    return f"{after} it cannot be parsed as a table; look for a quote that is not closed"


# ---- Parquet


def _open_parquet(
    path: Path,
    *,
    setting: str,
    known: Callable[[str], Hashable | None],
    identifier: Hashable,
    id_names: str,
) -> TableFile:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException:
        raise ValueError(
            f"{setting}={path}: is a Parquet file that cannot be opened; it is damaged or "
            "encrypted. Copy it again"
        ) from None
    names = list(schema.names)
    keys = [known(name) for name in names]
    if twice := sum(
        key is not None and names.count(name) > 1 for name, key in zip(names, keys, strict=True)
    ):
        raise ValueError(
            f"{setting}={path}: {twice} columns share a name with another; keep one of each"
        )
    if identifier not in keys:
        raise ValueError(
            f"{setting}={path}: none of its {len(names)} columns is the participants' id. Name it "
            f"{id_names}; an index of pandas is a column only after reset_index()"
        )
    return _checked(TableFile(path, setting, names, keys, []), identifier)


def _checked(table: TableFile, identifier: Hashable) -> TableFile:
    """The table, if each of its names is one and one of them alone is the id."""
    where = f"{table.setting}={table.path}"
    if any("\n" in name or "\r" in name for name in table.names):
        raise ValueError(
            f"{where}: a name in the header holds a line end; look for a quote that is not closed"
        )
    if table.keys.count(identifier) > 1:
        first, second = [place for place, key in enumerate(table.keys) if key == identifier][:2]
        raise ValueError(
            f"{where}: columns {first + 1} ({table.names[first].strip()!r}) and {second + 1} "
            f"({table.names[second].strip()!r}) are both the participants' id; keep one"
        )
    return table


def _parquet_blocks(table: TableFile, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
    names = [str(place) for place in places]
    try:
        with refused_by_name(table.path, setting=table.setting):
            file = pq.ParquetFile(table.path)
            wanted = list(dict.fromkeys(table.names[place] for place in places))
            for batch in file.iter_batches(columns=wanted, batch_size=1 << 14):
                columns = [
                    _as_text(
                        batch.column(batch.schema.names.index(table.names[place])), table, place
                    )
                    for place in places
                ]
                yield pa.RecordBatch.from_arrays(columns, names)
    except pa.ArrowException as error:
        raise ValueError(
            f"{table.setting}={table.path}: cannot be read to its end ({type(error).__name__}); "
            "copy it again"
        ) from None


def _as_text(column: pa.Array, table: TableFile, place: int) -> pa.Array:
    """A typed column as a CSV would write it; lists as JSON."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        texts = [
            None if cell is None else json.dumps(cell, default=str) for cell in column.to_pylist()
        ]
        return pa.array(texts, pa.string())
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_time(kind)
    ):
        raise ValueError(
            f"{table.setting}={table.path}: column {clean(table.names[place])!r} is of type "
            f"{kind}; write it as text, number, date or list of texts"
        )
    text = column if pa.types.is_string(kind) else pc.cast(column, pa.string())
    return pc.if_else(pc.is_in(text, pa.array(NA)), pa.scalar(None, pa.string()), text)
