"""What every compiled loop of headrace is made of: the decorators, arrays on the stack, bytes copied, the largest k.

It imports numpy and Numba alone, and nothing of headrace. Begin with `njit`; importing this room is what tells Numba
where compiled kernels are kept (`cache`).
"""

from schemas.compiled.cache import use_kernels_of_these_sources

use_kernels_of_these_sources()
