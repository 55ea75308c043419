"""Read tables of separated values as people have them: find out delimiter, encoding and quoting.

Well-quoted files are read as RFC 4180 has it. Quotes elsewhere, as in `12" mat`, are plain characters.
"""

import codecs
import csv
import io
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, NamedTuple, TextIO

SAMPLE_BYTES = 1 << 18
"""Bytes at the start of a file that decide its encoding, delimiter and quoting."""

DELIMITERS = ",;\t|"
NO_DELIMITER = "\x1f"
"""A character that no list holds, for files of one column, in which a link may contain commas."""

LONGEST_LINE = 10_000_000
"""The most characters of a line, and of a record of several lines."""

MOST_CELLS = 100_000
"""The most cells of a line."""

BATCH_LINES = 1_000
BATCH_CHARS = 4_000_000
"""Lines and characters that are split at a time, and the most lines of one record."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARKED = frozenset({"utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"})
"""Encodings of which a byte order mark says more than a setting."""

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', re.IGNORECASE)
"""The first line with which Excel names a file's delimiter."""


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as Windows does in the west, as a file's first accent may come late."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


ELSE_CP1252 = "imgdl-cp1252"
codecs.register_error(ELSE_CP1252, _as_cp1252)


class Row(NamedTuple):
    """The cells of one row, and the number of the line at which it ends."""

    line: int
    cells: list[str]


def encoding_of(sample: bytes, *, is_whole: bool) -> str:
    """Return the encoding of a text file: by its byte order mark, by its NULs (UTF-16), UTF-8, or cp1252."""
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) > max(len(sample) // 20 + 1, 10 * min(even, odd)):
        return "utf-16-le" if odd > even else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=is_whole)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


@contextmanager
def open_text(
    data: IO[bytes], encoding: str | None, newline: str | None = None
) -> Iterator[tuple[io.TextIOWrapper, str]]:
    """Open a file as text, and yield it with its first characters up to the end of a line.

    Args:
        data: The file, which can be read from its start again.
        encoding: The encoding; None finds it out.
        newline: As for `open`.
    """
    sample = data.read(SAMPLE_BYTES)
    data.seek(0)
    is_whole = len(sample) < SAMPLE_BYTES
    marked = next((name for mark, name in _BOMS if sample.startswith(mark)), None)
    if encoding is None or (marked and codecs.lookup(encoding).name in _MARKED):
        encoding = encoding_of(sample, is_whole=is_whole)
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    errors = ELSE_CP1252 if is_utf8 else "replace"
    text = codecs.getincrementaldecoder(encoding)(errors).decode(sample)
    if not is_whole:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    stream = io.TextIOWrapper(data, encoding=encoding, errors=errors, newline=newline)
    try:
        yield stream, text
    finally:
        if not data.closed:
            stream.detach()  # the caller closes the file


