"""Small arrays on the stack, for kernels that need some for every event: one from the heap costs 15 ns.

Such an array lives as long as the call that made it: pass it down, never return or keep it.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numba import types
from numba.core.cgutils import alloca_once
from numba.core.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype


def stack_array(dtype: Any, *shape: int) -> Callable[[], Any]:
    """Return a function for kernels that makes an array of this shape, its contents undefined."""
    item = np.dtype(dtype)
    array_type = types.Array(from_dtype(item), len(shape), "C")
    strides = [prod(shape[axis + 1 :]) * item.itemsize for axis in range(len(shape))]

    @intrinsic
    def make(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = alloca_once(builder, context.get_data_type(array_type.dtype), size=prod(shape))  # type: ignore[no-untyped-call]
            array = context.make_array(array_type)(context, builder)
            number = context.get_constant
            populate_array(  # type: ignore[no-untyped-call]
                array,
                data=data,
                shape=[number(types.intp, n) for n in shape],
                strides=[number(types.intp, n) for n in strides],
                itemsize=number(types.intp, item.itemsize),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(), generate

    return make  # type: ignore[return-value]
