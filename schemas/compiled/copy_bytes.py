"""Copying runs of bytes in kernels by the C library, which a loop over some dozens of them cannot keep up with."""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

from schemas.compiled.njit import njit_no_refcount

Bytes = npt.NDArray[np.uint8]


@intrinsic
def _copy_addresses(typing_context: Any, target: Any, source: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, of = (builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in args[:2])
        raw_memcpy(builder, to, of, args[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@njit_no_refcount(nogil=True)
def copy_bytes(source: Bytes, first: int, last: int, out: Bytes, at: int) -> int:
    """Write `source[first:last]` into `out` from `at` on, both contiguous and apart; return where it ends."""
    _copy_addresses(out.ctypes.data + at, source.ctypes.data + first, last - first)  # type: ignore[call-arg]
    return at + last - first
