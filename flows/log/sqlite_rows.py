"""Rows of the embedded log: messages of one append as columns, and back.

    topic int32 · offset int64 · ts int64 · lengths int32 (-1: no value) · payload · key_lengths int32 · keys · headers

Every column is one blob with an entry a message, but for `payload` and `keys`, the values one behind the other, and
`headers`, JSON by place.
"""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from flows.log.contract import Headers, Message

Int64s = npt.NDArray[np.int64]
COLUMNS = "newest_ms, topic, offset, ts, lengths, payload, key_lengths, keys, headers"
"""What `encode_row` returns."""
READ = "seq, topic, offset, lengths, payload, key_lengths, keys, ts, headers"
"""What `decode_row` takes."""


class LogRow(NamedTuple):
    """One batch row, decoded."""

    seq: int
    topic: npt.NDArray[np.int32]
    offset: Int64s
    lengths: npt.NDArray[np.int32]
    payload: bytes
    key_lengths: npt.NDArray[np.int32]
    keys: bytes
    ts: Int64s
    headers: bytes | None


def _encode_headers(messages: Sequence[Message]) -> bytes | None:
    """Return the headers of a row's messages as JSON, by place, values in base64; None where no message has any."""
    found = {
        str(i): [(name, None if value is None else base64.b64encode(value).decode()) for name, value in one.headers]
        for i, one in enumerate(messages)
        if one.headers
    }
    return orjson.dumps(found) if found else None


def _decode_headers(row: bytes | None, i: int) -> Headers:
    found = orjson.loads(row).get(str(i), []) if row else []
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in found)


def message_of(row: LogRow, i: int, topic: str) -> Message:
    """Return message i of a row."""

    def part(data: bytes, lengths: npt.NDArray[np.int32]) -> bytes | None:
        start = int(np.maximum(lengths[:i], 0).sum(dtype=np.int64))
        return None if lengths[i] < 0 else data[start : start + int(lengths[i])]

    key, value = part(row.keys, row.key_lengths), part(row.payload, row.lengths)
    return Message(topic, key, value, int(row.ts[i]), _decode_headers(row.headers, i))


def encode_row(messages: Sequence[Message], topics: Sequence[int], offsets: Sequence[int]) -> tuple[object, ...]:
    """Return the columns of a row, given the id of each message's topic and its offset there."""
    values, found_keys = [message.value for message in messages], [message.key for message in messages]
    return (
        max(message.ts_ms for message in messages),
        np.array(topics, np.int32).tobytes(),
        np.array(offsets, np.int64).tobytes(),
        np.array([message.ts_ms for message in messages], np.int64).tobytes(),
        np.array([-1 if value is None else len(value) for value in values], np.int32).tobytes(),
        b"".join(value for value in values if value is not None),
        np.array([-1 if key is None else len(key) for key in found_keys], np.int32).tobytes(),
        b"".join(key for key in found_keys if key is not None),
        _encode_headers(messages),
    )


def decode_row(seq: int, topic: bytes, offset: bytes, lengths: bytes, payload: bytes, *more: bytes) -> LogRow:
    """Return a row of its columns, in the order of READ."""
    key_lengths, found_keys, ts, headers = more
    return LogRow(
        seq, np.frombuffer(topic, np.int32), np.frombuffer(offset, np.int64), np.frombuffer(lengths, np.int32), payload,
        np.frombuffer(key_lengths, np.int32), found_keys, np.frombuffer(ts, np.int64), headers,
    )  # fmt: skip
