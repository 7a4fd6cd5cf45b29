"""User vectors as they rest: `version u8 · zero u8 · d u16 · float32[d]`, little-endian."""

import struct

import numpy as np
import numpy.typing as npt

from state.rows.row_codec import Packed

VERSION = 1


def encode_vector(vector: npt.NDArray[np.float32]) -> bytes:
    """Return the row of a vector, float (d,)."""
    return struct.pack("<BBH", VERSION, 0, len(vector)) + vector.astype("<f4").tobytes()


def pack_vectors(vectors: npt.NDArray[np.float32]) -> Packed:
    """Return the encoded rows of float32 (n, d) vectors, one behind the other."""
    n, d = vectors.shape
    out = np.empty((n, 4 + 4 * d), np.uint8)
    out[:, :4] = np.frombuffer(struct.pack("<BBH", VERSION, 0, d), np.uint8)
    out[:, 4:] = vectors.astype("<f4").view(np.uint8)
    return out.ravel(), np.arange(1, n + 1, dtype=np.int64) * (4 + 4 * d)


def decode_vector(value: bytes) -> npt.NDArray[np.float32]:
    """Return the vector, float32 (d,).

    >>> decode_vector(encode_vector(np.array([1, 2], np.float32))).tolist()
    [1.0, 2.0]
    """
    version, _, d = struct.unpack_from("<BBH", value)
    if version != VERSION:
        raise ValueError(f"vector row has version {version}; this program reads version {VERSION}")
    return np.frombuffer(value, "<f4", d, 4)
