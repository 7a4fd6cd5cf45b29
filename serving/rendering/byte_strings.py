"""Byte strings by number, one behind the other in an array, so that kernels can put them together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.copy_bytes import copy_bytes
from schemas.compiled.njit import njit_no_refcount
from serving.request.columns import grown

Bytes = npt.NDArray[np.uint8]


class Packed(NamedTuple):
    """Byte strings as kernels read them: the k-th is `data[bounds[k] : bounds[k + 1]]`."""

    data: Bytes
    bounds: npt.NDArray[np.int64]


class ByteStringPool:
    """A growing list of byte strings; what was packed before stays as it was."""

    def __init__(self) -> None:
        self._data, self._bounds, self._n = np.empty(1 << 12, np.uint8), np.zeros(1 << 6, np.int64), 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> bytes:
        return self._data[self._bounds[number] : self._bounds[number + 1]].tobytes()

    def extend(self, pieces: Sequence[bytes]) -> None:
        """Take in byte strings; they are numbered on from those before."""
        if not pieces:
            return
        first, last = self._n, self._n + len(pieces)
        ends = self._bounds[first] + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        if ends[-1] > len(self._data):
            self._data = grown(self._data, max(2 * len(self._data), int(ends[-1])))
        if last >= len(self._bounds):
            self._bounds = grown(self._bounds, max(2 * len(self._bounds), last + 1))
        self._bounds[first + 1 : last + 1], self._n = ends, last
        self._data[self._bounds[first] : self._bounds[last]] = np.frombuffer(b"".join(pieces), np.uint8)

    @property
    def packed(self) -> Packed:
        """The byte strings as kernels see them; they stay valid when more are added."""
        return Packed(self._data, self._bounds)


@njit_no_refcount()
def length(pieces: Packed, number: int) -> int:
    """Return how long a piece is."""
    return int(pieces.bounds[number + 1] - pieces.bounds[number])


@njit_no_refcount()
def put(pieces: Packed, number: int, out: Bytes, at: int) -> int:
    """Write a piece into `out` from `at` on; return where it ends."""
    return copy_bytes(pieces.data, pieces.bounds[number], pieces.bounds[number + 1], out, at)
