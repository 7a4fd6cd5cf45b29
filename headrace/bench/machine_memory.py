"""Memory as a machine has it that ran for a while, and what a page costs on one that did not.

A virtual machine may give free memory back to its host and ask for it anew, page by page, when it is touched. On one
that ran for a day nothing is free: the page cache is full of old files, whose pages are used again.
"""

import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headrace.console import progress_bar

LEFT_FREE = 1 << 30
CHUNK = 64 << 20
PROBED = 256 << 20


class DiskFull(Exception):
    """The page cache can't be filled: the disk has too little room."""


def first_touch_us() -> float:
    """Return the microseconds a page of fresh memory takes when it is touched for the first time."""
    with mmap.mmap(-1, PROBED) as fresh:
        fresh.madvise(mmap.MADV_NOHUGEPAGE)
        pages = np.frombuffer(fresh, np.uint8)[:: mmap.PAGESIZE]
        started = time.perf_counter()
        pages[:] = 1
        seconds, n = time.perf_counter() - started, len(pages)
        del pages
    return seconds / n * 1e6


@contextmanager
def full_page_cache(folder: Path) -> Iterator[None]:
    """Fill the page cache with a file in `folder`, to all but LEFT_FREE bytes, and delete it at the end.

    Raises DiskFull.
    """
    n = max(0, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE - LEFT_FREE) // CHUNK
    room = shutil.disk_usage(folder).free
    if n * CHUNK > room - LEFT_FREE:
        raise DiskFull(f"{n * CHUNK >> 30} GiB of free memory need as much disk; {folder} has {room >> 30} GiB")
    path, zeros = folder / "page-cache", bytes(CHUNK)
    try:
        with path.open("wb") as file, progress_bar("MiB") as bar:
            task = bar.add_task("filling the page cache", total=n * CHUNK >> 20, rate=0.0)
            for _ in range(n):
                file.write(zeros)
                bar.advance(task, CHUNK >> 20)
                bar.update(task, rate=bar.tasks[0].speed or 0.0)
            os.fsync(file.fileno())  # pages that are on disk can be used again
        yield
    finally:
        path.unlink(missing_ok=True)
