"""A copy of the sources, to be changed in one place and tested.

Kernels are compiled anew only where the change can be seen: those of the changed module and of all that import it.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from numba.core.caching import _CacheLocator

from schemas.compiled import cache

ROOT = Path(__file__).parents[2]
NO_PROCESSES = "not (redis or kafka or bytewax or e2e)"
KILLED, SURVIVED, BROKEN = "killed", "survived", "broken"
"""What became of a mutant: a test failed, none did, or the tests could not even be collected."""


OURS = Path(os.environ["NUMBA_CACHE_DIR"])
"""Where the kernels of the working tree are, since `schemas.compiled` was imported."""
LIBRARIES = ("numba", "numpy", "fastavro", "orjson", "pydantic", "structlog", "yaml", "httpx", "redis",
             "prometheus_client", "tenacity", "confluent_kafka", "grpc", "faiss", "scipy.sparse")  # fmt: skip
"""What tests import, and takes seconds."""


class Tree:
    """The tracked files of the working tree, copied into `folder`, and a place for their kernels."""

    def __init__(self, folder: Path) -> None:
        self.top, self._kernels, self.said = folder / "tree", folder / "kernels", ""
        for library in LIBRARIES:
            importlib.import_module(library)
        self._kernels.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True,
                                check=True).stdout  # fmt: skip
        for name in filter(None, listed.decode().split("\0")):
            to = self.top / name
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy2(ROOT / name, to)
        self._plain = self._kernels_folder()
        self._take_kernels()

    def read(self, file: str) -> str:
        """Return the text of a file."""
        return (self.top / file).read_text()

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Within, the file has this text."""
        path = self.top / file
        before = path.with_suffix(".before")
        shutil.copy2(path, before)
        path.write_text(text)
        folder = self._kernels_folder()
        if folder != self._plain:
            self._lend_kernels(folder, file)
        try:
            yield
        finally:
            os.replace(before, path)
            if folder != self._plain:
                shutil.rmtree(folder, ignore_errors=True)

    def run(self, tests: Sequence[str], timeout_s: float, marked: str = NO_PROCESSES) -> str:
        """Return what tests say: KILLED where one fails or they do not end, BROKEN where they do not even begin.

        They run in a fork of this process, which has imported the libraries already.
        """
        output = self.top.parent / "output.txt"
        child = os.fork()
        if child == 0:
            self._run_in_child(["-x", "-q", "-p", "no:cacheprovider", "-m", marked, *tests], output)
        deadline = time.monotonic() + timeout_s
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return KILLED
            time.sleep(0.05)
        self.said = output.read_text(errors="replace")
        return {0: SURVIVED, 1: KILLED}.get(os.waitstatus_to_exitcode(ended[1]), BROKEN)

    def _run_in_child(self, arguments: list[str], output: Path) -> None:
        """Run pytest on the tree, with none of our own modules imported yet, and end the process."""
        code = 3
        try:
            os.setsid()
            os.chdir(self.top)
            os.environ |= {"NUMBA_CACHE_DIR": str(self._kernels), "PYTHONDONTWRITEBYTECODE": "1"}
            to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(to, 1)
            os.dup2(to, 2)
            for name in [name for name in sys.modules if name.split(".")[0] in (*cache.PACKAGES, "mutants", "helpers")]:
                del sys.modules[name]
            sys.path[:] = [path for path in sys.path if Path(path) not in (ROOT, ROOT / "tests")]
            code = int(pytest.main(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _kernels_folder(self) -> Path:
        """Return the folder of the kernels of the sources as they are."""
        with _set(cache, "SOURCES", self.top), _set(cache, "KEPT", 10**6):
            given = os.environ.get("NUMBA_CACHE_DIR")
            os.environ["NUMBA_CACHE_DIR"] = str(self._kernels)
            cache.use_kernels_of_these_sources()
            folder = Path(os.environ["NUMBA_CACHE_DIR"])
            if given is not None:
                os.environ["NUMBA_CACHE_DIR"] = given
        return folder

    def _take_kernels(self) -> None:
        """Link the kernels that the working tree has compiled: numba names their folders by the paths of sources."""
        folder_of = _CacheLocator.get_suitable_cache_subpath
        for module in (path for package in cache.PACKAGES for path in (ROOT / package).rglob("__init__.py")):
            there, here = Path(folder_of(str(module))), Path(folder_of(str(self.top / module.relative_to(ROOT))))
            for path in (OURS / there).glob("*.nb*"):
                (self._plain / here).mkdir(parents=True, exist_ok=True)
                if not (self._plain / here / path.name).exists():
                    shutil.copy2(path, self._plain / here / path.name)

    def _lend_kernels(self, folder: Path, file: str) -> None:
        """Link the kernels of the plain sources into `folder`, but for those that may hold a copy of the change."""
        stale = self._importers(file)
        for path in self._plain.rglob("*.nb*"):
            # e.g. fold_a1b2…/dedupe._accept-34.py311.nbi; two modules of one name both go
            if path.name.split(".")[0] not in stale:
                to = folder / path.relative_to(self._plain)
                to.parent.mkdir(parents=True, exist_ok=True)
                if not to.exists():
                    os.link(path, to)

    def _importers(self, file: str) -> set[str]:
        """Return the last names of the module and of all that import it, directly or not."""
        imports: dict[str, set[str]] = {}
        for package in cache.PACKAGES:
            for path in (self.top / package).rglob("*.py"):
                name = ".".join(path.relative_to(self.top).with_suffix("").parts).removesuffix(".__init__")
                for module, names in cache.IMPORTS.findall(path.read_bytes()):
                    parts = {module.decode()} | {f"{module.decode()}.{one}" for one in names.decode().split()}
                    for one in parts | {part.strip("(),") for part in parts}:
                        imports.setdefault(one, set()).add(name)
        found, waiting = set[str](), [file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += imports.get(name, ())
        return {name.rpartition(".")[2] for name in found} | {"__init__"}


@contextmanager
def _set(module: object, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
