import subprocess
import sys

KERNEL = """
from typing import NamedTuple
import numba
import {imported}

class {name}(NamedTuple):
    n: int

@numba.njit(cache=True)
def kernel(one):
    return one.n + {more}

print(kernel({name}(1)))
"""


def run(folder, imported, name, more):
    """Run a program whose kernel stands in the same line of the same file, with a type of its own."""
    (folder / "program.py").write_text(KERNEL.format(imported=imported, name=name, more=more))
    return subprocess.run(
        [sys.executable, "-c", "import program"], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_kernels_of_an_earlier_version_whose_types_are_gone_are_compiled_anew(tmp_path):
    assert run(tmp_path, "schemas.ids", "Before", 1).stdout == "2\n"
    for _ in range(2):  # the second time from the cache
        assert run(tmp_path, "flows.lane", "After", 20).stdout == "21\n"


def test_without_that_numba_fails_on_them(tmp_path):
    assert run(tmp_path, "os", "Before", 1).stdout == "2\n"
    assert "Can't get attribute 'Before'" in run(tmp_path, "os", "After", 20).stderr
