"""The bytes of a file, unpacked where it is compressed."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from headrace.loading.errors import BadFile

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"


class Packed(NamedTuple):
    """How to read a file's content."""

    open: Callable[[], tuple[BinaryIO, BinaryIO]]
    """Returns (stream of the content, stream of the file itself); closing the first closes both."""
    head: bytes
    """The first 64 KB of the content."""
    details: dict[str, str]


def unpack(path: Path) -> Packed:
    """Return the content of a file: of a gzip, or of a zip with one file in it, what it holds. Raises BadFile."""
    if not path.exists():
        raise BadFile(f"{path} does not exist")
    if path.is_dir():
        raise BadFile(f"{path} cannot be read as a table: it is a folder")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        details = {}
        opened = _plain(path)
        if magic.startswith(GZIP):
            opened, details = _gzipped(path), {"compression": "gzip"}
        elif magic == ZIP and (member := _only_member(path)) is not None:
            opened, details = _zipped(path, member), {"compression": f"zip of {member}"}
        stream, _ = opened()
        with stream:
            return Packed(opened, stream.read(1 << 16), details)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadFile(f"{path} cannot be read as a table: {error}") from None


def _plain(path: Path) -> Callable[[], tuple[BinaryIO, BinaryIO]]:
    def opened() -> tuple[BinaryIO, BinaryIO]:
        file = path.open("rb")
        return file, file

    return opened


def _gzipped(path: Path) -> Callable[[], tuple[BinaryIO, BinaryIO]]:
    def opened() -> tuple[BinaryIO, BinaryIO]:
        content = gzip.GzipFile(path)
        return cast(BinaryIO, content), cast(BinaryIO, content.fileobj)

    return opened


def _zipped(path: Path, member: str) -> Callable[[], tuple[BinaryIO, BinaryIO]]:
    def opened() -> tuple[BinaryIO, BinaryIO]:
        archive = zipfile.ZipFile(path)
        content = archive.open(member)
        archive.close()  # the file stays open until its member is closed
        return cast(BinaryIO, content), cast(BinaryIO, archive.fp or content)

    return opened


def _only_member(path: Path) -> str | None:
    """Return the one file of a zip, None for a workbook or another zip of many."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    return names[0] if len(names) == 1 else None
