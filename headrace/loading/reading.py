"""A file of any kind becomes rows; its content says which kind, not its name."""

from pathlib import Path
from typing import NamedTuple

from headrace.loading.bytes_of_files import ZIP, unpack
from headrace.loading.errors import BadFile
from headrace.loading.source import Source

PARQUET, OLD_EXCEL = b"PAR1", b"\xd0\xcf\x11\xe0"


class ReadingOptions(NamedTuple):
    """What a caller knows better than the file's content tells."""

    encoding: str = ""
    separator: str = ""
    header: bool | None = None
    sheet: str = ""


AS_FOUND = ReadingOptions()


def open_source(path: Path, options: ReadingOptions = AS_FOUND) -> Source:
    """Return the rows of a CSV, TSV, Excel, Parquet, JSON or XML file, also gzipped. Raises BadFile."""
    packed = unpack(path)
    size, head = path.stat().st_size, packed.head
    if head.startswith(PARQUET) or path.suffix.lower() == ".parquet":
        if packed.details:
            raise BadFile(f"{path.name}: unpack it first; Parquet is read from the end")
        from headrace.loading.parquet import read_parquet

        return read_parquet(path)
    if head.startswith((ZIP, OLD_EXCEL)):
        from headrace.loading.spreadsheet import read_spreadsheet

        return read_spreadsheet(path, options.sheet)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<":
        from headrace.loading.merchant_xml import read_feed

        return read_feed(packed, path.name, size)
    if start in (b"{", b"["):
        from headrace.loading.json_rows import read_json

        return read_json(packed, path.name, size)
    from headrace.loading.delimited import read_delimited

    return read_delimited(packed, path.name, size, options.encoding, options.separator, options.header)
