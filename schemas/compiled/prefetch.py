"""A hint to the processor, for kernels that walk rows in random order.

Rows of a large table are rarely in a cache. A kernel that names the next rows while
it works on these lets memory and arithmetic overlap; results do not depend on it.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from schemas.compiled.njit import njit_no_refcount

LINE_BYTES = 64
AHEAD = 4
"""Rows of about a kilobyte to ask for ahead of the one in work."""


@intrinsic
def _prefetch_address(typing_context: Any, address: Any) -> Any:  # called without the first argument
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte_pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.inttoptr(args[0], byte_pointer)
        hint = ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte_pointer], hint)
        # For reading, to all cache levels, data.
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@njit_no_refcount(nogil=True)
def prefetch_row(array: Any, row: int) -> None:
    """Start fetching all cache lines of `array[row]` (C order)."""
    size = array.strides[0]
    first = array.ctypes.data + row * size
    for offset in range(0, size, LINE_BYTES):
        _prefetch_address(first + offset)  # type: ignore[call-arg]
    _prefetch_address(first + size - 1)  # type: ignore[call-arg]


@njit_no_refcount(nogil=True)
def prefetch_line(array: Any, row: int) -> None:
    """Start fetching the cache line in which `array[row]` begins."""
    _prefetch_address(array.ctypes.data + row * array.strides[0])  # type: ignore[call-arg]


@njit_no_refcount(nogil=True)
def prefetch_head(array: Any, row: int) -> None:
    """Start fetching the first LINE_BYTES of a row that is longer; they may lie in two cache lines."""
    first = array.ctypes.data + row * array.strides[0]
    _prefetch_address(first)  # type: ignore[call-arg]
    _prefetch_address(first + LINE_BYTES - 1)  # type: ignore[call-arg]
