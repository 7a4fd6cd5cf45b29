"""Memory a flow gave back to malloc stays with it for the next batch.

The encoded rows of a batch take tens of megabytes. By default glibc returns so much to the kernel after every batch,
and the next one spends more on touching fresh pages than on encoding.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 << 20
LARGEST_KEPT = 32 << 20  # the most glibc allows; larger blocks are mapped and unmapped each time


def keep_freed_memory() -> None:
    """Let the process keep up to KEPT_BYTES of free memory; without glibc nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
