"""In which encoding a text is written."""

import codecs
from collections.abc import Callable
from typing import BinaryIO

from headrace.loading.errors import BadFile

CHUNK = 1 << 20
SAMPLE = 1 << 16
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
WESTERN = "cp1252"
OTHERS = ("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp932", "gb18030", "big5", "euc_kr")
MOST_ACCENTS = 0.3
"""Of the letters: in a western text more of them are plain; where fewer are, another script is likely."""


def encoding_of(open_bytes: Callable[[], BinaryIO], head: bytes) -> str:
    """Return the encoding of a text: of its byte order mark, UTF-8 where all of it is, else the likeliest one."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    if head[1:2] == b"\0" or head[:1] == b"\0":
        return "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
    sample = _sample_that_is_no_utf8(open_bytes)
    return "utf-8" if sample is None else _likeliest(sample)


def check_encoding(name: str) -> str:
    """Return the name if Python can decode it. Raises BadFile."""
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise BadFile(f"--encoding {name} is unknown; try utf-8, cp1252, latin-1, utf-16, cp1251, shift_jis") from None


def _sample_that_is_no_utf8(open_bytes: Callable[[], BinaryIO]) -> bytes | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes() as file:
        while chunk := file.read(CHUNK):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                start = max(error.start - SAMPLE // 2, 0)
                return chunk[start : start + SAMPLE]
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return error.object
    return None


def _likeliest(sample: bytes) -> str:
    """Return the western encoding for plain letters with a few accents, else what charset-normalizer finds."""
    high = sum(byte >= 0x80 for byte in sample)
    letters = sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in sample) + high
    if high <= MOST_ACCENTS * letters:
        return WESTERN
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=[WESTERN, *OTHERS]).best()
    return best.encoding if best is not None else WESTERN
