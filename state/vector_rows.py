"""User vectors as they rest: `version u8 · zero u8 · d u16 · float32[d]`, little-endian."""

import struct

import numpy as np
import numpy.typing as npt

VERSION = 1


def encode_vector(vector: npt.NDArray[np.float32]) -> bytes:
    return struct.pack("<BBH", VERSION, 0, len(vector)) + vector.astype("<f4").tobytes()


def decode_vector(value: bytes) -> npt.NDArray[np.float32]:
    """Return the vector, float32 (d,).

    >>> decode_vector(encode_vector(np.array([1, 2], np.float32))).tolist()
    [1.0, 2.0]
    """
    version, _, d = struct.unpack_from("<BBH", value)
    if version != VERSION:
        raise ValueError(f"vector row has version {version}; this program reads version {VERSION}")
    return np.frombuffer(value, "<f4", d, 4)