def read_rows(
    data: IO[bytes], url_column: str, delimiter: str | None, encoding: str | None
) -> Generator[Row, None, None]:
    """Yield the rows of a table, with the header as the first; rows without any text are passed over.

    Args:
        data: The file, which can be read from its start again.
        url_column: The name of the column whose presence in the header decides for a delimiter.
        delimiter: The delimiter; None finds it out.
        encoding: The encoding; None finds it out.

    Raises:
        LineError: A line is too long.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))  # process-wide, so never lower it
    with open_text(data, encoding, "") as (stream, sample):
        named = _SEPARATOR_LINE.match(sample)
        if named:
            stream.readline()
            sample = sample[named.end() :]
        found = delimiter or (named[1] if named else delimiter_of(sample, url_column))
        first_line = 2 if named else 1
        if _quotes_are_text(sample, found, url_column):
            reader = csv.reader(
                bounded_lines(stream, found, first_line), delimiter=found, quoting=csv.QUOTE_NONE
            )
            rows: Iterator[Row] = (Row(first_line + reader.line_num - 1, cells) for cells in reader)
        else:
            rows = _split(bounded_lines(stream, found, first_line), found, first_line)
        yield from (row for row in rows if any(map(str.strip, row.cells)))


def delimiter_of(text: str, url_column: str) -> str:
    """Return the delimiter with which the header names the url column, or that gives most rows its width."""
    first = {each: _first_rows(text[:100_000], each) for each in DELIMITERS}
    wanted = normal(url_column)
    named = [each for each, rows in first.items() if rows and wanted in map(normal, rows[0])]
    if named:
        best = max(named, key=lambda each: len(first[each][0]))
    else:
        best = max(DELIMITERS, key=lambda each: _evenness(first[each]))
    return best if first[best] and len(first[best][0]) > 1 else NO_DELIMITER


def normal(header: str) -> str:
    """Return a header as it is compared: without its case and the blanks around it."""
    return header.strip().casefold()


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(islice((row for row in rows if any(map(str.strip, row))), 100))
    except csv.Error:
        return []


def _evenness(rows: list[list[str]]) -> tuple[float, int]:
    width = len(rows[0]) if rows else 0
    return (sum(len(row) == width for row in rows) / len(rows), width) if width > 1 else (0.0, 0)


def _quotes_are_text(text: str, delimiter: str, url_column: str) -> bool:
    """Return whether quotes are plain characters: the sample is not well quoted, but even without quoting.

    Then every cell of the url column must hold a link, too: lines within quotes may happen to be even.
    """
    if '"' not in text:
        return False
    lines = [line for line in io.StringIO(text, newline="") if line.strip()]
    try:
        records = [row for row in csv.reader(iter(lines), delimiter=delimiter, strict=True) if row]
        if len(records) == len(lines):
            return False
    except csv.Error:
        pass
    header, *rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    if any(len(row) != len(header) for row in rows):
        return False
    names = [normal(each) for each in header]
    place = names.index(normal(url_column)) if normal(url_column) in names else None
    return place is None or all("://" in row[place] for row in rows)


class LineError(Exception):
    """Raised if a line is too long, with its number."""


def bounded_lines(stream: TextIO, delimiter: str = "\0", first: int = 1) -> Iterator[str]:
    """Yield the lines of a text, of which `first` is the number of the first one.

    Raises:
        LineError: A line has more than `LONGEST_LINE` characters or `MOST_CELLS` cells.
    """
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), ""), start=first):
        if len(line) == LONGEST_LINE:
            raise LineError(f"{number}: the line has {LONGEST_LINE} characters or more (LONGEST_LINE)")
        if len(line) > MOST_CELLS and line.count(delimiter) > MOST_CELLS:
            raise LineError(f"{number}: the line has more than {MOST_CELLS} cells (MOST_CELLS)")
        yield line


def _batch(lines: Iterator[str]) -> list[str]:
    """Return some lines; none at the end."""
    batch: list[str] = []
    chars = 0
    for line in lines:
        batch.append(line)
        chars += len(line)
        if len(batch) == BATCH_LINES or chars > BATCH_CHARS:
            break
    return batch


def _split(stream: Iterator[str], delimiter: str, first_line: int) -> Iterator[Row]:
    """Split well-quoted lines, many at a time; split a line that is not well quoted as it is."""
    lines: list[str] = []
    start, ended, wants_more = 0, False, True
    number = first_line - 1
    while True:
        if wants_more and not ended:
            more = _batch(stream)
            ended = not more
            lines, start = lines[start:] + more, 0
        if start >= len(lines):
            if ended:
                return
            wants_more = True
            continue
        reader = csv.reader(islice(lines, start, None), delimiter=delimiter, strict=True)
        done = 0
        try:
            for cells in reader:
                done = reader.line_num
                yield Row(number + done, cells)
            number += len(lines) - start
            start, wants_more = len(lines), True
        except csv.Error:
            is_cut = start + reader.line_num == len(lines) and not ended
            record = lines[start + done :]
            is_short = len(record) <= BATCH_LINES and sum(map(len, record)) <= LONGEST_LINE
            wants_more = is_cut and is_short
            start, number = start + done, number + done
            if not wants_more:
                [cells] = csv.reader([lines[start]], delimiter=delimiter, quoting=csv.QUOTE_NONE)
                start, number = start + 1, number + 1
                yield Row(number, cells)
