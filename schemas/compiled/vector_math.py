"""Natural logarithms and exponentials of many numbers side by side.

The C library's take one number at a call; without branches the compiler takes four or eight at once. The ways are
fdlibm's (e_log.c, e_exp.c; Sun Microsystems 1993), wrong by less than two units in the last place (a test says so).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from schemas.compiled.njit import njit_no_refcount

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
EXP = (
    1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05, -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)  # fmt: skip
ROUND = 1.5 * 2.0**52
"""Added to a double it leaves no room for a fraction: the lowest bits are the next whole number."""
ROUND_BITS = int(np.float64(ROUND).view(np.int64))
ROOT_HALF_BITS = int(np.float64(0.5**0.5).view(np.int64))
MANTISSA_BITS, EXPONENT_OF_1 = 52, 1023
LARGEST = 700.0
"""Of exponents, either way."""

Floats = npt.NDArray[np.float64]


@intrinsic
def bits_of(typing_context: Any, number: Any) -> Any:  # called without the first argument
    """Return the bits of a double as a whole number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def of_bits(typing_context: Any, bits: Any) -> Any:
    """Return the double with these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit_no_refcount()
def power_of_2(exponent: int) -> float:
    """Return 2 to a whole number within ± 1000."""
    power: float = of_bits((EXPONENT_OF_1 + exponent) << MANTISSA_BITS)  # type: ignore[call-arg]
    return power


@njit_no_refcount(error_model="numpy")
def logarithms(values: Floats, n: int) -> None:
    """Replace the first `n` values, normal numbers > 0, by their natural logarithms."""
    for i in range(n):
        bits: int = bits_of(values[i])  # type: ignore[call-arg]
        power = (bits - ROOT_HALF_BITS) >> MANTISSA_BITS
        f = of_bits(bits - (power << MANTISSA_BITS)) - 1.0  # type: ignore[call-arg]
        k = of_bits(power + ROUND_BITS) - ROUND  # type: ignore[call-arg]
        s = f / (2.0 + f)
        z = s * s
        series = z * (
            LOG[0] + z * (LOG[1] + z * (LOG[2] + z * (LOG[3] + z * (LOG[4] + z * (LOG[5] + z * LOG[6])))))
        )  # fmt: skip
        half = 0.5 * f * f
        values[i] = k * LN2_HIGH - ((half - (s * (half + series) + k * LN2_LOW)) - f)


@njit_no_refcount(error_model="numpy")
def exponentials(values: Floats, n: int) -> None:
    """Replace the first `n` values by e to their power, of those beyond ± LARGEST to that."""
    for i in range(n):
        x = min(max(values[i], -LARGEST), LARGEST)
        rounded = x / (LN2_HIGH + LN2_LOW) + ROUND
        k = rounded - ROUND
        high, low = x - k * LN2_HIGH, k * LN2_LOW
        r = high - low
        t = r * r
        c = r - t * (EXP[0] + t * (EXP[1] + t * (EXP[2] + t * (EXP[3] + t * EXP[4]))))
        y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
        power = bits_of(rounded) - ROUND_BITS  # type: ignore[call-arg]
        values[i] = of_bits(bits_of(y) + (power << MANTISSA_BITS))  # type: ignore[call-arg]
