"""The kernels that write the lists of a batch as bytes, put together from byte strings that most lists share."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.copy_bytes import copy_bytes
from schemas.compiled.njit import njit, njit_no_refcount
from serving.proto import headrace_pb2
from serving.rendering.byte_strings import Bytes, Packed, length, put

Ints = npt.NDArray[np.int64]
TAG = headrace_pb2.Answer.DESCRIPTOR.fields_by_name["items"].number << 3 | 2  # 2: what follows has a length
OPEN, CLOSE, COMMA = (ord(sign) for sign in "[],")


class ListParts(NamedTuple):
    """The parts of lists: their lengths, and of each item (B, K) the numbers of three byte strings."""

    n: Ints
    heads_at: Ints
    heads: Packed
    reasons_at: Ints
    reasons: Packed
    moved: Ints
    ends: Packed


@njit_no_refcount()
def _most(parts: ListParts, more: int) -> int:
    """Return how many bytes lists can take at most, `more` for each item."""
    n, heads_at, heads, reasons_at, reasons, moved, ends = parts
    size = 2 * len(n)
    for b in range(len(n)):
        for k in range(n[b]):
            size += length(heads, heads_at[b, k]) + length(reasons, reasons_at[b, k]) + length(ends, moved[b, k]) + more
    return size


@njit()
def write_json(parts: ListParts, scores: Bytes) -> tuple[Bytes, Ints]:
    """Return JSON lists, and where each begins and ends; `scores` is the JSON of all scores, (B, K)."""
    n, heads_at, heads, reasons_at, reasons, moved, ends = parts
    out = np.empty(_most(parts, 0) + len(scores), np.uint8)
    bounds = np.zeros(len(n) + 1, np.int64)
    at, read = 0, 1  # behind the first bracket of the scores
    for b in range(len(n)):
        out[at], at, read = OPEN, at + 1, read + 1
        for k in range(heads_at.shape[1]):
            first = read
            while scores[read] != COMMA and scores[read] != CLOSE:
                read += 1
            if k < n[b]:
                at = put(heads, heads_at[b, k], out, at)
                at = copy_bytes(scores, first, read, out, at)
                at = put(reasons, reasons_at[b, k], out, at)
                at = put(ends, moved[b, k], out, at)
            read += 1
        if n[b] > 0:
            out[at - 1] = CLOSE  # instead of the comma
        else:
            out[at], at = CLOSE, at + 1
        read += 1  # the comma between two rows
        bounds[b + 1] = at
    return out[:at], bounds


@njit()
def write_messages(parts: ListParts, scores: Bytes) -> tuple[Bytes, Ints]:
    """Return the items of `Answer` messages, and where each begins and ends; `scores` (B, K · 8): their doubles."""
    n, heads_at, heads, reasons_at, reasons, moved, ends = parts
    out = np.empty(_most(parts, 8 + 6), np.uint8)  # score, tag and a length
    bounds = np.zeros(len(n) + 1, np.int64)
    at = 0
    for b in range(len(n)):
        for k in range(n[b]):
            left = length(heads, heads_at[b, k]) + 8 + length(reasons, reasons_at[b, k]) + length(ends, moved[b, k])
            out[at], at = TAG, at + 1
            while left > 127:  # base 128, lowest digit first
                out[at], at, left = left & 127 | 128, at + 1, left >> 7
            out[at], at = left, at + 1
            at = put(heads, heads_at[b, k], out, at)
            at = copy_bytes(scores[b], 8 * k, 8 * k + 8, out, at)
            at = put(reasons, reasons_at[b, k], out, at)
            at = put(ends, moved[b, k], out, at)
        bounds[b + 1] = at
    return out[:at], bounds
