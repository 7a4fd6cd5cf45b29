"""Kernels that count no references.

Numba counts references to arrays as Python does, with locked instructions of 5 ns each. It leaves that out of functions
whose arguments are plain arrays; where they are NamedTuples of arrays much of it stays, at uses of fields and at calls,
which was a quarter of all the time a flow takes and a tenth of a server's. The caller holds the arrays while the kernel
runs, so nothing needs to be counted.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def uncounted(**options: Any) -> Callable[[Kernel], Kernel]:
    """Compile a kernel that makes no arrays but on the stack (`schemas.compiled.stack_array`); views of its arguments are none.

    Numba refuses to compile one that does. `options`: more of `numba.njit`.
    """
    compile_it: Callable[[Kernel], Kernel] = numba.njit(cache=True, _nrt=False, **options)  # type: ignore[call-overload]
    return compile_it
