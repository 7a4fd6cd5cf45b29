"""Memory and threads of a flow's process: three defaults of the platform do not suit large batches."""

import ctypes
import gc
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 << 20
LARGEST_KEPT = 32 << 20  # the most glibc allows; larger blocks are mapped and unmapped each time
OBJECTS_BETWEEN_COLLECTIONS = 200_000
SWITCH_S = 0.0005


def prepare_interpreter() -> None:
    """Prepare the process for batches of tens of thousands of messages. Call it once, before the first."""
    _keep_freed_memory()
    # A batch from Kafka makes a few objects per message and frees them soon: looking for cycles among them finds none.
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    # The thread that commits needs the interpreter for a moment after every command; it would wait 5 ms for it.
    sys.setswitchinterval(SWITCH_S)


def _keep_freed_memory() -> None:
    """Make malloc keep a batch's memory for the next batch: touching fresh pages takes longer than encoding.

    Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
