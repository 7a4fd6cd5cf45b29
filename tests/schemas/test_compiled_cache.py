import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import schemas.compiled.cache

INNER = """
import numba

@numba.njit(cache=True)
def inner(n):
    return n + {more}
"""
OUTER = """
import os, subprocess, sys
import schemas.compiled
import numba
from schemas.inner import inner

@numba.njit(cache=True)
def outer(n):
    return inner(n)

print(outer(1), os.environ["NUMBA_CACHE_DIR"])
"""


class Program:
    """A package of our name with one kernel that calls another in a second file."""

    def __init__(self, folder):
        self.folder, self.cache = folder, folder / "cache"
        (folder / "schemas" / "compiled").mkdir(parents=True)
        (folder / "schemas" / "__init__.py").write_text("")
        for name in ("__init__.py", "cache.py"):
            shutil.copy(Path(schemas.compiled.__file__).parent / name, folder / "schemas" / "compiled" / name)
        (folder / "schemas" / "outer.py").write_text(OUTER)

    def run(self, more, cache=None, inner=INNER, **others):
        (self.folder / "schemas" / "inner.py").write_text(inner.format(more=more))
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache or self.cache)} | others
        command = [sys.executable, "-c", "import schemas.outer"]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found, folder = done.stdout.split()
        return int(found), folder


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


@pytest.mark.process
def test_a_kernel_follows_those_that_it_calls_in_other_files(program):
    found = [program.run(more) for more in (1, 1, 20, 1)]
    assert [n for n, _ in found] == [2, 2, 21, 2]
    assert found[0][1] == found[1][1] == found[3][1] != found[2][1]


@pytest.mark.process
def test_what_no_kernel_imports_may_change_and_nothing_is_compiled_anew(program):
    before = program.run(1)
    (program.folder / "schemas" / "handler.py").write_text("from schemas.inner import inner\n")
    assert program.run(1) == before


@pytest.mark.process
def test_what_a_kernel_imports_counts_however_the_import_is_written(program):
    (program.folder / "schemas" / "constants.py").write_text("A = 1\n")
    inner = "from schemas import (\n    constants,\n)\n" + INNER
    folders = []
    for value in (1, 2):
        (program.folder / "schemas" / "constants.py").write_text(f"A = {value}\n")
        folders.append(program.run(1, inner=inner)[1])
    assert folders[0] != folders[1]


@pytest.mark.process
def test_by_itself_numba_goes_on_with_the_copies_a_kernel_has(program):
    (program.folder / "schemas" / "compiled" / "__init__.py").write_text("")
    assert [program.run(more)[0] for more in (1, 20)] == [2, 2]


@pytest.mark.process
def test_a_process_that_another_one_started_uses_the_same_folder(program):
    _, folder = program.run(1)
    assert program.run(1, cache=folder)[1] == folder


@pytest.mark.process
def test_kernels_of_a_few_versions_are_kept(program):
    folders = [program.run(more)[1] for more in range(schemas.compiled.cache.KEPT + 2)]
    assert sorted(str(path) for path in program.cache.iterdir()) == sorted(folders[2:])
    assert Path(folders[-1], "").is_dir()


@pytest.mark.process
def test_where_no_home_can_be_written_kernels_are_kept_in_a_folder_of_our_own_for_what_is_temporary(program):
    (program.folder / "file").write_text("")
    (program.folder / "tmp").mkdir()
    found = program.run(1, cache=program.folder / "file" / "cache", TMPDIR=str(program.folder / "tmp"))
    (ours,) = (program.folder / "tmp").iterdir()
    assert found[0] == 2
    assert Path(found[1]).parent == ours
    assert ours.stat().st_mode & 0o077 == 0
