"""CSV, TSV and their like: encoding, separator, header and ragged rows."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from headrace.loading.bytes_of_files import Packed
from headrace.loading.errors import BadFile
from headrace.loading.source import Row, Source, Unreadable
from headrace.loading.text_encoding import check_encoding, encoding_of

SEPARATORS = (",", ";", "\t", "|", "::")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", "::": "double colon", " ": "space"}
UNIT = "\x1f"
"""Stands for a separator of several characters, which Python's reader cannot split at."""
SAMPLED = 200
MOST_FIELD = 1 << 20
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


def read_delimited(
    packed: Packed, name: str, size: int, encoding: str = "", separator: str = "", header: bool | None = None
) -> Source:
    """Return the rows of a text with one separator. Raises BadFile for one that holds nothing."""
    encoding = check_encoding(encoding) if encoding else encoding_of(lambda: packed.open()[0], packed.head)
    sample, skipped = _sample(packed, encoding, name)
    if separator in ("\\t", "tab"):
        separator = "\t"
    marked = re.match(r"(?i)sep=(.)$", sample[0]) if sample else None
    if marked is not None:
        sample, skipped = sample[1:], skipped + 1
        separator = separator or marked[1]
    if not sample:
        raise BadFile(f"{name} cannot be read as CSV: it is empty")
    separator = separator or _separator(sample)
    first = next(_reader(iter(sample), separator))
    has_header = _is_header(first) if header is None else header
    columns = _columns(first) if has_header else tuple(str(n + 1) for n in range(len(first)))
    reading = _Reading(packed, encoding, separator, columns, skipped, has_header, size)
    details = {"encoding": encoding, "separator": NAMES.get(separator, repr(separator)), **packed.details}
    if not has_header:
        details["header"] = "none: columns are called 1, 2, 3 …"
    kind = "TSV" if separator == "\t" else "CSV"
    return Source(kind, columns, reading.rows, reading.done, details, separator, has_header=has_header)


class _Reading:
    """Reads a text from its beginning, as often as is requested."""

    def __init__(
        self, packed: Packed, encoding: str, separator: str, columns: tuple[str, ...], skipped: int, header: bool,
        size: int,
    ) -> None:  # fmt: skip
        self._packed, self._encoding, self._separator = packed, encoding, separator
        self._columns, self._skipped, self._header, self._size = columns, skipped, header, size
        self._file: BinaryIO | None = None

    def done(self) -> float:
        """Return the share of the file that has been read."""
        if self._file is None or self._file.closed:
            return 1.0
        return min(self._file.tell() / max(self._size, 1), 1.0)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; one that has other fields than the header as Unreadable."""
        content, self._file = self._packed.open()
        with io.TextIOWrapper(content, self._encoding, errors="replace", newline="") as text:
            lines = iter(text)
            for _ in range(self._skipped):
                next(lines, None)
            reader = _reader(lines, self._separator)
            if self._header:
                next(reader, None)
            columns, n = self._columns, len(self._columns)
            while True:
                before = reader.line_num
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield before + 1 + self._skipped, Unreadable(f"cannot be taken apart: {error}", "")
                    continue
                line = before + 1 + self._skipped
                if len(row) > n and any(cell.strip() for cell in row[n:]):
                    found = f"has {len(row)} fields, the header has {n}"
                    yield line, Unreadable(found, self._separator.join(row)[:80])
                elif any(row):
                    yield line, dict(zip(columns, row, strict=False))


def _reader(lines: Iterator[str], separator: str) -> Any:
    csv.field_size_limit(MOST_FIELD)
    plain = (line.replace("\0", "") for line in lines)
    if len(separator) == 1:
        return csv.reader(plain, delimiter=separator, skipinitialspace=separator != "\t")
    return csv.reader((line.replace(separator, UNIT) for line in plain), delimiter=UNIT, quoting=csv.QUOTE_NONE)


def _sample(packed: Packed, encoding: str, name: str) -> tuple[list[str], int]:
    """Return (the first lines, how many empty ones lie before them)."""
    content, _ = packed.open()
    lines: list[str] = []
    skipped = 0
    with io.TextIOWrapper(content, encoding, errors="replace", newline="") as text:
        for line in text:
            if not lines and not line.strip():
                skipped += 1
                continue
            lines.append(line)
            if len(lines) == SAMPLED:
                break
    if lines and sum(ord(c) < 32 and c not in "\r\n\t\x1f" for c in lines[0]) > 2:
        raise BadFile(f"{name} cannot be read as CSV, Excel, Parquet, JSON or XML: it is none of them")
    return lines, skipped


def _separator(lines: list[str]) -> str:
    """Return the separator that divides most lines into the same number of fields, and into the most."""

    def agreement(separator: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in _reader(iter(lines), separator) if row]
        except csv.Error:
            return 0.0, 0
        if not widths or widths[0] < 2:
            return 0.0, 0
        width, n = Counter(widths).most_common(1)[0]
        return (round(n / len(widths), 1), width) if width > 1 else (0.0, 0)

    best = max(SEPARATORS, key=agreement)
    return best if agreement(best) > (0.0, 0) else ","


def _is_header(first: list[str]) -> bool:
    """Return whether a first row names columns: data begin with digits throughout, or hold a moment."""
    if any(_MOMENT.match(cell.strip()) for cell in first):
        return False
    return not all(re.match(r"[-+]?\d", cell.strip()) for cell in first)


def _columns(first: list[str]) -> tuple[str, ...]:
    names: list[str] = []
    for n, cell in enumerate(first, 1):
        name = cell.strip().lstrip("\ufeff") or f"column {n}"
        names.append(name if name not in names else f"{name} ({n})")
    return tuple(names)
