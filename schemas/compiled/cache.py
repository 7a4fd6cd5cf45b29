"""Compiled kernels are kept in a folder named by the sources they were compiled from.

Numba by itself keeps them beside the sources and looks at the time of one file: that of the function called first. Of
the functions that this one calls in other files a kernel holds copies, which it would go on using when those files
have changed; and a type that an earlier version had would keep a program from starting.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

PACKAGES = ("headrace", "schemas", "state", "flows", "serving", "batch")
SOURCES = Path(__file__).parents[2]
IMPORTS = re.compile(
    rb"^\s*(?:from|import) +((?:%s)\b[.\w]*)(?: +import +(\([^)]*\)|.*))?" % "|".join(PACKAGES).encode(), re.M
)
KEPT = 8
"""Versions whose kernels are kept."""


def use_kernels_of_these_sources() -> None:
    """Tell Numba the folder, by NUMBA_CACHE_DIR; that variable, if it is set, says where the folders are."""
    digest = blake2b(digest_size=8)
    for name, text in sorted(_sources_of_kernels().items()):
        digest.update(b"%s %d\n" % (name.encode(), len(text)))
        digest.update(text)
    version = f"kernels-{digest.hexdigest()}"
    for home in _homes():
        folder = home / version
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                _drop_oldest(home)
        except OSError:
            continue
        if not os.access(folder, os.W_OK):
            continue
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        if "numba" in sys.modules:
            sys.modules["numba"].config.reload_config()
        return


def _sources_of_kernels() -> dict[str, bytes]:
    """Return the modules that hold kernels, and all that they import, directly or not: name to text.

    A constant, a dtype or a function that a kernel uses is in one of these. A module that is only a handler of requests
    is in none, so that a change of it compiles nothing anew.
    """
    texts = {}
    for path in (path for package in PACKAGES for path in (SOURCES / package).rglob("*.py")):
        name = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
        texts[name] = path.read_bytes()
    found: dict[str, bytes] = {}
    waiting = [name for name, text in texts.items() if b"njit" in text]
    while waiting:
        name = waiting.pop()
        if name in texts and name not in found:
            found[name] = texts[name]
            for module, names in IMPORTS.findall(texts[name]):
                parent = module.decode()
                waiting += [parent, *(f"{parent}.{one}" for one in re.findall(r"\w+", names.decode()))]
    return found


def _homes() -> Iterator[Path]:
    """Yield where folders of kernels may be, the best place first."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        home = Path(given)
        yield home.parent if home.name.startswith("kernels-") else home  # of the process that started this one
    elif cache := os.environ.get("XDG_CACHE_HOME"):
        yield Path(cache) / "headrace"
    else:
        with contextlib.suppress(RuntimeError):  # a user without a home
            yield Path.home() / ".cache" / "headrace"
    ours = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}"
    with contextlib.suppress(OSError):
        ours.mkdir(mode=0o700, exist_ok=True)
        if ours.stat().st_uid == os.getuid():  # kernels are code: they are taken from nobody else
            yield ours


def _drop_oldest(home: Path) -> None:
    versions = sorted(home.glob("kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in versions[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
