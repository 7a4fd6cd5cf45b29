"""Which programs have every compiled function that they need in the cache of these sources (`cache`)."""

import os
from pathlib import Path


def mark_compiled(program: str) -> None:
    """Record that all that a program needs is compiled and kept."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        _mark(program).touch()


def is_compiled(program: str) -> bool:
    """Return whether a program starts without compiling anything."""
    return _mark(program).exists()


def _mark(program: str) -> Path:
    return Path(os.environ.get("NUMBA_CACHE_DIR", ".")) / f"{program}.compiled"
