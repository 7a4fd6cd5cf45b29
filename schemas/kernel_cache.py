"""Compiled kernels that an earlier version left on disk do not keep this one from starting.

Numba keeps what it compiled beside the sources and asks whether that is of these sources only after it has read it;
a type that is gone since then would end the program there.
"""

from typing import Any

from numba.core.caching import IndexDataCacheFile

_load_index: Any = IndexDataCacheFile._load_index


def _of_these_sources(self: Any) -> Any:
    try:
        return _load_index(self)
    except (AttributeError, ImportError):
        return {}  # as of other sources: compiled anew, and written over


IndexDataCacheFile._load_index = _of_these_sources  # type: ignore[method-assign]
