"""Ids cross the wire as text and rest in rows as 64-bit hashes.

FNV-1a over the UTF-8 bytes, finished with MurmurHash3's fmix64, so that close
ids land far apart. 0 is kept for "absent". At 100 million items the chance of
one collision anywhere is about 0.0003 (birthday bound n²/2⁶⁵).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.uncounted import uncounted

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
ABSENT = 0


@uncounted()
def fnv_1a(h: np.uint64, data: npt.NDArray[np.uint8], start: int, length: int) -> np.uint64:
    """Return `h`, FNV_OFFSET or what another call has returned, gone on with over `data[start : start + length]`."""
    for i in range(start, start + length):
        h = (h ^ np.uint64(data[i])) * FNV_PRIME
    return h


@uncounted()
def finished(h: np.uint64) -> np.uint64:
    """Return the id hash that comes of what `fnv_1a` returned for all of an id."""
    h ^= h >> np.uint64(33)
    h *= MIX_1
    h ^= h >> np.uint64(33)
    h *= MIX_2
    h ^= h >> np.uint64(33)
    return h if h != np.uint64(0) else np.uint64(1)


@uncounted()
def hash_bytes(data: npt.NDArray[np.uint8], start: int, length: int) -> np.uint64:
    """Return the id hash of `data[start : start + length]`; 0 for an empty id."""
    return finished(fnv_1a(FNV_OFFSET, data, start, length)) if length > 0 else np.uint64(0)


@lru_cache(1 << 16)
def hash_id(text: str) -> int:
    """Return the 64-bit hash of an id; 0 for the empty text.

    >>> hash_id("")
    0
    >>> hash_id("a") != hash_id("b")
    True
    """
    data = np.frombuffer(text.encode(), np.uint8)
    return int(hash_bytes(data, 0, len(data)))


@uncounted()
def _hash_all(data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], out: npt.NDArray[np.uint64]) -> None:
    start = 0
    for i in range(len(lengths)):
        out[i] = hash_bytes(data, start, lengths[i])
        start += lengths[i]


def hash_ids(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the hashes of ids; those of 64 that are new in a fifth of the time that `hash_id` takes one by one.

    >>> hash_ids(["a", ""]).tolist() == [hash_id("a"), 0]
    True
    """
    encoded = [text.encode() for text in texts]
    lengths, hashes = np.array([len(one) for one in encoded], np.int64), np.empty(len(encoded), np.uint64)
    _hash_all(np.frombuffer(b"".join(encoded), np.uint8), lengths, hashes)
    return hashes
