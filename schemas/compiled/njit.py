"""The two decorators of compiled functions.

Numba counts references to arrays as Python does, with locked instructions of 5 ns each. It leaves that out of functions
whose arguments are plain arrays. Where they are NamedTuples of arrays much of it stays, at uses of fields and at calls:
a quarter of all the time a flow took, and a tenth of a server's. The caller holds the arrays while the kernel runs, so
nothing needs to be counted.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def njit(**options: Any) -> Callable[[Kernel], Kernel]:
    """Return a decorator that compiles a kernel and keeps the result on disk; `options`: more of `numba.njit`."""
    compiler: Callable[[Kernel], Kernel] = numba.njit(cache=True, **options)
    return compiler


def njit_no_refcount(**options: Any) -> Callable[[Kernel], Kernel]:
    """Return a decorator that compiles a kernel without reference counts; `options`: more of `numba.njit`.

    The kernel makes no arrays but on the stack (`schemas.compiled.stack_array`); views of its arguments are none.
    Numba refuses to compile one that does.
    """
    return njit(_nrt=False, **options)
